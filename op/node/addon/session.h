// The addon's JavaScript class `Session`, and its asynchronous creation.
#pragma once

#include <napi.h>

#include "op/node/addon/run_worker.h"

namespace sigmoid_attention::node {

// Of one JavaScript environment.
struct AddonData {
  Napi::FunctionReference session_class;
  std::shared_ptr<RunsInFlight> runs = std::make_shared<RunsInFlight>();
};

class Session : public Napi::ObjectWrap<Session> {
 public:
  static Napi::Function Define(Napi::Env env);

  // createSession(model: string | Uint8Array, operatorLibrary: string, settings): Promise<Session>
  static Napi::Value Create(const Napi::CallbackInfo& info);

  // Only from Create, with the session as an External.
  explicit Session(const Napi::CallbackInfo& info);

 private:
  Napi::Value Inputs(const Napi::CallbackInfo& info);
  Napi::Value Outputs(const Napi::CallbackInfo& info);
  // run(inputNames, inputs, outputNames, outputs: (tensor | null)[], settings): Promise<(tensor | null)[]>
  Napi::Value Run(const Napi::CallbackInfo& info);
  // endProfiling(): the path of the profile
  Napi::Value EndProfiling(const Napi::CallbackInfo& info);
  void Dispose(const Napi::CallbackInfo& info);

  LiveSession& Live(Napi::Env env) const;

  std::shared_ptr<LiveSession> session_;
};

}  // namespace sigmoid_attention::node
