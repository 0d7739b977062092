"""Folders that `slmc quantize --scheme w4a16|w8a16|w8a8 [--kv-type int8]` writes, opened by transformers with the `compressed-tensors` package:
the same logits as slmc's own within 1e-2.

Where inputs or cached keys and values are rounded when the model runs, a sum that comes out one float to the side of a half moves a whole step, and
all behind it: transformers in float32 and in float64 differ by tenths on a trained model of 8 layers. There the bound is what transformers differs
from itself, and the rule of rounding is held to the logits' last digits on models of two layers and single tokens, where such a step is rare.

Reads ../shared/models/medqa-8m (tied) and makes small random models with a head of their own and with fused weights; prints what it skips.
"""
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, Phi3Config, Phi3ForCausalLM

if importlib.util.find_spec("compressed_tensors") is None:
    print("skipped: the compressed-tensors package is not there")
    sys.exit(77)
from compressed_tensors.compressors import PackedQuantizationCompressor
from compressed_tensors.quantization import QuantizationScheme

PROGRAM = os.path.join(os.environ["SLMC_BUILD"], "slmc")
SHARED = os.path.join(os.environ["SLMC_SOURCE_DIR"], "..", "shared")
MODEL = os.path.join(SHARED, "models", "medqa-8m")
TEXT = os.path.join(SHARED, "corpora", "medquad", "calibration.txt")
IDS = [0, 313, 1011, 77, 400, 12, 900, 271, 31, 5, 640, 800, 222, 1, 99, 150]
GROUPS = [["--group-size", size] for size in ("32", "64", "128", "-1")]
CALIBRATED = ["--calibration", TEXT, "--calibration-tokens", "4096"]
CASES = [["w4a16", *group, *kind] for group in GROUPS for kind in ([], ["--asymmetric"])] + [["w8a16", *group] for group in GROUPS] + [["w8a8"]]
CACHED = ["--kv-type", "int8", *CALIBRATED]
ROUNDED = [["w8a8", "--observer", "minmax", *CALIBRATED], ["w8a8", "--method", "smoothquant", "--observer", "mse", *CALIBRATED], ["w8a16", *CACHED],
           ["w8a8", "--observer", "percentile", *CACHED]]
TEXT_CASES = [["w4a16", "--method", "gptq", *CALIBRATED], ["w4a16", "--method", "awq", *CALIBRATED], *ROUNDED]
TOKENS = list(range(5, 325, 10))


def run(*command):
    done = subprocess.run([PROGRAM, *map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"FAILED: slmc {' '.join(map(str, command))}: {done.stderr}")


def ours(folder, output, ids):
    path = os.path.join(folder, "logits.npy")
    run("logits", output, "--ids", ",".join(map(str, ids)), "-o", path, "--activations", "f32", "--force")
    return np.load(path)


def decompressed(output, config, scheme, dtype):
    """compressed-tensors 0.20 expects unpacked zero points when transformers makes an empty model; its decompressor reads them."""
    del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    tensors = load_file(os.path.join(output, "model.safetensors"))
    state = {name: tensor for name, tensor in tensors.items() if name.endswith((".weight", ".bias"))}
    for name in tensors:
        stem, _, part = name.rpartition(".")
        if part == "weight_packed":
            parts = {key: tensors[f"{stem}.{key}"] for key in ("weight_packed", "weight_zero_point", "weight_shape")}
            parts["weight_scale"] = tensors[f"{stem}.weight_scale"].to(dtype)
            state[f"{stem}.weight"] = PackedQuantizationCompressor.decompress(parts, scheme)["weight"]
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
    model.tie_weights()
    return model


def theirs(output, prompts, dtype):
    config = AutoConfig.from_pretrained(output)
    group = config.quantization_config["config_groups"]["group_0"]
    if group["weights"]["symmetric"]:
        model = AutoModelForCausalLM.from_pretrained(output, dtype=dtype).eval()
    else:
        model = decompressed(output, config, QuantizationScheme(targets=["Linear"], weights=group["weights"]), dtype)
    with torch.no_grad():
        return [model(torch.tensor([ids])).logits[0].double().numpy() for ids in prompts]


def name_of(source, case):
    return f"{os.path.basename(source)} {' '.join(part for part in case if part != TEXT)}"


def difference(a, b):
    return float(np.abs(a - b).max())


def compare(source, case, folder):
    output = os.path.join(folder, "out")
    run("quantize", source, "-o", output, "--scheme", *case, "--force", "-q")
    expected = theirs(output, [IDS], torch.float32)[0]
    bound, beside = 1e-2, ""
    if "w8a8" in case or "--kv-type" in case:
        own = difference(expected, theirs(output, [IDS], torch.float64)[0])
        bound = max(bound, 1.5 * own)
        beside = f", whose float32 and float64 differ by {own:.2g}"
    found = difference(ours(folder, output, IDS), expected)
    if not found <= bound:
        sys.exit(f"FAILED: {name_of(source, case)}: logits differ by {found:.4g} from transformers'{beside}")
    print(f"{name_of(source, case)}: logits within {found:.2g} of transformers'{beside}", flush=True)


def compare_tokens(source, case, folder):
    """Tokens alone: nearly all without a step to the side."""
    output = os.path.join(folder, "out")
    run("quantize", source, "-o", output, "--scheme", *case, "--force", "-q")
    expected = theirs(output, [[token] for token in TOKENS], torch.float32)
    found = [difference(ours(folder, output, [token]), logits) for token, logits in zip(TOKENS, expected)]
    close = sum(item <= 1e-3 for item in found)
    if not (close >= 0.8 * len(TOKENS) and max(found) < 0.5):
        sys.exit(f"FAILED: {name_of(source, case)}: {close} of {len(TOKENS)} tokens within 1e-3 of transformers', at most {max(found):.4g}")
    print(f"{name_of(source, case)}: {close} of {len(TOKENS)} tokens within 1e-3 of transformers', at most {max(found):.2g}", flush=True)


SIZES = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 1024,
         "max_position_embeddings": 256, "initializer_range": 0.1, "pad_token_id": 0}
with tempfile.TemporaryDirectory() as folder:
    torch.manual_seed(1)
    for name, model in (("untied", LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=False, attention_bias=True))),
                        ("fused", Phi3ForCausalLM(Phi3Config(**SIZES)))):
        model.to(torch.bfloat16).save_pretrained(os.path.join(folder, name))
        for case in (["w4a16"], ["w4a16", "--group-size", "32", "--asymmetric"], ["w8a16"], ["w8a8"]):
            compare(os.path.join(folder, name), case, folder)
    if not os.path.isdir(MODEL):
        print("skipped: ../shared/models/medqa-8m is not there")
        sys.exit(0)
    for case in CASES + TEXT_CASES:
        compare(MODEL, case, folder)
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.bfloat16)
    model.model.layers = model.model.layers[:2]
    model.config.num_hidden_layers = 2
    short = os.path.join(folder, "medqa-2-layers")
    model.save_pretrained(short)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(os.path.join(MODEL, name), short)
    for case in [["w8a8"], *ROUNDED]:
        compare_tokens(short, case, folder)
