#!/usr/bin/env python3
"""GPTQ (or AWQ) at 4 bits in groups of 128 by slmc and by llmcompressor: time, peak memory, perplexity of what each wrote.

  tests/bench/llmcompressor_gptq.py BUILD MODEL CALIBRATION TEST [--python VENV/bin/python] [--method gptq] [--windows 128] [--context 512] [--tokens 0]

Both are given the same windows of the calibration text, with BOS first where the model adds one, on the CPU and as many threads as there are
(--threads). Times and peaks are of whole processes, of llmcompressor also of the call alone. Both folders are compressed-tensors and both are
measured by `slmc eval` in f32 mode. Prints a Markdown table and one line of JSON. --python names a Python with llmcompressor and transformers.
"""
import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time


def child(command, environment=None):
    """Output, seconds and peak bytes of a process."""
    start = time.monotonic()
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, stderr=errors, text=True,
                                   env={**os.environ, **(environment or {})})
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        if status != 0:
            errors.seek(0)
            sys.exit(f"{' '.join(map(str, command))} failed: {(output + errors.read())[-1500:]}")
    return output, time.monotonic() - start, usage.ru_maxrss * 1024


def compress(method, model_path, windows_path, output):
    """In the other Python: what llmcompressor does with ready windows."""
    import torch
    from datasets import Dataset
    from llmcompressor import oneshot
    from transformers import AutoModelForCausalLM, AutoTokenizer

    windows = json.loads(pathlib.Path(windows_path).read_text())
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype="auto", device_map="cpu")
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    data = Dataset.from_dict({"input_ids": windows, "attention_mask": [[1] * len(window) for window in windows]})
    if method == "gptq":
        from llmcompressor.modifiers.gptq import GPTQModifier
        recipe = GPTQModifier(targets="Linear", scheme="W4A16", ignore=["lm_head"], dampening_frac=0.01)
    else:
        from llmcompressor.modifiers.quantization import QuantizationModifier
        from llmcompressor.modifiers.transform.awq import AWQModifier
        recipe = [AWQModifier(duo_scaling="both"), QuantizationModifier(targets="Linear", scheme="W4A16", ignore=["lm_head"])]
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    start = time.monotonic()
    oneshot(model=model, tokenizer=tokenizer, dataset=data, recipe=recipe, max_seq_length=max(map(len, windows)), num_calibration_samples=len(windows))
    seconds = time.monotonic() - start
    model.save_pretrained(output, save_compressed=True)
    tokenizer.save_pretrained(output)
    print("\n" + json.dumps({"oneshot_seconds": seconds}))


def result_of(output):
    """The line that compress() prints, among what its libraries log."""
    lines = [line for line in output.splitlines() if line.startswith('{"oneshot_seconds"')]
    if not lines:
        sys.exit(f"llmcompressor gave no result: {output[-1500:]}")
    return json.loads(lines[-1])


def windows_of(options):
    """The text's ids as slmc encodes them, cut as slmc cuts them."""
    text, _, _ = child([os.path.join(options.build, "slmc"), "tokenize", options.model, "--file", options.calibration, "--json", "-"])
    ids = json.loads(text)["ids"]
    first = [ids[0]] if len(ids) > 1 and options.bos else []
    body = ids[len(first):]
    step = options.context - len(first)
    windows = [first + body[at:at + step] for at in range(0, len(body) - step + 1, step)]
    return windows[:options.windows]


def measure(options, folder):
    text, _, _ = child([os.path.join(options.build, "slmc"), "eval", folder, "--against", options.model, "--text", options.test, "--context",
                        options.context, "--activations", "f32", "--max-tokens", options.tokens, "--json", "-"])
    report = json.loads(text)
    return {"perplexity": report["perplexity"], "kld": report["against"]["kld_mean"], "teacher": report["against"]["perplexity"],
            "bytes": sum(file.stat().st_size for file in pathlib.Path(folder).glob("*.safetensors"))}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("build", "model", "calibration", "test"):
        parser.add_argument(name)
    parser.add_argument("--python", default=os.path.expanduser("~/.cache/slmc-peers/llmcompressor/bin/python"))
    parser.add_argument("--method", default="gptq", choices=("gptq", "awq"))
    parser.add_argument("--windows", default=128, type=int)
    parser.add_argument("--context", default=512, type=int)
    parser.add_argument("--tokens", default=0, type=int, help="of the test text; 0: all")
    parser.add_argument("--threads", default=os.cpu_count(), type=int)
    parser.add_argument("--bos", action=argparse.BooleanOptionalAction, default=True, help="whether the tokenizer puts BOS first")
    options = parser.parse_args()
    if not os.path.exists(options.python):
        sys.exit(f"{options.python} is not there; give --python one that has llmcompressor")
    rows = {}
    with tempfile.TemporaryDirectory() as scratch:
        windows = windows_of(options)
        path = os.path.join(scratch, "windows.json")
        pathlib.Path(path).write_text(json.dumps(windows))
        slmc, other = os.path.join(scratch, "slmc"), os.path.join(scratch, "llmcompressor")
        _, seconds, peak = child([os.path.join(options.build, "slmc"), "quantize", options.model, "-o", slmc, "--scheme", "w4a16", "--method", options.method,
                                  "--calibration", options.calibration, "--calibration-tokens", sum(map(len, windows)), "--calibration-context",
                                  options.context, "--threads", options.threads, "--check", "bytes", "-q"])
        rows["slmc"] = {"seconds": seconds, "peak_bytes": peak, **measure(options, slmc)}
        environment = {"OMP_NUM_THREADS": str(options.threads), "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
        text, seconds, peak = child([options.python, __file__, "--compress", options.method, options.model, path, other], environment)
        rows["llmcompressor"] = {"seconds": seconds, "peak_bytes": peak, **result_of(text), **measure(options, other)}
        shutil.rmtree(other)
    print(f"{len(windows)} windows of {options.context} tokens, {options.threads} threads; the teacher's perplexity is {rows['slmc']['teacher']:.4f}\n")
    print("| by | seconds | peak memory | bytes | perplexity | KLD, nats |\n|---|--:|--:|--:|--:|--:|")
    for name, row in rows.items():
        print(f"| {name} | {row['seconds']:.1f} | {row['peak_bytes'] / 1e6:.0f} MB | {row['bytes']:,} | {row['perplexity']:.4f} | {row['kld']:.5f} |")
    print(json.dumps(rows))


if len(sys.argv) == 6 and sys.argv[1] == "--compress":
    compress(*sys.argv[2:])
else:
    main()
