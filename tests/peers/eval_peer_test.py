"""Perplexity and divergence of `slmc eval` against PyTorch in double precision, and against llama.cpp where it is installed.

Needs the trained model and the texts of ../shared. Students are weights rounded by the `gguf` wheel's quantizers and written back as a
Hugging Face folder, and files that slmc quantized, which PyTorch gets through the `gguf` wheel's reader.
"""

import json
import math
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

BUILD = pathlib.Path(os.environ.get("SLMC_BUILD", "build"))
SOURCE = pathlib.Path(os.environ.get("SLMC_SOURCE_DIR", "."))
SHARED = SOURCE / ".." / "shared"
MODEL = SHARED / "models" / "medqa-8m"
TEXT = SHARED / "corpora" / "medquad" / "test.txt"
LLAMA = pathlib.Path(os.environ.get("PEERS", pathlib.Path.home() / ".cache" / "slmc-peers")) / "llama.cpp" / "llama-perplexity"
failures = []


def check(what, found, expected, tolerance):
    good = abs(found - expected) <= tolerance
    print(f"{'ok  ' if good else 'FAIL'} {what}: slmc {found:.8g}, expected {expected:.8g} within {tolerance:.2g}")
    if not good:
        failures.append(what)


def slmc(*arguments):
    result = subprocess.run([BUILD / "slmc", *map(str, arguments), "--json", "-", "-q"], capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(f"slmc {' '.join(map(str, arguments))}: exit {result.returncode}: {result.stderr}")
    return json.loads(result.stdout)


def rounded_copy(folder, kind):
    """MODEL with every matrix rounded to `kind`, as float32."""
    import gguf
    from safetensors.torch import load_file, save_file
    import torch

    tensors = load_file(MODEL / "model.safetensors")
    quantization = gguf.GGMLQuantizationType[kind]
    for name, tensor in tensors.items():
        values = tensor.to(torch.float32)
        if values.dim() == 2:
            packed = gguf.quants.quantize(values.numpy(), quantization)
            values = torch.from_numpy(gguf.quants.dequantize(packed, quantization).copy())
        tensors[name] = values.contiguous()
    folder.mkdir()
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(MODEL / file, folder / file)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def load_gguf(model, file):
    """Puts the decoded tensors of a llama GGUF into a model of transformers, rotary rows back in halves."""
    import gguf
    import torch

    names = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
             "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm",
             "ffn_norm": "post_attention_layernorm"}
    tensors = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight", "output.weight": "lm_head.weight"}
    state = model.state_dict()
    for tensor in gguf.GGUFReader(file).tensors:
        name = tensors.get(tensor.name)
        if not name:
            _, layer, kind, _ = tensor.name.split(".")
            name = f"model.layers.{layer}.{names[kind]}.weight"
        values = torch.from_numpy(gguf.quants.dequantize(tensor.data, tensor.tensor_type).copy()).double().reshape(state[name].shape)
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            heads = values.shape[0] // model.config.head_dim
            values = values.reshape(heads, -1, 2, values.shape[1]).transpose(1, 2).reshape(values.shape)
        state[name].copy_(values)
    return model


def double_model(folder):
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").to(torch.float64).eval()


def expected_figures(teacher, student, ids, context, first_scored, bos):
    """Per-token figures in double, from the definition."""
    import torch

    nll, kld, same = [], [], []
    with torch.no_grad():
        for begin in range(0, len(ids) - context + 1, context):
            window = torch.tensor([ids[begin : begin + context]])
            if bos is not None:
                window[0, 0] = bos
            p = torch.log_softmax(teacher(window).logits[0], -1)[first_scored - 1 : -1]
            q = torch.log_softmax(student(window).logits[0], -1)[first_scored - 1 : -1]
            nll.append(-q.gather(1, window[0, first_scored:, None])[:, 0])
            kld.append((p.exp() * (p - q)).sum(-1))
            same.append((p.argmax(-1) == q.argmax(-1)).double())
    return torch.cat(nll), torch.cat(kld), torch.cat(same)


def compare_with_torch(work):
    from tokenizers import Tokenizer

    ids = Tokenizer.from_file(str(MODEL / "tokenizer.json")).encode(TEXT.open(newline="").read()).ids[:2048]
    teacher = double_model(MODEL)
    students = []
    for kind in ("Q8_0", "Q4_0"):
        folder = rounded_copy(work / kind, kind)
        students.append((f"{kind} folder", folder, double_model(folder)))
        file = work / f"{kind}.gguf"
        slmc("quantize", MODEL, "-o", file, "--scheme", kind.lower())
        students.append((f"{kind} GGUF", file, load_gguf(double_model(MODEL), file)))
    for kind, folder, student in students:
        for protocol, first_scored, bos in (("window", 1, None), ("llama.cpp", 257, 0)):
            nll, kld, same = expected_figures(teacher, student, ids, 512, first_scored, bos)
            report = slmc("eval", folder, "--against", MODEL, "--text", TEXT, "--context", 512, "--max-tokens", 2048, "--protocol", protocol,
                          "--activations", "f32")
            name, against = f"{kind}, {protocol}", report["against"]
            assert report["scored_tokens"] == len(nll), (report["scored_tokens"], len(nll))
            perplexity = math.exp(nll.mean())
            # The runtime works in float32: its logits differ from double's by about 1e-5 here, and divergences by their square root times it.
            check(f"{name}: perplexity", report["perplexity"], perplexity, 1e-5 * perplexity)
            check(f"{name}: its standard error", report["perplexity_se"], perplexity * float(nll.std()) / math.sqrt(len(nll)), 1e-4 * perplexity)
            check(f"{name}: mean KLD", against["kld_mean"], float(kld.mean()), 1e-4 * float(kld.mean()) + 1e-9)
            check(f"{name}: its standard error", against["kld_se"], float(kld.std()) / math.sqrt(len(kld)), 1e-3 * float(kld.mean()))
            check(f"{name}: median KLD", against["kld_median"], float(kld.quantile(0.5)), 1e-3 * float(kld.mean()))
            check(f"{name}: 99th percentile", against["kld_p99"], float(kld.quantile(0.99)), 1e-3 * float(kld.quantile(0.99)))
            check(f"{name}: largest KLD", against["kld_max"], float(kld.max()), 1e-3 * float(kld.max()))
            check(f"{name}: top-1 agreement", against["top1_agreement"], float(same.mean()), 1.01 / len(same))  # One near tie may fall either way.


def compare_with_golden():
    """golden.json's figures are of the same texts tokenized without BOS, which shifts every window by one token."""
    golden = json.loads((MODEL / "golden.json").read_text())["perplexity_window_512"]
    for name, figures in golden.items():
        report = slmc("eval", MODEL, "--text", SHARED / "corpora" / name, "--context", 512, "--max-tokens", 80000, "--activations", "f32")
        check(f"{name}: scored tokens", report["scored_tokens"], figures["positions"], 0)
        check(f"{name}: perplexity", report["perplexity"], figures["perplexity"], 2e-3 * figures["perplexity"])


def compare_with_llama(work):
    if not LLAMA.exists():
        print(f"skipped: llama.cpp's protocol against llama-perplexity: {LLAMA} is not there")
        return
    import re

    file = work / "medqa.gguf"
    slmc("convert", MODEL, "-o", file, "--dtype", "f32")
    text = work / "text.txt"
    text.write_text(TEXT.read_text()[:60000])
    command = [LLAMA, "-m", file, "-f", text, "-c", "512", "-b", "512", "--no-warmup", "-ctk", "f32", "-ctv", "f32"]
    for _ in range(5):  # Its logger may lose the last lines when it ends.
        output = subprocess.run(command, capture_output=True, text=True, check=True)
        found = re.search(r"Final estimate: PPL = ([0-9.]+)", output.stdout + output.stderr)
        if found:
            break
    else:
        sys.exit("llama-perplexity did not print its estimate in five runs")
    report = slmc("eval", file, "--text", text, "--context", 512, "--protocol", "llama.cpp", "--activations", "f32")
    check("llama.cpp's own perplexity", report["perplexity"], float(found.group(1)), 2e-3 * report["perplexity"])  # It prints 4 decimals and rounds activations.


def main():
    if not MODEL.is_dir():
        print(f"skipped: {MODEL} is not there")
        sys.exit(77)
    with tempfile.TemporaryDirectory() as folder:
        compare_with_torch(pathlib.Path(folder))
        compare_with_llama(pathlib.Path(folder))
    compare_with_golden()
    if failures:
        sys.exit(f"{len(failures)} of the comparisons failed")


if __name__ == "__main__":
    main()
