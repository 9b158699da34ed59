// The Node addon: sessions of stock onnxruntime-node's own ONNX Runtime with SigmoidAttention registered.
// op/node/native-addon.ts states its interface in TypeScript.
#include <napi.h>

#include "op/node/addon/ort_runtime.h"
#include "op/node/addon/session.h"

namespace sigmoid_attention::node {
namespace {

// findRuntime(ortLibrary: string): void
void FindRuntimeFromJs(const Napi::CallbackInfo& info) {
  try {
    FindRuntime(info[0].As<Napi::String>().Utf8Value());
  } catch (const std::exception& error) {
    throw Napi::Error::New(info.Env(), error.what());
  }
}

Napi::Object Initialize(Napi::Env env, Napi::Object exports) {
  auto data = std::make_unique<AddonData>();
  data->session_class = Napi::Persistent(Session::Define(env));
  env.AddCleanupHook([runs = data->runs] { runs->StopAll(); });
  env.SetInstanceData(data.release());
  exports.Set("findRuntime", Napi::Function::New(env, FindRuntimeFromJs));
  exports.Set("createSession", Napi::Function::New(env, Session::Create));
  return exports;
}

}  // namespace
}  // namespace sigmoid_attention::node

static Napi::Object InitializeAddon(Napi::Env env, Napi::Object exports) {
  return sigmoid_attention::node::Initialize(env, exports);
}

NODE_API_MODULE(ort_sigmoid_attention_node, InitializeAddon)
