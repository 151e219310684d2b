"""If this failed, the Python client would call a status, a state or a field by another name than
the service does, or its types would say something else than its code."""
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import memos
from memos import _operations

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "tools" / "python"


def table(path, name):
    """The rows X(NAME, number, ...) of a table macro."""
    text = (ROOT / path).read_text().replace("\\\n", " ")
    macro = re.search(rf"#define {name}\(X\)(.*)", text).group(1)
    return {row: int(number) for row, number in re.findall(r"X\((\w+), (\d+),", macro)}


class Tables(unittest.TestCase):
    def test_statuses_are_those_of_the_service(self):
        rows = table("proto/status.h", "MEMOS_STATUS_TABLE")
        self.assertEqual(rows, {status.name: status.value for status in memos.Status})
        for name, number in rows.items():
            error = memos.errors.error_of(number, "what", "hint")
            if name != "OK":
                self.assertEqual(error.status.name, name)
                self.assertEqual(str(error), "what (hint)")
        self.assertIsInstance(memos.errors.error_of(999, "new"), memos.Internal)

    def test_numbers_of_cubes_are_those_of_the_service(self):
        for enum, name in ((memos.Kind, "KIND"), (memos.State, "STATE"),
                           (memos.Operation, "OPERATION")):
            rows = table("memcube/cube.h", f"MEMCUBE_{name}_TABLE")
            self.assertEqual(rows, {item.name: item.value for item in enum})

    def test_modes_of_a_search_are_those_of_the_service(self):
        for enum, prefix, path in ((memos.Mode, "RETRIEVAL", "retrieval/search.h"),
                                   (memos.Method, "RETRIEVAL_METHOD", "retrieval/vote.h")):
            text = (ROOT / path).read_text()
            for item in enum:
                self.assertIn(f"    {prefix}_{item.name} = {item.value},", text)

    def test_fields_of_an_update_are_those_of_the_service(self):
        text = (ROOT / "memcube/store.h").read_text()
        bits = {name.lower(): 1 << int(shift)
                for name, shift in re.findall(r"MEMCUBE_FIELD_(\w+) = 1 << (\d+)", text)}
        named = {"payload": "content", "validity": "valid_to", "expiry": "expires",
                 "retention": "retain_until", "derived": "derived_from"}
        self.assertEqual(set(bits.values()), set(_operations.FIELDS.values()))
        for name, bit in bits.items():
            self.assertEqual(_operations.FIELDS[named.get(name, name)], bit, name)

    def test_the_asynchronous_types_are_up_to_date(self):
        subprocess.run([sys.executable, PACKAGE / "make_stub.py", "--check"], check=True)


class Package(unittest.TestCase):
    def test_a_built_package_needs_nothing_of_the_checkout(self):
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "tools" / "python"
            shutil.copytree(PACKAGE, copy)
            shutil.copytree(ROOT / "proto", Path(folder) / "proto")
            subprocess.run([sys.executable, "setup.py", "-q", "build", "--build-lib", "../out"],
                           cwd=copy, check=True, stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL)
            out = copy.parent / "out"
            self.assertTrue((out / "memos" / "py.typed").exists())
            self.assertTrue((out / "memos" / "aio.pyi").exists())
            environment = {**os.environ, "PYTHONPATH": str(out), "MEMOS_SCHEMA_DIR": "/nowhere"}
            subprocess.run([sys.executable, "-c", "import memos; memos.Client"], cwd=folder,
                           env=environment, check=True)

    def test_without_the_schema_it_says_what_to_do(self):
        with tempfile.TemporaryDirectory() as folder:
            shutil.copytree(PACKAGE / "memos", Path(folder) / "memos")
            environment = {**os.environ, "PYTHONPATH": folder}
            environment.pop("MEMOS_SCHEMA_DIR", None)
            done = subprocess.run([sys.executable, "-c", "import memos"], env=environment,
                                  capture_output=True, text=True, check=False)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn("pip install", done.stderr)


if __name__ == "__main__":
    unittest.main()
