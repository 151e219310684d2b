"""tools/tidy finds what it says it finds.

If this failed, a folder could come to depend on the one above it, or a test file could lie in no
suite, and nobody would be told.

Each case takes a small tree that has nothing to find, plants one violation, and wants that one
finding back.
"""
import importlib.machinery
import importlib.util
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def load_tidy():
    sys.dont_write_bytecode = True
    loader = importlib.machinery.SourceFileLoader("tidy", str(ROOT / "tools" / "tidy"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("tidy", loader))
    sys.modules["tidy"] = module
    loader.exec_module(module)
    return module


TIDY = load_tidy()

CLEAN = {
    "meson.build": "subdir('proto')\nsubdir('memcube')\nsubdir('tests')\n",
    "proto/meson.build": "static_library('proto', 'a.c')\n",
    "proto/README.md": "# proto\n\n| file | what |\n|---|---|\n| `a.h/.c` | the letter a |\n",
    "proto/a.h": "#ifndef PROTO_A_H\n#define PROTO_A_H\n\nint a(int x);\n\n#endif\n",
    "proto/a.c": "#include \"proto/a.h\"\n\nint a(int x)\n{\n    return x; // gets() it back\n}\n",
    "memcube/meson.build": "static_library('memcube', 'db_lmdb.c')\n",
    "memcube/README.md": "| file | what |\n|---|---|\n| `db*.c` | tables |\n",
    "memcube/db_lmdb.c": "#include \"proto/a.h\"\n\n#include <lmdb.h>\n",
    "tests/meson.build": "subdir('proto')\n",
    "tests/README.md": "| folder | what |\n|---|---|\n| `proto/` | tests of proto |\n",
    "tests/proto/meson.build": "foreach name : ['a']\nendforeach\n",
    "tests/proto/test_a.c": "#include \"proto/a.h\"\n\nint main(void)\n{\n    return a(0);\n}\n",
}


class Tidy(unittest.TestCase):
    def findings(self, changes):
        """Check the clean tree with some files set anew (None: removed)."""
        with tempfile.TemporaryDirectory() as folder:
            for path, text in {**CLEAN, **changes}.items():
                if text is not None:
                    file = Path(folder, path)
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_text(text, encoding="utf-8")
            return TIDY.check(Path(folder), Path(folder))

    def plant(self, rule, path, text, line=None):
        """One violation: exactly one finding, with this rule, in this file."""
        findings = self.findings({path: text})
        self.assertEqual([(f.rule, f.path) for f in findings], [(rule, path)], findings)
        if line is not None:
            self.assertEqual(findings[0].line, line)

    def add(self, rule, path, addition, line=None):
        self.plant(rule, path, CLEAN[path] + addition, line)

    def test_a_clean_tree_has_no_findings(self):
        self.assertEqual(self.findings({}), [])

    def test_a_folder_may_not_climb(self):
        self.add("storey", "proto/a.c", '#include "memcube/cube.h"\n', 7)

    def test_lmdb_has_one_door(self):
        self.add("lmdb", "proto/a.c", "#include <lmdb.h>\n", 7)

    def test_a_header_compiles_alone(self):
        text = CLEAN["proto/a.h"].replace("int a(int x);", "int a(int x);\nsize_t b(void);")
        self.plant("header", "proto/a.h", text)

    def test_a_header_has_its_guard(self):
        self.plant("header", "proto/a.h", "int a(int x);\n")

    def test_width(self):
        self.add("width", "proto/a.c", "/* " + "x" * 95 + " */\n", 7)
        self.assertEqual(self.findings(
            {"proto/a.c": CLEAN["proto/a.c"] + "/* " + "x" * 94 + " */\n"}), [])

    def test_tabs_and_blanks(self):
        self.add("blank", "proto/a.c", "\tint b;\n")
        self.add("blank", "proto/a.c", "int b; \n")

    def test_long_functions(self):
        body = "    x++;\n" * 68
        longest = f"int a(int x)\n{{\n{body[9:]}}}\n"
        self.assertEqual(self.findings({"proto/a.c": '#include "proto/a.h"\n\n' + longest}), [])
        self.plant("function", "proto/a.c",
                   f'#include "proto/a.h"\n\nint a(int x)\n{{\n{body}}}\n', 3)

    def test_a_signature_on_several_lines_counts(self):
        body = "    x++;\n" * 67
        self.plant("function", "proto/a.c",
                   f'#include "proto/a.h"\n\nint a(\n    int x)\n{{\n{body}}}\n', 3)

    def test_long_python_functions(self):
        body = "    pass\n" * 70
        found = self.findings({"tests/proto/x.py": "def f():\n" + body})
        self.assertEqual([f.rule for f in found], ["function"])

    def test_long_files(self):
        self.plant("file", "proto/a.c", CLEAN["proto/a.c"] + "int b;\n" * 1000)

    def test_struct_typedefs(self):
        self.add("typedef", "proto/a.c", "typedef struct b {\n    int c;\n} b;\n", 7)
        self.add("typedef", "proto/a.c", "typedef enum b b;\n", 7)
        self.assertEqual(self.findings(
            {"proto/a.c": CLEAN["proto/a.c"] + "typedef enum b c(int d);\n"}), [])

    def test_every_banned_call(self):
        for name, (_, _, only) in TIDY.BANNED.items():
            path = "tests/proto/test_a.c" if only else "proto/a.c"
            with self.subTest(name):
                self.add("banned", path, f"int b = {name}(0);\n")

    def test_calls_that_only_look_banned(self):
        harmless = ("int b = my_time(0);\nint c = p->time(0);\nint d = s.system(1);\n"
                    "/* strcpy(a, b) */\nconst char *e = \"sprintf(\";\n")
        self.assertEqual(self.findings({"proto/a.c": CLEAN["proto/a.c"] + harmless}), [])

    def test_sleep_in_a_python_test(self):
        self.plant("banned", "tests/proto/helper.py", "import time\n\ntime.sleep(1)\n", 3)

    def test_leftovers(self):
        self.add("leftover", "proto/README.md", "TO" + "DO: the letter b\n")
        self.add("leftover", "proto/a.c", "/* FIX" + "ME */\n")

    def test_files_in_no_target(self):
        found = self.findings({"tests/proto/test_b.c": CLEAN["tests/proto/test_a.c"]})
        self.assertEqual([(f.rule, f.path) for f in found], [("orphan", "tests/proto/test_b.c")])
        found = self.findings({"tests/proto/test_b.py": "import unittest\n"})
        self.assertEqual([(f.rule, f.path) for f in found], [("orphan", "tests/proto/test_b.py")])

    def test_a_folder_that_is_not_built(self):
        found = self.findings({"tests/meson.build": "\n"})
        self.assertIn(("orphan", "tests/proto/meson.build"), [(f.rule, f.path) for f in found])

    def test_a_header_that_nobody_includes(self):
        found = self.findings({"tests/proto/b.h": CLEAN["proto/a.h"].replace(
            "PROTO_A_H", "TESTS_PROTO_B_H")})
        self.assertEqual([(f.rule, f.path) for f in found], [("orphan", "tests/proto/b.h")])

    def test_files_of_cuda_are_files_too(self):
        wide = "/* " + "x" * 95 + " */\n"
        body = "    x++;\n" * 68
        listed = CLEAN["proto/README.md"] + "| `b.cu`, `b.cuh` | b |\n"
        tree = {"proto/README.md": listed,
                "proto/meson.build": "static_library('proto', 'a.c', 'b.cu')\n",
                "proto/b.cu": "#include \"proto/b.cuh\"\n",
                "proto/b.cuh": "#ifndef PROTO_B_CUH\n#define PROTO_B_CUH\n\n#endif\n"}
        self.assertEqual(self.findings(tree), [])
        for rule, path, addition in (
                ("width", "proto/b.cu", wide), ("width", "proto/b.cuh", wide),
                ("storey", "proto/b.cu", '#include "memcube/cube.h"\n'),
                ("banned", "proto/b.cuh", "int b = atoi(0);\n"),
                ("function", "proto/b.cu", f"\nint a(int x)\n{{\n{body}    x++;\n}}\n")):
            with self.subTest(rule=rule, path=path):
                found = self.findings({**tree, path: tree[path] + addition})
                self.assertEqual([(f.rule, f.path) for f in found], [(rule, path)])
        unlisted = self.findings({**tree, "proto/README.md": CLEAN["proto/README.md"]})
        self.assertEqual([(f.rule, f.path) for f in unlisted],
                         [("readme", "proto/b.cu"), ("readme", "proto/b.cuh")])
        unbuilt = self.findings({**tree, "proto/meson.build": CLEAN["proto/meson.build"]})
        self.assertEqual([(f.rule, f.path) for f in unbuilt], [("orphan", "proto/b.cu")])

    def test_readmes(self):
        missing = self.findings({"proto/README.md": CLEAN["proto/README.md"] + "| `b.c` | b |\n"})
        self.assertEqual([(f.rule, f.line) for f in missing], [("readme", 6)])
        unlisted = self.findings(
            {"proto/README.md": CLEAN["proto/README.md"].replace("a.h/.c", "a.h")})
        self.assertEqual([(f.rule, f.path) for f in unlisted], [("readme", "proto/a.c")])
        none = self.findings({"proto/README.md": None})
        self.assertIn(("readme", "proto"), [(f.rule, f.path) for f in none])
        unnamed = self.findings({"tests/README.md": "# tests\n"})
        self.assertEqual([(f.rule, f.path) for f in unnamed], [("readme", "tests/proto")])


if __name__ == "__main__":
    unittest.main()
