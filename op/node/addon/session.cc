// See session.h.
#include "op/node/addon/session.h"

#include <atomic>

#include "op/node/addon/session_options.h"
#include "op/node/addon/tensors.h"

namespace sigmoid_attention::node {
namespace {

// Runs `body` and rethrows what it throws as a JavaScript error.
template <typename Body>
auto Translate(Napi::Env env, const Body& body) {
  try {
    return body();
  } catch (const Napi::Error&) {
    throw;
  } catch (const std::exception& error) {
    throw Napi::Error::New(env, error.what());
  }
}

// Creating a session registers the operator's domain in a table of ONNX Runtime that has no lock. So one is
// created at a time, and until the first has registered the domain it happens on the JavaScript thread, where
// onnxruntime-node creates its own sessions.
std::mutex creation_mutex;
std::atomic<bool> domain_is_registered{false};

class CreateWorker : public Napi::AsyncWorker {
 public:
  CreateWorker(Napi::Env env, const Napi::Value& model, Owned<OrtSessionOptions> options, Napi::Object held)
      : Napi::AsyncWorker(env, "ort-sigmoid-attention create"),
        deferred_(Napi::Promise::Deferred::New(env)),
        options_(std::move(options)),
        held_(Napi::Persistent(held)) {
    if (model.IsString()) {
      path_ = NativePath(model.As<Napi::String>().Utf8Value());
    } else {
      const Napi::Uint8Array bytes = model.As<Napi::Uint8Array>();
      data_ = bytes.ByteLength() == 0 ? nullptr : bytes.Data();
      size_ = bytes.ByteLength();
      is_path_ = false;
    }
  }

  Napi::Promise Start() {
    const Napi::Promise promise = deferred_.Promise();
    if (domain_is_registered) {
      Queue();
    } else {
      Execute();
      OnWorkComplete(Env(), napi_ok);
    }
    return promise;
  }

 protected:
  void Execute() override {
    try {
      const std::lock_guard<std::mutex> lock(creation_mutex);
      auto live = std::make_shared<LiveSession>();
      live->env = AcquireEnv();
      OrtSession* session = nullptr;
      if (is_path_) {
        Check(Api().CreateSession(live->env.get(), path_.c_str(), options_.get(), &session));
      } else {
        Check(Api().CreateSessionFromArray(live->env.get(), data_, size_, options_.get(), &session));
      }
      live->session.reset(session);
      live_ = std::move(live);
      domain_is_registered = true;
    } catch (const std::exception& error) {
      SetError(error.what());
    }
    options_.reset();
  }

  void OnOK() override {
    const Napi::HandleScope scope(Env());
    try {
      const auto external = Napi::External<std::shared_ptr<LiveSession>>::New(Env(), &live_);
      deferred_.Resolve(Env().GetInstanceData<AddonData>()->session_class.New({external}));
    } catch (const Napi::Error& error) {
      deferred_.Reject(error.Value());
    }
  }

  void OnError(const Napi::Error& error) override { deferred_.Reject(error.Value()); }

 private:
  Napi::Promise::Deferred deferred_;
  Owned<OrtSessionOptions> options_;
  Napi::ObjectReference held_;
  bool is_path_ = true;
  std::basic_string<ORTCHAR_T> path_;
  const void* data_ = nullptr;
  size_t size_ = 0;
  std::shared_ptr<LiveSession> live_;
};

NamedValues ReadValues(const Napi::Array& names, const Napi::Array& tensors) {
  NamedValues read;
  for (uint32_t i = 0; i < names.Length(); ++i) {
    read.names.push_back(names.Get(i).As<Napi::String>().Utf8Value());
    const Napi::Value tensor = tensors.Get(i);
    if (tensor.IsNull()) {
      read.values.emplace_back();
      continue;
    }
    read.values.push_back(ToOrtValue(tensor.As<Napi::Object>()));
    const Napi::Value data = tensor.As<Napi::Object>().Get("data");
    if (data.IsTypedArray()) read.bytes += data.As<Napi::TypedArray>().ByteLength();
  }
  return read;
}

}  // namespace

Napi::Function Session::Define(Napi::Env env) {
  return DefineClass(
      env, "Session",
      {InstanceAccessor<&Session::Inputs>("inputs"), InstanceAccessor<&Session::Outputs>("outputs"),
       InstanceMethod<&Session::Run>("run"), InstanceMethod<&Session::EndProfiling>("endProfiling"),
       InstanceMethod<&Session::Dispose>("dispose")});
}

Napi::Value Session::Create(const Napi::CallbackInfo& info) {
  return Translate(info.Env(), [&]() -> Napi::Value {
    const Napi::Array settings = info[2].As<Napi::Array>();
    Owned<OrtSessionOptions> options = CreateSessionOptions(settings, info[1].As<Napi::String>().Utf8Value());
    Napi::Array held = Napi::Array::New(info.Env());
    held.Set(0u, info[0]);
    held.Set(1u, settings);
    // Owned by itself: it is deleted once its promise is settled.
    return (new CreateWorker(info.Env(), info[0], std::move(options), held))->Start();
  });
}

Session::Session(const Napi::CallbackInfo& info) : Napi::ObjectWrap<Session>(info) {
  if (info.Length() != 1 || !info[0].IsExternal()) {
    throw Napi::TypeError::New(info.Env(), "Sessions are made by createSession.");
  }
  session_ = std::move(*info[0].As<Napi::External<std::shared_ptr<LiveSession>>>().Data());
}

LiveSession& Session::Live(Napi::Env env) const {
  if (session_ == nullptr) throw Napi::Error::New(env, "Session already disposed.");
  return *session_;
}

Napi::Value Session::Inputs(const Napi::CallbackInfo& info) {
  return Translate(info.Env(), [&] { return DescribeInputs(info.Env(), Live(info.Env()).session.get()); });
}

Napi::Value Session::Outputs(const Napi::CallbackInfo& info) {
  return Translate(info.Env(), [&] { return DescribeOutputs(info.Env(), Live(info.Env()).session.get()); });
}

Napi::Value Session::Run(const Napi::CallbackInfo& info) {
  return Translate(info.Env(), [&]() -> Napi::Value {
    Live(info.Env());
    const Napi::Array inputs = info[1].As<Napi::Array>(), outputs = info[3].As<Napi::Array>();
    NamedValues input_values = ReadValues(info[0].As<Napi::Array>(), inputs);
    NamedValues output_values = ReadValues(info[2].As<Napi::Array>(), outputs);
    Owned<OrtRunOptions> options = CreateRunOptions(info[4].As<Napi::Array>());
    Napi::Array held = Napi::Array::New(info.Env());
    held.Set(0u, inputs);
    held.Set(1u, outputs);
    const auto& runs = info.Env().GetInstanceData<AddonData>()->runs;
    auto* worker = new RunWorker(info.Env(), session_, runs, std::move(input_values),
                                 std::move(output_values), std::move(options), held);
    return worker->Start();
  });
}

Napi::Value Session::EndProfiling(const Napi::CallbackInfo& info) {
  return Translate(info.Env(), [&]() -> Napi::Value {
    OrtAllocator* allocator = nullptr;
    Check(Api().GetAllocatorWithDefaultOptions(&allocator));
    char* path = nullptr;
    Check(Api().SessionEndProfiling(Live(info.Env()).session.get(), allocator, &path));
    const Napi::String text = Napi::String::New(info.Env(), path);
    Check(Api().AllocatorFree(allocator, path));
    return text;
  });
}

void Session::Dispose(const Napi::CallbackInfo& info) {
  Live(info.Env());
  session_.reset();
}

}  // namespace sigmoid_attention::node
