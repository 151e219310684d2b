"""Makes memos_pb2.py from the schema when the package is built. All else is in pyproject.toml."""
import subprocess
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SCHEMA = Path(__file__).resolve().parents[2] / "proto" / "memos.proto"


class BuildWithSchema(build_py):
    """build_py, then protoc into the folder that is installed."""

    def run(self):
        super().run()
        out = Path(self.build_lib) / "memos"
        out.mkdir(parents=True, exist_ok=True)
        subprocess.run(["protoc", f"--proto_path={SCHEMA.parent}", f"--python_out={out}",
                        str(SCHEMA)], check=True)


setup(cmdclass={"build_py": BuildWithSchema})
