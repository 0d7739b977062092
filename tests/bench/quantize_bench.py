#!/usr/bin/env python3
"""Time and peak memory of `slmc quantize`, beside llama-quantize where it is given.

  tests/bench/quantize_bench.py BUILD MODEL [--runs 7] [--threads 2] [--scratch DIR] [--llama-quantize FILE --source-gguf FILE]

MODEL is a folder, such as one made by BUILD/slmc-make-model (1.24B bf16 parameters by default). Each run starts with the source in the page
cache (one warm-up run) and writes a fresh file. Prints JSON: median, best and spread of seconds, VmHWM. The first file is verified before
anything is timed.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time


def timed(command):
    """Seconds and VmHWM in bytes of one run."""
    start = time.monotonic()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.monotonic() - start
    if status != 0:
        sys.exit(f"{' '.join(command)} failed: {child.stderr.read().decode()[-500:]}")
    return seconds, usage.ru_maxrss * 1024


def measure(name, command, output, runs):
    samples, peaks = [], []
    for run in range(runs + 1):
        if os.path.exists(output):
            os.remove(output)
        seconds, peak = timed(command)
        if run > 0:  # The first warms up.
            samples.append(seconds)
            peaks.append(peak)
    size = os.path.getsize(output)
    os.remove(output)
    return {"what": name, "command": " ".join(command), "seconds_median": statistics.median(samples), "seconds_best": min(samples),
            "seconds_worst": max(samples), "vmhwm_bytes": max(peaks), "output_bytes": size, "runs": runs}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("model")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--scratch", default=".")
    parser.add_argument("--schemes", default="q8_0,q4_0")
    parser.add_argument("--llama-quantize")
    parser.add_argument("--source-gguf", help="the model as a bf16 GGUF, for llama-quantize")
    options = parser.parse_args()
    slmc = os.path.join(options.build, "slmc")
    results = []
    for scheme in options.schemes.split(","):
        output = os.path.join(options.scratch, f"bench-{scheme}.gguf")
        command = [slmc, "quantize", options.model, "-o", output, "--scheme", scheme, "--threads", str(options.threads), "--check", "bytes", "-q",
                   "--force"]
        results.append(measure(f"slmc {scheme}", command, output, options.runs))
        if options.llama_quantize:
            command = [options.llama_quantize, "--pure", options.source_gguf, output, scheme, str(options.threads)]
            results.append(measure(f"llama-quantize {scheme}", command, output, options.runs))
    with open("/proc/cpuinfo") as cpuinfo:
        cpu = next((line.split(":")[1].strip() for line in cpuinfo if line.startswith("model name")), "unknown")
    json.dump({"cpu": cpu, "threads": options.threads, "load_average": os.getloadavg(), "results": results}, sys.stdout, indent=2)
    print()


main()
