"""Logits of slmc's runtime equal transformers' in float32, from the Hugging Face folder and from an f32 GGUF that slmc wrote; and
llama.cpp continues prompts greedily as slmc does at f16, up to the first position where the two best tokens are near.

Reads ../shared/models; prints what it skips.
"""
import json
import os
import subprocess
import sys
import tempfile

import numpy as np
import torch
import transformers

PROGRAM = os.path.join(os.environ["SLMC_BUILD"], "slmc")
MODELS = os.path.join(os.environ["SLMC_SOURCE_DIR"], "..", "shared", "models")
TOLERANCE = 1e-3
NEAR = 0.05
PROMPTS = {
    "medqa-8m": ["Question: What are the symptoms of asthma?\nAnswer:", "Customer: My card has not arrived yet.\nIntent:",
                 "Question: How is high blood pressure treated, and what can I do myself?\nAnswer:", "The quick brown fox",
                 "Customer: I was charged twice for the same transfer!\nIntent:"],
    "stories260k": ["Once upon a time, there was a little girl named Lily.", "The dog ran to the", "One day, Tom and his mom went to the park."],
}


def slmc(*arguments):
    result = subprocess.run([PROGRAM, *arguments, "--json", "-"], capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"slmc {' '.join(arguments)[:200]}: exit {result.returncode}: {result.stderr}")
    return json.loads(result.stdout)


def logits(model, ids, folder, *options):
    path = os.path.join(folder, "logits.npy")
    slmc("logits", model, "--ids", ",".join(map(str, ids)), "-o", path, "--force", *options)
    return np.load(path)


@torch.no_grad()
def compare_with_transformers(name, folder):
    path = os.path.join(MODELS, name)
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    gguf = os.path.join(folder, name + "-f32.gguf")
    slmc("convert", path, "-o", gguf, "--dtype", "f32")
    long = sum((tokenizer(text).input_ids for text in PROMPTS[name]), [])
    for ids in [tokenizer(text).input_ids for text in PROMPTS[name]] + [(long * 20)[:300]]:
        expected = model(torch.tensor([ids])).logits[0].numpy()
        for source in (path, gguf):
            found = logits(source, ids, folder)
            apart = np.abs(found - expected).max()
            assert found.dtype == np.float32 and found.shape == expected.shape
            assert apart <= TOLERANCE, f"{source}: logits differ by {apart} on {len(ids)} tokens"
            best = np.sort(expected, axis=1)[:, -2:]
            clear = best[:, 1] - best[:, 0] > 2 * TOLERANCE
            assert (found.argmax(1) == expected.argmax(1))[clear].all(), f"{source}: another best token"
        print(f"{name}: {len(ids)} tokens: largest difference {apart:.1e}")


def compare_with_llama_cpp(name, folder):
    import xllamacpp

    path = os.path.join(MODELS, name)
    gguf = os.path.join(folder, name + "-f16.gguf")
    slmc("convert", path, "-o", gguf, "--dtype", "f16")
    settings = xllamacpp.CommonParams()
    settings.model.path = gguf
    settings.n_ctx = 512
    settings.warmup = False
    settings.verbosity = -1
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1  # Spinning threads would crawl on a busy machine.
    server = xllamacpp.Server(settings)
    compared = 0
    for prompt in PROMPTS[name]:
        ours = slmc("generate", gguf, "-p", prompt, "-n", "64", "--activations", "f32")
        answer = server.handle_completions({"prompt": ours["prompt_ids"], "n_predict": 64, "temperature": 0, "n_probs": 2,
                                            "samplers": ["temperature"], "cache_prompt": False})
        theirs = [token["id"] for token in answer["choices"][0]["logprobs"]["content"]]
        # Both stop before the token that ends a text; what was generated until then is compared.
        rows = logits(gguf, ours["prompt_ids"] + ours["ids"], folder)[len(ours["prompt_ids"]) - 1:]
        for position, (a, b) in enumerate(zip(ours["ids"], theirs)):
            if a != b:
                second, first = np.sort(rows[position])[-2:]
                assert first - second <= NEAR, f"{name}: {prompt!r}: token {position}: slmc {a}, llama.cpp {b}, best two {first - second} apart"
                break
            compared += 1
        else:
            assert ours["stopped"] or len(theirs) >= len(ours["ids"]), f"{name}: llama.cpp stopped after {len(theirs)}, slmc after {len(ours['ids'])}"
    print(f"{name}: {compared} greedy tokens equal llama.cpp's")
    assert compared >= 20 * len(PROMPTS[name])


def main():
    ran = 0
    with tempfile.TemporaryDirectory() as folder:
        for name in PROMPTS:
            if not os.path.isdir(os.path.join(MODELS, name)):
                print(f"skipped {name}: not in {MODELS}")
                continue
            ran += 1
            compare_with_transformers(name, folder)
            try:
                compare_with_llama_cpp(name, folder)
            except ImportError as missing:
                print(f"skipped llama.cpp: {missing}")
    sys.exit(0 if ran else 77)


if __name__ == "__main__":
    main()
