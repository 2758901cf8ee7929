"""Every way a server can fail while a raster is read, against real servers on this machine."""

import dataclasses
import json
import logging
import os
import pickle
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import rasterio
import rasterio.shutil
from rasterio import Affine
from rasterio.windows import Window

from pipelines.errors import SourceError
from pipelines.scenes import remote
from pipelines.scenes.cache import SceneCache
from pipelines.scenes.remote import open_remote, refuse_failed
from pipelines.scenes.web import Patience, get_text, may_pass, new_client
from tests.pipelines.conftest import Answer, Asked, FileServer
from tests.pipelines.scenes.conftest import CENTRE, MakeRaster, area_around, noise
from tests.pipelines.scenes.test_cache import scene_of

QUICK = Patience(
    attempts=3, give_up_s=4, longest_wait_s=1.2, first_wait_s=0.02, slow_after_s=0.3, slowest_bytes_per_s=1e5, lost_s=6
)
SECRET = "s3cr3t-signature"
WIDE = (1500, 1500)


@pytest.fixture
def cog(tmp_path: Path, make_raster: MakeRaster) -> Path:
    """A tiled COG with overviews, served as /big.tif; its pixels are those of `noise`."""
    transform = Affine(0.3, 0, CENTRE[0] - 225, 0, -0.3, CENTRE[1] + 225)
    plain = make_raster("plain.tif", noise(3, size=WIDE), transform=transform)
    path = tmp_path / "big.tif"
    rasterio.shutil.copy(plain, path, driver="COG", COMPRESS="DEFLATE", BLOCKSIZE=256)
    plain.unlink()
    return path


def read_by_rows(url: str, **options: Any) -> np.ndarray:
    """The whole raster, a row of tiles with each request or so."""
    with open_remote(url, **options) as dataset:
        rows = []
        for top in range(0, dataset.height, 256):
            rows.append(dataset.read(window=Window(0, top, dataset.width, min(256, dataset.height - top))))
            refuse_failed(dataset)
    return np.concatenate(rows, axis=1)


def failure(url: str, **options: Any) -> SourceError:
    """What reading the whole raster says, after what every failure must be: prompt, one line, without a key."""
    started = time.monotonic()
    with pytest.raises(SourceError) as error:
        read_by_rows(url, patience=QUICK, **options)
    assert time.monotonic() - started < 20
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(url.partition("?")[0])
    assert SECRET not in message
    assert SECRET not in repr(error.value.__cause__)
    return error.value


def after(first: int, answer: Callable[[], Answer | None]) -> Callable[[Asked], Answer | None]:
    """Let so many requests pass."""
    left = [first]

    def before(_asked: Asked) -> Answer | None:
        left[0] -= 1
        return None if left[0] >= 0 else answer()

    return before


def test_pixels_are_those_of_the_file(server: FileServer, cog: Path) -> None:
    window = Window(300, 200, 700, 900)
    with open_remote(f"{server.url}/big.tif?sig={SECRET}") as dataset, rasterio.open(cog) as local:
        assert (dataset.read(window=window) == local.read(window=window)).all()
        assert dataset.profile == local.profile
        assert SECRET not in dataset.name


def test_only_header_and_needed_tiles_are_asked_for(server: FileServer, cog: Path) -> None:
    window = Window(520, 520, 100, 100)
    with open_remote(f"{server.url}/big.tif") as dataset:
        dataset.read(window=window)
    size = cog.stat().st_size
    # One tile of 256 x 256 of three bands that noise makes incompressible, and the first pages of the file.
    assert server.sent["/big.tif"] < (32 << 10) + 256 * 256 * 3 * 1.1
    assert server.sent["/big.tif"] < 0.06 * size
    ranges = [[int(end) for end in asked.headers["range"].removeprefix("bytes=").split("-")] for asked in server.asked]
    assert ranges[0] == [0, (32 << 10) - 1]
    assert len(ranges) == 2
    assert ranges[1][1] - ranges[1][0] < 256 * 256 * 3 * 1.1


def test_an_overview_is_read_instead_of_the_pixels_below_it(server: FileServer, cog: Path) -> None:
    with open_remote(f"{server.url}/big.tif") as dataset:
        dataset.read(out_shape=(3, 375, 375))
    assert server.sent["/big.tif"] < 0.15 * cog.stat().st_size


def test_small_strips_are_read_ahead(server: FileServer, make_raster: MakeRaster) -> None:
    make_raster("strips.tif", noise(3, size=WIDE), blockysize=1)
    with open_remote(f"{server.url}/strips.tif") as dataset:
        pixels = dataset.read()
    assert (pixels == noise(3, size=WIDE)).all()
    assert len(server.requests) < 60


def test_threads_read_one_address_at_once(server: FileServer, cog: Path) -> None:
    with rasterio.open(cog) as local:
        whole = local.read()
    wrong: list[Any] = []

    def read(number: int) -> None:
        with open_remote(f"{server.url}/big.tif") as dataset:
            for step in range(4):
                window = Window(100 * number, 200 * step, 300, 300)
                if not (dataset.read(window=window) == whole[(slice(None), *window.toslices())]).all():
                    wrong.append(window)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_mosaic_names_rasters_of_its_server(server: FileServer, tmp_path: Path, make_raster: MakeRaster) -> None:
    part = make_raster("part.tif")
    rasterio.shutil.copy(part, tmp_path / "mosaic.vrt", driver="VRT")
    with open_remote(f"{server.url}/mosaic.vrt") as dataset:
        assert (dataset.read() == noise(3)).all()
    server.status["/part.tif"] = [404] * 9
    with (
        pytest.raises(SourceError, match=r"/part\.tif: the server answers 404"),
        open_remote(f"{server.url}/mosaic.vrt", patience=QUICK) as dataset,
    ):
        dataset.read()


@pytest.mark.parametrize(
    ("status", "message", "asked"),
    [
        (401, "401 Unauthorized; it wants a key", 1),
        (403, "403 Forbidden; it wants a key", 1),
        (404, "404 Not Found; check the address", 1),
        (410, "410 Gone; check the address", 1),
        (429, "429 Too Many Requests; it did so 3 times", 3),
        (500, "500 Internal Server Error; it did so 3 times", 3),
        (503, "503 Service Unavailable; it did so 3 times", 3),
    ],
)
@pytest.mark.parametrize("passed", [0, 1])
def test_what_may_pass_is_asked_again_and_what_cannot_is_not(server, cog, status, message, asked, passed) -> None:
    server.before = after(passed, lambda: Answer(status))
    error = failure(f"{server.url}/big.tif?sig={SECRET}")
    assert message in str(error)
    # Requests of several tiles run side by side, so each of them may have been tried.
    assert len(server.asked) == asked if passed == 0 else len(server.asked) <= passed + 4 * asked
    assert isinstance(error.__cause__, httpx.HTTPStatusError)
    assert may_pass(error.__cause__) == (asked > 1)


def test_server_that_recovers_is_read_to_the_end(server: FileServer, cog: Path) -> None:
    turn = iter(range(1000))
    faults = [500, 503, 429]

    def before(_asked: Asked) -> Answer | None:
        number = next(turn)
        return Answer(faults[number // 2 % 3]) if number % 2 else None

    server.before = before
    with rasterio.open(cog) as local:
        assert (read_by_rows(f"{server.url}/big.tif", patience=QUICK) == local.read()).all()


@pytest.mark.parametrize(
    ("retry_after", "date", "least_s"),
    [
        ("1", None, 1.0),
        ("99999999999999", None, 1.2),
        ("in a while", None, 0.0),
        (timedelta(seconds=2), timedelta(0), 1.0),
        (timedelta(days=-3), timedelta(0), 0.0),
        (timedelta(days=900), timedelta(0), 1.2),
        # Both clocks of the server run a year ahead; it asks for a second.
        (timedelta(days=365, seconds=1), timedelta(days=365), 0.9),
        (timedelta(days=-365), timedelta(days=-365), 0.0),
    ],
)
def test_retry_after_is_kept_within_bounds(server, tmp_path, retry_after, date, least_s) -> None:
    (tmp_path / "a.txt").write_text("found")
    now = datetime.now(UTC).replace(microsecond=0)
    asked = format_datetime(now + retry_after, usegmt=True) if isinstance(retry_after, timedelta) else retry_after
    headers = {"Retry-After": asked} | ({} if date is None else {"Date": format_datetime(now + date, usegmt=True)})
    answers = [Answer(429, headers=headers)]
    server.before = lambda _asked: answers.pop() if answers else None
    started = time.monotonic()
    with new_client() as client:
        assert get_text(client, f"{server.url}/a.txt", QUICK) == "found"
    assert least_s <= time.monotonic() - started < least_s + 3


def test_server_that_always_asks_to_wait_is_left_in_time(server: FileServer, cog: Path) -> None:
    server.before = lambda _asked: Answer(503, headers={"Retry-After": "3600"})
    assert "it asks to wait 3600 s, try again later" in str(failure(f"{server.url}/big.tif"))


def test_slow_body_is_left_in_time(server: FileServer, cog: Path) -> None:
    headers = {"Content-Range": f"bytes 0-32767/{cog.stat().st_size}"}
    server.before = lambda _asked: Answer(206, bytes(32768), headers, drip_s=0.01)
    error = failure(f"{server.url}/big.tif")
    assert "does not answer in time" in str(error)
    assert isinstance(error.__cause__, httpx.TransportError)


def range_of(asked: Asked) -> tuple[int, int]:
    first, _, last = asked.headers["range"].removeprefix("bytes=").partition("-")
    return int(first), int(last)


@pytest.mark.parametrize("honest", [True, False], ids=["connection cut", "length says so"])
def test_truncated_body_is_asked_for_again(server: FileServer, cog: Path, honest: bool) -> None:
    data, turn = cog.read_bytes(), iter(range(1000))

    def before(asked: Asked) -> Answer | None:
        if next(turn) % 2:
            return None
        first, last = range_of(asked)
        last = min(last, len(data) - 1)
        cut = data[first : last - 99]
        headers = {
            "Content-Range": f"bytes {first}-{last}/{len(data)}",
            "ETag": f'"{cog.stat().st_mtime_ns}"',
        }
        return Answer(206, cut, headers, length=last + 1 - first if honest else len(cut))

    server.before = before
    with rasterio.open(cog) as local:
        assert (read_by_rows(f"{server.url}/big.tif", patience=QUICK) == local.read()).all()
    server.before = lambda asked: Answer(206, b"x", {"Content-Range": f"bytes 0-32767/{len(data)}"}, length=32768)
    assert isinstance(failure(f"{server.url}/big.tif").__cause__, httpx.TransportError)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (Answer(200, b"<html>login", {"Content-Type": "text/html; charset=utf-8"}), "a web page instead of the file"),
        (Answer(206, b"<html>login", {"Content-Type": "text/html"}), "a web page instead of the file"),
        (Answer(200, bytes(100), {"Content-Type": "image/tiff"}), "HTTP range requests"),
        (Answer(206, bytes(100), {"Content-Range": "bytes 7-106/999999"}), "another part of the file"),
        (Answer(206, bytes(100), {"Content-Range": "bytes 0-99/*"}), "another part of the file"),
        (Answer(206, bytes(100), {"Content-Range": "nonsense"}), "another part of the file"),
        (Answer(206, bytes(100), {"Content-Range": "bytes 0-99/100", "Content-Encoding": "gzip"}), "range requests"),
        (Answer(302, headers={"Location": "/big.tif"}), "redirects in circles"),
        (Answer(302, headers={"Location": "ftp://127.0.0.1/big.tif"}), "cannot be reached"),
    ],
)
@pytest.mark.parametrize("passed", [0, 2])
def test_answer_that_is_no_part_of_the_file_is_one_sentence(server, cog, answer, message, passed) -> None:
    server.before = after(passed, lambda: answer)
    error = failure(f"{server.url}/big.tif?sig={SECRET}")
    assert message in str(error)
    assert error.__cause__ is None or not may_pass(error.__cause__)


@pytest.mark.parametrize("passed", [1, 2, 3])
def test_file_that_changes_while_it_is_read_is_never_mixed(server: FileServer, cog: Path, passed: int) -> None:
    def change() -> None:
        status = cog.stat()
        os.utime(cog, ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))

    server.before = after(passed, change)
    assert "changed while it was read" in str(failure(f"{server.url}/big.tif"))


def test_nobody_listens(server: FileServer, cog: Path) -> None:
    server.before = after(1, lambda: server.close())
    server.close()
    error = failure(f"{server.url}/big.tif")
    assert "cannot be reached" in str(error)
    assert isinstance(error.__cause__, httpx.ConnectError)


def test_name_that_is_no_host() -> None:
    error = failure("https://imagery.invalid/big.tif")
    assert "cannot be reached" in str(error)
    assert may_pass(error.__cause__ or error)


class OneHour:
    """Signs with a number that the server of a test lets expire."""

    def __init__(self) -> None:
        self.hour, self.refreshed = 0, 0

    def sign(self, url: str) -> str:
        return f"{url}?sig={SECRET}-{self.hour}"

    def refresh(self, url: str) -> str:
        self.hour += 1
        self.refreshed += 1
        return self.sign(url)


def test_signature_that_expires_while_a_file_is_read_is_renewed(server: FileServer, cog: Path, caplog: Any) -> None:
    caplog.set_level("DEBUG")
    signer, valid = OneHour(), [0]

    def before(asked: Asked) -> Answer | None:
        if len(server.asked) == 3:
            valid[0] += 1
        return None if asked.query == f"sig={SECRET}-{valid[0]}" else Answer(403)

    server.before = before
    with rasterio.open(cog) as local:
        assert (read_by_rows(f"{server.url}/big.tif", signer=signer, patience=QUICK) == local.read()).all()
    assert signer.refreshed == 1
    assert SECRET not in caplog.text


def test_signature_that_is_never_accepted_is_renewed_once(server: FileServer, cog: Path) -> None:
    signer = OneHour()
    server.before = lambda _asked: Answer(403)
    assert "403 Forbidden" in str(failure(f"{server.url}/big.tif", signer=signer))
    assert signer.refreshed == 1
    assert len(server.asked) == 2


def test_redirect_to_another_host_takes_no_key_along(server, other_server, cog, tmp_path, monkeypatch) -> None:
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({server.url.removeprefix("http://"): {"headers": {"Authorization": SECRET}}}))
    keys.chmod(0o600)
    monkeypatch.setenv("OVERWATT_CREDENTIALS", str(keys))
    server.redirects["/big.tif"] = f"{other_server.url}/big.tif"
    with open_remote(f"{server.url}/big.tif") as dataset:
        dataset.read(window=Window(0, 0, 10, 10))
    assert all(asked.headers["authorization"] == SECRET for asked in server.asked)
    assert other_server.asked
    assert not any("authorization" in asked.headers for asked in other_server.asked)


def test_server_that_fails_again_and_again_is_left_in_time(server: FileServer, cog: Path) -> None:
    turn = iter(range(10_000))
    server.before = lambda _asked: Answer(503, headers={"Retry-After": "1"}) if next(turn) % 2 == 0 else None
    patience = dataclasses.replace(QUICK, lost_s=1.5)
    with pytest.raises(SourceError, match="fails too often"):
        read_by_rows(f"{server.url}/big.tif", patience=patience)


def test_failure_in_any_request_reaches_the_caller_and_never_ends_the_process(server, cog, monkeypatch) -> None:
    """Also where libtiff asserts: a header that was read stays readable."""
    monkeypatch.setattr(remote, "_PAGE", 1 << 10)
    monkeypatch.setattr(remote, "_HEADER_PAGES", 1)
    requests = 0
    with open_remote(f"{server.url}/big.tif") as dataset:
        dataset.read(window=Window(0, 0, 300, 300))
        dataset.read(out_shape=(3, 100, 100))
        requests = len(server.asked)
    assert requests >= 4
    script = f"""
import sys
from pipelines.errors import SourceError
from pipelines.scenes import remote
from pipelines.scenes.web import Patience
from rasterio.windows import Window
remote._PAGE, remote._HEADER_PAGES = 1 << 10, 1
quick = Patience(attempts=1, first_wait_s=0.01)
number = int(sys.argv[1])
once = remote._RemoteFile._once
def failing(self, address, first, last):
    global number
    number -= 1
    if number < 0:
        raise SourceError("gone")
    return once(self, address, first, last)
remote._RemoteFile._once = failing
try:
    with remote.open_remote({server.url + "/big.tif"!r}, patience=quick) as dataset:
        dataset.read(window=Window(0, 0, 300, 300))
        dataset.read(out_shape=(3, 100, 100))
except SourceError as error:
    print(error)
"""
    runs = [
        subprocess.Popen([sys.executable, "-c", script, str(number)], stdout=subprocess.PIPE, text=True)
        for number in range(requests)
    ]
    for run in runs:
        out, _ = run.communicate(timeout=60)
        assert (run.returncode, out) == (0, "gone\n")


def folder_is_clean(folder: Path) -> bool:
    return [path for path in folder.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("fault", [403, "change", "page"])
def test_cache_keeps_nothing_of_a_read_that_failed(server, cog, tmp_path, caplog, fault) -> None:
    caplog.set_level("DEBUG")
    scenes = SceneCache(tmp_path / "cache", "test")
    scene = scene_of(Path("x"), href=f"{server.url}/big.tif?sig={SECRET}", footprint=area_around(half_x_m=225))
    area = area_around(half_x_m=150, half_y_m=150)

    def happen() -> Answer | None:
        if fault == "change":
            os.utime(cog, ns=(1, 1))
            return None
        return Answer(200, b"<html>", {"Content-Type": "text/html"}) if fault == "page" else Answer(fault)

    server.before = after(2, happen)
    with pytest.raises(SourceError) as error:
        scenes.fetch(scene, area)
    assert SECRET not in str(error.value)
    assert folder_is_clean(scenes.folder)
    server.before = lambda _asked: None
    fetched = scenes.fetch(scene, area)
    assert SECRET not in fetched.item_path.read_text() + caplog.text
    with rasterio.open(fetched.path) as written:
        assert np.unique(written.read()).size > 200


CHILD = """
import pickle, sys
from pathlib import Path
from pipelines.errors import SourceError
from pipelines.scenes.cache import SceneCache
scene, area = pickle.loads(bytes.fromhex(sys.argv[1]))
try:
    SceneCache(Path(sys.argv[2]), "test").fetch(scene, area)
except SourceError as error:
    print(error)
    sys.exit(2)
except KeyboardInterrupt:
    print("interrupted")
    sys.exit(130)
print("fetched")
"""


def child(url: str, cache: Path, **options: Any) -> subprocess.Popen[str]:
    scene = scene_of(Path("x"), href=url, footprint=area_around(half_x_m=225))
    wanted = pickle.dumps((scene, area_around(half_x_m=150, half_y_m=150))).hex()
    root = str(Path(__file__).resolve().parents[3])
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, wanted, str(cache)],
        cwd=root, env=os.environ | {"PYTHONPATH": root}, stdout=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


@pytest.mark.parametrize("limit", [100_000, 700_000])
def test_disk_that_is_full_is_one_sentence_and_leaves_nothing(server, cog, tmp_path, limit) -> None:
    def small_disk() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    run = child(f"{server.url}/big.tif", tmp_path / "cache", preexec_fn=small_disk)
    out, _ = run.communicate(timeout=60)
    assert run.returncode == 2
    assert "the cache cannot write" in out
    assert "OVERWATT_CACHE" in out
    assert folder_is_clean(tmp_path / "cache")


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_what_is_interrupted_or_killed_is_never_taken_for_a_scene(server, cog, tmp_path, sent, code) -> None:
    reached = threading.Event()

    def before(_asked: Asked) -> Answer | None:
        if len(server.asked) > 3:
            reached.set()
            time.sleep(0.3)
        return None

    server.before = before
    run = child(f"{server.url}/big.tif", tmp_path / "cache")
    assert reached.wait(60)
    run.send_signal(sent)
    run.communicate(timeout=60)
    assert run.returncode == code
    if sent == signal.SIGINT:
        assert folder_is_clean(tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*.json"))
    server.before = lambda _asked: None
    run = child(f"{server.url}/big.tif", tmp_path / "cache")
    assert run.communicate(timeout=60)[0] == "fetched\n"


def test_logs_of_the_libraries_hold_no_keys(server: FileServer, cog: Path, caplog: Any) -> None:
    caplog.set_level(logging.DEBUG)
    with open_remote(f"{server.url}/big.tif?sig={SECRET}") as dataset:
        dataset.read(window=Window(0, 0, 10, 10))
    assert "big.tif" in caplog.text
    assert SECRET not in caplog.text
