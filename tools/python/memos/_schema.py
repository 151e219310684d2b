"""The generated protobuf module.

An installed package has it beside this file. In a checkout it lies in a build folder of the
project, or in the folder that MEMOS_SCHEMA_DIR names.
"""
from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any, List


def _folders() -> List[Path]:
    given = os.environ.get("MEMOS_SCHEMA_DIR")
    if given:
        return [Path(given)]
    root = Path(__file__).resolve().parents[3]
    built = root.glob("build*/tools/python/memos/memos_pb2.py")
    return [path.parent for path in sorted(built, key=lambda path: -path.stat().st_mtime)]


def _load() -> Any:
    package = __name__.rpartition(".")[0]
    name = package + ".memos_pb2"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
    folders = _folders()
    if not folders:
        raise ImportError(
            "memos_pb2 is not there: build the project (meson setup build && ninja -C build), or "
            "install the package (pip install tools/python)")
    sys.modules[package].__path__.append(str(folders[0]))
    importlib.invalidate_caches()
    return importlib.import_module(name)


pb: Any = _load()
