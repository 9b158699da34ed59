"""Checks every kernel of libort_sigmoid_attention_cuda on a CUDA device.

    npm run conformance:export DIR
    python tests/cuda/conformance.py --library libort_sigmoid_attention_cuda.so --cases DIR [--small] [--only NAME]
    python tests/cuda/conformance.py --library libort_sigmoid_attention_cuda.so --each-kernel

Part one walks the exported conformance table: each case on each kernel that can take it, every element within the
case's own bound. Part two runs problems of several tiles, with the options combined, against the formula in float64.
--small keeps part two to short lengths, for compute-sanitizer. Exits with 1 when anything is wrong.
"""

import argparse
import itertools
import json
import math
import os
import sys

import onnx
import torch

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "..", "bench", "cuda"))
import native  # noqa: E402

DEVICE = "cuda"
KERNELS = ("plain", "mma", "hopper", "decode", "auto")
ONNX_TYPES = {1: torch.float32, 7: torch.int64, 9: torch.bool, 10: torch.float16, 16: torch.bfloat16}


def read_tensor(path):
    with open(path, "rb") as file:
        message = onnx.TensorProto.FromString(file.read())
    dtype = ONNX_TYPES[message.data_type]
    if math.prod(message.dims) == 0:
        return torch.empty(tuple(message.dims), dtype=dtype, device=DEVICE)
    return torch.frombuffer(bytearray(message.raw_data), dtype=dtype).reshape(tuple(message.dims)).to(DEVICE)


def heads_first(tensor, heads):
    """[B, N, H * D] as a [B, H, N, D] view; rank 4 as it is."""
    if tensor.dim() == 4:
        return tensor
    batch, length, width = tensor.shape
    return tensor.view(batch, length, heads, width // heads).transpose(1, 2)


def status_of(library, p, kernel, mode):
    """Runs; returns None, or why this kernel cannot."""
    try:
        library.run(p, mode=mode, kernel=kernel)
    except native.CudaError as error:
        if error.status == 2:
            return str(error)
        raise
    return None


def compare(y, expected, allowed):
    """Largest error in units of the allowed one, where the expected value is finite; inf where they differ otherwise."""
    y, expected, allowed = y.double(), expected.double(), allowed.double()
    if y.numel() == 0:
        return 0.0
    finite = torch.isfinite(expected)
    same = torch.where(torch.isnan(expected), torch.isnan(y), y == expected)
    error = torch.where(finite, (y - expected).abs() / allowed.clamp_min(1e-300), torch.where(same, 0.0, math.inf))
    error = torch.where(torch.isnan(error), math.inf, error)
    return error.max().item()


def run_case(library, folder, entry, kernel, mode="accurate"):
    data = os.path.join(folder, entry["name"], "test_data_set_0")
    inputs = {name: read_tensor(os.path.join(data, f"input_{i}.pb")) for i, name in enumerate(entry["inputs"])}
    outputs = [read_tensor(os.path.join(data, f"output_{i}.pb")) for i in range(len(entry["outputs"]))]
    allowed = read_tensor(os.path.join(data, "allowed_0.pb"))
    sizes, attributes = entry["sizes"], entry["attributes"]
    query_heads, kv_heads = sizes["queryHeads"], sizes["kvHeads"]
    q = heads_first(inputs["Q"], query_heads)
    k, v = heads_first(inputs["K"], kv_heads), heads_first(inputs["V"], kv_heads)
    y = torch.full(outputs[0].shape, float("nan"), dtype=inputs["Q"].dtype, device=DEVICE)
    present = {name: torch.full_like(outputs[i], 7) for i, name in enumerate(entry["outputs"]) if i > 0 and name}
    p = native.problem(
        q, k, v, heads_first(y, query_heads),
        mask=inputs.get("attn_mask"), past_key=inputs.get("past_key"), past_value=inputs.get("past_value"),
        present_key=present.get("present_key"), present_value=present.get("present_value"),
        nonpad=inputs.get("nonpad_kv_seqlen"), head_bias=inputs.get("head_bias"), head_scale=inputs.get("head_scale"),
        head_gain=inputs.get("head_gain"), alibi=inputs.get("alibi_slopes"), scale=attributes.get("scale"),
        bias=attributes.get("bias", 0.0), softcap=attributes.get("softcap", 0.0),
        bias_mode=attributes.get("bias_mode", "none"), causal=bool(attributes.get("is_causal", False)),
        left=attributes.get("left_window_size", -1), right=attributes.get("right_window_size", -1),
        normalize=bool(attributes.get("normalize", False)))  # fmt: skip
    reason = status_of(library, p, kernel, mode)
    torch.cuda.synchronize()
    if reason is not None:
        return None
    error = compare(y, outputs[0], allowed)
    for i, name in enumerate(entry["outputs"]):
        if name in present and not torch.equal(
            torch.nan_to_num(present[name].float(), nan=12345.0), torch.nan_to_num(outputs[i].float(), nan=12345.0)
        ):
            error = math.inf
    return error


def walk_table(library, folder, only):
    with open(os.path.join(folder, "index.json"), encoding="utf-8") as file:
        cases = json.load(file)["cases"]
    wrong = 0
    for kernel in KERNELS:
        ran, worst, cannot = 0, 0.0, 0
        for entry in cases:
            if only and only not in entry["name"]:
                continue
            error = run_case(library, folder, entry, kernel)
            if error is None:
                cannot += 1
                continue
            ran += 1
            if not error <= 1.0:
                wrong += 1
                print(f"WRONG  {kernel:7s} {entry['name']}: error {error:.3g} of the allowed one")
            else:
                worst = max(worst, error)
        print(f"table  {kernel:7s} {ran} cases, worst {worst:.2f} of the allowed error, {cannot} not for this kernel")
    return wrong


def reference(q, k, v, t, o):
    """The operator in float64, keys and values whole. Also sum_j W |V|, the scale of its error."""
    q, k, v = q.double(), k.double(), v.double()
    batch, heads, rows, size = q.shape
    keys, group = k.shape[2], heads // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)

    def per_head(x, absent):
        if x is None:
            return torch.full((1, 1, 1, 1), absent, dtype=torch.float64, device=DEVICE)
        return x.double().reshape(-1, heads, 1, 1)

    nonpad = t.get("nonpad")
    valid = torch.full((batch,), keys, device=DEVICE) if nonpad is None else nonpad
    past = t["past_key"].shape[2] if t.get("past_key") is not None else 0
    offset = torch.full((batch,), past, device=DEVICE) if past or nonpad is None else nonpad - rows
    i = torch.arange(rows, device=DEVICE).view(1, 1, -1, 1) + offset.view(-1, 1, 1, 1)
    j = torch.arange(keys, device=DEVICE).view(1, 1, 1, -1)
    visible = j < valid.view(-1, 1, 1, 1)
    if o.get("causal"):
        visible = visible & (j <= i)
    if o.get("left", -1) >= 0:
        visible = visible & (j >= i - o["left"])
    if o.get("right", -1) >= 0:
        visible = visible & (j <= i + o["right"])
    visible = visible.expand(batch, heads, rows, keys)
    s = q @ k.transpose(-1, -2) * o.get("scale", size**-0.5) * per_head(t.get("head_scale"), 1.0)
    if o.get("softcap", 0.0) > 0:
        s = o["softcap"] * torch.tanh(s / o["softcap"])
    s = s + o.get("bias", 0.0) + per_head(t.get("head_bias"), 0.0) - per_head(t.get("alibi"), 0.0) * (i - j).abs()
    mode = o.get("bias_mode", "none")
    if mode == "neg_log_total":
        s = s - math.log(keys)
    if mode == "neg_log_valid":
        s = s - valid.double().clamp_min(1).log().view(-1, 1, 1, 1)
    if mode == "neg_log_visible":
        s = s - visible.sum(-1, keepdim=True).double().clamp_min(1).log()
    mask = t.get("mask")
    if mask is not None:
        if mask.dtype == torch.bool:
            visible = visible & mask
        else:
            visible = visible & (mask != -math.inf)
            s = s + torch.where(mask == -math.inf, 0.0, mask.double())
    w = torch.where(visible, torch.sigmoid(s), 0.0)
    if o.get("normalize"):
        total = w.sum(-1, keepdim=True)
        w = torch.where(total > 0, w / total, 0.0)
    clean = torch.where(torch.isfinite(v), v, 0.0)
    gain = per_head(t.get("head_gain"), 1.0)
    return gain * (w @ clean), gain.abs() * (w @ clean.abs())


OPTIONS = {
    "plain": {},
    "bias_total": {"bias_mode": "neg_log_total"},
    "bias_visible_causal": {"bias_mode": "neg_log_visible", "causal": True},
    "causal": {"causal": True, "bias": -5.0},
    "window": {"left": 40, "right": 9, "bias": -3.0},
    "causal_window": {"causal": True, "left": 70},
    "negative_scale_causal": {"scale": -0.11, "causal": True},
    "zero_scale_causal": {"scale": 0.0, "causal": True, "bias": -2.0},
    "softcap": {"softcap": 3.0, "bias": -4.0},
    "normalize_causal": {"normalize": True, "causal": True, "bias_mode": "neg_log_visible"},
    "normalize": {"normalize": True, "bias": -8.0},
    "large_bias": {"bias": 6.0},
    "small_weights": {"bias": -9.0},
    "small_weights_and_large_ones": {"bias": -9.0, "scale": 0.7, "causal": True},
    "normalize_far": {"normalize": True, "bias": -40.0},
    "normalize_far_and_wide": {"normalize": True, "bias": -40.0, "scale": 0.7},
}
TENSORS = {
    "none": (),
    "heads": ("head_bias", "head_scale", "head_gain"),
    "alibi": ("alibi",),
    "nonpad": ("nonpad",),
    "mask_bool": ("mask_bool",),
    "mask_number": ("mask_number", "head_gain"),
    "past": ("past",),
    "past_heads": ("past", "head_bias", "head_gain"),
    "poison": ("poison",),
}


def combined_problems(small):
    lengths = ((70, 150),) if small else ((70, 150), (257, 640), (130, 1030))
    for rows, keys in lengths:
        for size, value_size in ((64, 64), (128, 128), (40, 56), (96, 80), (192, 256), (20, 12)):
            for dtype in (torch.bfloat16, torch.float16):
                for number, (option, o) in enumerate(OPTIONS.items()):
                    for index, (name, tensors) in enumerate(TENSORS.items()):
                        if small and (number + index + size) % 5:
                            continue
                        yield f"{rows}x{keys} head {size}/{value_size} {option} {name}", rows, keys, size, value_size, dtype, o, tensors


def run_combined(library, small):
    wrong, count = 0, {kernel: 0 for kernel in KERNELS}
    worst = dict.fromkeys(KERNELS, 0.0)
    generator = torch.Generator(DEVICE).manual_seed(5)

    def normal(*shape, dtype=torch.float32):
        return torch.randn(*shape, generator=generator, device=DEVICE).to(dtype)

    for name, rows, keys, size, value_size, dtype, o, tensors in combined_problems(small):
        batch, heads, kv_heads = 2, 4, 2
        q = normal(batch, rows, heads, size, dtype=dtype).transpose(1, 2)
        k = normal(batch, kv_heads, keys, size, dtype=dtype)
        v = normal(batch, kv_heads, keys, value_size, dtype=dtype)
        t = {}
        if "head_bias" in tensors:
            t["head_bias"] = normal(batch, heads) - 3
        if "head_scale" in tensors:
            t["head_scale"] = normal(heads)
        if "head_gain" in tensors:
            t["head_gain"] = normal(heads)
        if "alibi" in tensors:
            t["alibi"] = normal(heads).abs() * 0.05
        if "nonpad" in tensors:
            t["nonpad"] = torch.tensor([keys - 13, max(keys // 3, 1)], device=DEVICE)
        if "mask_bool" in tensors:
            t["mask"] = normal(batch, 1, rows, keys) > 0.3
        if "mask_number" in tensors:
            t["mask"] = torch.where(normal(heads, 1, keys) > 1.0, -math.inf, normal(heads, 1, keys)).to(dtype)
        if "poison" in tensors:  # NaN and Inf where no row looks
            t["nonpad"] = torch.tensor([keys - 7, keys // 2], device=DEVICE)
            for b in range(batch):
                n = int(t["nonpad"][b])
                k[b, :, n:] = float("nan")
                v[b, :, n:] = float("inf")
        fresh_k, fresh_v = k, v
        if "past" in tensors:
            past = keys - rows
            t["past_key"], t["past_value"] = k[:, :, :past].contiguous(), v[:, :, :past].contiguous()
            fresh_k, fresh_v = k[:, :, past:].contiguous(), v[:, :, past:].contiguous()
        expected, magnitude = reference(torch.nan_to_num(q), torch.nan_to_num(k), v, t, o)
        unit = 2**-7 if dtype == torch.bfloat16 else 2**-10
        allowed = magnitude * unit * 2 + 1e-7
        for kernel in KERNELS:
            y = torch.full((batch, rows, heads, value_size), float("nan"), dtype=dtype, device=DEVICE).transpose(1, 2)
            p = native.problem(q, fresh_k, fresh_v, y, **t, **o)
            if status_of(library, p, kernel, "accurate") is not None:
                continue
            torch.cuda.synchronize()
            error = compare(y, expected, allowed)
            count[kernel] += 1
            if not error <= 1.0:
                wrong += 1
                if wrong <= 40:
                    print(f"WRONG  {kernel:7s} {name} {dtype}: error {error:.3g} of the allowed one")
            else:
                worst[kernel] = max(worst[kernel], error)
    for kernel in KERNELS:
        print(f"tiles  {kernel:7s} {count[kernel]} problems, worst {worst[kernel]:.2f} of the allowed error")
    return wrong


def run_each_kernel(library, only):
    """The instances of the tensor-core kernels once or twice, with more tiles than the device takes at once."""
    wrong = 0
    both, mma = ("hopper", "mma"), ("mma",)
    kinds = {
        "any": (420, both, {"bias": -2.0}),
        "short": (420, both, {"bias": -7.0, "causal": True}),
        "long": (420, both, {"bias": -9.0, "left": 170}),
        "fast": (420, both, {"bias": -7.0}),
        "general": (420, both, {"bias": -5.0, "softcap": 20.0, "causal": True}),
        "whole steps": (384, mma, {"bias": -2.0}),
        "whole steps, small": (384, mma, {"bias": -9.0}),
        "bias of a row": (420, mma, {"bias_mode": "neg_log_visible", "causal": True}),
    }
    for size in (64, 128, 256):
        if only and only != str(size):
            continue
        for dtype in (torch.bfloat16, torch.float16):
            for kind, (keys, kernels, o) in kinds.items():
                heads, rows = 48, 300
                q = torch.randn(1, heads, rows, size, device=DEVICE).to(dtype)
                k, v = (torch.randn(1, heads // 4, keys, size, device=DEVICE).to(dtype) for _ in range(2))
                expected, magnitude = reference(q, k, v, {}, o)
                unit = 2**-7 if dtype == torch.bfloat16 else 2**-10
                for kernel in kernels:
                    y = torch.full_like(q, float("nan"))
                    p = native.problem(q, k, v, y, **o)
                    if status_of(library, p, kernel, "fast" if kind == "fast" else "accurate") is not None:
                        continue
                    torch.cuda.synchronize()
                    error = compare(y, expected, magnitude * unit * (8 if kind == "fast" else 2) + 1e-7)
                    if not error <= 1.0:
                        wrong += 1
                        print(f"WRONG  {kernel:7s} head {size} {dtype} {kind}: error {error:.3g} of the allowed one")
    print(f"each   kernel once: {wrong} wrong")
    return wrong


def check_refusals(library):
    """A workspace that is too small is refused with a sentence, and nothing is written."""
    q = torch.randn(1, 1, 200, 64, device=DEVICE, dtype=torch.float16)
    y = torch.full_like(q, 3.0)
    p = native.problem(q, q, q, y, causal=True)
    options = native.Options(0, 0)
    status = library.native.sa_cuda_run(p, options, None, 0, None)
    torch.cuda.synchronize()
    message = library.native.sa_cuda_last_error().decode()
    good = status == 3 and "workspace" in message and bool((y == 3.0).all())
    print("refuse", "ok" if good else f"WRONG: status {status}", "-", message)
    p = native.problem(q.float(), q.float(), q.float(), y.float())
    kernel = library.kernel_name(p, kernel="hopper")
    good_kernel = kernel is None
    print("refuse", "ok" if good_kernel else "WRONG", "-", library.native.sa_cuda_last_error().decode())
    return int(not good) + int(not good_kernel)


# name: heads, kv heads, rows, keys, (head size, value head size), options, kernels, allowed error in units of T.
# Rows have more keys than one segment of a tile, whose sums are added up; caches are so long that the blocks of the
# decoding kernel prefetch.
LONG = {
    "rows": (2, 1, 200, 70016, ((64, 64), (128, 128), (256, 256)),
             ({"bias_mode": "neg_log_total"}, {"bias": -8.0, "right": 20, "softcap": 9.0}), ("auto", "mma"), 2),
    "caches": (16, 16, 1, 50003, ((64, 64), (128, 128), (256, 200), (72, 96)),
               ({"bias_mode": "neg_log_total"}, {"bias": -7.0, "left": 40000, "normalize": True}), ("decode",), 1),
}  # fmt: skip


def check_long(library):
    """Problems of LONG, with and without padding, several calls behind each other."""
    wrong = 0
    for what, (heads, kv_heads, rows, keys, sizes, options, kernels, units) in LONG.items():
        before = wrong
        for (size, value_size), dtype, o in itertools.product(sizes, (torch.bfloat16, torch.float16), options):
            q = torch.randn(1, heads, rows, size, device=DEVICE).to(dtype)
            k = torch.randn(1, kv_heads, keys, size, device=DEVICE).to(dtype)
            v = torch.randn(1, kv_heads, keys, value_size, device=DEVICE).to(dtype)
            for t in ({}, {"nonpad": torch.tensor([keys - 7], device=DEVICE)}):
                expected, magnitude = reference(q, k, v, t, o)
                allowed = magnitude * (2**-7 if dtype == torch.bfloat16 else 2**-10) * units + 1e-7
                for kernel in kernels:
                    outputs = [torch.full_like(expected, math.nan, dtype=dtype) for _ in range(3)]
                    for y in outputs:
                        library.run(native.problem(q, k, v, y, **t, **o), kernel=kernel)
                    torch.cuda.synchronize()
                    error = max(compare(y, expected, allowed) for y in outputs)
                    if not error <= 1.0:
                        wrong += 1
                        print(f"WRONG  {kernel:7s} long {what}, head {size}/{value_size} {dtype} {o} {list(t)}: error {error:.3g} of the allowed one")
        print("long  ", "ok" if wrong == before else f"{wrong - before} WRONG", f"- {what} of {keys} keys")
    return wrong


def check_graph_capture(library):
    """Captured once, replayed with other contents: the same result as a direct call."""
    q, k, v = (torch.randn(1, 4, 300, 64, device=DEVICE, dtype=torch.float16) for _ in range(3))
    y, direct = torch.empty_like(q), torch.empty_like(q)
    p = native.problem(q, k, v, y, causal=True, bias=-5.0)
    library.run(p)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        library.run(p)
    q.copy_(torch.randn_like(q))
    graph.replay()
    library.run(native.problem(q, k, v, direct, causal=True, bias=-5.0))
    torch.cuda.synchronize()
    good = torch.equal(y, direct)
    print("graph ", "ok" if good else "WRONG: a replay differs from a direct call")
    return int(not good)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--library", required=True)
    parser.add_argument("--cases", help="folder written by npm run conformance:export")
    parser.add_argument("--only", help="cases whose name contains this; with --each-kernel, the head size")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--table-only", action="store_true")
    parser.add_argument("--each-kernel", action="store_true", help="only each kernel once, for compute-sanitizer")
    arguments = parser.parse_args()
    library = native.Library(arguments.library)
    library.check(library.native.sa_cuda_check_device())
    wrong = 0
    if arguments.each_kernel:
        wrong += run_each_kernel(library, arguments.only)
        print(f"{'FAILED' if wrong else 'passed'}: {wrong} wrong")
        return 1 if wrong else 0
    if arguments.cases:
        wrong += walk_table(library, arguments.cases, arguments.only)
    else:
        print("table  skipped: no --cases folder given")
    if not arguments.table_only:
        wrong += run_combined(library, arguments.small)
        wrong += check_refusals(library)
        wrong += check_long(library)
        wrong += check_graph_capture(library)
    print(f"{'FAILED' if wrong else 'passed'}: {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
