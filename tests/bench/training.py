"""Speed and peak memory of training, beside a plain transformers + PyTorch loop, TRL's GKD trainer and PEFT.

  training.py distill|vocabulary|lora [--only NAME...] [--repeats 7] [--steps 4] [--scale 1.0] [--dtype bf16] [--json FILE]

distill:     4 of medqa-8m's 8 layers, forward KL against it, on MedQuAD.
vocabulary:  a student of 124M parameters with a vocabulary of 128k, its teacher of the same shape and twice the layers (random weights).
lora:        rank 8 on every matrix of the blocks of a 0.5B shape (random weights, bf16 file).
`--dtype bf16`: matrix products in bf16, weights in float32 (slmc's own option; autocast in the others). `--scale 0.1` shrinks the shapes of the
last two, to see that all of it runs. Needs torch, transformers, trl, peft; SLMC_BUILD, SLMC_SHARED as everywhere. Every trainer runs in a
process of its own with the same text, batch, context, threads and type of numbers; a short and a long run are made, and the difference
taken, so that start, tokenizing and writing are left out. Peak memory is the long run's.
"""
import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent.parent.parent
BUILD = pathlib.Path(os.environ.get("SLMC_BUILD", HERE / "build"))
SHARED = pathlib.Path(os.environ.get("SLMC_SHARED", HERE.parent / "shared"))
RATE = 1e-3
TRAINERS = {"distill": ["slmc", "pytorch", "trl"], "vocabulary": ["slmc", "pytorch", "trl"], "lora": ["slmc", "peft"]}
SHAPES = {"distill": dict(batch=16, context=256), "vocabulary": dict(batch=2, context=256), "lora": dict(batch=2, context=256)}

parser = argparse.ArgumentParser()
parser.add_argument("case", choices=TRAINERS)
parser.add_argument("--only", nargs="*"), parser.add_argument("--repeats", type=int, default=7)
parser.add_argument("--steps", type=int, default=4), parser.add_argument("--scale", type=float, default=1.0)
parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
parser.add_argument("--threads", type=int, default=os.cpu_count()), parser.add_argument("--json")
parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)  # TRAINER STEPS FOLDER
a = parser.parse_args()
BATCH, CONTEXT = SHAPES[a.case]["batch"], SHAPES[a.case]["context"]


def make_models(folder):
    """{"student", "teacher", "text"}: paths."""
    text = SHARED / "corpora/medquad/train.txt"
    trained = SHARED / "models/medqa-8m"
    if a.case == "distill":
        student = folder / "student"
        subprocess.run([BUILD / "slmc", "prune", trained, "-o", student, "--layers", "4", "-q"], check=True)
        return {"student": student, "teacher": trained, "text": text}
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
    size = lambda n: max(64, int(n * a.scale) // 64 * 64)
    if a.case == "vocabulary":  # 18 layers of 512 with 128k tied embeddings: 61M + 66M.
        shape = dict(hidden_size=size(512), intermediate_size=size(1536), num_attention_heads=8, num_key_value_heads=8, vocab_size=max(8192, int(128256 * a.scale)))
        models = {"student": 18, "teacher": 36}
        dtype = torch.float32
    else:  # Qwen2.5-0.5B's shape as a Llama.
        shape = dict(hidden_size=size(896), intermediate_size=size(4864), num_attention_heads=14 if a.scale == 1 else 4, num_key_value_heads=2,
                     vocab_size=max(8192, int(151936 * a.scale)))
        models = {"student": 24}
        dtype = torch.bfloat16
    paths = {"text": text}
    for name, layers in models.items():
        torch.manual_seed(1)
        config = LlamaConfig(num_hidden_layers=max(2, int(layers * a.scale)), tie_word_embeddings=True, max_position_embeddings=2048, **shape)
        LlamaForCausalLM(config).to(dtype).save_pretrained(folder / name)
        AutoTokenizer.from_pretrained(trained).save_pretrained(folder / name)
        paths[name] = folder / name
    return paths


def slmc_command(steps, paths, out):
    common = ["--data", paths["text"], "-o", out, "--steps", steps, "--batch", BATCH, "--context", CONTEXT, "--lr", RATE, "--schedule", "constant",
              "--threads", a.threads, "--dtype", a.dtype, "--force", "-q"]
    if a.case == "lora":
        command = ["finetune", paths["student"], "--lora", "r=8,alpha=16"]
    else:
        command = ["distill", "--teacher", paths["teacher"], "--student", paths["student"], "--loss", "forward_kl", "--ce-weight", 0]
    return [str(part) for part in [BUILD / "slmc", *command, *common]]


def windows(paths):
    import torch
    import tokenizers
    tokenizer = tokenizers.Tokenizer.from_file(str(pathlib.Path(paths["student"]) / "tokenizer.json"))
    ids = tokenizer.encode(pathlib.Path(paths["text"]).read_text()[:2_000_000]).ids
    count = (len(ids) - 1) // CONTEXT
    data = torch.tensor(ids[:count * CONTEXT + 1])
    return data[:-1].view(-1, CONTEXT), data[1:].view(-1, CONTEXT)


def load(path):
    import torch
    from transformers import AutoModelForCausalLM
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)


def loop(model, paths, steps, teacher=None):
    import torch
    import torch.nn.functional as F
    x, y = windows(paths)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=RATE, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    for step in range(steps):
        rows = slice(step * BATCH, (step + 1) * BATCH)
        with torch.autocast("cpu", torch.bfloat16, enabled=a.dtype == "bf16"):
            logits = model(x[rows], use_cache=False).logits.flatten(0, 1)
            if teacher is not None:
                with torch.no_grad():
                    target = teacher(x[rows], use_cache=False).logits.flatten(0, 1)
        if teacher is None:
            loss = F.cross_entropy(logits.float(), y[rows].flatten())
        else:
            logits, target = logits.float(), target.float().log_softmax(-1)
            loss = F.kl_div(logits.log_softmax(-1), target, log_target=True, reduction="batchmean")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


def run_pytorch(steps, paths):
    loop(load(paths["student"]), paths, steps, load(paths["teacher"]).eval())


def run_peft(steps, paths):
    from peft import LoraConfig, get_peft_model
    loop(get_peft_model(load(paths["student"]), LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")), paths, steps)


def run_trl(steps, paths):
    import torch
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl.experimental.gkd import GKDConfig, GKDTrainer
    x, _ = windows(paths)
    rows = x[:steps * BATCH]

    def collate(items):
        ids = torch.tensor([item["input_ids"] for item in items])
        return {"input_ids": ids, "labels": ids.clone(), "attention_mask": torch.ones_like(ids), "prompts": ids[:, :1], "prompt_attention_mask": torch.ones_like(ids[:, :1])}

    with tempfile.TemporaryDirectory() as folder:
        settings = GKDConfig(output_dir=folder, max_steps=steps, per_device_train_batch_size=BATCH, learning_rate=RATE, lmbda=0.0, beta=0.0, use_cpu=True,
                             report_to=[], save_strategy="no", logging_strategy="no", bf16=a.dtype == "bf16", gradient_checkpointing=False, disable_tqdm=True)
        GKDTrainer(model=load(paths["student"]), teacher_model=load(paths["teacher"]), args=settings, data_collator=collate,
                   train_dataset=Dataset.from_dict({"input_ids": rows.tolist()}), processing_class=AutoTokenizer.from_pretrained(paths["student"])).train()


def child(trainer, steps, paths):
    if trainer == "slmc":
        os.execv(BUILD / "slmc", slmc_command(steps, paths, pathlib.Path(paths["folder"]) / "out"))
    import torch
    torch.set_num_threads(a.threads)
    {"pytorch": run_pytorch, "trl": run_trl, "peft": run_peft}[trainer](steps, paths)


def measure(trainer, steps, paths, folder):
    """Wall seconds and peak resident bytes of one run."""
    (folder / "paths.json").write_text(json.dumps({**{key: str(value) for key, value in paths.items()}, "folder": str(folder)}))
    command = [sys.executable, __file__, a.case, "--threads", str(a.threads), "--dtype", a.dtype, "--child", trainer, str(steps), str(folder)]
    started = time.time()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    error = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"{trainer} failed:\n{error[-2000:]}")
    return time.time() - started, usage.ru_maxrss * 1024


def main():
    results = {}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        paths = make_models(folder)
        tokens = a.steps * BATCH * CONTEXT
        trainers = a.only or TRAINERS[a.case]
        speeds, peaks = {trainer: [] for trainer in trainers}, {trainer: [] for trainer in trainers}
        for _ in range(a.repeats):  # In turn, so that what the machine does besides meets them all.
            for trainer in trainers:
                short, _ = measure(trainer, 1, paths, folder)
                long, peak = measure(trainer, 1 + a.steps, paths, folder)
                speeds[trainer].append(tokens / max(long - short, 1e-9)), peaks[trainer].append(peak)
        for trainer in trainers:
            results[trainer] = {"tokens_per_second": statistics.median(speeds[trainer]), "slowest": min(speeds[trainer]), "fastest": max(speeds[trainer]), "peak_bytes": max(peaks[trainer])}
            print(f"{trainer:<8} {results[trainer]['tokens_per_second']:>9.0f} tokens/s ({min(speeds[trainer]):.0f} to {max(speeds[trainer]):.0f}), peak {max(peaks[trainer]) / 1e6:.0f} MB", flush=True)
    about = {"case": a.case, "batch": BATCH, "context": CONTEXT, "steps": a.steps, "repeats": a.repeats, "threads": a.threads, "scale": a.scale, "machine": platform.processor() or platform.machine()}
    if a.json:
        pathlib.Path(a.json).write_text(json.dumps({**about, "trainers": results}, indent=1) + "\n")
    peers = {name: result for name, result in results.items() if name != "slmc"}
    if "slmc" in results and peers:
        best = max(peers.values(), key=lambda result: result["tokens_per_second"])
        leanest = min(peers.values(), key=lambda result: result["peak_bytes"])
        print(f"slmc: {results['slmc']['tokens_per_second'] / best['tokens_per_second']:.2f} times the fastest peer's speed, "
              f"{results['slmc']['peak_bytes'] / leanest['peak_bytes']:.2f} of the leanest peer's memory")


if a.child:
    child(a.child[0], int(a.child[1]), json.loads((pathlib.Path(a.child[2]) / "paths.json").read_text()))
else:
    main()
