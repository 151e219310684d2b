"""Workers started, listed, drained and stopped. The worker's program is a script of this test.

If this failed, somebody could not start a model, or would be left with one that nobody ends.
"""
import json
import os
import signal
import subprocess
import unittest
from pathlib import Path

from fake_space import (
    CANCELLED, CONFLICT, DEADLINE, EXISTS, INVALID, MEMOSCTL, NOT_FOUND, OK, UNAVAILABLE, FakeTest)

# What the program does is in the environment: HOW. Its process is called as the real one.
PROGRAM = """#!/usr/bin/python3
import ctypes, json, os, signal, sys
ctypes.CDLL(None).prctl(15, b"memos-worker", 0, 0, 0)
how = os.environ.get("HOW", "")
with open(os.environ["TOLD"], "a") as file:
    file.write(json.dumps([os.getpid(), sys.argv[1:]]) + "\\n")
if how == "fail":
    sys.exit(print("cannot load: the tea is cold", file=sys.stderr) or 16)
if how == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
ready = os.fdopen(3, "w", buffering=1) if "--ready-fd" in sys.argv else sys.stderr
print("loading tiny model 1048576 2097152", file=ready)
if how == "slow":
    open(os.environ["STARTED"], "w").close()
    signal.pause()
print("ready", file=ready)
ready.close()
signal.pause()
"""


class Worker(FakeTest):
    def setUp(self) -> None:
        super().setUp()
        self.program = self.folder / "memos-worker"
        self.program.write_text(PROGRAM)
        self.program.chmod(0o755)
        self.told = self.folder / "told"
        self.environment["TOLD"] = str(self.told)
        self.model = self.folder / "tiny"
        self.model.mkdir()
        self.addCleanup(self.end_all)

    def runs(self) -> list:
        """[pid, arguments] of every start."""
        return [json.loads(line) for line in self.told.read_text().splitlines()] \
            if self.told.exists() else []

    def end_all(self) -> None:
        for pid, _ in self.runs():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def lives(self, pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"
        except FileNotFoundError:
            return False

    def start(self, *options: str, code: int = OK, how: str = "") -> subprocess.CompletedProcess:
        self.environment["HOW"] = how
        return self.ctl("worker", "start", "--memos-worker", str(self.program), "--model",
                        str(self.model), *options, code=code)

    def test_start_says_where_things_are(self) -> None:
        shown = self.start("--threads", "3", "--weights", "q8_0", "--kv", "bf16", "--backend",
                           "cpu", "--context", "512", "--template", "chatml").stdout
        [[pid, arguments]] = self.runs()
        self.assertTrue(self.lives(pid))
        for word in ("worker tiny is running", str(pid), str(self.model), "worker-tiny.log"):
            self.assertIn(word, shown)
        self.assertEqual(arguments, [
            "--ready-fd", "3", "--model", str(self.model), "--name", "tiny", "--weights", "q8_0",
            "--kv", "bf16", "--backend", "cpu", "--threads", "3", "--context", "512",
            "--template", "chatml"])
        self.assertEqual(json.loads(self.start("--json").stdout)["name"], "tiny-2")

    def test_address_and_names(self) -> None:
        self.start("--address", self.address, "--name", "big", "--model", f"b={self.model}")
        arguments = self.runs()[0][1]
        self.assertEqual(arguments[arguments.index("--address") + 1], self.address)
        self.assertEqual([arguments[i + 1] for i, word in enumerate(arguments)
                          if word == "--model"], [str(self.model), f"b={self.model}"])
        self.start("--name", "big", code=EXISTS)
        self.start("--name", "", code=INVALID)

    def test_it_does_not_start(self) -> None:
        refused = self.start(how="fail", code=16).stderr
        self.assertIn("the tea is cold", refused)
        self.assertIn("the worker did not start (exit status 16)", refused)
        self.assertIn("worker-tiny.log", refused)
        self.environment["STARTED"] = os.devnull
        self.start("--timeout", "1s", how="slow", code=DEADLINE)
        self.ctl("worker", "start", "--memos-worker", str(self.folder / "nothing"), "--model",
                 str(self.model), code=NOT_FOUND)
        self.ctl("worker", "start", "--model", "nothing", code=NOT_FOUND)
        refused = self.ctl("worker", "start", code=NOT_FOUND).stderr
        self.assertIn("memosctl model add", refused)
        self.assertEqual(self.ctl("worker", "stop").stdout, "nothing was running\n")

    def test_without_a_broker(self) -> None:
        self.stop()
        self.assertIn("memosctl up starts one", self.start(code=UNAVAILABLE).stderr)
        self.assertEqual(self.runs(), [])

    def test_progress_and_ctrl_c(self) -> None:
        started = self.folder / "started"
        os.mkfifo(started)
        self.environment.update(HOW="slow", STARTED=str(started))
        process = subprocess.Popen(
            [MEMOSCTL, "worker", "start", "--memos-worker", self.program, "--model", self.model],
            env=self.environment, stderr=subprocess.PIPE, text=True)
        started.open().close()  # opened when the other end is
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        self.assertEqual(process.returncode, CANCELLED)
        self.assertIn("the worker was ended again", errors)
        self.assertFalse(self.lives(self.runs()[0][0]))

    def test_in_the_foreground(self) -> None:
        process = subprocess.Popen(
            [MEMOSCTL, "worker", "start", "--foreground", "--memos-worker", self.program, "--model",
             self.model], env=self.environment, stderr=subprocess.PIPE, text=True)
        self.assertIn("loading", process.stderr.readline())
        [[pid, arguments]] = self.runs()
        self.assertEqual((pid, arguments), (process.pid, ["--model", str(self.model), "--name",
                                                          "tiny"]))
        process.kill()
        process.communicate()

    def test_stop(self) -> None:
        self.start()
        self.start()
        refused = self.ctl("worker", "stop", code=INVALID).stderr
        self.assertIn("2 workers run here", refused)
        self.ctl("worker", "stop", "other", code=NOT_FOUND)
        self.assertEqual(self.ctl("worker", "stop", "tiny-2").stdout, "stopped tiny-2\n")
        first, second = [pid for pid, _ in self.runs()]
        self.assertEqual((self.lives(first), self.lives(second)), (True, False))
        self.start()
        self.ctl("worker", "stop", "--all")
        self.assertEqual([self.lives(pid) for pid, _ in self.runs()], [False] * 3)
        self.assertEqual(list((self.folder / "memos/workers").iterdir()), [])

    def test_one_that_does_not_end(self) -> None:
        self.start(how="deaf")
        self.assertIn("has not ended",
                      self.ctl("worker", "stop", "--timeout", "300ms", code=DEADLINE).stderr)
        self.assertEqual(len(list((self.folder / "memos/workers").iterdir())), 1)

    def test_down_ends_the_workers_of_its_broker(self) -> None:
        self.start()
        self.environment["MEMOS_ADDRESS"] = f"ipc://{self.folder}/other.sock"
        self.assertEqual(self.ctl("down").stdout, "nothing was running\n")
        self.assertTrue(self.lives(self.runs()[0][0]))
        self.environment["MEMOS_ADDRESS"] = self.address
        self.stop()  # what listens there is no memosd, and it would be refused
        self.assertEqual(self.ctl("down").stdout, "stopped 1 worker\n")
        self.assertFalse(self.lives(self.runs()[0][0]))

    def test_files_of_others_are_not_believed(self) -> None:
        folder = self.folder / "memos/workers"
        folder.mkdir(parents=True)
        stranger = subprocess.Popen(["sleep", "600"])
        self.addCleanup(stranger.wait)
        self.addCleanup(stranger.kill)
        for name, text in ((str(stranger.pid), json.dumps({
                "pid": stranger.pid, "name": "x", "address": self.address, "log": "y"})),
                           ("17", "no JSON"), ("18", "{}")):
            (folder / name).write_text(text)
        self.assertEqual(self.ctl("worker", "stop").stdout, "nothing was running\n")
        self.assertIsNone(stranger.poll())
        self.assertEqual(list(folder.iterdir()), [])

    def test_list(self) -> None:
        shown = self.ctl("worker", "list").stdout
        for word in ("w1", "tiny (cpu)", "busy", "1/16", "7", "123", "2, 2.0 KB"):
            self.assertIn(word, shown)
        [worker] = json.loads(self.ctl("worker", "list", "--json").stdout)["workers"]
        self.assertEqual((worker["name"], worker["state"], worker["models"][0]["context"],
                          worker["last"]["tokens"]), ("w1", "busy", 4096, 123))
        self.workers = lambda: []
        self.assertIn("no worker is there", self.ctl("worker", "list").stderr)

    def test_drain(self) -> None:
        self.handle_worker_drain = lambda request: request.reply()
        for name in ("w1", "abcd"):
            self.ctl("worker", "drain", name)
            self.assertEqual(self.of_kind("worker_drain")[-1].body.id, b"\xab\xcd" + bytes(14))
        self.ctl("worker", "drain", "w2", code=NOT_FOUND)
        one = self.workers()
        self.workers = lambda: one * 2
        self.ctl("worker", "drain", "w1", code=CONFLICT)


if __name__ == "__main__":
    unittest.main()
