#!/usr/bin/env python3
"""Time and peak memory of `slmc quantize`, beside llama-quantize where it is given.

  tests/bench/quantize_bench.py BUILD MODEL [--runs 7] [--threads 2] [--scratch DIR] [--llama-quantize FILE --source-gguf FILE]

MODEL is a folder, such as one made by BUILD/slmc-make-model (1.24B bf16 parameters by default). Each run starts with the source in the page
cache (one warm-up run) and writes a fresh file. Prints JSON: median, best and spread of seconds, VmHWM. The first file is verified before
anything is timed. With --llama-quantize both programs run in turn, each mix in full (the same types in both files).
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time


def timed(command):
    """Seconds, VmHWM in bytes and processor seconds of one run, and what slmc's report says it waited for fsync, which is not in the seconds."""
    start = time.monotonic()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.monotonic() - start
    if status != 0:
        sys.exit(f"{' '.join(command)} failed: {child.stderr.read().decode()[-500:]}")
    synced = 0.0
    if "-o" in command:
        with open(command[command.index("-o") + 1] + ".report.json") as report:
            synced = json.load(report)["sync_seconds"]
    return seconds - synced, usage.ru_maxrss * 1024, usage.ru_utime + usage.ru_stime, synced


def timed_run(command, output):
    if os.path.exists(output):
        os.remove(output)
    return timed(command)


def summary(name, command, samples, size):
    seconds, peaks, busy, synced = zip(*samples)
    return {"what": name, "command": " ".join(command), "seconds_median": statistics.median(seconds), "seconds_best": min(seconds),
            "seconds_worst": max(seconds), "fsync_seconds_median": statistics.median(synced), "processor_seconds_median": statistics.median(busy), "vmhwm_bytes": max(peaks), "output_bytes": size,
            "runs": len(samples)}


def measure(commands, output, runs):
    """All commands in turn, `runs` times after one round of warming up, so that a change of the machine's load hits all alike."""
    samples, sizes = {name: [] for name in commands}, {}
    for run in range(runs + 1):
        for name, command in commands.items():
            sample = timed_run(command, output)
            sizes[name] = os.path.getsize(output)
            if run > 0:
                samples[name].append(sample)
    os.remove(output)
    return [summary(name, command, samples[name], sizes[name]) for name, command in commands.items()]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("model")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--scratch", default=".")
    parser.add_argument("--schemes", default="q8_0,q4_0,q4_k_m")
    parser.add_argument("--llama-quantize")
    parser.add_argument("--source-gguf", help="the model as a bf16 GGUF, for llama-quantize")
    options = parser.parse_args()
    slmc = os.path.join(options.build, "slmc")
    results = []
    for scheme in options.schemes.split(","):
        output = os.path.join(options.scratch, f"bench-{scheme}.gguf")
        commands = {f"slmc {scheme}": [slmc, "quantize", options.model, "-o", output, "--scheme", scheme, "--threads", str(options.threads),
                                       "--check", "bytes", "-q", "--force"]}
        if options.llama_quantize:
            commands[f"llama-quantize {scheme}"] = [options.llama_quantize, options.source_gguf, output, scheme, str(options.threads)]
        measured = measure(commands, output, options.runs)
        if len(measured) == 2:
            measured[0]["times_faster"] = measured[1]["seconds_median"] / measured[0]["seconds_median"]
        results += measured
    with open("/proc/cpuinfo") as cpuinfo:
        cpu = next((line.split(":")[1].strip() for line in cpuinfo if line.startswith("model name")), "unknown")
    json.dump({"cpu": cpu, "threads": options.threads, "load_average": os.getloadavg(), "results": results}, sys.stdout, indent=2)
    print()


main()
