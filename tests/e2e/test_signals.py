"""What the system's manager does to a broker: SIGTERM, SIGHUP, a second start, a bad configuration.

If this failed, a restart could lose what was being written, or hang a machine that shuts down.
"""
import signal
import subprocess
import os
import threading
import time
import unittest

import zmq

import harness
from harness import OK, Wire, pb


class Signals(harness.BrokerTest):
    def test_sigterm_under_load(self) -> None:
        """It answers or refuses what it was sent, exits with 0 in under 2 s, and keeps what it
        acknowledged."""
        acknowledged: list[tuple[bytes, str]] = []
        started = threading.Event()

        def write(number: int) -> None:
            with Wire(self.broker.address) as wire:
                wire.socket.rcvtimeo = 3000 * harness.SLOWER
                for i in range(1_000_000):
                    text = f"writer {number} sentence {i}"
                    wire.send([text.encode()], put=pb.Put(space="t", drafts=[pb.Draft(frame=1)]))
                    try:
                        answer = wire.receive()
                    except zmq.Again:
                        return
                    if answer.status != OK:
                        return
                    acknowledged.append((answer.reply.outcome.refs[0].id, text))
                    if i == 20:
                        started.set()

        threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        self.assertTrue(started.wait(30 * harness.SLOWER))
        begun = time.monotonic()
        status = self.broker.stop()
        seconds = time.monotonic() - begun
        for thread in threads:
            thread.join()
        print(f"ended in {seconds:.2f} s after {len(acknowledged)} writes")
        self.assertEqual(status, 0)
        self.assertLess(seconds, 2 * harness.SLOWER)
        self.broker.start()
        with Wire(self.broker.address) as wire:
            for cube, text in acknowledged:
                self.assertEqual(wire.text("t", cube), text)
            self.assert_sound(wire, "t")

    def test_sigterm_while_a_long_request_runs(self) -> None:
        for i in range(20):
            self.wire.ask([b"%d %d" % (i, j) for j in range(1000)], put=pb.Put(
                space="long", drafts=[pb.Draft(frame=j + 1) for j in range(1000)]))
        for _ in range(20):
            self.wire.send(verify=pb.Verify(space="long"))
        begun = time.monotonic()
        self.assertEqual(self.broker.stop(), 0)
        self.assertLess(time.monotonic() - begun, 2 * harness.SLOWER)

    def test_a_second_broker_is_refused(self) -> None:
        """Two brokers on one store would ruin it."""
        second = subprocess.run(
            [os.environ["MEMOSD"], "--data-dir", str(self.broker.data),
             "--listen", f"ipc://{self.folder}/c.sock"],
            capture_output=True, text=True, timeout=30 * harness.SLOWER, check=False)
        self.assertNotEqual(second.returncode, 0)
        self.assertTrue(second.stderr.strip())
        self.good_client_is_served()


class Reload(harness.BrokerTest):
    starts = False

    def write_config(self, text: str) -> str:
        path = self.folder / "memosd.conf"
        path.write_text(text, encoding="ascii")
        return str(path)

    def test_sighup_takes_over_what_can_be_taken_over(self) -> None:
        config = self.write_config('log_level = "error"\n')
        self.broker.flags = ["--config", config]
        self.broker.start()
        quiet = self.broker.log.stat().st_size
        self.write_config('log_level = "debug"\n')
        harness.send_signal(self.broker, signal.SIGHUP)
        # Served again and again until the new level shows: what the log says is what is waited for.
        for _ in range(1000):
            self.good_client_is_served()
            if self.broker.log.stat().st_size > quiet:
                break
        self.assertGreater(self.broker.log.stat().st_size, quiet, "still silent")

    def test_sighup_with_a_broken_file_changes_nothing(self) -> None:
        config = self.write_config('log_level = "info"\n')
        self.broker.flags = ["--config", config]
        self.broker.start()
        self.write_config("log_level = loud\n")
        before = self.broker.log.stat().st_size
        harness.send_signal(self.broker, signal.SIGHUP)
        for _ in range(1000):
            self.good_client_is_served()
            if b"memosd.conf" in self.broker.log.read_bytes()[before:]:
                break
        self.assertIn(b"memosd.conf", self.broker.log.read_bytes()[before:])
        self.assertTrue(self.broker.running())

    def test_check_config(self) -> None:
        good = subprocess.run([os.environ["MEMOSD"], "--config", self.write_config(
            'log_level = "debug"\n'), "--check-config"], capture_output=True, text=True,
            timeout=30, check=False)
        self.assertEqual(good.returncode, 0, good.stderr)
        bad = subprocess.run([os.environ["MEMOSD"], "--config", self.write_config(
            'log_level = "debug"\nqueue_max = "many"\n'), "--check-config"], capture_output=True,
            text=True, timeout=30, check=False)
        self.assertNotEqual(bad.returncode, 0)
        self.assertIn("memosd.conf:2", bad.stderr)

    def test_tcp_off_the_loopback_needs_keys(self) -> None:
        """Nobody puts a memory on the network in the clear by mistake."""
        refused = subprocess.run(
            [os.environ["MEMOSD"], "--data-dir", str(self.broker.data),
             "--listen", "tcp://0.0.0.0:7099"],
            capture_output=True, text=True, timeout=30 * harness.SLOWER, check=False)
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn("0.0.0.0", refused.stderr)

    def test_the_socket_belongs_to_its_owner(self) -> None:
        self.broker.start()
        mode = os.stat(self.broker.address.removeprefix("ipc://")).st_mode
        self.assertEqual(mode & 0o777, 0o600)


if __name__ == "__main__":
    unittest.main()
