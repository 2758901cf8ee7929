"""A web server with byte ranges that counts what it sends."""

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest


class FileServer:
    """Serves a folder on loopback, with byte ranges; `status` forces answers, `sent` counts body bytes by path."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
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

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FileServer]:
    server = FileServer(tmp_path)
    yield server
    server.close()
