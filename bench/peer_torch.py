#!/usr/bin/env python3
"""The full-attention cases of bench.c with PyTorch's scaled_dot_product_attention on the CPU, in bench.c's JSON format.

    python3 bench/peer_torch.py [--quick | --long] [--threads N,N..] [--filter TEXT,TEXT..] [--json FILE]

Same shapes and memory: keys and values token-major [token][head][dim], seen by PyTorch as [1, head, token, dim]. Unlike
in bench.c, queries and output have the type of the keys: PyTorch takes no mixed types. Two ways where a group shares
keys: "sdpa" passes enable_gqa; "grouped" (decode only) passes the group's heads as the query rows of one head, which
reads the keys once but is for the user to find out. Both are printed.
err: as in bench.c, against double, over sampled rows.
"""
import argparse
import json
import sys
import time

try:
    import torch
    import torch.nn.functional as F
except ImportError:
    print("SKIP peer_torch: PyTorch is not installed for " + sys.executable)
    sys.exit(0)

SHAPES = [("S1", 32, 2, 64), ("S2", 32, 8, 128), ("G1", 16, 16, 64)]
TYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


def median_ms(fn, box):
    """Median of at least 3 runs after one to warm up, more until box seconds have passed; short calls are repeated. As
    in bench.c, a call of more than 3 seconds is run once."""
    start = time.perf_counter()
    fn()
    first = time.perf_counter() - start
    if first > 3:
        return 1e3 * first, 1
    start = time.perf_counter()
    fn()
    first = time.perf_counter() - start
    inner = max(1, int(5e-5 / max(first, 1e-8)))
    times, total = [], 0.0
    while len(times) < 3 or (total < box and len(times) < 1001):
        start = time.perf_counter()
        for _ in range(inner):
            fn()
        elapsed = time.perf_counter() - start
        total += elapsed
        times.append(elapsed / inner)
    times.sort()
    n = len(times)
    return 1e3 * (times[n // 2] if n % 2 else (times[n // 2 - 1] + times[n // 2]) / 2), n * inner


def max_err(q, k, v, out, group):
    """q, out [n_q][HQ][d]; k, v [n_kv][H][d]. Largest difference of sampled rows over the row's largest output."""
    n_q, hq, d = q.shape
    n_kv, worst = k.shape[0], 0.0
    for i in {n_q - 1, n_q // 2, n_q // 7}:
        for h in {0, min(hq // 2 + 1, hq - 1), hq - 1}:
            seen = n_kv - n_q + i + 1
            scores = k[:seen, h // group].double() @ q[i, h].double() / d ** 0.5
            want = torch.softmax(scores, 0) @ v[:seen, h // group].double()
            worst = max(worst, ((out[i, h].double() - want).abs().max() / want.abs().max()).item())
    return worst


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--quick", action="store_true")
    p.add_argument("--long", action="store_true")
    p.add_argument("--threads", default="")
    p.add_argument("--filter", default="")
    p.add_argument("--json", default="")
    o = p.parse_args()
    box = 0.15 if o.quick else 1.5 if o.long else 0.3
    prefills = [1024] if o.quick else [1024, 4096, 8192]
    decodes = [512, 4096, 32768] if o.quick else [512, 4096, 32768, 131072]
    types = ["f32", "bf16"] if o.quick else ["f32", "bf16", "f16"]
    most = torch.get_num_threads()
    counts = [int(n) for n in o.threads.split(",")] if o.threads else [most] if o.quick else sorted({1, most})
    words = [w for w in o.filter.split(",") if w]
    rows = []
    print("PyTorch %s, %s" % (torch.__version__, torch.backends.cpu.get_cpu_capability()))
    print("%-3s %-8s %-7s %-5s %6s %7s  %3s  %12s %15s  %s"
          % ("", "", "way", "type", "n_q", "n_kv", "thr", "median", "rate", "err"))

    def case(name, hq, h, d, phase, ty, n_q, n_kv, threads):
        text = "%s %s full %s %d %d torch %dt" % (name, phase, ty, n_q, n_kv, threads)
        if words and not any(w in text for w in words):
            return
        torch.set_num_threads(threads)
        torch.manual_seed(1)
        q = torch.randn(n_q, hq, d).to(TYPES[ty])
        k = torch.randn(n_kv, h, d).to(TYPES[ty])
        v = torch.randn(n_kv, h, d).to(TYPES[ty])
        qt, kt, vt = (x.transpose(0, 1).unsqueeze(0) for x in (q, k, v))        # [1, head, token, dim], strided
        causal = n_q > 1
        ways = [("sdpa", lambda: F.scaled_dot_product_attention(qt, kt, vt, is_causal=causal, enable_gqa=hq != h))]
        if n_q == 1 and hq != h:
            qg = q.view(1, h, hq // h, d)
            ways.append(("grouped", lambda: F.scaled_dot_product_attention(qg, kt, vt)))
        for way, fn in ways:
            with torch.inference_mode():
                ms, repeats = median_ms(fn, box)
                out = fn()
            out = out.reshape(1, hq, d) if way == "grouped" else out.squeeze(0).transpose(0, 1)
            err = max_err(q, k, v, out, hq // h)
            pairs = n_q * (n_kv - n_q) + n_q * (n_q + 1) / 2
            gflops = 4e-6 * d * hq * pairs / ms
            gbs = 2e-6 * n_kv * h * d * k.element_size() / ms
            rate = "%.1f GFLOP/s" % gflops if n_q > 1 else "%.2f GB/s" % gbs
            print("%-3s %-8s %-7s %-5s %6d %7d  %3d  %9.3f ms %15s  %.1e"
                  % (name, phase, way, ty, n_q, n_kv, threads, ms, rate, err), flush=True)
            rows.append({"impl": "torch-" + way, "case": name, "heads": hq, "kv_heads": h, "dim": d, "phase": phase,
                         "mode": "full", "type": ty, "n_q": n_q, "n_kv": n_kv, "level": "torch", "threads": threads,
                         "ms": ms, "gflops": gflops, "gbs": gbs, "max_err": err, "repeats": repeats})

    for name, hq, h, d in SHAPES:
        for ty in types:
            for threads in counts:
                for n in prefills:
                    if o.long or ty == "bf16" or n <= 4096 and ty != "f16" or name != "G1" and n > 1024:
                        case(name, hq, h, d, "prefill", ty, n, n, threads)
                for n in decodes:
                    if o.long or ty != "f16" or name != "G1" and n >= 32768:
                        case(name, hq, h, d, "decode", ty, 1, n, threads)
    if o.json:
        head = {"machine": torch.backends.cpu.get_cpu_capability(), "torch": torch.__version__}
        with open(o.json, "w", encoding="ascii") as f:
            f.write("[\n" + ",\n".join("  " + json.dumps(r) for r in [head] + rows) + "\n]\n")


if __name__ == "__main__":
    main()
