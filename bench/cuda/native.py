"""ctypes view of cuda/sigmoid_attention.h over torch tensors.

`problem(q, k, v, ...)` describes one call, `Library(path).run(problem)` makes it. Tensors are [B, H, N, D] views with a
dense last axis (any other strides), as the header wants them.
"""

import ctypes
from ctypes import POINTER, Structure, c_char_p, c_float, c_int, c_int64, c_size_t, c_void_p

import torch

TYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
BIAS_MODES = {"none": 0, "neg_log_total": 1, "neg_log_valid": 2, "neg_log_visible": 3}
MODES = {"accurate": 0, "fast": 1}
KERNELS = {"auto": 0, "plain": 1, "mma": 2, "hopper": 3, "decode": 4}


class Strides(Structure):
    _fields_ = [("batch", c_int64), ("head", c_int64), ("row", c_int64)]


class Problem(Structure):
    _fields_ = [
        ("type", c_int),
        ("batch", c_int64),
        ("query_heads", c_int64),
        ("kv_heads", c_int64),
        ("query_length", c_int64),
        ("key_length", c_int64),
        ("past_length", c_int64),
        ("head_size", c_int64),
        ("value_head_size", c_int64),
        ("q", c_void_p),
        ("k", c_void_p),
        ("v", c_void_p),
        ("q_strides", Strides),
        ("k_strides", Strides),
        ("v_strides", Strides),
        ("past_key", c_void_p),
        ("past_value", c_void_p),
        ("present_key", c_void_p),
        ("present_value", c_void_p),
        ("mask_type", c_int),
        ("mask", c_void_p),
        ("mask_strides", c_int64 * 4),
        ("nonpad_kv_seqlen", c_void_p),
        ("row_offset", c_int64),
        ("head_bias", c_void_p),
        ("head_bias_batch_stride", c_int64),
        ("head_scale", c_void_p),
        ("head_gain", c_void_p),
        ("alibi_slopes", c_void_p),
        ("alibi_batch_stride", c_int64),
        ("scale", c_float),
        ("bias", c_float),
        ("softcap", c_float),
        ("bias_mode", c_int),
        ("is_causal", c_int),
        ("left_window_size", c_int64),
        ("right_window_size", c_int64),
        ("normalize", c_int),
        ("y", c_void_p),
        ("y_strides", Strides),
    ]


class Options(Structure):
    _fields_ = [("mode", c_int), ("kernel", c_int)]


def strides(tensor):
    return Strides(tensor.stride(0), tensor.stride(1), tensor.stride(2))


def pointer(tensor):
    return None if tensor is None else tensor.data_ptr()


def per_head(tensor, heads):
    """(pointer, batch stride) of a [Hq] or [B, Hq] tensor."""
    return pointer(tensor), heads if tensor is not None and tensor.dim() == 2 else 0


def problem(q, k, v, y, *, mask=None, past_key=None, past_value=None, present_key=None, present_value=None,
            nonpad=None, head_bias=None, head_scale=None, head_gain=None, alibi=None, scale=None, bias=0.0,
            softcap=0.0, bias_mode="none", causal=False, left=-1, right=-1, normalize=False):
    """Describes one call; the tensors must outlive it."""
    batch, heads, length, head_size = q.shape
    past = 0 if past_key is None else past_key.shape[2]
    p = Problem()
    p.type = TYPES[q.dtype]
    p.batch, p.query_heads, p.kv_heads, p.query_length = batch, heads, k.shape[1], length
    p.key_length, p.past_length = past + k.shape[2], past
    p.head_size, p.value_head_size = head_size, v.shape[3]
    p.q, p.k, p.v, p.y = pointer(q), pointer(k), pointer(v), pointer(y)
    p.q_strides, p.k_strides, p.v_strides, p.y_strides = strides(q), strides(k), strides(v), strides(y)
    p.past_key, p.past_value = pointer(past_key), pointer(past_value)
    p.present_key, p.present_value = pointer(present_key), pointer(present_value)
    if mask is not None:
        p.mask_type = 1 if mask.dtype == torch.bool else 2 if mask.dtype == torch.float32 else 3
        if mask.dtype == torch.float32 and q.dtype == torch.float32:
            p.mask_type = 3
        p.mask = pointer(mask)
        shape = (1,) * (4 - mask.dim()) + tuple(mask.shape)
        step = (0,) * (4 - mask.dim()) + tuple(mask.stride())
        p.mask_strides = (c_int64 * 4)(*(0 if n == 1 else s for n, s in zip(shape, step)))
    p.nonpad_kv_seqlen = pointer(nonpad)
    p.row_offset = past
    p.head_bias, p.head_bias_batch_stride = per_head(head_bias, heads)
    p.alibi_slopes, p.alibi_batch_stride = per_head(alibi, heads)
    p.head_scale, p.head_gain = pointer(head_scale), pointer(head_gain)
    p.scale = head_size**-0.5 if scale is None else scale
    p.bias, p.softcap, p.bias_mode = bias, softcap, BIAS_MODES[bias_mode]
    p.is_causal, p.left_window_size, p.right_window_size = int(causal), left, right
    p.normalize = int(normalize)
    return p


class CudaError(RuntimeError):
    """A status other than SA_CUDA_OK, with the library's sentence."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


class Library:
    """libort_sigmoid_attention_cuda.so."""

    def __init__(self, path):
        self.native = ctypes.CDLL(path)
        self.native.sa_cuda_last_error.restype = c_char_p
        self.native.sa_cuda_kernel_name.restype = c_char_p
        self.native.sa_cuda_workspace_size.argtypes = [POINTER(Problem), POINTER(Options), POINTER(c_size_t)]
        self.native.sa_cuda_kernel_name.argtypes = [POINTER(Problem), POINTER(Options)]
        self.native.sa_cuda_run.argtypes = [POINTER(Problem), POINTER(Options), c_void_p, c_size_t, c_void_p]
        self.workspace = torch.empty(0, dtype=torch.uint8, device="cuda")

    def check(self, status):
        if status != 0:
            raise CudaError(status, self.native.sa_cuda_last_error().decode())

    def kernel_name(self, p, mode="accurate", kernel="auto"):
        name = self.native.sa_cuda_kernel_name(p, Options(MODES[mode], KERNELS[kernel]))
        return None if name is None else name.decode()

    def run(self, p, mode="accurate", kernel="auto"):
        """Enqueues on torch's current stream."""
        options, size = Options(MODES[mode], KERNELS[kernel]), c_size_t()
        self.check(self.native.sa_cuda_workspace_size(p, options, ctypes.byref(size)))
        if self.workspace.numel() < size.value:
            self.workspace = torch.empty(size.value, dtype=torch.uint8, device="cuda")
        stream = torch.cuda.current_stream().cuda_stream
        self.check(self.native.sa_cuda_run(p, options, self.workspace.data_ptr(), self.workspace.numel(), stream))
