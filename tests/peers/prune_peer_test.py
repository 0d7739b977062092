"""What slmc prunes loads in transformers with the same logits, and 2:4 masks are those of a plain torch computation.

Reads ../shared/models/medqa-8m; prints what it skips.
"""
import os
import subprocess
import sys
import tempfile

import numpy as np
import torch
from transformers import AutoModelForCausalLM

PROGRAM = os.path.join(os.environ["SLMC_BUILD"], "slmc")
MODEL = os.path.join(os.environ["SLMC_SOURCE_DIR"], "..", "shared", "models", "medqa-8m")
IDS = [0, 401, 88, 1290, 77, 3021, 15, 909, 4444, 12, 7000, 256]


def prune(output, *options):
    subprocess.run([PROGRAM, "prune", MODEL, "-o", output, "-q", *options], check=True)
    return AutoModelForCausalLM.from_pretrained(output, dtype=torch.float32)


def check_logits(folder, model, what):
    path = os.path.join(folder, "logits.npy")
    subprocess.run([PROGRAM, "logits", os.path.join(folder, what), "--ids", ",".join(map(str, IDS)), "-o", path, "-q", "--force"], check=True)
    with torch.no_grad():
        expected = model(torch.tensor([IDS])).logits[0].numpy()
    difference = np.abs(np.load(path) - expected).max()
    assert difference < 1e-3, (what, difference)
    print(f"{what}: {sum(p.numel() for p in model.parameters())} parameters, logits within {difference:.1e} of transformers")


def check_neurons(full, pruned):
    """The neurons that stay are those of the largest group norm, in order."""
    for before, after in zip(full.model.layers, pruned.model.layers):
        parts = [before.mlp.gate_proj.weight, before.mlp.up_proj.weight, before.mlp.down_proj.weight.T]
        norms = sum((part.double() ** 2).sum(1) for part in parts)
        kept = torch.sort(torch.topk(norms, after.mlp.up_proj.weight.shape[0]).indices).values
        assert torch.equal(before.mlp.up_proj.weight[kept], after.mlp.up_proj.weight)
        assert torch.equal(before.mlp.down_proj.weight[:, kept], after.mlp.down_proj.weight)


def check_masks(full, two_four, half):
    names = [name for name, value in full.named_parameters() if ".layers." in name and value.dim() == 2]
    for name in names:
        weight = full.get_parameter(name).detach()
        groups = weight.abs().reshape(weight.shape[0], -1, 4)
        kept = torch.zeros_like(groups).scatter(2, torch.argsort(groups, dim=2, stable=True)[..., 2:], 1.0).reshape(weight.shape)
        assert torch.equal(weight * kept, two_four.get_parameter(name)), name
        order = torch.argsort(weight.abs().flatten(), stable=True)
        kept = torch.ones(weight.numel())
        kept[order[: weight.numel() // 2]] = 0
        assert torch.equal(weight * kept.reshape(weight.shape), half.get_parameter(name)), name
    print(f"2:4 and 0.5: masks of {len(names)} layers equal torch's")


def main():
    if not os.path.isdir(MODEL):
        print(f"skipped: {MODEL} is absent")
        sys.exit(77)
    full = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        narrow = prune(os.path.join(folder, "narrow"), "--ffn-ratio", "0.6")
        check_neurons(full, narrow)
        check_logits(folder, narrow, "narrow")
        shallow = prune(os.path.join(folder, "shallow"), "--layers", "5", "--ffn-ratio", "0.3", "--multiple", "32")
        check_logits(folder, shallow, "shallow")
        two_four = prune(os.path.join(folder, "two_four"), "--sparsity", "2:4")
        half = prune(os.path.join(folder, "half"), "--sparsity", "0.5")
        check_masks(full, two_four, half)
        check_logits(folder, half, "half")


main()
