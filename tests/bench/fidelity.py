#!/usr/bin/env python3
"""What each quantization costs: slmc's methods beside llama.cpp's, measured alike by `slmc eval` in f32 mode.

  tests/bench/fidelity.py BUILD MODEL CALIBRATION TEST [--schemes q4_k_m,q4_0] [--methods "nearest;gptq"] [--llama DIR] [--scratch DIR] [--context 512] [--tokens 0]

Every scheme is written by slmc with each of its methods, or those named (the same calibration text for all) and, with --llama (a folder with llama-quantize and
llama-imatrix, such as shared/tools/peers.sh builds), by llama.cpp with and without an importance matrix from that text; every GGUF is then
measured by llama-perplexity too, against the f32 GGUF (the latter half of each window, as it does), unless TEST is .jsonl. It takes special
tokens in a text for letters, so it is given copies in which they are user-defined ones of another name, which it reads as tokens. Of a .jsonl CALIBRATION llama-imatrix is given the texts one behind the other. A scheme may carry flags
("w4a16 --group-size 32"); w4a16, w8a16 and w8a8 are written as compressed-tensors folders. Rows are kept in
SCRATCH/fidelity.jsonl as they are made, so that a run that was broken off goes on where it stopped. Prints a Markdown table.
"""
import argparse
import json
import os
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import time

METHODS = {"nearest": [], "imatrix": ["--method", "imatrix"], "awq": ["--method", "awq"], "gptq": ["--method", "gptq"],
           "gptq, activation order": ["--method", "gptq", "--act-order"], "gptq after awq": ["--method", "gptq", "--smooth", "awq"],
           "gptq, types by measurement": ["--method", "gptq", "--target-size", "BYTES"]}  # BYTES: what "nearest" has.
W8A8_METHODS = {"nearest": [], "smoothquant": ["--method", "smoothquant"], "gptq": ["--method", "gptq"],
                "gptq after smoothquant": ["--method", "gptq", "--smooth", "smoothquant"],
                **{f"smoothquant, inputs fixed by {name}": ["--method", "smoothquant", "--observer", name]
                   for name in ("minmax", "percentile", "mse", "entropy")}}


def is_folder(scheme):
    return scheme.startswith("w")


def size_of(path):
    return sum(file.stat().st_size for file in path.iterdir()) if path.is_dir() else path.stat().st_size


def remove(path):
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


def run(*command):
    start = time.monotonic()
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} failed: {done.stderr[-800:]}")
    return done.stdout, time.monotonic() - start


def renamed(data):
    """<|im_end|> and its like under names that llama.cpp does not know: by some it tells control tokens, whatever the file says."""
    return re.sub(rb"<\|(\w+)\|>", rb"<!\1!>", data)


def with_readable_tokens(path):
    """A copy of a GGUF, beside it, whose control tokens (type 3) are user-defined ones (4)."""
    copy = path.with_suffix(".readable.gguf")
    data = bytearray(renamed(path.read_bytes()))
    key = b"tokenizer.ggml.token_type"
    at = data.index(key) + len(key)
    array, kind, count = struct.unpack_from("<IIQ", data, at)
    assert (array, kind) == (9, 5), (array, kind)  # An array of int32.
    at += 16
    for i in range(at, at + 4 * count, 4):
        if struct.unpack_from("<i", data, i)[0] == 3:
            struct.pack_into("<i", data, i, 4)
    copy.write_bytes(data)
    return copy


class Bench:
    def __init__(self, options):
        self.options = options
        self.slmc = os.path.join(options.build, "slmc")
        self.scratch = pathlib.Path(options.scratch)
        self.scratch.mkdir(parents=True, exist_ok=True)
        self.journal = self.scratch / "fidelity.jsonl"
        self.rows = {}
        if self.journal.exists():
            for line in self.journal.read_text().splitlines():
                row = json.loads(line)
                self.rows[row["scheme"], row["method"]] = row

    def measure(self, scheme, method, make):
        if (scheme, method) in self.rows:
            return
        output = self.scratch / ("fidelity" if is_folder(scheme) else "fidelity.gguf")
        remove(output)
        seconds = make(output)
        text, _ = run(self.slmc, "eval", output, "--against", self.options.model, "--text", self.options.test, "--context", self.options.context,
                      "--protocol", "llama.cpp" if self.options.llama_protocol else "window", "--activations", "f32", "--max-tokens",
                      self.options.tokens, "--json", "-")
        report = json.loads(text)
        against = report["against"]
        row = {"scheme": scheme, "method": method, "bytes": size_of(output), "seconds": round(seconds, 1), "perplexity": report["perplexity"],
               "kld_mean": against["kld_mean"], "kld_se": against["kld_se"], "kld_p99": against["kld_p99"], "top1": against["top1_agreement"]}
        if self.options.llama and not is_folder(scheme) and not self.options.test.endswith(".jsonl"):
            row["llama_kld"], row["llama_kld_se"] = self.llama_kld(output)
        self.rows[scheme, method] = row
        with self.journal.open("a") as out:
            out.write(json.dumps(row) + "\n")
        print(json.dumps(row), file=sys.stderr)
        remove(output)

    def slmc_rows(self, scheme):
        for method, flags in (W8A8_METHODS if scheme.startswith("w8a8") else METHODS).items():
            if self.options.methods and method not in self.options.methods.split(";"):
                continue
            if "BYTES" in flags and (is_folder(scheme) or (scheme, "slmc nearest") not in self.rows):
                continue

            def make(output, flags=flags):
                calibration = ["--calibration", self.options.calibration, "--calibration-context", self.options.context] if flags else []
                flags = [str(self.rows[scheme, "slmc nearest"]["bytes"]) if flag == "BYTES" else flag for flag in flags]
                return run(self.slmc, "quantize", self.options.model, "-o", output, "--scheme", *scheme.split(), *flags, *calibration, "--check", "bytes", "-q")[1]
            self.measure(scheme, f"slmc {method}", make)

    def source(self):
        path = self.scratch / "source.gguf"
        if not path.exists():
            run(self.slmc, "convert", self.options.model, "-o", path, "--dtype", "f32")
        return path

    def plain_calibration(self):
        if not self.options.calibration.endswith(".jsonl"):
            return self.options.calibration
        path = self.scratch / "calibration.txt"
        lines = pathlib.Path(self.options.calibration).read_text().splitlines()
        path.write_text("\n".join(json.loads(line)["text"] for line in lines))
        return path

    def llama_kld(self, path):
        """Mean and standard error by llama-perplexity."""
        program = pathlib.Path(self.options.llama) / "llama-perplexity"
        base = self.scratch / "llama-logits"
        readable = self.scratch / "readable.txt"
        if not base.exists():
            readable.write_bytes(renamed(pathlib.Path(self.options.test).read_bytes()))
            run(program, "-m", with_readable_tokens(self.source()), "-f", readable, "-c", self.options.context, "--kl-divergence-base", base)
        copy = with_readable_tokens(path)
        for _ in range(20):  # Its last lines are lost now and then.
            text, _ = run(program, "-m", copy, "-f", readable, "-c", self.options.context, "--kl-divergence-base", base, "--kl-divergence")
            found = re.search(r"Mean\s+KLD:\s*([-\d.]+)\s*\S+\s*([\d.]+)", text)
            if found is not None:
                break
        else:
            sys.exit(f"{program} gave no mean KLD: {text[-800:]}")
        copy.unlink()
        return float(found[1]), float(found[2])

    def llama_rows(self, scheme):
        folder = pathlib.Path(self.options.llama)
        source, matrix = self.source(), self.scratch / "llama-imatrix.gguf"
        if not matrix.exists():
            run(folder / "llama-imatrix", "-m", source, "-f", self.plain_calibration(), "-o", matrix, "-c", self.options.context, "--parse-special")
        for name, flags in (("llama.cpp", []), ("llama.cpp, imatrix", ["--imatrix", matrix])):
            def make(output, flags=flags):
                return run(folder / "llama-quantize", *flags, source, output, scheme)[1]
            self.measure(scheme, name, make)

    def table(self):
        print("| scheme | by | bytes | KLD, nats | ± | 99% | same top-1 | perplexity | KLD by llama-perplexity | s |\n|---|---|--:|--:|--:|--:|--:|--:|--:|--:|")
        for row in sorted(self.rows.values(), key=lambda row: (row["scheme"], -row["kld_mean"])):
            theirs = f"{row['llama_kld']:.5f} ± {row['llama_kld_se']:.5f}" if "llama_kld" in row else ""
            print(f"| {row['scheme']} | {row['method']} | {row['bytes']:,} | {row['kld_mean']:.5f} | {row['kld_se']:.5f} | {row['kld_p99']:.4f} | "
                  f"{100 * row['top1']:.2f}% | {row['perplexity']:.4f} | {theirs} | {row['seconds']} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("build", "model", "calibration", "test"):
        parser.add_argument(name)
    parser.add_argument("--schemes", default="q8_0,q6_k,q5_k_m,q4_k_m,q4_0")
    parser.add_argument("--methods", help="of slmc; all unless given")
    parser.add_argument("--llama")
    parser.add_argument("--scratch", default="fidelity-scratch")
    parser.add_argument("--context", default=512, type=int)
    parser.add_argument("--tokens", default=0, type=int, help="of the test text; 0: all")
    parser.add_argument("--llama-protocol", action="store_true", help="measure as llama-perplexity does")
    bench = Bench(parser.parse_args())
    for scheme in bench.options.schemes.split(","):
        bench.slmc_rows(scheme)
        if bench.options.llama and not is_folder(scheme):
            bench.llama_rows(scheme)
    bench.table()


main()
