"""llama.cpp loads every family's GGUF and computes what slmc computes: at f16 logits within 5e-2 and the same greedy tokens up to the first
near-tie, pooled embeddings and class scores of encoders within 1e-2. transformers loads what comes back.

Checkpoints are made here: random weights at the usual spread, in every shape that the families have, with a tokenizer of letters (WordPiece for
encoders). Prompts stay inside windows that llama.cpp does not implement.
"""
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile
import unicodedata
import unittest
import urllib.request

import numpy as np
import tokenizers
import torch
import transformers

SLMC = pathlib.Path(os.environ["SLMC_BUILD"]) / "slmc"
FIXTURES = pathlib.Path(__file__).parent.parent / "fixtures" / "tokenizer"
NEAR = 0.05
GREEDY = 24
PROMPT = [5, 17, 99, 42, 7, 211, 30, 64, 128, 200, 3, 77, 150, 8, 60, 33, 90, 250, 14, 181]


def slmc(*arguments):
    result = subprocess.run([SLMC, *map(str, arguments), "--json", "-"], capture_output=True, text=True)
    if result.returncode:
        raise AssertionError(f"slmc {' '.join(map(str, arguments))[:200]}: exit {result.returncode}: {result.stderr}")
    return json.loads(result.stdout)


def letter_tokenizer(folder):
    """256 letters and pairs of letters and two special tokens, GPT-2's pattern. No bytes: llama.cpp's server leaves out of its answers what ends
    no character."""
    letters = [chr(97 + i) for i in range(26)]
    words = letters + [a + b for a in letters for b in letters]
    vocab = {word: i for i, word in enumerate(words[:256])} | {"<s>": 256, "</s>": 257}
    merges = [(word[0], word[1]) for word in words[26:256]]
    model = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocab, merges=merges))
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = tokenizers.decoders.ByteLevel()
    model.add_special_tokens(["<s>", "</s>"])
    transformers.PreTrainedTokenizerFast(tokenizer_object=model, bos_token="<s>", eos_token="</s>").save_pretrained(folder)


def word_tokenizer(folder):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + [chr(97 + i) for i in range(26)] + ["##" + chr(97 + i) for i in range(26)]
    vocab = {word: i for i, word in enumerate(words)}
    model = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocab=vocab, unk_token="[UNK]"))
    model.normalizer = tokenizers.normalizers.BertNormalizer()
    model.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    model.post_processor = tokenizers.processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    model.decoder = tokenizers.decoders.WordPiece()
    transformers.PreTrainedTokenizerFast(tokenizer_object=model, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
                                         mask_token="[MASK]").save_pretrained(folder)
    return len(words)


COMMON = dict(vocab_size=258, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
              max_position_embeddings=512, bos_token_id=256, eos_token_id=257, pad_token_id=None, initializer_range=0.12)
GEMMA = dict(COMMON, head_dim=16, query_pre_attn_scalar=20, sliding_window=8, pad_token_id=0)
LONGROPE = dict(rope_type="longrope", rope_theta=1e4, partial_rotary_factor=0.75,
                short_factor=[1.0, 1.1, 1.3, 1.6, 2.0, 2.5], long_factor=[1.0, 2.0, 4.0, 8.0, 16.0, 32.0])
DECODERS = {
    "llama": ("LlamaForCausalLM", dict(COMMON, tie_word_embeddings=False)),
    "llama_llama3": ("LlamaForCausalLM", dict(COMMON, rope_parameters=dict(rope_type="llama3", rope_theta=1e4, factor=8.0, low_freq_factor=1.0,
                                                                           high_freq_factor=4.0, original_max_position_embeddings=64))),
    "mistral": ("MistralForCausalLM", dict(COMMON, sliding_window=64)),
    "qwen2": ("Qwen2ForCausalLM", dict(COMMON, tie_word_embeddings=True)),
    "qwen2_yarn": ("Qwen2ForCausalLM", dict(COMMON, rope_parameters=dict(rope_type="yarn", rope_theta=1e4, factor=4.0,
                                                                         original_max_position_embeddings=128))),
    "llama_yarn": ("LlamaForCausalLM", dict(COMMON, rope_parameters=dict(rope_type="yarn", rope_theta=1e4, factor=4.0, attention_factor=0.8,
                                                                         original_max_position_embeddings=128))),
    "qwen3": ("Qwen3ForCausalLM", dict(COMMON, head_dim=24)),
    # llama.cpp chooses longrope's factors by its context, which it makes a multiple of 256; slmc by the sequence's length.
    "phi3": ("Phi3ForCausalLM", dict(COMMON, original_max_position_embeddings=256, sliding_window=100, rope_parameters=LONGROPE)),
    "phi3_long": ("Phi3ForCausalLM", dict(COMMON, original_max_position_embeddings=64, sliding_window=None, rope_parameters=LONGROPE)),
    "gemma2": ("Gemma2ForCausalLM", dict(GEMMA, attn_logit_softcapping=10.0, final_logit_softcapping=20.0)),
    "gemma2_pattern": ("Gemma2ForCausalLM", dict(GEMMA, layer_types=["full_attention", "sliding_attention", "sliding_attention"])),
    "gemma3": ("Gemma3ForCausalLM", dict(GEMMA, layer_types=["sliding_attention", "full_attention", "sliding_attention"], rope_parameters={
        "full_attention": dict(rope_type="linear", factor=8.0, rope_theta=1e5), "sliding_attention": dict(rope_type="default", rope_theta=1e3)})),
    "gpt2": ("GPT2LMHeadModel", dict(vocab_size=258, n_embd=64, n_layer=3, n_head=4, n_positions=512, bos_token_id=256, eos_token_id=257,
                                     initializer_range=0.12)),
}


def make(folder, kind, settings, seed=0):
    torch.manual_seed(seed)
    config = getattr(transformers, kind).config_class(**settings)
    config._attn_implementation = "eager"
    model = getattr(transformers, kind)(config).float().eval()
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:  # Norms and biases are not at their starting values.
            centre = 1.0 if name.endswith("weight") and "Gemma" not in kind else 0.0
            parameter.data = centre + 0.2 * torch.randn(parameter.shape)
    for parameter in model.parameters():  # Not model.half(): that would round the rotary frequencies too.
        parameter.data = parameter.data.half().float()
    model.save_pretrained(folder)
    return model


def server(gguf, **options):
    import xllamacpp
    settings = xllamacpp.CommonParams()
    settings.model.path = str(gguf)
    settings.n_ctx = options.pop("n_ctx", 120)
    settings.warmup = False
    settings.verbosity = -1
    settings.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    for cache in ("cache_type_k", "cache_type_v"):
        setattr(settings, cache, xllamacpp.ggml_type.GGML_TYPE_F32)
    for key, value in options.items():
        setattr(settings, key, value)
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
    return xllamacpp.Server(settings)


def next_logits(instance, ids):
    """llama.cpp's logits of the next token up to a constant: its probabilities of all tokens. NaN for EOS, which is left out."""
    answer = instance.handle_completions({"prompt": ids, "n_predict": 1, "temperature": 0, "n_probs": 258, "samplers": ["temperature"],
                                          "cache_prompt": False, "ignore_eos": True})
    out = np.full(258, np.nan)
    for entry in answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]:
        if math.isfinite(entry["logprob"]):
            out[entry["id"]] = entry["logprob"]
    return out


def within(a, b):
    """The largest difference between two lists of logits, a constant aside."""
    return float(np.abs(a - b - np.median(a - b)).max())


def logits(model, ids, folder, *options):
    path = pathlib.Path(folder) / "logits.npy"
    slmc("logits", model, "--ids", ",".join(map(str, ids)), "-o", path, "--force", *options)
    return np.load(path)


class Families(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.root = pathlib.Path(self.folder.name)
        self.addCleanup(self.folder.cleanup)

    def decoder(self, name):
        kind, settings = DECODERS[name]
        prompt = PROMPT * 4 if name == "phi3_long" else PROMPT
        source, gguf, back = self.root / "m", self.root / "m.gguf", self.root / "back"
        model = make(source, kind, settings)
        letter_tokenizer(source)
        slmc("convert", source, "-o", gguf, "--dtype", "f16")
        slmc("convert", gguf, "-o", back, "--dtype", "f16")
        with torch.no_grad():
            expected = model(torch.tensor([prompt])).logits[0].numpy()
            returned = getattr(transformers, kind).from_pretrained(back, dtype=torch.float32, attn_implementation="eager").eval()
            again = returned(torch.tensor([prompt])).logits[0].numpy()
        self.assertLessEqual(np.abs(logits(source, prompt, self.root) - expected).max(), 1e-3)
        self.assertLessEqual(np.abs(again - expected).max(), 5e-2, "transformers on what came back")
        ours = logits(gguf, prompt, self.root)
        instance = server(gguf)
        # llama.cpp's greedy tokens, and its logits at each.
        ids, steps = list(prompt), []
        for _ in range(GREEDY):
            steps.append(next_logits(instance, ids))
            ids.append(int(np.nanargmax(steps[-1])))
        rows = logits(gguf, ids[:-1], self.root)[len(prompt) - 1:]
        self.assertLessEqual(np.abs(rows[0] - ours[-1]).max(), 1e-5)
        apart, equal, tied = [], 0, False
        for row, theirs, token in zip(rows, steps, ids[len(prompt):]):
            seen = ~np.isnan(theirs)
            self.assertGreater(seen.sum(), 250)
            apart.append(within(theirs[seen], row[seen]))
            best = int(np.where(seen, row, -np.inf).argmax())
            if best != token:
                self.assertLessEqual(row[best] - row[token], NEAR, f"{name}: token {equal}: slmc {best}, llama.cpp {token}")
                tied = True
            equal += not tied
        print(f"{name}: logits within {max(apart):.1e}, {equal} of {GREEDY} greedy tokens equal", flush=True)
        self.assertLessEqual(max(apart), NEAR, f"{name}: llama.cpp's logits")

    def encoder(self, name, kind, settings, pooling=None):
        source, gguf = self.root / "m", self.root / "m.gguf"
        words = None
        source.mkdir()
        words = word_tokenizer(source)
        model = make(source, kind, dict(settings, vocab_size=words))
        if pooling:
            (source / "1_Pooling").mkdir()
            (source / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": pooling == "mean",
                                                                          "pooling_mode_cls_token": pooling == "cls"}))
        slmc("convert", source, "-o", gguf, "--dtype", "f16")
        text = "abc defgh ij"
        ids = transformers.AutoTokenizer.from_pretrained(source)(text).input_ids
        ours = logits(gguf, ids, self.root)
        if "Classification" in kind:
            import xllamacpp
            instance = server(gguf, embedding=True, pooling_type=xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_RANK)
            answer = instance.handle_embeddings({"input": [ids], "embd_normalize": -1})
        else:
            instance = server(gguf, embedding=True, embd_normalize=-1)
            answer = instance.handle_embeddings({"input": [ids], "embd_normalize": -1})
        theirs = np.array(answer["data"][0]["embedding"]).reshape(-1)[:len(ours)]
        if not math.isclose(np.linalg.norm(theirs), np.linalg.norm(ours), rel_tol=0.05):
            ours = ours / np.linalg.norm(ours)  # The server normalised.
        apart = np.abs(theirs - ours).max()
        print(f"{name}: within {apart:.1e}", flush=True)
        self.assertLessEqual(apart, 1e-2)

    BERT = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=64, initializer_range=0.08)

    def test_unigram_tokenizer(self):
        """A "t5" vocabulary, in a BERT. What the note says is left out: U+2581 in a text, and combining marks."""
        source, gguf = self.root / "m", self.root / "m.gguf"
        text = (FIXTURES / "sentence_words.json").read_text(encoding="utf-8")
        oracle = tokenizers.Tokenizer.from_str(text)
        make(source, "BertModel", dict(self.BERT, vocab_size=oracle.get_vocab_size()))
        (source / "tokenizer.json").write_text(text, encoding="utf-8")
        (source / "tokenizer_config.json").write_text('{"eos_token":"</s>","pad_token":"<pad>","unk_token":"<unk>"}')
        slmc("convert", source, "-o", gguf)
        instance = server(gguf, embedding=True)
        texts = json.loads((FIXTURES / "components.json").read_text(encoding="utf-8"))["texts"]
        texts += (FIXTURES / "corpus.txt").read_text(encoding="utf-8").split("\n")
        texts = [t for t in texts if "▁" not in t and not any(unicodedata.combining(c) for c in t)]
        for text in texts:
            body = json.dumps({"content": text, "add_special": False, "parse_special": True}).encode()
            request = urllib.request.Request(instance.listening_address + "/tokenize", body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request) as reply:
                self.assertEqual(json.load(reply)["tokens"], oracle.encode(text, add_special_tokens=False).ids, text)
        print(f"unigram: {len(texts)} texts, no id differs", flush=True)

    def test_bert_mean(self):
        self.encoder("bert mean", "BertModel", self.BERT, "mean")

    def test_bert_first(self):
        self.encoder("bert first", "BertModel", self.BERT, "cls")

    def test_bert_classifier(self):
        self.encoder("bert classes", "BertForSequenceClassification", dict(self.BERT, num_labels=3))

    def test_distilbert_mean(self):
        self.encoder("distilbert mean", "DistilBertModel", dict(dim=64, hidden_dim=96, n_layers=2, n_heads=4, max_position_embeddings=64,
                                                               initializer_range=0.08), "mean")


for decoder_name in DECODERS:
    setattr(Families, f"test_{decoder_name}", lambda self, name=decoder_name: self.decoder(name))

if __name__ == "__main__":
    try:
        import xllamacpp  # noqa: F401
    except ImportError as missing:
        print(f"skipped: {missing}")
        sys.exit(77)
    unittest.main(verbosity=1)
