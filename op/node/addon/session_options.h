// Session and run options. JavaScript hands them over as lists of settings, [name, ...values], already
// checked by op/node/session-options.ts and op/node/run-options.ts.
#pragma once

#include <napi.h>

#include "op/node/addon/ort_runtime.h"

namespace sigmoid_attention::node {

// With the operator library registered. Memory of external data is referred to, not copied: `settings` must
// stay alive until the session has been created.
Owned<OrtSessionOptions> CreateSessionOptions(const Napi::Array& settings,
                                              const std::string& operator_library);

Owned<OrtRunOptions> CreateRunOptions(const Napi::Array& settings);

}  // namespace sigmoid_attention::node
