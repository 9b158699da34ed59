// See run_worker.h.
#include "op/node/addon/run_worker.h"

#include "op/node/addon/tensors.h"

namespace sigmoid_attention::node {
namespace {

// A hand-over to the pool and back costs some 50 microseconds.
constexpr std::chrono::microseconds kQuick{200};

std::vector<const char*> Pointers(const std::vector<std::string>& names) {
  std::vector<const char*> pointers;
  for (const std::string& name : names) pointers.push_back(name.c_str());
  return pointers;
}

}  // namespace

bool RunsInFlight::Begin(OrtRunOptions* options) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (stopping_) return false;
  runs_.insert(options);
  return true;
}

void RunsInFlight::End(OrtRunOptions* options) {
  const std::lock_guard<std::mutex> lock(mutex_);
  runs_.erase(options);
  changed_.notify_all();
}

void RunsInFlight::StopAll() {
  std::unique_lock<std::mutex> lock(mutex_);
  stopping_ = true;
  for (OrtRunOptions* options : runs_) {
    if (OrtStatus* status = Api().RunOptionsSetTerminate(options)) Api().ReleaseStatus(status);
  }
  changed_.wait(lock, [this] { return runs_.empty(); });
}

RunWorker::RunWorker(Napi::Env env, std::shared_ptr<LiveSession> session, std::shared_ptr<RunsInFlight> runs,
                     NamedValues inputs, NamedValues outputs, Owned<OrtRunOptions> options, Napi::Object held)
    : Napi::AsyncWorker(env, "ort-sigmoid-attention run"),
      deferred_(Napi::Promise::Deferred::New(env)),
      session_(std::move(session)),
      runs_(std::move(runs)),
      inputs_(std::move(inputs)),
      outputs_(std::move(outputs)),
      options_(std::move(options)),
      held_(Napi::Persistent(held)) {
  for (const auto& value : outputs_.values) given_.push_back(value != nullptr);
}

Napi::Promise RunWorker::Start() {
  const Napi::Promise promise = deferred_.Promise();
  if (inputs_.bytes > 0 && inputs_.bytes <= session_->quick_bytes) {
    Execute();
    OnWorkComplete(Env(), napi_ok);
  } else {
    Queue();
  }
  return promise;
}

void RunWorker::NoteDuration(std::chrono::steady_clock::duration duration) {
  const size_t known = session_->quick_bytes;
  if (duration <= kQuick && inputs_.bytes > known) session_->quick_bytes = inputs_.bytes;
  if (duration > 2 * kQuick && inputs_.bytes <= known) session_->quick_bytes = 0;
}

void RunWorker::Execute() {
  if (!runs_->Begin(options_.get())) return SetError("The environment is ending.");
  const std::vector<const char*> input_names = Pointers(inputs_.names),
                                 output_names = Pointers(outputs_.names);
  std::vector<const OrtValue*> inputs;
  std::vector<OrtValue*> outputs;
  for (const auto& value : inputs_.values) inputs.push_back(value.get());
  for (const auto& value : outputs_.values) outputs.push_back(value.get());
  const auto begin = std::chrono::steady_clock::now();
  OrtStatus* status = Api().Run(session_->session.get(), options_.get(), input_names.data(), inputs.data(),
                                inputs.size(), output_names.data(), output_names.size(), outputs.data());
  NoteDuration(std::chrono::steady_clock::now() - begin);
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (!given_[i]) outputs_.values[i].reset(outputs[i]);
  }
  runs_->End(options_.get());
  if (status != nullptr) {
    SetError(Api().GetErrorMessage(status));
    Api().ReleaseStatus(status);
  }
}

void RunWorker::OnOK() {
  const Napi::HandleScope scope(Env());
  try {
    Napi::Array results = Napi::Array::New(Env(), outputs_.values.size());
    for (uint32_t i = 0; i < outputs_.values.size(); ++i) {
      const OrtValue* value = outputs_.values[i].get();
      // An optional output that the model left empty has no value either.
      results.Set(i, given_[i] || value == nullptr ? Env().Null() : Napi::Value(FromOrtValue(Env(), value)));
    }
    deferred_.Resolve(results);
  } catch (const Napi::Error& error) {
    deferred_.Reject(error.Value());
  } catch (const std::exception& error) {
    deferred_.Reject(Napi::Error::New(Env(), error.what()).Value());
  }
}

}  // namespace sigmoid_attention::node
