"""A web server with byte ranges that counts what it sends."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class Asked:
    """One request as it came, keys included."""

    path: str
    query: str
    headers: Mapping[str, str]
    """By name in lower case."""


@dataclass(frozen=True)
class Answer:
    """An answer that is not the file."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = None
    """What it claims to be long; None for the truth."""
    drip_s: float = 0.0
    """Pause after each byte."""


class FileServer:
    """Serves a folder on loopback, with byte ranges; `status` forces answers, `sent` counts body bytes by path.

    `asked` holds each request whole, `redirects` the targets of paths, `before` what a test does ahead of an answer.
    """

    def __init__(self, folder: Path, host: str = "127.0.0.1") -> None:
        self.folder = folder
        self.asked: list[Asked] = []
        self.redirects: dict[str, str] = {}
        self.before: Callable[[Asked], Answer | None] = lambda asked: None
        self.status: dict[str, list[int]] = {}
        self.sent: dict[str, int] = {}
        self.requests: list[str] = []
        self.ranges = True
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self._answer(with_body=False)

            def do_GET(self) -> None:
                self._answer(with_body=True)

            def log_message(self, *args: Any) -> None:
                pass

            def _answer(self, with_body: bool) -> None:
                path = self.path.partition("?")[0]
                server.requests.append(path)
                lowered = {name.lower(): value for name, value in self.headers.items()}
                asked = Asked(path, self.path.partition("?")[2], lowered)
                server.asked.append(asked)
                if answer := server.before(asked):
                    return self._play(answer)
                if target := server.redirects.get(path):
                    return self._send(302, b"", {"Location": target})
                file = server.folder / path.lstrip("/")
                if forced := server.status.get(path):
                    return self._send(forced.pop(0), b"", {})
                if not file.is_file():
                    return self._send(404, b"", {})
                data = file.read_bytes()
                headers = {"ETag": f'"{file.stat().st_mtime_ns}"'}
                wanted = self.headers.get("Range")
                if not (wanted and server.ranges):
                    return self._send(200, data if with_body else b"", headers, len(data))
                first, _, last = wanted.removeprefix("bytes=").partition("-")
                part = data[int(first) : int(last) + 1 if last else None]
                headers["Content-Range"] = f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}"
                return self._send(206, part if with_body else b"", headers, len(part))

            def _play(self, answer: Answer) -> None:
                self.send_response(answer.status)
                length = len(answer.body) if answer.length is None else answer.length
                for name, value in {"Content-Length": str(length), **answer.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                with contextlib.suppress(ConnectionError):
                    for piece in [answer.body[i : i + 1] for i in range(len(answer.body))] if answer.drip_s else ():
                        self.wfile.write(piece)
                        time.sleep(answer.drip_s)
                    if not answer.drip_s:
                        self.wfile.write(answer.body)
                self.close_connection = length != len(answer.body)

            def _send(self, status: int, body: bytes, headers: dict[str, str], length: int = 0) -> None:
                path = self.path.partition("?")[0]
                server.sent[path] = server.sent.get(path, 0) + len(body)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(length))
                self.end_headers()
                # A client that has read enough hangs up.
                with contextlib.suppress(ConnectionError):
                    self.wfile.write(body)

        self._http = ThreadingHTTPServer((host, 0), Handler)
        self.url = f"http://{host}:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FileServer]:
    server = FileServer(tmp_path)
    yield server
    server.close()


@pytest.fixture
def other_server(tmp_path: Path) -> Iterator[FileServer]:
    """The same folder from another host."""
    server = FileServer(tmp_path, "127.0.0.2")
    yield server
    server.close()
