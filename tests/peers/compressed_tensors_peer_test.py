"""Folders that `slmc quantize --scheme w4a16|w8a16|w8a8` writes, opened by transformers with the `compressed-tensors` package: the same logits as
slmc's own within 1e-2.

Reads ../shared/models/medqa-8m (tied) and makes small random models with a head of their own and with fused weights; prints what it skips.
"""
import importlib.util
import os
import subprocess
import sys
import tempfile

import numpy as np
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, Phi3Config, Phi3ForCausalLM

if importlib.util.find_spec("compressed_tensors") is None:
    print("skipped: the compressed-tensors package is not there")
    sys.exit(77)

PROGRAM = os.path.join(os.environ["SLMC_BUILD"], "slmc")
SHARED = os.path.join(os.environ["SLMC_SOURCE_DIR"], "..", "shared")
MODEL = os.path.join(SHARED, "models", "medqa-8m")
TEXT = os.path.join(SHARED, "corpora", "medquad", "calibration.txt")
IDS = [0, 313, 1011, 77, 400, 12, 900, 271, 31, 5, 640, 800, 222, 1, 99, 150]
GROUPS = [["--group-size", size] for size in ("32", "64", "128", "-1")]
CALIBRATED = ["--calibration", TEXT, "--calibration-tokens", "4096"]
CASES = [["w4a16", *group, *kind] for group in GROUPS for kind in ([], ["--asymmetric"])] + [["w8a16", *group] for group in GROUPS] + [["w8a8"]]
TEXT_CASES = [["w4a16", "--method", "gptq", *CALIBRATED], ["w8a8", "--observer", "minmax", *CALIBRATED],
              ["w8a8", "--method", "smoothquant", "--observer", "mse", *CALIBRATED]]


def run(*command):
    done = subprocess.run([PROGRAM, *map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"FAILED: slmc {' '.join(map(str, command))}: {done.stderr}")


def compare(source, case, folder):
    output, logits = os.path.join(folder, "out"), os.path.join(folder, "logits.npy")
    run("quantize", source, "-o", output, "--scheme", *case, "--force", "-q")
    run("logits", output, "--ids", ",".join(map(str, IDS)), "-o", logits, "--activations", "f32", "--force")
    model = AutoModelForCausalLM.from_pretrained(output, dtype=torch.float32).eval()
    with torch.no_grad():
        expected = model(torch.tensor([IDS])).logits[0].float().numpy()
    found = np.load(logits)
    difference = float(np.abs(found - expected).max())
    name = f"{os.path.basename(source)} {' '.join(part for part in case if part != TEXT)}"
    if not difference <= 1e-2:
        sys.exit(f"FAILED: {name}: logits differ by {difference:.4g} from transformers'")
    print(f"{name}: logits within {difference:.2g} of transformers'", flush=True)


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
