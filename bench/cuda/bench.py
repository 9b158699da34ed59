"""Times sigmoid attention against its peers on one CUDA device, all in the same run.

    python bench/cuda/bench.py --library libort_sigmoid_attention_cuda.so [--json out.json] [--quick]

Contenders: this library (accurate and fast mode, and its mma.sync kernel), PyTorch's FLASH and CUDNN softmax backends,
and sigmoid attention in PyTorch eager, torch.compile and Triton. Each result is first checked against float64. Then
all contenders of a row run in shuffled order, several rounds; a row gives medians. 16,384 tokens, hidden size 2,048.
"""

import argparse
import json
import math
import os
import random
import statistics
import subprocess
import sys

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

sys.path.insert(0, os.path.dirname(__file__))
import native  # noqa: E402
from triton_sigmoid import triton_sigmoid_attention  # noqa: E402

TOKENS, HIDDEN = 16384, 2048
DEVICE = "cuda"


def median_times(contenders, rounds, repeats):
    """name -> list of milliseconds a call, one a round; the order is shuffled each round."""
    names, times = list(contenders), {name: [] for name in contenders}
    for name in names:
        for _ in range(2):
            contenders[name]()
    torch.cuda.synchronize()
    for _ in range(rounds):
        random.shuffle(names)
        for name in names:
            contenders[name]()
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            for _ in range(repeats):
                contenders[name]()
            end.record()
            end.synchronize()
            times[name].append(start.elapsed_time(end) / repeats)
    return times


def eager_sigmoid(q, k, v, bias, causal):
    scores = torch.sigmoid(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + bias)
    if causal:
        scores = scores.tril()
    return scores @ v


def accuracy(run, dtype, d, causal, length=4096):
    """Relative error of Y against float64, and that of exact weights rounded to T as a kernel rounds them."""
    torch.manual_seed(1)
    q, k, v = (torch.randn(1, 2, length, d, device=DEVICE, dtype=dtype) for _ in range(3))
    bias = -math.log(length)
    y = run(q, k, v, bias, causal).double()
    weights = torch.sigmoid(q.double() @ k.double().transpose(-1, -2) * d**-0.5 + bias)
    if causal:
        weights = weights.tril()
    exact = weights @ v.double()
    scale = 2.0**15 if dtype == torch.float16 else 1.0  # exact weights in T, clear of the subnormals
    rounded = ((weights * scale).to(dtype).double() @ v.double() / scale).to(dtype).double()
    norm = exact.norm()
    return ((y - exact).norm() / norm).item(), ((rounded - exact).norm() / norm).item()


def ours(library, mode, kernel="auto"):
    def run(q, k, v, bias, causal):
        y = torch.empty_like(q)
        library.run(native.problem(q, k, v, y, bias=bias, causal=causal), mode=mode, kernel=kernel)
        return y

    return run


def prefill_row(library, dtype, d, length, causal, options):
    batch, heads, bias = TOKENS // length, HIDDEN // d, -math.log(length)
    q, k, v = (torch.randn(batch, length, heads, d, device=DEVICE, dtype=dtype).transpose(1, 2) for _ in range(3))
    y = torch.empty(batch, length, heads, d, device=DEVICE, dtype=dtype).transpose(1, 2)
    p = native.problem(q, k, v, y, bias=bias, causal=causal)

    def softmax(backend):
        def run():
            with sdpa_kernel(backend):
                F.scaled_dot_product_attention(q, k, v, is_causal=causal)

        return run

    contenders = {
        "ours accurate": lambda: library.run(p),
        "ours fast": lambda: library.run(p, mode="fast"),
        "ours mma.sync": lambda: library.run(p, kernel="mma"),
        "torch FLASH": softmax(SDPBackend.FLASH_ATTENTION),
        "torch CUDNN": softmax(SDPBackend.CUDNN_ATTENTION),
        "Triton sigmoid": lambda: triton_sigmoid_attention(q, k, v, bias, causal),
    }
    if not options.quick and length <= 4096:
        contenders["torch eager sigmoid"] = lambda: eager_sigmoid(q, k, v, bias, causal)
        compiled = options.compiled
        contenders["torch.compile sigmoid"] = lambda: compiled(q, k, v, bias, causal)
    matrix = torch.randn(8192, 8192, device=DEVICE, dtype=dtype)
    contenders["matmul 8192"] = lambda: matrix @ matrix
    times = median_times(contenders, options.rounds, 3)
    matmul = 2 * 8192**3 / statistics.median(times.pop("matmul 8192")) / 1e9
    flops = 4 * batch * heads * length * length * d / (2 if causal else 1)
    tflops = {name: flops / statistics.median(t) / 1e9 for name, t in times.items()}
    row = {
        "kind": "prefill", "type": str(dtype).split(".")[1], "head_size": d, "length": length, "causal": causal,
        "kernel": library.kernel_name(p), "matmul_tflops": round(matmul, 1), "sm_clock_mhz": sm_clock(),
        "tflops": {name: round(value, 1) for name, value in tflops.items()},
        "range_ms": {name: [round(min(t), 4), round(max(t), 4)] for name, t in times.items()},
        "vs_cudnn": round(tflops["ours accurate"] / tflops["torch CUDNN"], 3),
        "vs_flash": round(tflops["ours accurate"] / tflops["torch FLASH"], 3),
        "mma_vs_flash": round(tflops["ours mma.sync"] / tflops["torch FLASH"], 3),
        "of_matmul": round(tflops["ours accurate"] / matmul, 3),
    }  # fmt: skip
    print(f"{row['type']:8s} d {d:3d} N {length:5d} {'causal' if causal else 'full  '} matmul {matmul:4.0f} | "
          + "  ".join(f"{name} {value:.0f}" for name, value in tflops.items())
          + f" | {row['vs_cudnn']:.2f}x CUDNN")  # fmt: skip
    return row


def decode_row(library, megabytes, copy_rate, options):
    """One query a head, 16 heads of 128, bfloat16; keys and values together have `megabytes`."""
    heads, d, dtype = 16, 128, torch.bfloat16
    length = megabytes * 10**6 // (heads * d * 2 * 2)
    copies = max(1, 400 // megabytes)  # rotate, so that the cache does not answer
    sets = []
    for _ in range(copies):
        q = torch.randn(1, heads, 1, d, device=DEVICE, dtype=dtype)
        k, v = (torch.randn(1, heads, length, d, device=DEVICE, dtype=dtype) for _ in range(2))
        y = torch.empty_like(q)
        sets.append((q, k, v, native.problem(q, k, v, y, bias=-math.log(length)), y))
    library.run(sets[0][3])  # the workspace is made before the capture

    def graph_of(call):
        for s in sets[:1]:
            call(s)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for s in sets:
                call(s)
        return graph

    def cudnn(s):
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            F.scaled_dot_product_attention(s[0], s[1], s[2])

    def flash(s):
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            F.scaled_dot_product_attention(s[0], s[1], s[2])

    graphs = {"ours accurate": graph_of(lambda s: library.run(s[3])), "torch CUDNN": graph_of(cudnn),
              "torch FLASH": graph_of(flash)}  # fmt: skip
    times = median_times({name: graph.replay for name, graph in graphs.items()}, options.rounds, 5)
    size = 2 * heads * length * d * 2 * copies
    rates = {name: size / statistics.median(t) / 1e6 for name, t in times.items()}  # GB/s
    row = {"kind": "decode", "type": "bfloat16", "head_size": d, "heads": heads, "length": length,
           "kv_megabytes": megabytes, "gb_per_s": {name: round(r) for name, r in rates.items()},
           "of_copy": {name: round(r / copy_rate, 3) for name, r in rates.items()}}  # fmt: skip
    print(f"decode {megabytes:4d} MB  " + "  ".join(f"{n} {r:.0f} GB/s ({r / copy_rate:.0%} of copy)"
                                                     for n, r in rates.items()))  # fmt: skip
    return row


def copy_gb_per_s():
    a, b = (torch.empty(2**30, dtype=torch.uint8, device=DEVICE) for _ in range(2))
    return 2 * 2**30 / statistics.median(median_times({"copy": lambda: b.copy_(a)}, 10, 3)["copy"]) / 1e6


def sm_clock():
    text = subprocess.run(["nvidia-smi", "--query-gpu=clocks.sm", "--format=csv,noheader,nounits"],
                          capture_output=True, text=True, check=False).stdout  # fmt: skip
    return int(text.split()[0]) if text.split() else None


def geometric_mean(values):
    values = list(values)
    return round(math.exp(sum(map(math.log, values)) / len(values)), 3) if values else None


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--library", required=True)
    parser.add_argument("--json")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--quick", action="store_true", help="fewer lengths, no torch eager or compiled")
    options = parser.parse_args()
    options.compiled = torch.compile(eager_sigmoid, dynamic=False)
    library = native.Library(options.library)
    torch.manual_seed(0)
    random.seed(0)
    rows = []

    for dtype in (torch.bfloat16, torch.float16):
        for d in (64, 128):
            for causal in (False, True):
                for name, run in (("accurate", ours(library, "accurate")), ("fast", ours(library, "fast")),
                                  ("mma.sync", ours(library, "accurate", "mma"))):  # fmt: skip
                    error, rounding = accuracy(run, dtype, d, causal)
                    rows.append({"kind": "accuracy", "type": str(dtype).split(".")[1], "head_size": d,
                                 "causal": causal, "contender": name, "error": error,
                                 "of_exact_rounded": round(error / rounding, 3)})  # fmt: skip
                    if not error < 5 * rounding:
                        sys.exit(f"{name} {dtype} d {d} causal {causal}: error {error:.3e}, rounding {rounding:.3e}.")
    for dtype in (torch.bfloat16, torch.float16):
        for length in (65536, 262144):
            q, k, v = (torch.randn(1, 1, n, 64, device=DEVICE, dtype=dtype) for n in (128, length, length))
            weights = torch.sigmoid(q.double() @ k.double().transpose(-1, -2) / 8 - math.log(length))
            exact = weights @ v.double()
            scale = 2.0**15 if dtype == torch.float16 else 1.0
            rounded = ((weights * scale).to(dtype).double() @ v.double() / scale).to(dtype).double()
            for mode in ("accurate", "fast"):
                y = ours(library, mode, "hopper" if torch.cuda.get_device_capability()[0] == 9 else "mma")(
                    q, k, v, -math.log(length), False).double()  # fmt: skip
                ratio = ((y - exact).norm() / (rounded - exact).norm()).item()
                rows.append({"kind": "accuracy", "type": str(dtype).split(".")[1], "head_size": 64, "causal": False,
                             "contender": mode, "length": length, "of_exact_rounded": round(ratio, 3)})  # fmt: skip
    for row in rows:
        print(f"accuracy {row['type']:8s} d {row['head_size']:3d} N {row.get('length', 4096):6d} "
              f"{'causal' if row['causal'] else 'full  '} {row['contender']:9s} error "
              f"{row['of_exact_rounded']:.3f} of exact weights rounded")  # fmt: skip

    lengths = (1024, 4096, 16384) if options.quick else (512, 1024, 2048, 4096, 8192, 16384)
    for dtype in (torch.bfloat16, torch.float16):
        for d in (128, 64):
            for length in lengths:
                for causal in (False, True):
                    rows.append(prefill_row(library, dtype, d, length, causal, options))
    copy_rate = copy_gb_per_s()
    print(f"copy {copy_rate:.0f} GB/s")
    for megabytes in (17, 67, 134, 268, 536):
        rows.append(decode_row(library, megabytes, copy_rate, options))

    prefill = [row for row in rows if row["kind"] == "prefill"]
    result = {
        "machine": {"device": torch.cuda.get_device_name(), "torch": torch.__version__,
                    "cudnn": torch.backends.cudnn.version(), "copy_gb_per_s": round(copy_rate)},
        "rows": rows,
        "summary": {
            "vsCudnn128": geometric_mean(r["vs_cudnn"] for r in prefill if r["head_size"] == 128),
            "vsCudnn64": geometric_mean(r["vs_cudnn"] for r in prefill if r["head_size"] == 64),
            "worstVsCudnn": min(r["vs_cudnn"] for r in prefill),
            "vsFlash": geometric_mean(r["vs_flash"] for r in prefill),
            "mmaVsFlash": geometric_mean(r["mma_vs_flash"] for r in prefill),
            "worstError": max(r["of_exact_rounded"] for r in rows
                              if r["kind"] == "accuracy" and r["contender"] != "fast"),
        },
    }  # fmt: skip
    print(json.dumps(result["summary"]))
    if options.json:
        partial = options.json + ".partial"
        with open(partial, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=1)
        os.replace(partial, options.json)


if __name__ == "__main__":
    main()
