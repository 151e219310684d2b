#!/usr/bin/env python3
"""Ask Oniguruma (in tokenizers) and PCRE2 what is in each category; print the difference as C.

Usage: tools/golden/make_categories.py > paramem/pattern_categories.c

Both are asked about every character, so that neither's version of Unicode has to be known. What
PCRE2 has and Oniguruma has not cannot be put right by adding: it is told on stderr.
Needs tokenizers (made with 0.23.3) and libpcre2-8 (10.42).
"""
from __future__ import annotations

import bisect
import ctypes
import ctypes.util
import sys
from collections.abc import Iterator

import tokenizers
from tokenizers.pre_tokenizers import Split

CATEGORIES = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp".split()
SCRIPTS = "Han Hiragana Katakana Hangul Latin Cyrillic Greek Arabic Hebrew Thai Devanagari".split()
CODES = [code for code in range(0x110000) if not 0xD800 <= code < 0xE000]
ENTRIES_A_LINE = 3
BLOCK = 4096  # characters in one question to tokenizers
UTF, UCP, NO_UTF_CHECK = 0x00080000, 0x00020000, 0x40000000
CONFIG_VERSION = 11

HEAD = """\
/* Made by tools/golden/make_categories.py from tokenizers {tokenizers} and PCRE2 {pcre2}: do not
 * edit. */
#include "paramem/pattern_internal.h"

#include <stddef.h>

/* Characters that Oniguruma has in a category or script and PCRE2 {pcre2}, of an older Unicode, has
 * not. A newer PCRE2 has them twice, which changes nothing. */
/* clang-format off */
const struct paramem_category paramem_categories_newer[] = {{
"""
TAIL = """\
};
/* clang-format on */

const size_t paramem_categories_newer_count =
    sizeof paramem_categories_newer / sizeof paramem_categories_newer[0];
"""


class Pcre2:
    def __init__(self) -> None:
        self.library = ctypes.CDLL(ctypes.util.find_library("pcre2-8") or "libpcre2-8.so.0")
        for name, result in (("compile", ctypes.c_void_p), ("match", ctypes.c_int),
                             ("match_data_create", ctypes.c_void_p),
                             ("get_ovector_pointer", ctypes.POINTER(ctypes.c_size_t))):
            getattr(self.library, f"pcre2_{name}_8").restype = result
        self.data = ctypes.c_void_p(self.library.pcre2_match_data_create_8(1, None))
        self.text = "".join(map(chr, CODES)).encode()
        self.starts, at = [], 0  # where each character begins
        for code in CODES:
            self.starts.append(at)
            at += len(chr(code).encode())

    def version(self) -> str:
        text = ctypes.create_string_buffer(64)
        self.library.pcre2_config_8(CONFIG_VERSION, text)
        return text.value.decode().split()[0]

    def codes(self, expression: str) -> set[int]:
        pattern, error, at = expression.encode(), ctypes.c_int(), ctypes.c_size_t()
        code = self.library.pcre2_compile_8(pattern, ctypes.c_size_t(len(pattern)), UTF | UCP,
                                            ctypes.byref(error), ctypes.byref(at), None)
        if not code:
            raise ValueError(f"{expression}: PCRE2's error {error.value}")
        ends = self.library.pcre2_get_ovector_pointer_8(self.data)
        found: set[int] = set()
        begin = 0
        while self.library.pcre2_match_8(ctypes.c_void_p(code), self.text,
                                         ctypes.c_size_t(len(self.text)), ctypes.c_size_t(begin),
                                         NO_UTF_CHECK, self.data, None) > 0:
            begin = ends[1]
            found |= set(CODES[bisect.bisect_left(self.starts, ends[0]):
                               bisect.bisect_left(self.starts, ends[1])])
        self.library.pcre2_code_free_8(ctypes.c_void_p(code))
        return found


def oniguruma_codes(expression: str) -> set[int]:
    split = Split(tokenizers.Regex(expression), "removed")
    found: set[int] = set()
    for begin in range(0, len(CODES), BLOCK):
        block = CODES[begin:begin + BLOCK]
        left = split.pre_tokenize_str("".join(map(chr, block)))
        found |= set(block) - {ord(char) for text, _ in left for char in text}
    return found


def ranges(codes: set[int]) -> Iterator[tuple[int, int]]:
    first = last = None
    for code in sorted(codes):
        if last is not None and code != last + 1:
            yield first, last
            first = code
        first = code if first is None else first
        last = code
    if last is not None:
        yield first, last


def main() -> None:
    pcre2 = Pcre2()
    entries = []
    for name in CATEGORIES + SCRIPTS:
        theirs = oniguruma_codes(rf"\p{{{name}}}")
        # Of a bare script's name PCRE2 takes the extensions too.
        ours = pcre2.codes(rf"\p{{{'sc:' if name in SCRIPTS else ''}{name}}}+")
        entries += [f'{{"{name}", {a:#x}, {b:#x}}},' for a, b in ranges(theirs - ours)]
        for first, last in ranges(ours - theirs):
            print(f"{name}: only PCRE2 has {first:#x} to {last:#x}", file=sys.stderr)
    print(HEAD.format(tokenizers=tokenizers.__version__, pcre2=pcre2.version()), end="")
    for at in range(0, len(entries), ENTRIES_A_LINE):
        print("    " + " ".join(entries[at:at + ENTRIES_A_LINE]))
    print(TAIL, end="")


if __name__ == "__main__":
    main()
