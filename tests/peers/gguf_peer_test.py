"""Holds slmc's GGUF against the `gguf` wheel (keys, tensors, block bytes), its safetensors against the `safetensors` wheel, and, where xllamacpp is
installed, checks that llama.cpp opens the file. Needs SLMC_BUILD (the build folder) and SLMC_SOURCE_DIR."""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

import gguf
import numpy as np
from safetensors.numpy import load_file, save_file

SLMC = pathlib.Path(os.environ["SLMC_BUILD"]) / "slmc"
SHARED = pathlib.Path(os.environ["SLMC_SOURCE_DIR"]).parent / "shared" / "models"


def slmc(*arguments):
    result = subprocess.run([SLMC, *map(str, arguments)], capture_output=True, text=True)
    if result.returncode != 0:
        raise AssertionError(f"slmc {arguments}: exit {result.returncode}: {result.stderr}")
    return result.stdout


def write_llama(folder, rng, heads=4, kv_heads=2, dim=16, hidden=64, ffn=96, layers=2, vocab=320, rope=None):
    folder.mkdir(parents=True)
    weights = {"model.embed_tokens.weight": (vocab, hidden), "model.norm.weight": (hidden,), "lm_head.weight": (vocab, hidden)}
    for i in range(layers):
        at = f"model.layers.{i}."
        weights |= {at + "input_layernorm.weight": (hidden,), at + "post_attention_layernorm.weight": (hidden,),
                    at + "self_attn.q_proj.weight": (heads * dim, hidden), at + "self_attn.k_proj.weight": (kv_heads * dim, hidden),
                    at + "self_attn.v_proj.weight": (kv_heads * dim, hidden), at + "self_attn.o_proj.weight": (hidden, heads * dim),
                    at + "mlp.gate_proj.weight": (ffn, hidden), at + "mlp.up_proj.weight": (ffn, hidden), at + "mlp.down_proj.weight": (hidden, ffn)}
    weights = {name: (rng.standard_normal(shape) * 0.3).astype(np.float32) for name, shape in weights.items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    config = dict(architectures=["LlamaForCausalLM"], model_type="llama", hidden_size=hidden, intermediate_size=ffn, num_hidden_layers=layers,
                  num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=dim, vocab_size=vocab, max_position_embeddings=256, rms_norm_eps=1e-5,
                  tie_word_embeddings=False, rope_theta=10000.0, rope_scaling=rope)
    (folder / "config.json").write_text(json.dumps(config))
    return weights


def canonical(name):
    """GGUF's name for a Hugging Face llama tensor, by the wheel's own table."""
    table = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 64)
    return table.get_name(name, try_suffixes=(".weight", ".bias"))


def interleave(weight, heads):
    """Row order of llama.cpp's converter."""
    return weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


class GgufPeer(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.root = pathlib.Path(self.folder.name)
        self.addCleanup(self.folder.cleanup)

    def test_keys_and_tensors_read_back(self):
        llama3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64)
        weights = write_llama(self.root / "m", np.random.default_rng(1), rope=llama3)
        slmc("convert", self.root / "m", "-o", self.root / "m.gguf")
        reader = gguf.GGUFReader(self.root / "m.gguf")
        value = lambda key: reader.get_field(key).contents()
        self.assertEqual(value("general.architecture"), "llama")
        self.assertEqual(value("llama.block_count"), 2)
        self.assertEqual(value("llama.attention.head_count_kv"), 2)
        self.assertEqual(value("llama.rope.dimension_count"), 16)
        self.assertAlmostEqual(value("llama.attention.layer_norm_rms_epsilon"), 1e-5, delta=1e-12)
        self.assertEqual(value("general.file_type"), 0)
        found = {tensor.name: tensor for tensor in reader.tensors}
        self.assertEqual(set(found), {canonical(name) for name in weights} | {"rope_freqs.weight"})
        for name, weight in weights.items():
            expected = interleave(weight, 4) if "q_proj" in name else interleave(weight, 2) if "k_proj" in name else weight
            np.testing.assert_array_equal(found[canonical(name)].data, expected, err_msg=name)
        # llama.cpp's converter computes the factors in double; see its generate_extra_tensors.
        frequencies = 1.0 / (10000.0 ** (np.arange(0, 16, 2) / 16))
        wavelengths = 2 * np.pi / frequencies
        smooth = (64 / wavelengths - 1.0) / 3.0
        factors = np.where(wavelengths < 16, 1.0, np.where(wavelengths > 64, 8.0, 1 / ((1 - smooth) / 8.0 + smooth)))
        np.testing.assert_allclose(found["rope_freqs.weight"].data, factors, rtol=1e-5)

    def test_safetensors_read_back(self):
        weights = write_llama(self.root / "m", np.random.default_rng(2))
        slmc("convert", self.root / "m", "-o", self.root / "n", "--dtype", "f16")
        written = load_file(self.root / "n" / "model.safetensors")
        self.assertEqual(set(written), set(weights))
        for name, weight in weights.items():
            np.testing.assert_array_equal(written[name], weight.astype(np.float16), err_msg=name)

    def quantized(self, scheme, kind):
        weights = write_llama(self.root / scheme, np.random.default_rng(3))
        try:
            slmc("quantize", self.root / scheme, "-o", self.root / f"{scheme}.gguf", "--scheme", scheme)
        except AssertionError as error:
            self.skipTest(f"quantize is not there: {error}")
        reader = gguf.GGUFReader(self.root / f"{scheme}.gguf")
        compared = 0
        for tensor in reader.tensors:
            if tensor.tensor_type != kind:
                continue
            name = next(hf for hf in weights if canonical(hf) == tensor.name)
            weight = interleave(weights[name], 4) if "q_proj" in name else interleave(weights[name], 2) if "k_proj" in name else weights[name]
            np.testing.assert_array_equal(tensor.data, gguf.quants.quantize(weight, kind), err_msg=name)
            compared += 1
        self.assertGreaterEqual(compared, 14)

    def test_q8_0_bytes(self):
        self.quantized("q8_0", gguf.GGMLQuantizationType.Q8_0)

    def test_q4_0_bytes(self):
        self.quantized("q4_0", gguf.GGMLQuantizationType.Q4_0)

    def test_real_model_is_carried_whole(self):
        model = SHARED / "medqa-8m"
        if not model.exists():
            self.skipTest(f"{model} is not there")
        slmc("convert", model, "-o", self.root / "m.gguf", "--dtype", "f16")
        reader = gguf.GGUFReader(self.root / "m.gguf")
        self.assertEqual(reader.get_field("tokenizer.ggml.pre").contents(), "llama-bpe")
        self.assertEqual(len(reader.get_field("tokenizer.ggml.tokens").contents()), 8192)
        self.assertEqual(reader.get_field("general.file_type").contents(), 1)
        slmc("convert", self.root / "m.gguf", "-o", self.root / "back")
        for name in ("tokenizer.json", "config.json"):
            before, after = (json.loads((folder / name).read_text()) for folder in (model, self.root / "back"))
            before.pop("dtype", None), after.pop("dtype", None)
            self.assertEqual(before, after, name)

    def test_llama_cpp_opens_it(self):
        try:
            import xllamacpp
        except ImportError:
            sys.path.append(os.path.expanduser("~/.cache/slmc-peers"))
            try:
                import xllamacpp
            except ImportError as error:
                self.skipTest(f"xllamacpp: {error}")
        model = SHARED / "medqa-8m"
        if not model.exists():
            self.skipTest(f"{model} is not there")
        slmc("convert", model, "-o", self.root / "m.gguf", "--dtype", "f16")
        params = xllamacpp.CommonParams()
        params.model.path = str(self.root / "m.gguf")
        params.n_ctx = 256
        params.warmup = False
        server = xllamacpp.Server(params)
        answer = server.handle_completions({"prompt": "What is", "max_tokens": 8, "temperature": 0})
        self.assertTrue(answer["choices"][0]["text"] if isinstance(answer, dict) else answer)


if __name__ == "__main__":
    unittest.main(verbosity=2)
