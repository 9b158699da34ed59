// One `run` of a session on a thread of Node's pool, and the register of runs in flight.
#pragma once

#include <napi.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <set>
#include <vector>

#include "op/node/addon/ort_runtime.h"

namespace sigmoid_attention::node {

// A session and what must outlive it. Runs in flight share it: disposing drops one reference.
struct LiveSession {
  Owned<OrtEnv> env;
  Owned<OrtSession> session;
  // Inputs of up to this many bytes have run so quickly that a change of threads would cost more than it
  // frees.
  std::atomic<size_t> quick_bytes{0};
};

// The runs in flight of one JavaScript environment (the main thread or one worker). When the environment ends
// they are told to stop, and waited for: their inputs are its memory.
class RunsInFlight {
 public:
  // False when the environment is ending: do not run.
  bool Begin(OrtRunOptions* options);
  void End(OrtRunOptions* options);
  void StopAll();

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::set<OrtRunOptions*> runs_;
  bool stopping_ = false;
};

struct NamedValues {
  std::vector<std::string> names;
  size_t bytes = 0;                     // of all values
  std::vector<Owned<OrtValue>> values;  // null: to be allocated by the run
};

class RunWorker : public Napi::AsyncWorker {
 public:
  // `held` keeps alive the JavaScript memory that the values refer to.
  RunWorker(Napi::Env env, std::shared_ptr<LiveSession> session, std::shared_ptr<RunsInFlight> runs,
            NamedValues inputs, NamedValues outputs, Owned<OrtRunOptions> options, Napi::Object held);

  // Runs on a thread of the pool, or right here when a run of this size is known to be quick. The promise
  // resolves to one entry for each output: a tensor, or null where the given memory was filled. Deletes
  // itself at the end.
  Napi::Promise Start();

 protected:
  void Execute() override;
  void OnOK() override;
  void OnError(const Napi::Error& error) override { deferred_.Reject(error.Value()); }

 private:
  void NoteDuration(std::chrono::steady_clock::duration duration);

  Napi::Promise::Deferred deferred_;
  std::shared_ptr<LiveSession> session_;
  std::shared_ptr<RunsInFlight> runs_;
  NamedValues inputs_, outputs_;
  std::vector<bool> given_;
  Owned<OrtRunOptions> options_;
  Napi::ObjectReference held_;
};

}  // namespace sigmoid_attention::node
