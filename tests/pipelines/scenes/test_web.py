"""What a client does with addresses, against servers of this machine; failures of reading are in test_remote."""

import ssl
import threading
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pipelines.errors import SourceError
from pipelines.scenes.web import Patience, get_bytes, get_checked, get_text, new_client
from tests.pipelines.conftest import Answer, FileServer

SECRET = "s3cr3t"
QUICK = Patience(attempts=2, first_wait_s=0.01, slow_after_s=0.3, slowest_bytes_per_s=1e5)


@pytest.fixture
def encrypted(tmp_path: Path, monkeypatch: Any) -> Iterator[tuple[str, dict[str, str]]]:
    """Address of an https server whose certificate is trusted, and where it redirects to by path."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(private, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    key.write_bytes(private.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    certificate.write_bytes(signed.public_bytes(pem))
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    redirects: dict[str, str] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            target = redirects.get(self.path.partition("?")[0])
            self.send_response(302 if target else 200)
            if target:
                self.send_header("Location", target)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"https://127.0.0.1:{server.server_port}", redirects
        server.shutdown()


def test_redirect_from_https_to_http_is_refused(encrypted: tuple[str, dict[str, str]], server: FileServer) -> None:
    url, redirects = encrypted
    redirects["/a"] = f"{server.url}/a.txt?sig={SECRET}"
    with new_client() as client:
        assert get_text(client, f"{url}/b") == "ok"
        with pytest.raises(SourceError, match="which is not encrypted; this is refused") as error:
            get_text(client, f"{url}/a?sig={SECRET}")
    assert str(error.value).startswith(f"{url}/a redirects to {server.url}/a.txt,")
    assert SECRET not in str(error.value)
    assert server.asked == []


def test_traceback_of_a_refusal_holds_no_key(server: FileServer) -> None:
    def read(response: httpx.Response) -> None:
        response.raise_for_status()

    server.before = lambda _asked: Answer(403)
    address = f"{server.url}/a?sig={SECRET}"
    with new_client() as client:
        for ask in (
            lambda: get_text(client, address),
            lambda: get_bytes(client, address, 9),
            lambda: get_checked(client, address, read),
        ):
            with pytest.raises(SourceError, match="403 Forbidden; it wants a key") as error:
                ask()
            # Without source lines, in which this test itself names it.
            chain = [error.value, error.value.__cause__]
            assert all(SECRET not in line for one in chain for line in traceback.format_exception_only(one))


def test_text_that_drips_is_left_in_time(server: FileServer) -> None:
    server.before = lambda _asked: Answer(200, bytes(4000), drip_s=0.01)
    with new_client() as client, pytest.raises(SourceError, match="does not answer in time"):
        get_text(client, f"{server.url}/a", QUICK)
    assert len(server.asked) == 2


def test_a_proxy_of_the_environment_is_used_but_for_this_machine(server, tmp_path, monkeypatch) -> None:
    (tmp_path / "a.txt").write_text("found")
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("no_proxy", "direct.invalid")
    server.before = lambda asked: Answer(200, b"by proxy") if asked.path.startswith("http://") else None
    with new_client() as client:
        assert get_text(client, "http://imagery.invalid/a.txt") == "by proxy"
        assert get_text(client, f"{server.url}/a.txt") == "found"
        with pytest.raises(SourceError, match="cannot be reached"):
            get_text(client, "http://direct.invalid/a.txt", QUICK)
