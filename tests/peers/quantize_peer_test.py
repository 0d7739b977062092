"""The bytes that `--method reference` writes for types of blocks of 32 equal those of the gguf package's quantizer, and llama.cpp runs every
mix's file.

Reads ../shared/models/medqa-8m; prints what it skips.
"""
import json
import os
import subprocess
import sys
import tempfile

import gguf
import numpy as np
from safetensors import safe_open

PROGRAM = os.path.join(os.environ["SLMC_BUILD"], "slmc")
MODEL = os.path.join(os.environ["SLMC_SOURCE_DIR"], "..", "shared", "models", "medqa-8m")
HF_NAMES = {
    "attn_norm.weight": "input_layernorm.weight", "ffn_norm.weight": "post_attention_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight", "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight", "attn_output.weight": "self_attn.o_proj.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight", "ffn_up.weight": "mlp.up_proj.weight", "ffn_down.weight": "mlp.down_proj.weight",
}


def source_tensor(weights, config, name):
    """The float32 values that llama.cpp's converter would hand to its quantizer under this name."""
    if name == "token_embd.weight":
        return weights.get_tensor("model.embed_tokens.weight").float().numpy()
    if name == "output_norm.weight":
        return weights.get_tensor("model.norm.weight").float().numpy()
    _, layer, part = name.split(".", 2)
    data = weights.get_tensor(f"model.layers.{layer}.{HF_NAMES[part]}").float().numpy()
    if part in ("attn_q.weight", "attn_k.weight"):  # The rotary order of llama.cpp.
        heads = config["num_attention_heads" if part == "attn_q.weight" else "num_key_value_heads"]
        data = data.reshape(heads, 2, data.shape[0] // heads // 2, data.shape[1]).swapaxes(1, 2).reshape(data.shape)
    return np.ascontiguousarray(data)


REFERENCED = {"Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "F32", "F16", "BF16"}  # What the gguf package can quantize.
MIXES = ["q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q2_k", "q3_k_s", "q3_k_m", "q3_k_l", "q4_k_s", "q4_k_m", "q5_k_s", "q5_k_m", "q6_k", "iq4_nl",
         "iq4_xs"]


def check_bytes(path, scheme):
    config = json.load(open(os.path.join(MODEL, "config.json")))
    counts = {}
    with safe_open(os.path.join(MODEL, "model.safetensors"), "pt") as weights:
        for tensor in gguf.GGUFReader(path).tensors:
            kind = gguf.GGMLQuantizationType(tensor.tensor_type)
            if kind.name not in REFERENCED:
                continue
            expected = gguf.quants.quantize(source_tensor(weights, config, tensor.name), kind)
            found = np.asarray(tensor.data).view(np.uint8).reshape(-1)
            if not np.array_equal(found, np.ascontiguousarray(expected).view(np.uint8).reshape(-1)):
                sys.exit(f"FAILED: {scheme}: {tensor.name} ({kind.name}) differs from the gguf package's bytes")
            counts[kind.name] = counts.get(kind.name, 0) + 1
    assert counts.get(scheme.upper(), 0) > 0, counts
    print(f"{scheme}: bytes equal to gguf {gguf.__name__} for {counts}")


def check_llama_cpp(path, scheme):
    try:
        import xllamacpp
    except ImportError:
        print("skipped: xllamacpp is not installed")
        return
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.n_ctx = 256
    params.n_predict = 24
    params.cpuparams.n_threads = 2
    params.sampling.temp = 0
    server = xllamacpp.Server(params)
    answer = server.handle_completions({"prompt": "What is diabetes?", "max_tokens": 24, "temperature": 0, "ignore_eos": True})
    answer = json.loads(answer) if isinstance(answer, str) else answer
    text = answer["choices"][0]["text"]
    assert len(text.strip()) > 10, answer
    print(f"{scheme}: llama.cpp continues with {text!r}")


def main():
    if not os.path.isdir(MODEL):
        print(f"skipped: {MODEL} is absent")
        sys.exit(77)
    with tempfile.TemporaryDirectory() as folder:
        for scheme in MIXES:
            path = os.path.join(folder, scheme + ".gguf")
            base = [PROGRAM, "quantize", MODEL, "-o", path, "--scheme", scheme, "-q", "--force"]
            if scheme.upper() in REFERENCED:
                subprocess.run(base + ["--method", "reference"], check=True)
                check_bytes(path, scheme)
            subprocess.run(base, check=True)
            check_llama_cpp(path, scheme)


main()
