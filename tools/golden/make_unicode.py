#!/usr/bin/env python3
"""Ask the tokenizers library what it does with every code point, and print that as C.

Usage: tools/golden/make_unicode.py > paramem/wordpiece_ranges.c

The library's tables of categories and of decomposition are of two old versions of Unicode, those of
Rust's white space and lower case of a new one. So what it does is found by asking it, and not by
rules over a version of Unicode. Needs tokenizers (made with 0.23.3).
"""
from __future__ import annotations

import tokenizers
from tokenizers.normalizers import NFD, BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

BITS = {"DROP": 1, "SPACE": 2, "PUNCT": 4, "CJK": 8, "MARK": 16, "ORDERED": 32, "DECOMPOSES": 64}
ENTRIES_A_LINE = 8

HEAD = """\
/* Made by tools/golden/make_unicode.py from tokenizers {version}: do not edit. */
#include "paramem/wordpiece_internal.h"

/* Each entry holds from its code point (the upper 24 bits) to the next entry's: the lower eight
 * bits are PARAMEM_CHAR_*. */
/* clang-format off */
const uint32_t paramem_char_ranges[] = {{
"""


def normalizer(**on: bool) -> BertNormalizer:
    options = {"clean_text": False, "handle_chinese_chars": False, "strip_accents": False,
               "lowercase": False}
    return BertNormalizer(**{**options, **on})


def ordered(nfd: NFD, char: str) -> bool:
    """Has it a combining class? Then it moves before, or lets itself be passed by, some other."""
    for other in "\u0345\u0334":  # the classes 240 and 1: the last and the first
        if char != other and (nfd.normalize_str("a" + other + char)[1] == char
                              or nfd.normalize_str("a" + char + other)[1] == other):
            return True
    return False


def bits_of(char: str, clean: BertNormalizer, cjk: BertNormalizer, strip: BertNormalizer,
            nfd: NFD, split: BertPreTokenizer) -> int:
    bits = 0
    if clean.normalize_str(char) == "":
        bits |= BITS["DROP"]
    pieces = len(split.pre_tokenize_str("a" + char + "a"))
    bits |= {1: 0, 2: BITS["SPACE"], 3: BITS["PUNCT"]}[pieces]
    if cjk.normalize_str(char) != char:
        bits |= BITS["CJK"]
    if nfd.normalize_str(char) != char:
        bits |= BITS["DECOMPOSES"]
    elif strip.normalize_str(char) == "":
        bits |= BITS["MARK"]
    if ordered(nfd, char):
        bits |= BITS["ORDERED"]
    return bits


def main() -> None:
    clean, cjk = normalizer(clean_text=True), normalizer(handle_chinese_chars=True)
    strip, nfd, split = normalizer(strip_accents=True), NFD(), BertPreTokenizer()
    entries: list[int] = []
    last = -1
    for code in range(0x110000):
        if 0xD800 <= code < 0xE000:
            continue
        bits = bits_of(chr(code), clean, cjk, strip, nfd, split)
        if bits != last:
            entries.append(code << 8 | bits)
            last = bits
    print(HEAD.format(version=tokenizers.__version__), end="")
    for at in range(0, len(entries), ENTRIES_A_LINE):
        print("    " + " ".join(f"0x{e:x}," for e in entries[at:at + ENTRIES_A_LINE]))
    print("};")
    print("const size_t paramem_char_ranges_count =")
    print("    sizeof paramem_char_ranges / sizeof paramem_char_ranges[0];")


if __name__ == "__main__":
    main()
