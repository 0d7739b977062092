"""What `slmc finetune` tunes beside a model, in the packages whose files it writes: a prompt in PEFT, bottleneck adapters in `adapters`.

The logits of `slmc logits --adapter` against the package's with slmc's folder. `adapters` wants transformers 4: where it is not there, or where
SLMC_ADAPTERS_PYTHON does not name a Python that has it, that part is skipped.
"""
import os
import pathlib
import subprocess
import sys
import tempfile

try:
    import numpy as np
    import torch
    from transformers import AutoModelForCausalLM
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

SLMC = pathlib.Path(os.environ.get("SLMC_BUILD", "build")) / "slmc"
SHARED = pathlib.Path(os.environ.get("SLMC_SOURCE_DIR", ".")).parent / "shared"
MODEL, TEXT = SHARED / "models/medqa-8m", SHARED / "corpora/medquad/test.txt"
IDS = [(i * 2654435761 % 2**32 >> 8) % 4000 for i in range(60)]


def slmc(*arguments):
    subprocess.run([SLMC, *map(str, arguments), "-q"], check=True)


def compare(name, folder, model, plain):
    with torch.no_grad():
        theirs = model(torch.tensor([IDS]), use_cache=False).logits[0, -len(IDS):].numpy()
    slmc("logits", MODEL, "--adapter", folder, "--ids", ",".join(map(str, IDS)), "-o", folder / "logits.npy")
    apart, moved = np.abs(np.load(folder / "logits.npy") - theirs).max(), np.abs(plain - theirs).max()
    good = apart <= 1e-3 and moved > 0.5
    print(f"{name}: logits {apart:.2e} apart, at most 1e-03; it moves them by up to {moved:.1f}: {'ok' if good else 'FAILED'}")
    return good


def tuned(folder, *options):
    data = folder.parent / "text.txt"
    data.write_text(TEXT.read_text()[:3000])
    slmc("finetune", MODEL, "--data", data, "--context", 64, "--batch", 8, "--steps", 30, "-o", folder, *options)


def base():
    model = AutoModelForCausalLM.from_pretrained(MODEL)
    model = model.float().eval()
    with torch.no_grad():
        return model, model(torch.tensor([IDS])).logits[0].numpy()


def with_adapters():
    import adapters
    good = True
    with tempfile.TemporaryDirectory() as name:
        for kind in ("pfeiffer", "houlsby"):
            folder = pathlib.Path(name) / kind
            tuned(folder, "--adapter", f"reduction=8,kind={kind}", "--lr", 0.01)
            model, plain = base()
            adapters.init(model)
            model.load_adapter(str(folder), set_active=True, use_safetensors=True)
            good &= compare(f"adapters, {kind}", folder, model.eval(), plain)
    return good


def with_peft():
    import peft
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name) / "prompt"
        tuned(folder, "--prompt-tokens", 8, "--lr", 0.1)
        model, plain = base()
        return compare("PEFT, a prompt", folder, peft.PeftModel.from_pretrained(model, folder), plain)


if __name__ == "__main__":
    if not MODEL.exists():
        print("skipped: ../shared/models/medqa-8m is absent")
        sys.exit(77)
    if sys.argv[1:] == ["adapters"]:
        sys.exit(0 if with_adapters() else 1)
    good = with_peft()
    other = os.environ.get("SLMC_ADAPTERS_PYTHON")
    if other is None:
        print("skipped: bottleneck adapters (SLMC_ADAPTERS_PYTHON names no Python with the package adapters)")
    else:
        good &= subprocess.run([other, __file__, "adapters"]).returncode == 0
    sys.exit(0 if good else 1)
