#!/usr/bin/env python3
"""slmc's rendering of chat templates against transformers: every template of ../shared/tokenizers and of the fixtures, several talks.

`slmc tokenize` renders conversations of a .jsonl file; with a byte-level tokenizer its ids say the text exactly.
"""

import glob
import json
import os
import shutil
import subprocess
import sys
import tempfile

from tokenizers import Tokenizer
from transformers.utils.chat_template_utils import _compile_jinja_template

SOURCE = os.environ.get("SLMC_SOURCE_DIR", os.path.join(os.path.dirname(__file__), "..", ".."))
SLMC = os.path.join(os.environ.get("SLMC_BUILD", os.path.join(SOURCE, "build")), "slmc")
SHARED = os.path.join(SOURCE, "..", "shared", "tokenizers")
FIXTURES = os.path.join(SOURCE, "tests", "fixtures")
THOUGHT = "<think>\nhmm\n</think>\n\nYes."
TALKS = [
    [("user", "Hi")],
    [("system", " You are. "), ("user", "Hello\nthere ")],
    [("user", "a"), ("assistant", " b "), ("user", "c")],
    [("system", "s"), ("user", "é 中 🙂"), ("assistant", THOUGHT), ("user", "more"), ("assistant", THOUGHT)],
    [("user", "x"), ("user", "y")],
    [("user", "1"), ("assistant", "2"), ("user", "3"), ("assistant", "4"), ("user", "5"), ("assistant", "6")],
    [("user", "{{ not a template }} {% if %} \t\u00a0"), ("assistant", "<|im_end|></s>")],
]


def templates():
    found = json.load(open(os.path.join(FIXTURES, "chat", "cases.json"), encoding="utf-8"))["templates"]
    for path in sorted(glob.glob(os.path.join(SHARED, "**", "*"), recursive=True)):
        name = os.path.relpath(path, SHARED)
        if path.endswith("tokenizer_config.json"):
            template = json.load(open(path, encoding="utf-8")).get("chat_template")
            if isinstance(template, str):
                found[name] = template
        elif path.endswith(".jinja"):
            found[name] = open(path, encoding="utf-8", newline="").read()
    return found


def rendered(template, talk):
    messages = [{"role": role, "content": content} for role, content in talk]
    try:
        return _compile_jinja_template(template).render(
            messages=messages, tools=None, documents=None, add_generation_prompt=False, bos_token="<s>", eos_token="</s>")
    except Exception:  # The template refuses the conversation.
        return None


def ours(folder, talk):
    lines = os.path.join(folder, "talk.jsonl")
    with open(lines, "w", encoding="utf-8") as out:
        out.write(json.dumps({"messages": [{"role": role, "content": content} for role, content in talk]}) + "\n")
    result = subprocess.run([SLMC, "tokenize", folder, "--file", lines, "--json", "-"], capture_output=True, text=True)
    return (json.loads(result.stdout)["ids"][0], "") if result.returncode == 0 else (None, result.stderr.strip())


def main():
    oracle = Tokenizer.from_file(os.path.join(FIXTURES, "tokenizer", "byte_level.json"))
    checked = failures = 0
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(os.path.join(FIXTURES, "tokenizer", "byte_level.json"), os.path.join(folder, "tokenizer.json"))
        with open(os.path.join(folder, "tokenizer_config.json"), "w") as out:
            out.write(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))
        for name, template in templates().items():
            with open(os.path.join(folder, "chat_template.jinja"), "w", encoding="utf-8", newline="") as out:
                out.write(template)
            wrong = refused = 0
            for talk in TALKS:
                expected = rendered(template, talk)
                ids, error = ours(folder, talk)
                refused += ids is None
                checked += 1
                # A talk whose answers cannot be told from the rest is no training text; that is refused, and counted.
                if ids is None and (expected is None or "cannot be told" in error or "so what the assistant said" in error):
                    continue
                # The marked tokens of this tokenizer stand for their own text.
                if ids is None or oracle.decode(ids, skip_special_tokens=False) != expected:
                    wrong += 1
                    print(f"  {talk}: {error or oracle.decode(ids, skip_special_tokens=False)!r} instead of {expected!r}"[:600])
            print(f"{name}: {len(TALKS)} talks, {refused} refused, {wrong} differ", flush=True)
            failures += wrong
    print(f"{checked} conversations, {failures} differ")
    sys.exit(1 if failures else 0)


main()
