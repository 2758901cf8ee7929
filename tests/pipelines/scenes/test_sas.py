"""Signed addresses against a service of tokens and a store of blobs that wants them, both on loopback."""

import contextlib
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import rasterio

from pipelines.errors import SourceError
from pipelines.scenes import sas
from pipelines.scenes.sas import AZURE_BLOBS, SasSigner
from pipelines.scenes.stac import StacSource
from tests.pipelines.scenes.catalog_items import planetary_computer_naip
from tests.pipelines.scenes.conftest import area_around, noise


class Azure:
    """A token service under `/token`, and blobs of account `naipeuwest` that are sent to signed addresses only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.life_s = 3600.0
        self.clock_ahead_s = 0.0
        self.with_date = True
        self.answer: tuple[int, bytes] | None = None
        self.given: list[str] = []
        self.keys: list[str | None] = []
        self.expires_after: int | None = None
        """Reads of blobs until every signature given so far is refused."""
        self.refused: set[str] = set()
        """Signatures that no longer open anything."""
        azure = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                if parts.path.startswith("/token/"):
                    return self._token()
                signature = parse_qs(parts.query).get("sig", [""])[0]
                if azure.expires_after is not None:
                    azure.expires_after -= 1
                    if azure.expires_after == 0:
                        azure.refused = set(azure.given)
                if signature not in azure.given or signature in azure.refused:
                    return self._send(403, b"AuthenticationFailed: " + signature.encode())
                data = (azure.folder / Path(parts.path).name).read_bytes()
                if not (wanted := self.headers.get("Range")):
                    return self._send(200, data)
                first, _, last = wanted.removeprefix("bytes=").partition("-")
                part = data[int(first) : int(last) + 1 if last else None]
                span = f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}"
                return self._send(206, part, {"Content-Range": span})

            def do_HEAD(self) -> None:
                self.do_GET()

            def date_time_string(self, timestamp: float | None = None) -> str:
                return format_datetime(azure.now(), usegmt=True)

            def log_message(self, *args: object) -> None:
                pass

            def _token(self) -> None:
                azure.keys.append(self.headers.get("Ocp-Apim-Subscription-Key"))
                if azure.answer:
                    return self._send(*azure.answer)
                signature = f"SECRET{len(azure.given)}"
                azure.given.append(signature)
                expiry = azure.now() + timedelta(seconds=azure.life_s)
                token = f"se={expiry:%Y-%m-%dT%H%%3A%M%%3A%SZ}&sp=rl&sig={signature}"
                return self._send(
                    200, json.dumps({"msft:expiry": f"{expiry:%Y-%m-%dT%H:%M:%SZ}", "token": token}).encode()
                )

            def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
                self.send_response_only(status)
                if azure.with_date:
                    self.send_header("Date", self.date_time_string())
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "HEAD":
                    return
                with contextlib.suppress(ConnectionError):
                    self.wfile.write(body)

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.clock_ahead_s)

    def signer(self) -> SasSigner:
        """For this server's blobs as if they were Azure's."""
        return SasSigner(self.url, rf"{self.url}/(?P<account>\w+)/(?P<container>\w+)/")

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def azure(tmp_path: Path) -> Iterator[Azure]:
    azure = Azure(tmp_path)
    yield azure
    azure.close()


def signatures(*urls: str) -> list[str]:
    return [parse_qs(urlsplit(url).query)["sig"][0] for url in urls]


def test_a_token_is_asked_for_once_a_container(azure: Azure) -> None:
    signer = azure.signer()
    blobs = [f"{azure.url}/naipeuwest/naip/{name}" for name in ("a.tif", "b.tif?version=1")]
    assert signatures(*map(signer.sign, blobs)) == ["SECRET0", "SECRET0"]
    assert signer.sign(blobs[1]).startswith(f"{blobs[1]}&se=")
    assert signatures(signer.sign(f"{azure.url}/naipeuwest/other/a.tif")) == ["SECRET1"]
    assert signatures(signer.refresh(blobs[0]), signer.sign(blobs[1])) == ["SECRET2", "SECRET2"]
    assert "SECRET" not in repr(signer.__dict__)


@pytest.mark.parametrize(
    "url",
    [
        "https://naipeuwest.blob.core.windows.net/naip/a.tif",
        "https://naipeuwest.blob.core.windows.net/naip/v002/tn/2023/m_3509001.tif?x=1",
    ],
)
def test_addresses_of_blobs_are_signed(azure: Azure, url: str) -> None:
    assert signatures(SasSigner(azure.url, AZURE_BLOBS).sign(url)) == ["SECRET0"]


@pytest.mark.parametrize(
    "url",
    [
        "http://naipeuwest.blob.core.windows.net/naip/a.tif",
        "https://naipeuwest.blob.core.windows.net.example.com/naip/a.tif",
        "https://naipeuwest.blob.core.windows.net@example.com/naip/a.tif",
        "https://example.com/https://naipeuwest.blob.core.windows.net/naip/a.tif",
        "https://example.com/?u=https://naipeuwest.blob.core.windows.net/naip/a.tif",
        "https://naipeuwest.blob.core.windows.net/naip/a.tif?se=2030&sig=mine",
        "/naip/a.tif",
    ],
)
def test_no_other_address_is_signed_nor_one_that_is_already(azure: Azure, url: str) -> None:
    assert SasSigner(azure.url, AZURE_BLOBS).sign(url) == url
    assert azure.keys == []


def test_a_token_is_renewed_shortly_before_it_expires(azure: Azure) -> None:
    blob, signer = f"{azure.url}/naipeuwest/naip/a.tif", azure.signer()
    azure.life_s = 60.0
    now = time.monotonic
    with pytest.MonkeyPatch.context() as patch:
        started = now()
        for after_s, expected in ((0, "SECRET0"), (40, "SECRET0"), (50, "SECRET1"), (90, "SECRET1"), (100, "SECRET2")):
            patch.setattr(time, "monotonic", lambda after_s=after_s: started + after_s)
            assert signatures(signer.sign(blob)) == [expected]


@pytest.mark.parametrize("ahead_s", [-86_400.0, 86_400.0])
def test_a_wrong_clock_neither_throws_tokens_away_nor_keeps_them(azure: Azure, ahead_s: float) -> None:
    azure.clock_ahead_s = ahead_s
    blob, signer = f"{azure.url}/naipeuwest/naip/a.tif", azure.signer()
    assert signatures(signer.sign(blob), signer.sign(blob)) == ["SECRET0", "SECRET0"]
    (token,) = signer._tokens.values()
    assert 3200 < token.good_until_s - time.monotonic() < 3400
    # Without the service's clock ours is believed, but a token is used at least for a moment.
    azure.with_date = False
    signer = azure.signer()
    assert signatures(signer.sign(blob), signer.sign(blob)) == ["SECRET1", "SECRET1"]


def test_threads_share_one_token(azure: Azure) -> None:
    signer, signed = azure.signer(), []
    blob = f"{azure.url}/naipeuwest/naip/a.tif"
    threads = [threading.Thread(target=lambda: signed.append(signer.sign(blob))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert signatures(*signed) == ["SECRET0"] * 8
    assert len(azure.keys) == 1


def test_a_key_of_the_service_is_sent_to_it(azure: Azure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = azure.url.removeprefix("http://")
    keys = {host: {"headers": {"Ocp-Apim-Subscription-Key": "${PC_KEY}"}}}
    (tmp_path / "keys.json").write_text(json.dumps(keys))
    monkeypatch.setenv("OVERWATT_CREDENTIALS", str(tmp_path / "keys.json"))
    monkeypatch.setenv("PC_KEY", "abc")
    azure.signer().sign(f"{azure.url}/naipeuwest/naip/a.tif")
    assert azure.keys == ["abc"]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((401, b""), "the server answers 401 Unauthorized"),
        ((404, b""), "the server answers 404 Not Found"),
        ((500, b""), "the server answers 500 Internal Server Error"),
        ((200, b"<html>SECRET</html>"), "the answer holds no token with its expiry"),
        ((200, b'{"token": "sig=SECRET", "msft:expiry": "soon"}'), "the answer holds no token with its expiry"),
        ((200, b'["SECRET"]'), "the answer holds no token with its expiry"),
    ],
)
def test_a_service_that_gives_no_token(azure: Azure, answer: tuple[int, bytes], message: str) -> None:
    azure.answer = answer
    with pytest.raises(SourceError, match=message) as error:
        azure.signer().sign(f"{azure.url}/naipeuwest/naip/a.tif")
    assert "the images of naipeuwest need a signature, which cannot be had" in str(error.value)
    assert "SECRET" not in str(error.value)


def test_a_service_that_takes_the_call_and_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sas, "_TIMEOUT", httpx.Timeout(0.5))  # a tenth, or the test takes 20 s
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        signer = SasSigner(f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(SourceError, match="does not answer in time"):
            signer.sign("https://naipeuwest.blob.core.windows.net/naip/a.tif")


def test_signed_images_are_fetched_and_no_signature_is_written_down(
    azure: Azure, tmp_path: Path, make_raster, site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    make_raster("naip.tif")
    item = planetary_computer_naip("one", f"{azure.url}/naipeuwest/naip/naip.tif", area_around())
    # Nothing states the pixel size, so that the image is looked at already by the search.
    del item["properties"]["gsd"], item["assets"]["image"]["eo:bands"]
    (tmp_path / "one.json").write_text(json.dumps(item))
    source = StacSource(str(tmp_path / "one.json"), cache=tmp_path / "cache", signer=azure.signer())
    scene = source.search(site)[0]
    fetched = source.fetch(scene, site.perimeter)
    with rasterio.open(fetched.path) as cog:
        assert (cog.read() == noise(3)).all()
        assert "SECRET" not in str(cog.tags())
    assert "SECRET" not in fetched.item_path.read_text() + repr(scene) + str(fetched.path)
    # Another token leads to the same scene in the cache.
    again = StacSource(str(tmp_path / "one.json"), cache=tmp_path / "cache", signer=azure.signer())
    assert again.fetch(again.search(site)[0], site.perimeter) == fetched
    assert "SECRET1" in azure.given
    azure.answer, azure.refused = (403, b""), set(azure.given)
    with pytest.raises(SourceError) as error:
        source.fetch(scene, site.perimeter)
    assert "SECRET" not in str(error.value)
    mine = [record.getMessage() for record in caplog.records]
    assert not [line for line in mine if "SECRET" in line]


@pytest.mark.parametrize("reads", [1, 2, 3])
def test_a_signature_that_expires_midway_is_renewed(
    azure: Azure, tmp_path: Path, make_raster, site, reads: int
) -> None:
    size = (1500, 1500)
    make_raster("naip.tif", noise(3, size=size), tiled=True, blockxsize=256, blockysize=256)
    item = planetary_computer_naip("one", f"{azure.url}/naipeuwest/naip/naip.tif", area_around())
    del item["assets"]["image"]["eo:bands"]
    (tmp_path / "one.json").write_text(json.dumps(item))
    source = StacSource(str(tmp_path / "one.json"), cache=tmp_path / "cache", signer=azure.signer())
    scene = source.search(site)[0]
    azure.expires_after = reads
    fetched = source.fetch(scene, site.perimeter)
    assert (azure.refused, azure.given) == ({"SECRET0"}, ["SECRET0", "SECRET1"])
    with rasterio.open(fetched.path) as cog, rasterio.open(tmp_path / "naip.tif") as whole:
        window = whole.window(*cog.bounds).round_offsets().round_lengths()
        assert (cog.read() == whole.read(window=window)).all()
