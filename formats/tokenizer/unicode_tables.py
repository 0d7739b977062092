#!/usr/bin/env python3
"""Writes unicode_tables.cc: the Unicode data that Hugging Face `tokenizers` 0.23 works with.

Needs the packages tokenizers==0.23.* (the oracle: every property is asked of it, code point by code point),
unicodedata2==16.* (general categories and the values of combining classes; both are checked against the oracle) and
regex==2025.11.3 (grapheme clusters, of Unicode 17; what joins the character before it is checked against the oracle).
The parts of `tokenizers` are of different ages: its grapheme clusters know Unicode 17, its regular expressions Unicode 16, its normal forms Unicode 11,
its marks and punctuation older ones still, so no single version of the Unicode database gives the same ids.

Usage: python3 formats/tokenizer/unicode_tables.py > formats/tokenizer/unicode_tables.cc
"""

import json
import os
import sys

import regex
import tokenizers
import unicodedata2
from tokenizers import Regex, normalizers, pre_tokenizers

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "..", "tests", "fixtures", "tokenizer"))
from generate import charsmap  # noqa: E402

CODES = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
CATEGORIES = (
    "Cn Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Cs Co".split()
)
NFC, NFD = normalizers.NFC().normalize_str, normalizers.NFD().normalize_str
NFKD, LOWER = normalizers.NFKD().normalize_str, normalizers.Lowercase().normalize_str


def matching(pattern):
    """Code points that a one-character pattern matches in the oracle's regular expressions."""
    split = pre_tokenizers.Split(Regex(pattern), "removed")
    rest = set()
    for start in range(0, len(CODES), 4096):
        text = "".join(map(chr, CODES[start : start + 4096]))
        for piece, _ in split.pre_tokenize_str(text):
            rest.update(map(ord, piece))
    return set(CODES) - rest


def word_characters():
    r"""Code points of Rust's \w, which decides about `single_word` and the Whitespace pre-tokenizer."""
    split, found = pre_tokenizers.Whitespace(), set()
    for start in range(0, len(CODES), 2048):
        text = "".join("a" + chr(c) + "a\n" for c in CODES[start : start + 2048])
        found.update(ord(p[1]) for p, _ in split.pre_tokenize_str(text) if len(p) == 3)
    return found


def legacy_classes():
    """{code point: bits} of what the normalizers and pre-tokenizers that work by character see:
    1 a combining mark (StripAccents), 2 a nonspacing mark and 4 what clean_text removes (BertNormalizer), 8 punctuation."""
    def bert(**flags):
        off = dict(clean_text=False, handle_chinese_chars=False, strip_accents=False, lowercase=False)
        return normalizers.BertNormalizer(**{**off, **flags}).normalize_str

    tests = [normalizers.StripAccents().normalize_str, bert(strip_accents=True), bert(clean_text=True)]
    classes = {c: sum(1 << i for i, test in enumerate(tests) if test(chr(c)) == "") for c in CODES}
    rest = set()
    for start in range(0, len(CODES), 2048):
        for piece, _ in pre_tokenizers.Punctuation("removed").pre_tokenize_str("".join(map(chr, CODES[start : start + 2048]))):
            rest.update(map(ord, piece))
    for code in set(CODES) - rest:
        classes[code] |= 8
    return classes


GRAPHEME_CLASSES = "Other CR LF Control Extend ZWJ Regional_Indicator Prepend SpacingMark L V T".split()  # LV and LVT are computed.


def grapheme_classes():
    """{code point: class | 16 pictographic | 32 conjunct consonant | 64 conjunct linker | 128 conjunct extend}."""
    everything = "".join(map(chr, CODES))
    classes = dict.fromkeys(CODES, 0)
    marks = [(f"GCB={name}", i) for i, name in enumerate(GRAPHEME_CLASSES) if i] + [
        ("Extended_Pictographic", 16), ("InCB=Consonant", 32), ("InCB=Linker", 64), ("InCB=Extend", 128)]
    for name, value in marks:
        for found in regex.findall(r"\p{%s}" % name, everything):
            classes[ord(found)] |= value
    check_joining(classes)
    return classes


def check_joining(classes):
    """A table of replacements takes a whole cluster of less than 6 bytes for its first entry, so a character that joins is lost."""
    state = {"version": "1.0", "added_tokens": [], "model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0]]},
             "normalizer": {"type": "Precompiled", "precompiled_charsmap": charsmap({"x": "y"})}}
    normalize = tokenizers.Tokenizer.from_str(json.dumps(state)).normalizer.normalize_str
    joining = {GRAPHEME_CLASSES.index(name) for name in ("Extend", "ZWJ", "SpacingMark")}
    for code in CODES:
        if (normalize("x" + chr(code)) == "y") != (classes[code] & 15 in joining):
            sys.exit(f"grapheme cluster class of U+{code:04X} is not that of tokenizers")


def steps(classes):
    """start << 8 | value for every start of a run of equal values."""
    out, last = [], 0
    for code in range(0x110000):
        if classes.get(code, 0) != last:
            last = classes.get(code, 0)
            out.append((code << 8) | last)
    return out


def combining_classes():
    """{code point: class} of those that the oracle reorders."""
    classes = {}
    for code in CODES:
        value = unicodedata2.combining(chr(code))
        if value == 0:
            continue
        other = "\u0301" if value < 230 else "\u0323"  # Classes 230 and 220.
        low, high = (chr(code), other) if value < 230 else (other, chr(code))
        if NFD("a" + high + low) == NFD("a" + low + high):
            classes[code] = value
    return classes


def show(kind, name, values, comment):
    print(f"\n// {comment}\nconst {kind} {name}[] = {{")
    line = ""
    for value in values:
        if len(line) + len(value) + 1 > 99:
            print(line)
            line = ""
        line += value + ","
    print(line + "};")
    print(f"const size_t {name}_count = sizeof({name}) / sizeof({name}[0]);")


def property_ranges(space, word):
    """(start << 8 | space << 7 | word << 6 | category) for every start of a run of equal properties."""
    ranges, last = [], None
    for code in range(0x110000):
        if 0xD800 <= code < 0xE000:
            value = CATEGORIES.index("Cs")
        else:
            value = CATEGORIES.index(unicodedata2.category(chr(code)))
            value |= (code in space) << 7 | (code in word) << 6
        if value != last:
            ranges.append((code << 8) | value)
            last = value
    return ranges


def hangul(code):
    return 0xAC00 <= code < 0xAC00 + 11172


def runs(mapping):
    """[first, last, stride, difference] of a one-to-one mapping, in runs of stride 1 or 2."""
    out = []
    for code, to in sorted(mapping.items()):
        difference = to - code
        if out:
            first, last, stride, old = out[-1]
            step = code - last
            if old == difference and step in (1, 2) and (first == last or step == stride):
                out[-1] = (first, code, step, old)
                continue
        out.append((code, code, 1, difference))
    return out


def check_categories():
    for letter in "LMNPSZC":
        ours = {c for c in CODES if unicodedata2.category(chr(c))[0] == letter}
        if ours != matching(r"\p{%s}" % letter):
            sys.exit(f"category {letter} of unicodedata2 is not that of tokenizers")


def main():
    if not tokenizers.__version__.startswith("0.23.") or unicodedata2.unidata_version != "16.0.0":
        sys.exit("needs tokenizers 0.23 and unicodedata2 16.0.0")
    check_categories()
    print("// Made by unicode_tables.py from tokenizers 0.23 and unicodedata2 16; do not edit.")
    print("// clang-format off")
    print('#include "formats/tokenizer/unicode_tables.h"\n\nnamespace slmc::unicode {')
    properties = property_ranges(matching(r"\s"), word_characters())
    show("uint32_t", "kProperties", [hex(v) for v in properties],
         "start << 8 | white space << 7 | word << 6 | category, one entry a run.")
    for name, classes, comment in (
        ("kCombining", combining_classes(), "start << 8 | combining class, one entry a run."),
        ("kLegacy", legacy_classes(), "start << 8 | 8 punctuation | 4 control | 2 nonspacing mark | 1 combining mark, one entry a run."),
        ("kGrapheme", grapheme_classes(), "start << 8 | flags | grapheme cluster class, one entry a run."),
    ):
        show("uint32_t", name, [hex(v) for v in steps(classes)], comment)

    canonical, pairs = {}, []
    for code in CODES:
        parts = NFD(chr(code))
        if parts != chr(code) and not hangul(code):
            canonical[code] = parts
            if len(parts) > 1 and NFC(parts) == chr(code):
                first = NFC(parts[:-1])
                if len(first) == 1:
                    pairs.append((ord(first), ord(parts[-1]), code))
    compat = {c: NFKD(chr(c)) for c in CODES if not hangul(c)}
    compat = {c: s for c, s in compat.items() if s != NFD(chr(c))}
    single = {c: ord(s) for c, s in compat.items() if len(s) == 1}
    several = {c: s for c, s in compat.items() if len(s) > 1}
    flat = [str(v) for run in runs(single) for v in run]
    show("int32_t", "kCompatibleRuns", flat, "first, last, stride, difference: compatibility mappings to one character.")
    for name, table, comment in (
        ("kCanonical", canonical, "Full canonical decompositions: code point, number of characters, characters."),
        ("kCompatible", several, "Full compatibility decompositions to several characters, likewise."),
    ):
        flat = []
        for code, parts in sorted(table.items()):
            flat += [str(code), str(len(parts))] + [str(ord(c)) for c in parts]
        show("uint32_t", name, flat, comment)
    show("uint32_t", "kCompositions", [str(v) for p in sorted(pairs) for v in p],
         "first, second, composed; sorted. Hangul is computed.")
    lower = {c: LOWER(chr(c)) for c in CODES}
    lower = {c: ord(s) for c, s in lower.items() if s != chr(c) and c != 0x130}  # U+0130 gives two characters.
    show("int32_t", "kLower", [str(v) for run in runs(lower) for v in run],
         "first, last, stride, difference to the lower case.")
    print("\n}  // namespace slmc::unicode")


main()
