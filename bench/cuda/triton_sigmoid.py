"""Sigmoid attention in Triton, as one would write it in an afternoon: a contender of bench.py."""

import torch
import triton
import triton.language as tl


@triton.autotune(
    configs=[
        triton.Config({"ROWS": rows, "KEYS": keys}, num_warps=warps, num_stages=stages)
        for rows, keys, warps, stages in ((128, 64, 4, 3), (128, 128, 8, 2), (128, 64, 8, 3), (64, 64, 4, 3))
    ],
    key=["length", "SIZE", "CAUSAL"],
)
@triton.jit
def kernel(q, k, v, y, batch_stride, head_stride, row_stride, heads, length, scale, bias,
           SIZE: tl.constexpr, CAUSAL: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr):  # fmt: skip
    block, head = tl.program_id(0), tl.program_id(1)
    base = (head // heads).to(tl.int64) * batch_stride + (head % heads).to(tl.int64) * head_stride
    rows, columns = block * ROWS + tl.arange(0, ROWS), tl.arange(0, SIZE)
    q_tile = tl.load(q + base + rows[:, None] * row_stride + columns[None, :], mask=rows[:, None] < length, other=0.0)
    out = tl.zeros([ROWS, SIZE], dtype=tl.float32)
    end = tl.minimum((block + 1) * ROWS, length) if CAUSAL else length
    for first in range(0, end, KEYS):
        keys = first + tl.arange(0, KEYS)
        inside = keys[:, None] < length
        k_tile = tl.load(k + base + keys[:, None] * row_stride + columns[None, :], mask=inside, other=0.0)
        v_tile = tl.load(v + base + keys[:, None] * row_stride + columns[None, :], mask=inside, other=0.0)
        weights = tl.sigmoid(tl.dot(q_tile, tl.trans(k_tile)) * scale + bias)
        if CAUSAL:
            weights = tl.where(keys[None, :] <= rows[:, None], weights, 0.0)
        out = tl.dot(weights.to(q_tile.dtype), v_tile, out)
    tl.store(y + base + rows[:, None] * row_stride + columns[None, :], out.to(y.dtype.element_ty),
             mask=rows[:, None] < length)  # fmt: skip


def triton_sigmoid_attention(q, k, v, bias, causal):
    """q, k, v: [B, H, N, D] of equal strides."""
    batch, heads, length, size = q.shape
    y = torch.empty_strided(q.shape, q.stride(), dtype=q.dtype, device=q.device)
    kernel[lambda meta: (triton.cdiv(length, meta["ROWS"]), batch * heads)](
        q, k, v, y, q.stride(0), q.stride(1), q.stride(2), heads, length, size**-0.5, bias, SIZE=size, CAUSAL=causal
    )
    return y
