#!/usr/bin/env python3
"""Forks of the families' chat templates: each must be refused, or render what transformers renders.

Usage: tools/golden/fork_chat.py RENDER TEMPLATES [FORKS [SEED]]

RENDER is build/tests/paramem/render_chat, TEMPLATES a folder of templates (tests/paramem/golden/
templates, or any other: those that are unknown have to be refused like forks). Of each template as
it is, and of FORKS (100) more that have a piece dropped, doubled, moved or put in from another one,
all conversations of make_chat.py are rendered by both. Exits with 1 when one differs.
Run with transformers 5.24.0, jinja2 3.1.6.
"""
from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from make_chat import CLOCK, CONVERSATIONS, DATE, WEATHER, render

PIECE = re.compile(r"\{%.*?%\}|\{\{.*?\}\}|\{#.*?#\}|'[^']*'|\"[^\"]*\"|\w+|\s+|.", re.S)


def cases() -> list[dict[str, Any]]:
    """What is rendered: conversations with and without tools and what begins an answer."""
    return [{"messages": messages, "tools": tools, "prompt": prompt, "no_thinking": quiet}
            for messages in CONVERSATIONS
            for tools, prompt, quiet in ((None, True, False), (None, False, False),
                                         ([WEATHER, CLOCK], True, False), (None, True, True))]


def fork(text: str, others: list[str], random_: random.Random) -> str:
    """The template with one or two pieces of it changed."""
    for _ in range(random_.choice((1, 1, 1, 2))):
        pieces = PIECE.findall(text)
        if random_.random() < 0.5:  # finer: the tags themselves are cut
            pieces = [part for piece in pieces for part in re.findall(r"\w+|\s+|.", piece, re.S)]
        at = random_.randrange(len(pieces))
        kind = random_.randrange(6)
        if kind == 0:
            del pieces[at]
        elif kind == 1:
            pieces.insert(at, pieces[at])
        elif kind == 2:
            pieces.insert(random_.randrange(len(pieces)), pieces.pop(at))
        elif kind == 3:
            pieces[at] = random_.choice(PIECE.findall(random_.choice(others)))
        elif kind == 4:
            pieces.insert(at, random_.choice((" ", "\n", "\\n", "-", "{# #}", "x", "'", "|trim")))
        else:
            pieces[at] = pieces[at].swapcase()
        text = "".join(pieces)
    return text


def said(template: str, case: dict[str, Any]) -> Any:
    options = {"add_generation_prompt": case["prompt"], "date_string": DATE, "bos_token": "<s>",
               "eos_token": "</s>"}
    if case["no_thinking"]:
        options["enable_thinking"] = False
    return render(template, case["messages"], case["tools"], options)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("render", type=Path)
    parser.add_argument("templates", type=Path)
    parser.add_argument("forks", type=int, nargs="?", default=100)
    parser.add_argument("seed", type=int, nargs="?", default=random.SystemRandom().getrandbits(32))
    options = parser.parse_args()
    print(f"seed {options.seed}")
    random_ = random.Random(options.seed)
    paths = sorted(options.templates.glob("*.jinja"))
    texts = [path.read_text() for path in paths]
    everything, counts, wrong = cases(), Counter(), 0
    with subprocess.Popen([options.render], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True) as process:
        assert process.stdin and process.stdout
        for path, text in zip(paths, texts):
            for i in range(options.forks + 1):
                template = fork(text, texts, random_) if i else text
                print(json.dumps({"template": template, "conversations": everything,
                                  "date": DATE}), file=process.stdin, flush=True)
                answer = json.loads(process.stdout.readline())
                if i == 0:
                    print(f"{path.name}: {answer['digest']} {answer.get('name', 'refused')}")
                counts["refused" if "name" not in answer else "read as one that is known"] += 1
                for case, ours in zip(everything, answer["texts"]):
                    theirs = said(template, case)
                    counts["conversations"] += 1
                    if ours != theirs:
                        wrong += 1
                        print(f"{path.name}, fork {i}: {json.dumps(case)[:200]}\n"
                              f"  ours   {ours!r}\n  theirs {theirs!r}")
                        if wrong == 1:
                            Path("fork.jinja").write_text(template)
        process.stdin.close()
    print(f"{len(paths)} templates: {dict(counts)}, {wrong} differ")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
