#!/usr/bin/env python3
"""An /v1/embeddings endpoint with faults, for test_encoder_endpoint.c.

Prints its port, serves until its standard input ends. The path says what is wrong with an answer.
Right answers have four dimensions: the text's length, its first byte, 1 and 2.
"""
from __future__ import annotations

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

requests: dict[str, int] = {}
lock = threading.Lock()


def vector(text: str) -> list[float]:
    return [len(text), ord(text[0]), 1, 2]


def answer(texts: list[str]) -> dict:
    """Right, but in another order."""
    items = [{"object": "embedding", "index": i, "embedding": vector(text)}
             for i, text in enumerate(texts)]
    return {"object": "list", "data": items[::-1], "model": "m", "usage": {"total_tokens": 1}}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_json(self, value: object) -> None:
        self.send(200, json.dumps(value).encode())

    def faulty(self, fault: str, texts: list[str]) -> None:
        right = answer(texts)
        if fault == "count":
            right["data"].pop()
        elif fault == "dims":
            right["data"][0]["embedding"].append(3)
        elif fault == "nan":
            right["data"][0]["embedding"][0] = float("nan")
        body = json.dumps(right).encode()
        if fault == "truncated":
            body = body[:-20]
        elif fault == "huge":
            body = b" " * (65 << 20) + body
        self.send(200, body)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        fault = self.path.strip("/")
        with lock:
            tried = requests[fault] = requests.get(fault, 0) + 1
        request = json.loads(body)
        texts = request["input"]
        if fault == "strict":
            good = (self.headers["Authorization"] == "Bearer open-sesame"
                    and self.headers["Content-Type"] == "application/json"
                    and "Expect" not in self.headers
                    and sorted(request) == ["encoding_format", "input", "model"]
                    and request["encoding_format"] == "float" and request["model"] == "a model"
                    and len(texts) <= 3)
            self.send(200 if good else 400, json.dumps(answer(texts)).encode())
        elif fault == "echo":  # what stands in an error of the endpoint
            self.send(400, body + str(self.headers).encode())
        elif fault in ("busy2", "down2") and tried <= 2:
            self.send(429 if fault == "busy2" else 503, b"later")
        elif fault == "wait" and tried == 1:
            self.send(429, b"later", Retry_After="1")
        elif fault.isdigit():
            self.send(int(fault), b"no", Location="/good")
        elif fault == "close":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"data":')
            self.close_connection = True
        elif fault == "late":
            self.connection.recv(1)  # until the client gives up
            self.close_connection = True
        else:
            self.faulty(fault, texts)


def main() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    sys.stdin.read()


main()
