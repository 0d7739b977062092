"""`slmc distill` against PyTorch: the same student, the same windows in every step, AdamW of torch.optim; losses and trained weights.

Every step sees all windows, so the order of data does not matter. With and without a teacher, T = 2, a share of cross-entropy, decay, clipping.
"""
import json, os, subprocess, sys, tempfile

try:
    import safetensors.torch, tokenizers, torch
    import torch.nn.functional as F
    from transformers import AutoModelForCausalLM
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

shared = os.path.join(os.environ.get("SLMC_SOURCE_DIR", "."), "..", "shared")
model_path, text_path = os.path.join(shared, "models/medqa-8m"), os.path.join(shared, "corpora/medquad/test.txt")
if not os.path.exists(model_path):
    print("skipped: ../shared/models/medqa-8m is absent")
    sys.exit(77)

STEPS, CONTEXT, LAYERS, RATE = 4, 64, 3, 1e-3
torch.manual_seed(0)


def student():
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    total = len(model.model.layers)
    model.model.layers = torch.nn.ModuleList(model.model.layers[round(i * (total - 1) / (LAYERS - 1))] for i in range(LAYERS))
    for index, layer in enumerate(model.model.layers):
        layer.self_attn.layer_idx = index
    return model


def train_pytorch(ids, windows, distil):
    model, teacher = student(), AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32).eval()
    decayed = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}], lr=RATE, betas=(0.9, 0.95))
    data = torch.tensor(ids[: windows * CONTEXT + 1])
    x, y = data[:-1].view(-1, CONTEXT), data[1:].view(-1, CONTEXT)
    for _ in range(STEPS):
        logits = model(x, use_cache=False).logits.flatten(0, 1)
        loss = F.cross_entropy(logits, y.flatten())
        if distil:
            with torch.no_grad():
                target = (teacher(x, use_cache=False).logits.flatten(0, 1) / 2).log_softmax(-1)
            loss = 0.7 * 4 * F.kl_div((logits / 2).log_softmax(-1), target, log_target=True, reduction="batchmean") + 0.3 * loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
    return loss.item(), model.state_dict()


failed = False
with tempfile.TemporaryDirectory() as folder:
    text = open(text_path).read()[:3000]
    data = os.path.join(folder, "text.txt")
    open(data, "w").write(text)
    tokenizer = tokenizers.Tokenizer.from_file(os.path.join(model_path, "tokenizer.json"))
    ids = tokenizer.encode(text).ids + [1]
    windows = (len(ids) - 1) // CONTEXT
    for name, options in (("text", ["--loss", "cross_entropy"]), ("distil", ["--temperature", "2", "--ce-weight", "0.3"])):
        out = os.path.join(folder, name)
        subprocess.run([os.path.join(os.environ.get("SLMC_BUILD", "build"), "slmc"), "distill", "--teacher", model_path, "--student", f"layers:{LAYERS}",
                        "--data", data, "-o", out, "--steps", str(STEPS), "--batch", str(windows), "--context", str(CONTEXT), "--lr", str(RATE),
                        "--schedule", "constant", "--clip", "0.5", "--save-dtype", "f32", "-q", *options], check=True)
        loss, weights = train_pytorch(ids, windows, name == "distil")
        ours = json.load(open(os.path.join(out, "slmc_report.json")))["training"]["final_loss"]
        # AdamW's first steps move each weight by about the rate whatever its gradient's size, so tiny gradients of either sign differ; the mean tells.
        trained = safetensors.torch.load_file(os.path.join(out, "model.safetensors"))
        apart = max((trained[key] - weights[key]).abs().mean().item() for key in trained)
        ok = abs(ours - loss) <= 1e-4 * max(1, loss) and apart <= 2e-6
        failed |= not ok
        print(f"{name}: loss after {STEPS} steps {ours:.6f}, PyTorch {loss:.6f}; largest mean difference of a tensor {apart:.2e}: {'ok' if ok else 'FAILED'}")
sys.exit(1 if failed else 0)
