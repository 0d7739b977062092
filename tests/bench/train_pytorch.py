"""Training speed of plain PyTorch (transformers' model, torch.optim.AdamW) beside `slmc distill` on the same model, text and batch.

  train_pytorch.py SLMC MODEL TEXT [--layers 4] [--steps 8] [--batch 16] [--context 256] [--teacher]

Needs torch, transformers, tokenizers. Prints tokens/s by the wall and by processor time; the latter does not depend on what else runs.
"""
import argparse, json, os, resource, subprocess, tempfile, time

parser = argparse.ArgumentParser()
parser.add_argument("slmc"), parser.add_argument("model"), parser.add_argument("text")
parser.add_argument("--layers", type=int, default=4), parser.add_argument("--steps", type=int, default=8)
parser.add_argument("--batch", type=int, default=16), parser.add_argument("--context", type=int, default=256)
parser.add_argument("--teacher", action="store_true", help="distil with forward KL; else the text alone")
a = parser.parse_args()


def processor(who):
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def slmc_run(steps, folder):
    out = os.path.join(folder, f"out{steps}")
    before, wall = processor(resource.RUSAGE_CHILDREN), time.time()
    subprocess.run([a.slmc, "distill", "--teacher", a.model, "--student", f"layers:{a.layers}", "--data", a.text, "-o", out, "--steps", str(steps),
                    "--batch", str(a.batch), "--context", str(a.context), "--schedule", "constant", "--loss", "forward_kl" if a.teacher else "cross_entropy",
                    "-q"], check=True, stdout=subprocess.DEVNULL)
    report = json.load(open(os.path.join(out, "slmc_report.json")))
    return processor(resource.RUSAGE_CHILDREN) - before, report["training"]["training_seconds"], report["training"]["final_loss"]


def slmc_speed():
    # The difference of a long and a short run leaves out start, tokenizing and writing.
    with tempfile.TemporaryDirectory() as folder:
        short, long = slmc_run(2, folder), slmc_run(2 + a.steps, folder)
    return long[0] - short[0], long[1] - short[1], long[2]


def pytorch_speed():
    import torch, tokenizers
    import torch.nn.functional as F
    from transformers import AutoModelForCausalLM
    text = open(a.text).read()[:4_000_000]
    ids = tokenizers.Tokenizer.from_file(os.path.join(a.model, "tokenizer.json")).encode(text).ids
    model = AutoModelForCausalLM.from_pretrained(a.model, dtype=torch.float32)
    teacher = AutoModelForCausalLM.from_pretrained(a.model, dtype=torch.float32).eval() if a.teacher else None
    total = len(model.model.layers)
    keep = [round(i * (total - 1) / (a.layers - 1)) for i in range(a.layers)]
    model.model.layers = torch.nn.ModuleList(model.model.layers[i] for i in keep)
    for i, layer in enumerate(model.model.layers):
        layer.self_attn.layer_idx = i
    model.config.num_hidden_layers = a.layers
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    data = torch.tensor(ids[:1 + (len(ids) - 1) // a.context * a.context])
    x, y = data[:-1].view(-1, a.context), data[1:].view(-1, a.context)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    started = cpu = 0
    for step in range(2 + a.steps):
        if step == 2:
            started, cpu = time.time(), processor(resource.RUSAGE_SELF)
        rows = order[step * a.batch:(step + 1) * a.batch]
        logits = model(x[rows], use_cache=False).logits.flatten(0, 1)
        if teacher is None:
            loss = F.cross_entropy(logits, y[rows].flatten())
        else:
            with torch.no_grad():
                target = teacher(x[rows], use_cache=False).logits.flatten(0, 1).log_softmax(-1)
            loss = 0.9 * F.kl_div(logits.log_softmax(-1), target, log_target=True, reduction="batchmean") + 0.1 * F.cross_entropy(logits, y[rows].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return processor(resource.RUSAGE_SELF) - cpu, time.time() - started, loss.item()


tokens = a.steps * a.batch * a.context
print(f"{'trainer':<8} {'tokens/s':>9} {'tokens/processor-s':>19} {'loss':>8}")
for name, speed in (("slmc", slmc_speed), ("pytorch", pytorch_speed)):
    cpu, wall, loss = speed()
    print(f"{name:<8} {tokens / wall:>9.0f} {tokens / cpu:>19.0f} {loss:>8.4f}")
