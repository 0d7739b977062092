"""`slmc finetune` against PEFT on a trained model, and its adapters in PEFT and llama.cpp.

The same adapter to begin with, the same windows in every step, AdamW of torch.optim: losses and trained A and B. Then PEFT loads slmc's folder and gives
the logits of slmc's merged model; llama.cpp with the adapter's GGUF gives the probabilities of the merged GGUF.
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

try:
    import numpy as np
    import peft
    import tokenizers
    import torch
    import torch.nn.functional as F
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

SLMC = pathlib.Path(os.environ.get("SLMC_BUILD", "build")) / "slmc"
SHARED = pathlib.Path(os.environ.get("SLMC_SOURCE_DIR", ".")).parent / "shared"
MODEL, TEXT = SHARED / "models/medqa-8m", SHARED / "corpora/medquad/test.txt"
if not MODEL.exists():
    print("skipped: ../shared/models/medqa-8m is absent")
    sys.exit(77)
STEPS, CONTEXT, RATE = 5, 64, 1e-3
failed = False


def slmc(*arguments):
    subprocess.run([SLMC, *map(str, arguments), "-q"], check=True)


def report(name, difference, bound):
    global failed
    failed |= not difference <= bound
    print(f"{name}: {difference:.2e}, at most {bound:.0e}: {'ok' if difference <= bound else 'FAILED'}")


def base():
    return AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)


def train_peft(start, ids, windows):
    model = peft.PeftModel.from_pretrained(base(), start, is_trainable=True)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=RATE, betas=(0.9, 0.95), weight_decay=0.01)
    data = torch.tensor(ids[: windows * CONTEXT + 1])
    x, y = data[:-1].view(-1, CONTEXT), data[1:].view(-1, CONTEXT)
    for _ in range(STEPS):
        loss = F.cross_entropy(model(x, use_cache=False).logits.flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
    return loss.item(), {name.replace(".default", ""): value.detach() for name, value in model.named_parameters() if "lora_" in name}


def llama_cpp(gguf, prompt, adapter=None):
    """The ten best first tokens and their log-probabilities."""
    import xllamacpp
    settings = xllamacpp.CommonParams()
    settings.model.path = str(gguf)
    settings.n_ctx = 128
    settings.warmup = False
    settings.verbosity = -1
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
    if adapter is not None:
        settings.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(adapter), 1.0)]
    answer = xllamacpp.Server(settings).handle_completions({"prompt": prompt, "n_predict": 1, "temperature": 0, "n_probs": 10, "cache_prompt": False,
                                                            "samplers": ["temperature"]})
    best = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    return [each["id"] for each in best], np.array([each["logprob"] for each in best])


with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    data = folder / "text.txt"
    data.write_text(TEXT.read_text()[:3000])
    ids = tokenizers.Tokenizer.from_file(str(MODEL / "tokenizer.json")).encode(data.read_text()).ids + [1]
    windows = (len(ids) - 1) // CONTEXT
    common = ["--data", data, "--context", CONTEXT, "--batch", windows, "--schedule", "constant", "--clip", 0.5, "--weight-decay", 0.01,
              "--no-isolate-documents"]
    slmc("finetune", MODEL, *common, "-o", folder / "start", "--steps", 1, "--lr", 0, "--lora", "r=4,alpha=8")
    slmc("finetune", MODEL, *common, "-o", folder / "ours", "--steps", STEPS, "--lr", RATE, "--init-adapter", folder / "start")
    loss, theirs = train_peft(folder / "start", ids, windows)
    ours = load_file(folder / "ours/adapter_model.safetensors")
    report("loss of the last step", abs(json.loads((folder / "ours/slmc_report.json").read_text())["training"]["final_loss"] - loss), 1e-4)
    # Adam's first steps move a value by about the rate whatever its gradient's size, so tiny gradients of either sign differ; the mean tells.
    report("mean difference of an A or B", max((ours[key] - theirs[key]).abs().mean().item() for key in theirs), 4e-6)
    assert ours.keys() == theirs.keys()

    slmc("finetune", MODEL, *common, "-o", folder / "strong", "--steps", 30, "--lr", 5e-3, "--lora", "r=4,alpha=8")
    slmc("convert", MODEL, "--adapter", folder / "strong", "-o", folder / "merged", "--dtype", "f32")
    slmc("logits", folder / "merged", "--ids", ",".join(map(str, ids[:60])), "-o", folder / "logits.npy")
    with torch.no_grad():
        model = peft.PeftModel.from_pretrained(base(), folder / "strong")
        expected = model(torch.tensor([ids[:60]])).logits[0].numpy()
        plain = base()(torch.tensor([ids[:60]])).logits[0].numpy()
    print(f"the adapter moves logits by up to {np.abs(plain - expected).max():.1f}")
    report("logits of PEFT with our adapter, and ours merged", np.abs(np.load(folder / "logits.npy") - expected).max(), 1e-3)

    try:
        import xllamacpp  # noqa: F401
    except ImportError:
        print("skipped: llama.cpp (xllamacpp is not installed)")
        sys.exit(1 if failed else 0)
    slmc("finetune", MODEL, *common, "-o", folder / "strong.gguf", "--steps", 1, "--lr", 0, "--init-adapter", folder / "strong")
    slmc("convert", MODEL, "-o", folder / "base.gguf", "--dtype", "f32")
    slmc("convert", folder / "merged", "-o", folder / "merged.gguf", "--dtype", "f32")
    prompt = data.read_text()[:120]
    best, values = llama_cpp(folder / "base.gguf", prompt, folder / "strong.gguf")
    merged_best, merged_values = llama_cpp(folder / "merged.gguf", prompt)
    assert best[:3] == merged_best[:3], (best, merged_best)
    report("log-probabilities of llama.cpp with the adapter's GGUF, and of the merged GGUF", np.abs(values - merged_values).max(), 1e-2)
sys.exit(1 if failed else 0)
