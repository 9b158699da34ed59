// The CUDA kernels, in a shared library of their own that is opened only when a session creates a CUDA
// kernel.
//
// Without that library beside this one (or without CUDA) nothing here is ever loaded, and sessions on the
// CUDA provider run SigmoidAttention nodes on the CPU kernel.
#pragma once

#include "op/native/kernel.h"

namespace sigmoid_attention {

// Whether the CUDA library lies beside this library. Does not open it.
bool CudaLibraryIsInstalled();

// Opens the CUDA library on first use. Throws std::runtime_error with a sentence when it or a CUDA device is
// missing.
Device& CudaDevice();

}  // namespace sigmoid_attention
