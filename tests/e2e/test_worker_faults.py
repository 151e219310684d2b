"""Workers and brokers that die in the middle of an answer, queues that are full, and liars.

If this failed, somebody would wait for an answer that never comes, one greedy client would keep all
others waiting, or a program that only says that it is a worker would read what it may not.
"""
import os
import resource
import signal
import subprocess
import time
import unittest
from pathlib import Path

import zmq

import harness
import workers
from harness import ANSWER_MS, BUSY, DEADLINE, DENIED, INVALID, OK, Answer, Wire, pb
from workers import (ACTIVATION, ALWAYS, AS_CAPTURE, IN_CAPTURE, CANCELLED, SILENT_S, SOON_S,
                     UNAVAILABLE, infos, say, send, wait_for)

LONG = 6000  # tokens; takes seconds with the model called small
LONG_PROMPT = "winter garden by the lake " * 300  # some seconds until the first token
PATIENCE_MS = 3 * ANSWER_MS


def first_tokens(wire: Wire, request: int) -> None:
    """Wait until an answer has begun."""
    answer = wire.receive()
    assert answer.reply.id == request and answer.reply.more and answer.status == OK, answer.reply


def end_of(wire: Wire, request: int) -> Answer:
    *_, last = wire.answers(request)
    return last


class Deaths(workers.WorkerTest):
    shape = "small"
    workers = 2
    worker_flags = ("--jobs", "1", "--sequences", "1")

    def job_on(self, wire: Wire, name: str) -> bool:
        """Does this worker run something?"""
        return any(info.announced.name == name and info.jobs_running > 0
                   for info in infos(wire).workers)

    def names(self) -> set[str]:
        with Wire(self.broker.address) as wire:
            return {info.announced.name for info in infos(wire).workers}

    def test_killed_in_the_middle_of_an_answer(self) -> None:
        """Its client is told at once; the other's answer goes on; who comes next is served."""
        with Wire(self.broker.address) as one, Wire(self.broker.address) as two:
            asked = {one: send(one, "one", max_tokens=LONG), two: send(two, "two", max_tokens=LONG)}
            for wire, request in asked.items():
                first_tokens(wire, request)
            self.assertEqual([info.jobs_running for info in infos(self.wire).workers], [1, 1])
            victim = self.running.pop(0)
            victim.kill()
            killed = time.monotonic()
            ends: dict[Wire, Answer] = {}
            poller = zmq.Poller()
            for wire in asked:
                poller.register(wire.socket, zmq.POLLIN)
            while not ends:
                for socket, _ in poller.poll(ANSWER_MS):
                    [wire] = [wire for wire in asked if wire.socket is socket]
                    answer = wire.receive()
                    if not answer.reply.more:
                        ends[wire] = answer
            seconds = time.monotonic() - killed
            [(lost, answer)] = ends.items()
            print(f"told after {seconds * 1000:.0f} ms: {answer.reply.message}")
            self.assertEqual(answer.status, UNAVAILABLE, answer.reply)
            self.assertIn(victim.name, answer.reply.message)
            self.assertLess(seconds, SOON_S)
            kept = two if lost is one else one
            first_tokens(kept, asked[kept])  # it still talks
            cancel = kept.send(cancel=pb.Cancel(request_id=asked[kept]))
            self.assertEqual(end_of(kept, asked[kept]).status, CANCELLED)
            self.assertGreater(cancel, 0)
        self.assertEqual(self.names(), {self.running[0].name})
        self.worker_lives()

    def test_killed_before_it_said_anything(self) -> None:
        """Another worker does it, and the client does not notice."""
        other = self.running.pop(1)
        other.stop()
        with Wire(self.broker.address) as client:
            client.socket.rcvtimeo = PATIENCE_MS
            request = send(client, LONG_PROMPT, max_tokens=4, deadline_ms=PATIENCE_MS)
            first = self.running.pop(0)
            wait_for("the job to begin", lambda: self.job_on(self.wire, first.name))
            second = self.start_worker()
            first.kill()
            told = workers.gather(client, request)
        self.assertEqual(told.status, OK, told.last.reply)
        self.assertEqual(len(told.ids), 4)
        self.assertEqual(told.generated.receipt.worker, second.name)
        self.assertEqual(say(self.wire, LONG_PROMPT, max_tokens=4, deadline_ms=PATIENCE_MS).ids,
                         told.ids)

    def test_stopped_and_silent(self) -> None:
        """A worker that hangs is given up after some seconds."""
        with Wire(self.broker.address) as client:
            request = send(client, "hang", max_tokens=LONG)
            first_tokens(client, request)
            [name] = [info.announced.name for info in infos(self.wire).workers
                      if info.jobs_running]
            [hung] = [worker for worker in self.running if worker.name == name]
            assert hung.process
            hung.process.send_signal(signal.SIGSTOP)
            begun = time.monotonic()
            answer = end_of(client, request)
            seconds = time.monotonic() - begun
            print(f"given up after {seconds:.1f} s: {answer.reply.message}")
            self.assertEqual(answer.status, UNAVAILABLE, answer.reply)
            self.assertLess(seconds, SILENT_S + SOON_S)
            self.worker_lives()
            hung.process.send_signal(signal.SIGCONT)
        wait_for("it to announce itself again", lambda: len(self.names()) == 2)

    def test_the_last_one_goes(self) -> None:
        with Wire(self.broker.address) as client:
            request = send(client, "x", max_tokens=LONG)
            first_tokens(client, request)
            for worker in self.running:
                worker.kill()
            self.assertEqual(end_of(client, request).status, UNAVAILABLE)
            begun = time.monotonic()
            answer = end_of(client, send(client, "anybody?"))
            self.assertIn(answer.status, (UNAVAILABLE, harness.NOT_FOUND), answer.reply)
            self.assertLess(time.monotonic() - begun, SOON_S)
            self.assertTrue(answer.reply.message)

    def test_the_broker_is_killed_and_comes_back(self) -> None:
        """A client learns of it at once, the workers come back, what was acknowledged is there."""
        text = "The heron stood in the shallow water of the lake until the evening came. " * 5
        [ref] = self.wire.put("deaths", text)
        memory = pb.Memory(cubes=[pb.Ref(id=ref.id)], captures=ALWAYS)
        plain = say(self.wire, "And then? ", space="deaths", memory=memory)
        answer = self.wire.ask(capture=pb.Capture(space="deaths", ids=[ref.id]),
                               deadline_ms=ANSWER_MS)
        self.assertEqual(answer.status, OK, answer.reply)
        made = answer.reply.captured.captures[0].ref
        names = self.names()
        with subprocess.Popen(
                [os.environ["MEMOSCTL"], "generate", "--space", "deaths", "--max-tokens", str(LONG),
                 "tell me more"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                env={**os.environ, "MEMOS_ADDRESS": self.broker.address}) as client:
            assert client.stdout and client.stderr
            self.assertTrue(client.stdout.read(1))
            self.broker.kill()
            begun = time.monotonic()
            _, said = client.communicate(timeout=60 * harness.SLOWER)
            seconds = time.monotonic() - begun
        print(f"memosctl ended after {seconds:.2f} s: {said.decode()}")
        self.assertEqual(client.returncode, UNAVAILABLE)
        self.assertLess(seconds, SOON_S)
        self.broker.start()
        wait_for("the workers to come back", lambda: self.names() == names)
        answer = self.wire.ask(get=pb.Get(space="deaths", ids=[made.id]))
        self.assertEqual((answer.status, answer.reply.cubes.cubes[0].kind), (OK, ACTIVATION))
        told = say(self.wire, "And then? ", space="deaths", memory=memory)
        self.assertEqual(told.ids, plain.ids)
        self.assert_sound(self.wire, "deaths")


class Queues(workers.WorkerTest):
    shape = "small"
    flags = ("--client-queue-max", "200")
    worker_flags = ("--jobs", "4", "--sequences", "4")

    def test_a_thousand_requests(self) -> None:
        """What exceeds is answered BUSY, all else is answered; another client is not starved."""
        with Wire(self.broker.address) as greedy, Wire(self.broker.address) as other:
            for _ in range(1000):
                send(greedy, "me first", max_tokens=8)
            mine = send(other, "me too", max_tokens=8)
            poller = zmq.Poller()
            poller.register(greedy.socket, zmq.POLLIN)
            poller.register(other.socket, zmq.POLLIN)
            ended: dict[int, int] = {}
            behind = None
            while len(ended) < 1000 or behind is None:
                ready = dict(poller.poll(ANSWER_MS))
                self.assertTrue(ready, f"{len(ended)} of 1000 were answered")
                if greedy.socket in ready:
                    answer = greedy.receive()
                    if not answer.reply.more:
                        ended[answer.reply.id] = answer.status
                if other.socket in ready:
                    answer = other.receive()
                    if answer.reply.id == mine and not answer.reply.more:
                        self.assertEqual(answer.status, OK, answer.reply)
                        behind = sum(status == OK for status in ended.values())
        counts = {status: list(ended.values()).count(status) for status in set(ended.values())}
        print(f"statuses {counts}; the other client was answered after {behind} of them")
        self.assertEqual(set(counts), {OK, BUSY})
        self.assertGreaterEqual(counts[OK], 150)
        self.assertLess(behind, 50)
        self.assertEqual(infos(self.wire).jobs_waiting, 0)

    def test_a_deadline_passes_while_queued(self) -> None:
        with Wire(self.broker.address) as busy, Wire(self.broker.address) as late:
            running = [send(busy, f"long {i}", max_tokens=LONG) for i in range(8)]
            wait_for("half of them to wait", lambda: infos(late).jobs_waiting == 4)
            begun = time.monotonic()
            answer = end_of(late, send(late, "soon", deadline_ms=300))
            seconds = time.monotonic() - begun
            self.assertEqual(answer.status, DEADLINE, answer.reply)
            self.assertLess(seconds, SOON_S)
            for request in running:
                busy.send(cancel=pb.Cancel(request_id=request))
            for status in self.ends(busy, set(running)).values():
                self.assertEqual(status, CANCELLED)
        self.worker_lives()

    @staticmethod
    def ends(wire: Wire, requests: set[int]) -> dict[int, int]:
        """The statuses that they end with, in whatever order."""
        ends: dict[int, int] = {}
        while len(ends) < len(requests):
            answer = wire.receive()
            if answer.reply.id in requests and not answer.reply.more:
                ends[answer.reply.id] = answer.status
        return ends

    def test_a_client_that_stops_reading(self) -> None:
        before = self.broker.memory_bytes()
        deaf = Wire(self.broker.address)
        deaf.socket.rcvhwm = 1
        for _ in range(8):
            send(deaf, "talk to the wall", max_tokens=LONG, top_logprobs=20)
        with Wire(self.broker.address) as client:
            for i in range(10):
                say(client, f"and you? {i}", max_tokens=8)
        grown = self.broker.memory_bytes() - before
        print(f"the broker has grown by {grown / 1e6:.1f} MB")
        self.assertLess(grown, 100e6 * harness.SLOWER)
        deaf.close()
        self.worker_lives()

    def test_who_goes_away_is_not_worked_for(self) -> None:
        """A client that vanished holds no place: what it asked for is cancelled."""
        gone = Wire(self.broker.address)
        request = send(gone, "never mind", max_tokens=LONG)
        first_tokens(gone, request)
        gone.close()
        wait_for("its job to end", lambda: all(info.jobs_running == 0
                                               for info in infos(self.wire).workers),
                 seconds=3 * SOON_S)

    @unittest.skipIf(harness.SANITIZED, "sanitizers take memory of their own")
    def test_out_of_memory(self) -> None:
        """A job that needs more than there is fails; the worker lives, and does the next."""
        [ref] = self.wire.put("queues", "winter garden by the lake " * 100)
        capture = pb.Capture(space="queues", ids=[ref.id], dtype=1)  # of 8 MB
        self.worker_lives()
        [worker] = self.running
        assert worker.process
        pid = worker.process.pid
        [used] = [int(line.split()[1]) for line in
                  Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
                  if line.startswith("VmData:")]
        _, hard = resource.prlimit(pid, resource.RLIMIT_DATA)
        resource.prlimit(pid, resource.RLIMIT_DATA, ((used << 10) + (2 << 20), hard))
        self.wire.socket.rcvtimeo = PATIENCE_MS
        answer = self.wire.ask(capture=capture, deadline_ms=PATIENCE_MS)
        print(f"{answer.status}: {answer.reply.message}")
        self.assertEqual(answer.status, workers.NO_MEMORY, answer.reply)
        self.worker_lives()
        resource.prlimit(pid, resource.RLIMIT_DATA, (hard, hard))
        answer = self.wire.ask(capture=capture, deadline_ms=PATIENCE_MS)
        self.assertEqual(answer.status, OK, answer.reply)
        self.assertTrue(worker.running())

    def test_a_context_that_the_cache_cannot_hold(self) -> None:
        """Pages for so many tokens only: more is refused, and the rest goes on."""
        self.running[0].stop()
        self.running = []
        self.start_worker("--kv-memory", "4M")
        told = workers.gather(self.wire, send(self.wire, LONG_PROMPT, max_tokens=2))
        self.assertIn(told.status, (harness.TOO_LARGE, workers.NO_MEMORY), told.last.reply)
        self.worker_lives()


def model_of(name: str = "fake", **changes) -> pb.WorkerModel:
    return pb.WorkerModel(**{"name": name, "fingerprint": bytes(range(32)), "architecture": "llama",
                             "weights": "bf16", "kv": "bf16", "backend": "cpu/avx2",
                             "context": 4096, "parameters": 1, **changes})


def announcement(**changes) -> pb.WorkerAnnounce:
    fields = {"name": "liar", "version": "0", "models": [model_of()], "kinds": ["text", "kv"],
              "jobs_max": 4, "instance": b"0123456789abcdef"}
    return pb.WorkerAnnounce(**{**fields, **changes})


class Liar(Wire):
    """Whoever says that it is a worker."""

    def announce(self, **changes) -> None:
        self.hello = self.send(worker_announce=announcement(**changes))

    def job(self) -> pb.Job:
        """The next job; pings are passed over, and answered with a heartbeat. So are refusals of
        what it said before."""
        while True:
            answer = self.receive()
            assert answer.reply.id != self.hello or answer.status == OK, answer.reply
            if answer.reply.WhichOneof("body") == "job":
                return answer.reply.job
            self.send(worker_heartbeat=pb.WorkerHeartbeat(instance=b"0123456789abcdef"))

    def tell(self, ticket: bytes, reply: pb.Reply, frames=()) -> None:
        self.send(frames, job_update=pb.JobUpdate(ticket=ticket, reply=reply))

    def over(self, ticket: bytes) -> None:
        self.send(job_over=pb.JobOver(ticket=ticket))


class Nonsense(workers.WorkerTest):
    """One honest worker, and others."""

    def fake(self, **changes) -> Liar:
        """A worker of a model of its own, that the broker has."""
        liar = Liar(self.broker.address)
        self.addCleanup(liar.close)
        liar.announce(**changes)
        wait_for("its announcement", lambda: len(infos(self.wire).workers) == 2)
        return liar

    def test_announcements(self) -> None:
        bad = [{"models": []}, {"models": [model_of(f"m{i}") for i in range(17)]},
               {"models": [model_of(fingerprint=b"short")]}, {"models": [model_of(name="")]},
               {"models": [model_of(name="n" * 100_000)]}, {"models": [model_of(context=0)]},
               {"models": [model_of(name="a\nb")]},
               {"models": [model_of(), model_of()]}, {"jobs_max": 0}, {"jobs_max": 1 << 31},
               {"instance": b""}, {"instance": b"x" * 17}, {"name": "x" * 100_000},
               {"kinds": ["k"] * 10_000}]
        for changes in bad:
            with self.subTest(str(changes)[:60]), Liar(self.broker.address) as liar:
                liar.announce(**changes)
                answer = liar.receive()
                self.assertIn(answer.status, (INVALID, harness.TOO_LARGE), answer.reply)
                self.assertFalse(answer.reply.more)
        self.assertEqual(len(infos(self.wire).workers), 1)
        self.worker_lives()

    def test_noise(self) -> None:
        """Bytes that are nearly messages of a worker."""
        draw = harness.seeded()
        good = [pb.Request(id=1, worker_announce=announcement()),
                pb.Request(id=2, worker_heartbeat=pb.WorkerHeartbeat(instance=b"0123456789abcdef")),
                pb.Request(id=3, job_update=pb.JobUpdate(
                    ticket=b"t" * 16, reply=pb.Reply(generated=pb.Generated(frame=1)))),
                pb.Request(id=4, job_over=pb.JobOver(ticket=b"t" * 16)),
                pb.Request(id=5, generate=pb.Generate(prompt_frame=1, memory=pb.Memory(
                    search=True), messages=[pb.ChatMessage(frame=9)])),
                pb.Request(id=6, capture=pb.Capture(ids=[b"x"])),
                pb.Request(id=7, score=pb.Score(frames=[1, 1, 900])),
                pb.Request(id=8, ticket=b"t" * 16, get=pb.Get(space="a", ids=[b"x" * 16]))]
        with Wire(self.broker.address) as noise:
            for _ in range(2000):
                damaged = bytearray(draw.choice(good).SerializeToString())
                for _ in range(draw.randrange(0, 4)):
                    damaged[draw.randrange(len(damaged))] = draw.randrange(256)
                noise.socket.send_multipart([harness.PROTOCOL, bytes(damaged), b"frame"])
        self.good_client_is_served()
        self.worker_lives()
        self.assertTrue(self.running[0].running())

    def test_who_may_be_a_worker(self) -> None:
        """Somebody who is not let in by an administrator is none."""
        self.broker.stop()
        port = 20000 + os.getpid() % 20000
        self.broker.flags = ["--listen", f"{self.broker.address},tcp://127.0.0.1:{port}",
                             "--events", f"{self.broker.address}.events,tcp://127.0.0.1:{port + 1}"]
        self.broker.start()
        with Liar(f"tcp://127.0.0.1:{port}") as liar:
            liar.announce()
            self.assertEqual(liar.receive().status, DENIED)
            self.assertEqual(liar.ask(worker_drain=pb.WorkerDrain(id=b"")).status, DENIED)
            answer = liar.ask([b"x"], generate=pb.Generate(space="s", prompt_frame=1,
                                                           memory=pb.Memory(search=True)))
            self.assertIn(answer.status, (DENIED, harness.NOT_FOUND))

    def test_a_ticket_opens_one_space(self) -> None:
        """With a job's ticket: its space, until it is over; nothing else, whoever asks."""
        [mine] = self.wire.put("tickets/mine", "what the job may read")
        [other] = self.wire.put("tickets/other", "what it may not")
        liar = self.fake()
        request = send(self.wire, "x", space="tickets/mine", model="fake",
                       memory=pb.Memory(search=True))
        job = liar.job()
        self.assertEqual(job.principal, "owner")

        def get(wire: Wire, space: str, ref: pb.Ref, ticket: bytes) -> int:
            wire.last_id += 1
            wanted = pb.Request(id=wire.last_id, ticket=ticket,
                                get=pb.Get(space=space, ids=[ref.id]))
            wire.socket.send_multipart([harness.PROTOCOL, wanted.SerializeToString()])
            *_, answer = wire.answers(wire.last_id)
            return answer.status

        self.assertEqual(get(liar, "tickets/mine", mine, job.ticket), OK)
        self.assertIn(get(liar, "tickets/other", other, job.ticket), (DENIED, harness.NOT_FOUND))
        self.assertEqual(get(liar, "tickets/mine", mine, b"f" * 16), DENIED)
        self.assertIn(get(liar, "tickets/mine", mine, b"short"), (DENIED, INVALID))
        with Liar(self.broker.address) as thief:  # answers come from the worker's own connection
            self.assertNotEqual(thief.ask(job_update=pb.JobUpdate(
                ticket=job.ticket, reply=pb.Reply(generated=pb.Generated()))).status, OK)
        liar.tell(job.ticket, pb.Reply(generated=pb.Generated(finish=1)))
        self.assertEqual(end_of(self.wire, request).status, OK)
        liar.over(job.ticket)
        self.assertEqual(get(liar, "tickets/mine", mine, job.ticket), DENIED)

    def test_answers_that_are_none(self) -> None:
        """Whatever a worker says, its client gets an end, and the broker lives."""
        liar = self.fake(jobs_max=1)
        lies = [pb.Reply(), pb.Reply(status=9999, message="x"), pb.Reply(
            generated=pb.Generated(frame=77)), pb.Reply(tokens=pb.Tokens(text="last?")),
            pb.Reply(status=3, message="m" * 100_000), pb.Reply(welcome=pb.Welcome(version="9")),
            pb.Reply(more=True, generated=pb.Generated()), pb.Reply(more=True, status=3)]
        for lie in lies:
            request = send(self.wire, "x", model="fake")
            job = liar.job()
            liar.tell(job.ticket, lie)
            liar.over(job.ticket)
            liar.over(job.ticket)
            liar.tell(job.ticket, pb.Reply(generated=pb.Generated(finish=1)))
            answer = end_of(self.wire, request)
            print(f"{str(lie)[:40]!r}: status {answer.status} {answer.reply.message[:80]}")
            self.assertNotEqual(answer.status, OK, answer.reply)
        request = send(self.wire, "x", model="fake")
        job = liar.job()
        liar.over(job.ticket)  # and never a word
        self.assertNotEqual(end_of(self.wire, request).status, OK)
        self.worker_lives()
        self.good_client_is_served()

    def test_it_takes_a_job_and_goes(self) -> None:
        liar = self.fake()
        request = send(self.wire, "x", model="fake")
        job = liar.job()
        liar.tell(job.ticket, pb.Reply(more=True, tokens=pb.Tokens(text="I was about to ")))
        first_tokens(self.wire, request)
        begun = time.monotonic()
        liar.close()
        self.assertEqual(end_of(self.wire, request).status, UNAVAILABLE)
        self.assertLess(time.monotonic() - begun, SOON_S)

    def test_it_works_for_ever(self) -> None:
        """A worker that beats its heart and never answers: the client's deadline ends it."""
        liar = self.fake()
        request = send(self.wire, "x", model="fake", deadline_ms=700)
        job = liar.job()
        ended = None
        while ended is None:
            answer = liar.receive()
            if answer.reply.WhichOneof("body") == "job_cancel":
                self.assertEqual(answer.reply.job_cancel.ticket, job.ticket)
                ended = end_of(self.wire, request)
            liar.send(worker_heartbeat=pb.WorkerHeartbeat(instance=b"0123456789abcdef"))
        self.assertEqual(ended.status, DEADLINE, ended.reply)


if __name__ == "__main__":
    unittest.main()
