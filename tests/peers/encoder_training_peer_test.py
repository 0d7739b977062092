"""`slmc finetune` of a classifier against PyTorch: a new head on a masked language model, the same texts, or pairs of texts, in every step, AdamW of
torch.optim; losses, trained weights, and the written folder's logits in transformers. Every step sees all texts, so their order does not matter.
"""
import csv, json, os, subprocess, sys, tempfile

try:
    import numpy, safetensors.torch, torch
    import torch.nn.functional as F
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertForMaskedLM, DistilBertConfig, DistilBertForMaskedLM
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

shared = os.path.join(os.environ.get("SLMC_SOURCE_DIR", "."), "..", "shared")
tokenizer_path, texts_path = os.path.join(shared, "tokenizers/bert-uncased"), os.path.join(shared, "corpora/banking77/train.csv")
if not os.path.exists(tokenizer_path) or not os.path.exists(texts_path):
    print("skipped: ../shared/tokenizers/bert-uncased or ../shared/corpora/banking77 is absent")
    sys.exit(77)

slmc = os.path.join(os.environ.get("SLMC_BUILD", "build"), "slmc")
STEPS, RATE, LABELS, CONTEXT = 4, 1e-3, ["card_arrival", "card_linking", "exchange_rate"], 24
SIZES = {"bert": (BertForMaskedLM, BertConfig(num_hidden_layers=2, hidden_size=64, intermediate_size=96, num_attention_heads=4, vocab_size=30522,
                                              max_position_embeddings=64, initializer_range=0.1)),
         "distilbert": (DistilBertForMaskedLM, DistilBertConfig(n_layers=2, dim=64, hidden_dim=96, n_heads=4, max_position_embeddings=64, initializer_range=0.1))}
torch.manual_seed(0)
rows = [row for row in csv.DictReader(open(texts_path)) if row["category"] in LABELS]
rows = [row for label in LABELS for row in [r for r in rows if r["category"] == label][:12]]

texts = [row["text"] for row in rows]
seconds = [texts[(7 * i + 3) % len(texts)] for i in range(len(texts))]  # Of pairs; most pairs are longer than CONTEXT.


def train_pytorch(folder, tokenizer, pairs):
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()  # No dropout, as there.
    decayed, others = [p for p in model.parameters() if p.dim() > 1], [p for p in model.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}], lr=RATE, betas=(0.9, 0.95))
    batch = tokenizer(texts, seconds if pairs else None, padding=True, truncation=True, max_length=CONTEXT, return_tensors="pt")
    labels = torch.tensor([LABELS.index(row["category"]) for row in rows])
    for _ in range(STEPS):
        loss = F.cross_entropy(model(**batch).logits, labels)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
    return loss.item(), model.state_dict()


failed = False
with tempfile.TemporaryDirectory() as folder:
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_path)
    for (family, (kind, config)), pairs in ((case, pairs) for case in SIZES.items() for pairs in (False, True)):
        data = os.path.join(folder, "train.jsonl")
        with open(data, "w") as out:
            for row, second in zip(rows, seconds):
                out.write(json.dumps({"text": row["text"], **({"text_pair": second} if pairs else {}), "label": row["category"]}) + "\n")
        if pairs:
            family += "-pairs"
        base = os.path.join(folder, family)
        kind(config).save_pretrained(base)
        tokenizer.save_pretrained(base)

        def finetune(name, steps, rate):
            out = os.path.join(folder, f"{family}-{name}")
            subprocess.run([slmc, "finetune", base, "--full", "--data", data, "-o", out, "--steps", str(steps), "--batch", str(len(rows)), "--context", str(CONTEXT),
                            "--lr", str(rate), "--weight-decay", "0.1", "--schedule", "constant", "--clip", "0.5", "--save-dtype", "f32", "--seed", "7", "-q"], check=True)
            return out

        loss, weights = train_pytorch(finetune("start", 1, 0), tokenizer, pairs)
        out = finetune("trained", STEPS, RATE)
        ours = json.load(open(os.path.join(out, "slmc_report.json")))["training"]["final_loss"]
        # AdamW's first steps move each weight by about the rate whatever its gradient's size, so tiny gradients of either sign differ; the mean tells.
        trained = safetensors.torch.load_file(os.path.join(out, "model.safetensors"))
        # Keys' biases have no gradient but rounding: a softmax does not feel them.
        felt = [key for key in trained if not key.endswith(("key.bias", "k_lin.bias"))]
        apart = max((trained[key] - weights[key]).abs().mean().item() for key in felt)
        opened = AutoModelForSequenceClassification.from_pretrained(out, dtype=torch.float32).eval()
        one = tokenizer(texts[0], seconds[0] if pairs else None, return_token_type_ids=True)
        ids, types = one["input_ids"], one["token_type_ids"]
        given = {"token_type_ids": torch.tensor([types])} if family.startswith("bert") else {}
        npy = os.path.join(folder, f"{family}.npy")
        subprocess.run([slmc, "logits", out, "--ids", ",".join(map(str, ids)), "--types", ",".join(map(str, types)), "-o", npy, "-q"], check=True)
        with torch.no_grad():
            logits = numpy.abs(numpy.load(npy).flatten() - opened(torch.tensor([ids]), **given).logits[0].numpy()).max()
        named = [opened.config.id2label[i] for i in range(len(LABELS))] == LABELS
        ok = abs(ours - loss) <= 1e-4 * max(1, loss) and apart <= 4e-6 and logits <= 1e-4 and named
        failed |= not ok
        print(f"{family}: loss after {STEPS} steps {ours:.6f}, PyTorch {loss:.6f}; largest mean difference of a tensor {apart:.2e}; "
              f"logits in transformers {logits:.1e} apart, labels {'named' if named else 'LOST'}: {'ok' if ok else 'FAILED'}")
sys.exit(1 if failed else 0)
