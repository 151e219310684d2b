"""If this failed, nobody outside this tree could build a program with libmemos, or one that was
built would not find what it needs.

Usage: test_install.py BUILD_FOLDER. The environment has CC, and in SANITIZE a value for -fsanitize.
"""
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

BUILD = Path(sys.argv.pop()).resolve()
EXAMPLE = Path(__file__).resolve().parent / "example.c"
UNAVAILABLE = 18
SANITIZE = os.environ.get("SANITIZE", "none")
CC = [*os.environ.get("CC", "cc").split(), *([] if SANITIZE == "none" else
                                             [f"-fsanitize={SANITIZE}"])]


def output(*command, **options):
    """What a command that has to succeed prints."""
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True,
                          **options).stdout


class Installed(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.root = Path(folder.name)
        output("meson", "install", "-C", str(BUILD), "--no-rebuild", "--quiet", "--destdir",
               str(cls.root), stderr=subprocess.DEVNULL)
        cls.pc = next(cls.root.rglob("memos.pc"))
        cls.libraries = cls.pc.parent.parent
        cls.prefix = next(cls.root.rglob("include/memos")).parents[1]

    def pkg_config(self, *wanted):
        environment = {**os.environ, "PKG_CONFIG_PATH": str(self.pc.parent)}
        return output("pkg-config", f"--define-variable=prefix={self.prefix}", *wanted, "memos",
                      env=environment).split()

    def run_example(self, program, **variables):
        environment = {**os.environ, "MEMOS_ADDRESS": f"ipc://{self.root}/none", **variables}
        done = subprocess.run([program, "text", "question"], env=environment,
                              stderr=subprocess.PIPE, text=True, check=False)
        self.assertEqual(done.returncode, UNAVAILABLE, done.stderr)
        self.assertIn("memosctl up", done.stderr)

    def test_a_program_builds_and_runs_with_pkg_config(self):
        program = self.root / "example"
        output(*CC, "-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", str(EXAMPLE), "-o",
               str(program), *self.pkg_config("--cflags", "--libs"))
        self.run_example(program, LD_LIBRARY_PATH=str(self.libraries))
        needed = output("objdump", "-p", str(program))
        self.assertRegex(needed, r"NEEDED +libmemos\.so\.0\n")

    def test_a_program_builds_with_the_static_library(self):
        program = self.root / "example-static"
        output(*CC, "-std=c11", str(EXAMPLE), str(self.libraries / "libmemos.a"), "-o",
               str(program), *self.pkg_config("--cflags"),
               *output("pkg-config", "--libs", "libprotobuf-c", "libzmq").split(), "-lpthread")
        self.run_example(program)

    def test_every_header_compiles_alone(self):
        headers = sorted((self.prefix / "include/memos/proto").glob("*.h"))
        self.assertIn("client.h", [header.name for header in headers])
        for header in headers:
            output(*CC, "-std=c11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only",
                   *self.pkg_config("--cflags"), "-x", "c", str(header))

    def test_only_names_of_ours_are_exported(self):
        table = output("nm", "-D", "--defined-only", str(self.libraries / "libmemos.so"))
        names = [line.split()[-1] for line in table.splitlines()]
        self.assertIn("memos_client_call", names)
        self.assertIn("memos__request__pack", names)
        strangers = [name for name in names if not name.startswith(("memos_", "__odr_asan."))]
        self.assertEqual(strangers, [])
        hidden = [name for name in names if name.startswith(("memos_frames", "memos_log"))]
        self.assertEqual(hidden, [])

    def test_the_python_package_is_whole(self):
        package = next(self.root.rglob("memos/memos_pb2.py")).parent
        environment = {**os.environ, "PYTHONPATH": str(package.parent), "MEMOS_SCHEMA_DIR": "/none"}
        output(sys.executable, "-B", "-c", "import memos; memos.AsyncClient", env=environment,
               cwd=self.root)
        self.assertTrue((package / "py.typed").exists())

    def test_the_manual_is_there(self):
        self.assertTrue(next(self.root.rglob("libmemos.3*"), None))


if __name__ == "__main__":
    unittest.main()
