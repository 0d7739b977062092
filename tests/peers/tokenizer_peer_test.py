#!/usr/bin/env python3
"""slmc's tokenizer against Hugging Face `tokenizers`: no id and no decoded character may differ.

Texts: every corpus of ../shared, whole and line by line, and SLMC_TOKENIZER_FUZZ (default 100000; 1000000 for the whole proof) random strings
of odd Unicode, shared among the tokenizers. Tokenizers: those under ../shared that are there (the rest is named as skipped), and some of
other kinds that `tokenizers` makes here (the functions of ../fixtures/tokenizer/generate.py). Each is also rebuilt from GGUF keys where
slmc writes it to GGUF. Also: tokenizers in GGUF as llama.cpp reads them (with xllamacpp), and the trainer's merges. Arguments: names of
tokenizers, to check only those.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import urllib.request

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "fixtures", "tokenizer"))
import generate  # noqa: E402

SOURCE = os.environ.get("SLMC_SOURCE_DIR", os.path.join(os.path.dirname(__file__), "..", ".."))
SLMC = os.path.join(os.environ.get("SLMC_BUILD", os.path.join(SOURCE, "build")), "slmc")
SHARED = os.path.join(SOURCE, "..", "shared")
TOKENIZERS = ["tokenizers/qwen2", "tokenizers/gpt2", "models/medqa-8m", "models/stories260k", "tokenizers/llama2", "tokenizers/phi-3",
              "tokenizers/bert-uncased"]
MADE = {"made-unigram": (generate.unigram, 1500), "made-sentence-words": (generate.sentence_words, 1500), "made-wordpiece": (generate.wordpiece, 1500), "made-words": (generate.words, 1500)}
FRAGMENTS = (
    "'s 'S 'ſ 'RE 'll 'LL 123 12345 ½ ² a Hello é ß 中文 🙂 <s> </s> <unk> <|endoftext|> <|im_start|> <|user|> <|end|> <|end_of_text|> <0x41> "
    "▁ ا हिन्दी Ġ Å 가 ... !!! ' x'd _ K ﬁ Ⅷ ǆ İ"
).split() + [" ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u3000", "\x00", "\x85", "\u2028", "e\u0301", "\u212b", "\u1100\u1161", "\U0001e900",
             "\ua7cb", "\U00016d40", "👩\u200d🦰"]
PART = 40000
failures = 0


def random_text(source):
    parts = []
    for _ in range(source.randint(0, 12)):
        kind = source.random()
        if kind < 0.6:
            parts.append(source.choice(FRAGMENTS))
        elif kind < 0.9:
            code = source.randrange(0x110000 if kind < 0.75 else 0x3000)
            parts.append(chr(code) if not 0xD800 <= code < 0xE000 else "é")
        else:
            parts.append(source.choice(" \n'a1.") * source.randint(1, 5))
    return "".join(parts)


def slmc(*arguments):
    result = subprocess.run([SLMC, *arguments, "--json", "-"], capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"slmc {' '.join(arguments)}: exit {result.returncode}: {result.stderr.strip()}")
    return json.loads(result.stdout)


def write_lines(path, key, values):
    with open(path, "w", encoding="utf-8") as out:
        out.writelines(json.dumps({key: value}) + "\n" for value in values)


def compare(name, what, texts, ours, theirs):
    global failures
    wrong = [i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b]
    if len(ours) != len(theirs):
        wrong.append(min(len(ours), len(theirs)))
    print(f"{name}: {what}: {len(theirs)} texts, {len(wrong)} differ", flush=True)
    for i in wrong[:3]:
        print(f"  {texts[i][:60]!r}: {str(ours[i])[:100]} instead of {str(theirs[i])[:100]}")
    failures += len(wrong)


def check_tokenizer(folder, texts, scratch):
    name = os.path.basename(folder)
    oracle = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
    lines, ids_file = os.path.join(scratch, "texts.jsonl"), os.path.join(scratch, "ids.jsonl")
    write_lines(lines, "text", texts)
    ours = slmc("tokenize", folder, "--file", lines)["ids"]
    theirs = [e.ids for e in oracle.encode_batch(texts)]
    compare(name, "ids", texts, ours, theirs)
    compare(name, "ids without special tokens", texts[:3000], slmc_plain(folder, texts[:3000], lines),
            [e.ids for e in oracle.encode_batch(texts[:3000], add_special_tokens=False)])
    # Decoding: the ids as they are, and backwards, which cuts characters apart; and without special tokens.
    lists = theirs + [ids[::-1] for ids in theirs]
    write_lines(ids_file, "ids", lists)
    compare(name, "decoded text", [str(i) for i in lists], slmc("tokenize", folder, "--decode", ids_file)["text"],
            oracle.decode_batch(lists, skip_special_tokens=False))
    write_lines(ids_file, "ids", theirs[:20000])
    compare(name, "decoded text without special tokens", texts[:20000], slmc("tokenize", folder, "--decode", ids_file, "--skip-special")["text"],
            oracle.decode_batch(theirs[:20000], skip_special_tokens=True))
    short = [t for t in texts if 0 < len(t) < 500 and "\0" not in t][:10]  # As arguments of a program.
    for first, second in zip(short[::2], short[1::2]):
        pair, expected = slmc("tokenize", folder, "--text", first, "--pair", second), oracle.encode(first, second)
        compare(name, "pair of texts", [first], [[pair["ids"], pair["types"]]], [[expected.ids, expected.type_ids]])


def slmc_plain(folder, texts, lines):
    write_lines(lines, "text", texts)
    return slmc("tokenize", folder, "--file", lines, "--no-special")["ids"]


def check_training(scratch):
    path = os.path.join(SHARED, "corpora/medquad/train.txt")
    if not os.path.exists(path):
        return print("skipped: training, no ../shared/corpora/medquad/train.txt")
    folder = os.path.join(scratch, "trained")
    slmc("train-tokenizer", "--data", path, "--vocab", "4096", "-o", folder)
    ours = json.load(open(os.path.join(folder, "tokenizer.json"), encoding="utf-8"))
    split = ours["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]
    oracle = Tokenizer(models.BPE())
    oracle.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(split), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    oracle.train_from_iterator([open(path, encoding="utf-8", newline="").read()], trainers.BpeTrainer(
        vocab_size=4096, min_frequency=2, special_tokens=["<|begin_of_text|>", "<|end_of_text|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    theirs = json.loads(oracle.to_str())["model"]["merges"]
    compare("trainer", "merges", [str(m) for m in theirs], ours["model"]["merges"], theirs)


def check_gguf(folder, texts, scratch):
    """llama.cpp, given slmc's GGUF, must give the same ids; it needs whole models."""
    name = os.path.basename(folder)
    try:
        import xllamacpp
    except ImportError:
        return print("skipped: GGUF, no xllamacpp")
    path = os.path.join(scratch, name + ".gguf")
    slmc("convert", folder, "-o", path)
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.n_ctx, params.n_gpu_layers, params.warmup = 64, 0, False
    server = xllamacpp.Server(params)
    oracle = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
    theirs = []
    for text in texts:
        body = json.dumps({"content": text, "add_special": False, "parse_special": True}).encode()
        request = urllib.request.Request(server.listening_address + "/tokenize", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as reply:
            theirs.append(json.load(reply)["tokens"])
    del server
    compare(name, "ids by llama.cpp from slmc's GGUF", texts, theirs, [oracle.encode(t, add_special_tokens=False).ids for t in texts])


def make(name, corpora, scratch):
    build, size = MADE[name]
    folder = os.path.join(scratch, name)
    os.makedirs(folder)
    text = "\n".join(min(corpora, key=len).split("\n")[:3000]) + open(os.path.join(os.path.dirname(generate.__file__), "corpus.txt"), encoding="utf-8").read()
    build(text, size).save(os.path.join(folder, "tokenizer.json"))
    return folder


def main():
    if not os.path.isdir(SHARED):
        print("skipped: ../shared is not there")
        sys.exit(77)
    paths = sorted(os.path.join(folder, name) for folder, _, names in os.walk(os.path.join(SHARED, "corpora")) for name in names
                   if name.endswith((".txt", ".jsonl", ".csv")))
    corpora = [open(path, encoding="utf-8", newline="").read() for path in paths]
    wanted = [t for t in [*TOKENIZERS, *MADE] if len(sys.argv) == 1 or os.path.basename(t) in sys.argv[1:]]
    present = [t for t in wanted if t in MADE or os.path.exists(os.path.join(SHARED, t, "tokenizer.json"))]
    for missing in sorted(set(wanted) - set(present)):
        print(f"skipped: {missing}")
    count = int(os.environ.get("SLMC_TOKENIZER_FUZZ", "100000")) // max(1, len(present))
    lines = list(dict.fromkeys(line for corpus in corpora for line in corpus.split("\n")))
    with tempfile.TemporaryDirectory() as scratch:
        for tokenizer in present:
            source = random.Random(tokenizer)  # Each has strings of its own, in whatever slices the run is done.
            folder = make(tokenizer, corpora, scratch) if tokenizer in MADE else os.path.join(SHARED, tokenizer)
            # In parts, so that neither side holds all ids at once. Whole corpora go to one part.
            texts = corpora + lines + [random_text(source) for _ in range(count)]
            for start in range(0, len(texts), PART):
                check_tokenizer(folder, texts[start : start + PART], scratch)
        if len(sys.argv) == 1 or "training" in sys.argv[1:]:
            check_training(scratch)
        for model in ("models/medqa-8m", "models/stories260k"):
            if model in present:
                check_gguf(os.path.join(SHARED, model), [line for line in lines if line.strip()][::25], scratch)
    sys.exit(1 if failures else 0)


main()
