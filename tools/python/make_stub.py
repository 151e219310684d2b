#!/usr/bin/python3
"""Makes memos/aio.pyi, the types of AsyncClient, from memos/_api.py and memos/aio.py.

With --check it only says whether the file is up to date (exit status 1: it is not).
"""
import ast
import sys
import textwrap
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent / "memos"
STUB = PACKAGE / "aio.pyi"
COLUMNS = 99
HEAD = '''\
"""The types of aio.py: the methods of Client, each awaited. Made by make_stub.py."""
from pathlib import Path
from typing import List, Mapping, Optional, Sequence, Union

from . import model
from ._api import AsOf, IdempotencyKey
from .errors import Error
from .model import (
    Content, Draft, Filter, Id, Kind, Memory, Message, Method, Mode, Query, Ref, Sampling, Source,
    State, Time)
'''


def methods(body):
    """The public methods of a class, and what makes it a context manager or an iterator."""
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            if not node.name.startswith("_") or node.name.startswith("__"):
                yield node


def signature(node, asynchronous):
    """The lines of one method without its body. A default is `...`: that there is one is enough."""
    args = node.args
    args.defaults = [ast.Constant(...) for _ in args.defaults]
    args.kw_defaults = [default and ast.Constant(...) for default in args.kw_defaults]
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else " -> None"
    text = f"def {node.name}({ast.unparse(args)}){returns}: ..."
    if asynchronous or isinstance(node, ast.AsyncFunctionDef):
        text = "async " + text
    lines = [f"    @{ast.unparse(decorator)}" for decorator in node.decorator_list]
    for together in (": ", " -> ", "def ", "async ", "[str, "):
        text = text.replace(together, together.replace(" ", "\0"))
    wrapped = textwrap.wrap(text, COLUMNS, initial_indent="    ", subsequent_indent="        ",
                            break_long_words=False, break_on_hyphens=False)
    return lines + [line.replace("\0", " ") for line in wrapped]


def stub():
    """The text of aio.pyi."""
    api = ast.parse((PACKAGE / "_api.py").read_text())
    aio = ast.parse((PACKAGE / "aio.py").read_text())
    lines = [HEAD]
    for node in aio.body:
        if not isinstance(node, ast.ClassDef) or node.name.startswith("_"):
            continue
        lines += ["", f"class {node.name}:"]
        for method in methods(node.body):
            lines += signature(method, False)
        if node.name == "AsyncClient":
            base = next(n for n in api.body if isinstance(n, ast.ClassDef) and n.name == "Api")
            for method in methods(base.body):
                lines += signature(method, True)
        lines.append("")
    return "\n".join(lines)


def main():
    """Write the file, or check it."""
    if sys.argv[1:] == ["--check"]:
        if STUB.read_text() != stub():
            sys.exit(f"{STUB} is out of date: run {sys.argv[0]}")
    else:
        STUB.write_text(stub())


if __name__ == "__main__":
    main()
