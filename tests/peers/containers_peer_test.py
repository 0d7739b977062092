#!/usr/bin/env python3
"""Folders that slmc writes load in transformers and say the same; checkpoints of torch.save, whole and in shards, are read as they are."""

import json
import os
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

SOURCE = os.environ.get("SLMC_SOURCE_DIR", os.path.join(os.path.dirname(__file__), "..", ".."))
SLMC = os.path.join(os.environ.get("SLMC_BUILD", os.path.join(SOURCE, "build")), "slmc")
SHARED = os.path.join(SOURCE, "..", "shared", "models")
TEXTS = ["What is asthma?", "  two  spaces\n", "é 中文 🙂"]
failures = 0


def check(what, holds):
    global failures
    print(f"{what}: {'ok' if holds else 'DIFFERS'}", flush=True)
    failures += not holds


def convert(source, target):
    result = subprocess.run([SLMC, "convert", source, "-o", target], capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"slmc convert {source}: exit {result.returncode}: {result.stderr.strip()}")


def same_weights(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def main():
    model = os.path.join(SHARED, "medqa-8m")
    if not os.path.isdir(model):
        print("skipped: ../shared/models/medqa-8m is not there")
        sys.exit(77)
    theirs = AutoModelForCausalLM.from_pretrained(model)
    tokenizer = AutoTokenizer.from_pretrained(model)
    with tempfile.TemporaryDirectory() as scratch:
        copy, gguf, back = (os.path.join(scratch, n) for n in ("copy", "model.gguf", "back"))
        convert(model, copy)
        convert(model, gguf)
        convert(gguf, back)
        for name, folder in (("folder", copy), ("folder from a GGUF", back)):
            loaded = AutoModelForCausalLM.from_pretrained(folder)
            again = AutoTokenizer.from_pretrained(folder)
            check(f"{name}: tokens", [again(t).input_ids for t in TEXTS] == [tokenizer(t).input_ids for t in TEXTS])
            check(f"{name}: chat template", again.chat_template == tokenizer.chat_template)
            check(f"{name}: generation config", loaded.generation_config.eos_token_id == theirs.generation_config.eos_token_id)
            ids = tokenizer(TEXTS[0], return_tensors="pt").input_ids
            check(f"{name}: logits", torch.allclose(loaded(ids).logits.float(), theirs(ids).logits.float(), atol=1e-5))
        weights = load_file(os.path.join(model, "model.safetensors"))
        config = json.load(open(os.path.join(model, "config.json")))
        for shards in (1, 3):
            folder, out = os.path.join(scratch, f"bin{shards}"), os.path.join(scratch, f"out{shards}")
            os.makedirs(folder)
            json.dump(config, open(os.path.join(folder, "config.json"), "w"))
            names = list(weights)
            if shards == 1:
                torch.save(weights, os.path.join(folder, "pytorch_model.bin"))
            else:
                parts = {f"pytorch_model-{i + 1:05d}-of-{shards:05d}.bin": names[i::shards] for i in range(shards)}
                for file, part in parts.items():
                    torch.save({k: weights[k] for k in part}, os.path.join(folder, file))
                index = {"metadata": {}, "weight_map": {k: file for file, part in parts.items() for k in part}}
                json.dump(index, open(os.path.join(folder, "pytorch_model.bin.index.json"), "w"))
            convert(folder, out)
            check(f"torch.save in {shards} files", same_weights(load_file(os.path.join(out, "model.safetensors")), weights))
    sys.exit(1 if failures else 0)


main()
