"""Remote rasters: GDAL decodes, and every byte comes through this project's own range requests.

rasterio hands GDAL's reads to a file object of ours. That serves what GDAL's `/vsicurl/` cannot: keys that go to their
host alone, signatures renewed while a file is read, one version of the file from its first byte to its last, and
waiting that is bounded. Two things were seen of such an object with rasterio 1.4.4. An exception that leaves it ends
the process, and GDAL may take a failed read for an empty tile. So nothing is raised in it: the first failure is kept,
and `refuse_failed` raises it afterwards; pixels count only once that has been asked.
"""

import contextvars
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import httpx
import rasterio
from rasterio.abc import MultiByteRangeResourceContainer
from rasterio.io import DatasetReader

from pipelines.errors import SourceError
from pipelines.gdal_env import gdal_env, is_url
from pipelines.scenes.signing import NO_SIGNING, Signer
from pipelines.scenes.web import (
    PATIENT,
    Patience,
    as_source_error,
    attempts,
    body_of,
    new_client,
    public_href,
    refuse_status,
)

__all__ = ["open_remote", "refuse_failed", "remote_version", "uninterrupted"]

T = TypeVar("T")

_PAGE = 16 << 10
"""Bytes at least that a request brings where GDAL wants fewer: it reads headers in pieces of some bytes."""
_HEADER_PAGES = 2
"""Asked for at once at the beginning of a file: the header of most COGs."""
_KEPT_PAGES = 1024
"""16 MB of headers and small tiles; larger reads are kept decoded, by GDAL."""
_GAP = 16 << 10
"""Two ranges that lie closer are asked for as one."""
_MOST_AHEAD = 64
"""Pages asked for at once where a file is read from one on to the next: strips come in small pieces."""
_BESIDE = (".aux", ".xml", ".ovr", ".msk", ".imd", ".rpb", ".txt", ".tfw", ".wld", ".pam", ".json")
_LONGEST = 8 << 20
_AT_ONCE = 4
"""Requests at the same time for one reader."""
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_CANCELLED: contextvars.ContextVar[threading.Event] = contextvars.ContextVar("cancelled")


@contextmanager
def open_remote(url: str, *, signer: Signer = NO_SIGNING, patience: Patience = PATIENT) -> Iterator[DatasetReader]:
    """Open a raster on a web server; only the parts that are read are fetched. One thread at a time may read it.

    Its `name` ends in the address, without what may be a key.

    :raises SourceError: the file cannot be had, is no file of bytes but a web page, or changed while it was read
    :raises RasterioError: what was had cannot be read as a raster
    """
    name = public_href(url)
    cancelled = _CANCELLED.get(threading.Event())
    with new_client() as client, ThreadPoolExecutor(_AT_ONCE, "range") as pool:

        def file_at(address: str) -> _RemoteFile:
            return _RemoteFile(client, pool, address, signer, patience, cancelled)

        container = _Container(name, file_at(url), file_at)
        dataset: DatasetReader | None = None
        try:
            container.root.probe()
            dataset = uninterrupted(lambda: _opened(name, container))
            container.refuse_failed()
            _OPEN[dataset.name] = container
            yield dataset
            container.refuse_failed()
        except Exception:
            # Whatever was made of a failed read, the failure is what happened.
            container.refuse_failed()
            raise
        finally:
            if dataset is not None:
                _OPEN.pop(dataset.name, None)
                dataset.close()


def refuse_failed(dataset: DatasetReader) -> None:
    """Raise the failure that GDAL was not told of, if a read of a remote raster met one; others have none.

    :raises SourceError: pixels read from the dataset are not to be used
    """
    if container := _OPEN.get(dataset.name):
        container.refuse_failed()


def remote_version(url: str, *, signer: Signer = NO_SIGNING, patience: Patience = PATIENT) -> str:
    """Return what tells one version of a remote file from another: its entity tag, date and length.

    :raises SourceError: the file cannot be had, or the server does not answer range requests, without which a raster
        would have to be read whole
    """
    with new_client() as client, ThreadPoolExecutor(_AT_ONCE, "range") as pool:
        file = _RemoteFile(client, pool, url, signer, patience, threading.Event())
        # A GET of one byte, because addresses signed for GET refuse HEAD.
        file.fetch(0, 1)
        return "|".join(file.version)


def uninterrupted(work: Callable[[], T]) -> T:
    """Do what reads remote rasters in a thread of its own, because Ctrl-C inside GDAL would end the process untidily.

    An interrupt ends the reading, and is raised when it has ended.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()
    cancelled, context = threading.Event(), contextvars.copy_context()
    context.run(_CANCELLED.set, cancelled)
    with ThreadPoolExecutor(1, "remote") as pool:
        future = pool.submit(context.run, work)
        try:
            return future.result()
        except BaseException:
            cancelled.set()
            raise


def _opened(name: str, container: "_Container") -> DatasetReader:
    with gdal_env(name):
        return rasterio.open(name, opener=container)


class _RemoteFile:
    """The bytes of one file on a web server, all of one version; threads may share it."""

    def __init__(
        self,
        client: httpx.Client,
        pool: ThreadPoolExecutor,
        url: str,
        signer: Signer,
        patience: Patience,
        cancelled: threading.Event,
    ) -> None:
        self._client, self._pool, self._url, self._signer = client, pool, url, signer
        self._patience, self._cancelled = patience, cancelled
        self.name = public_href(url)
        self._lock, self._signing = threading.Lock(), threading.Lock()
        self._pages: OrderedDict[int, bytes] = OrderedDict()
        self._next_page, self._ahead = 0, 1
        self._lost_s = 0.0
        self.version: tuple[str, str, str] = ("", "", "")
        self.size = 0
        self.failure: BaseException | None = None

    def probe(self) -> None:
        """Read the beginning, and with it length and version."""
        self._keep(0, self.fetch(0, _HEADER_PAGES * _PAGE))

    def read(self, first: int, length: int) -> bytes:
        """Return up to `length` bytes from `first` on; small pieces come from pages that are kept."""
        length = min(length, self.size - first)
        if length <= 0:
            return b""
        pages = range(first // _PAGE, (first + length - 1) // _PAGE + 1)
        with self._lock:
            kept = [self._pages.get(page) for page in pages]
            missing = [page for page, content in zip(pages, kept, strict=True) if content is None]
            onward = bool(missing) and missing[0] == self._next_page
            if missing:
                self._ahead = min(2 * self._ahead, _MOST_AHEAD) if onward else 1
            ahead = self._ahead
        if length > _PAGE and missing and not onward:
            return self.fetch(first, length)
        if missing:
            start = missing[0]
            content = self.fetch(start * _PAGE, max(pages[-1] + 1 - start, ahead) * _PAGE)
            self._keep(start, content)
            kept = [*kept[: start - pages[0]], content]
        begin = first - pages[0] * _PAGE
        return b"".join(page for page in kept if page)[begin : begin + length]

    def ranges(self, parts: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return (first, length) parts, neighbours asked for as one and several at a time."""
        runs: list[list[int]] = []
        for first, length in sorted(parts):
            if runs and first - runs[-1][1] <= _GAP and first + length - runs[-1][0] <= _LONGEST:
                runs[-1][1] = max(runs[-1][1], first + length)
            else:
                runs.append([first, first + length])
        fetched = list(self._pool.map(lambda run: self.fetch(run[0], run[1] - run[0]), runs))
        found = []
        for first, length in parts:
            start, content = next(
                (run[0], content)
                for run, content in zip(runs, fetched, strict=True)
                if run[0] <= first and first + length <= run[1]
            )
            found.append(content[first - start : first - start + length])
        return found

    def fetch(self, first: int, length: int) -> bytes:
        """Ask the server for a part of the file, cut off at its end.

        :raises SourceError: it cannot be had
        """
        if self._cancelled.is_set():
            raise SourceError(f"{self.name}: reading was interrupted")
        if self._lost_s > self._patience.lost_s:
            raise SourceError(f"{self.name}: its server fails too often to read the file; try again later")
        last = min(first + length, self.size or first + length) - 1
        begun = time.monotonic()
        with as_source_error(self._url, self._patience):
            for attempt in attempts(self._patience, self._cancelled):
                with attempt:
                    tried = time.monotonic()
                    content = self._signed(first, last)
        with self._lock:
            self._lost_s += tried - begun
        return content

    def _signed(self, first: int, last: int) -> bytes:
        address = self._signer.sign(self._url)
        try:
            return self._once(address, first, last)
        except httpx.HTTPStatusError as error:
            if error.response.status_code not in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
                raise
            with self._signing:
                # Another thread may have renewed it meanwhile.
                renewed = self._signer.sign(self._url)
                if renewed == address:
                    renewed = self._signer.refresh(self._url)
            if renewed == address:
                raise
            return self._once(renewed, first, last)

    def _once(self, address: str, first: int, last: int) -> bytes:
        headers = {"Range": f"bytes={first}-{last}", "Accept-Encoding": "identity"}
        with self._client.stream("GET", address, headers=headers) as response:
            refuse_status(response)
            kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
            if kind in {"text/html", "application/xhtml+xml"}:
                raise SourceError(
                    f"{self.name}: its server sends a web page instead of the file (a login page?); check address "
                    "and key"
                )
            if response.status_code != httpx.codes.PARTIAL_CONTENT or "Content-Encoding" in response.headers:
                raise SourceError(
                    f"{self.name}: its server cannot send a part of a file (HTTP range requests); download the file "
                    "and give it as local:PATH"
                )
            last = self._placed(response, first, last)
            content = bytearray()
            for part in body_of(response, self._patience):
                content += part
                if self._cancelled.is_set():
                    raise SourceError(f"{self.name}: reading was interrupted")
                if len(content) > last - first + 1:
                    break
        if len(content) != last - first + 1:
            raise httpx.RemoteProtocolError(f"{len(content)} bytes came of {last - first + 1}")
        return bytes(content)

    def _placed(self, response: httpx.Response, first: int, last: int) -> int:
        """Return the last byte that comes, after making sure that they are those asked for, of the version begun."""
        headers = response.headers
        place = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", "").strip())
        size = int(place[3]) if place and place[3] != "*" else 0
        if not (place and size and int(place[1]) == first and int(place[2]) == min(last, size - 1)):
            raise SourceError(
                f"{self.name}: its server sends another part of the file than it was asked for; download it"
            )
        version = (headers.get("ETag", ""), headers.get("Last-Modified", ""), str(size))
        with self._lock:
            if not self.size:
                self.version, self.size = version, size
            elif version != self.version:
                raise SourceError(f"{self.name} changed while it was read; run again when it is complete")
        return int(place[2])

    def _keep(self, page: int, content: bytes) -> None:
        with self._lock:
            for number, start in enumerate(range(0, len(content), _PAGE), page):
                self._pages[number] = content[start : start + _PAGE]
            self._next_page = page + -(-len(content) // _PAGE)
            while len(self._pages) > _KEPT_PAGES:
                self._pages.popitem(last=False)


class _Container:
    """What rasterio asks for files: the raster itself and, for a VRT, the rasters it names on its server."""

    def __init__(self, name: str, root: _RemoteFile, file_at: Callable[[str], _RemoteFile]) -> None:
        self.root, self._file_at = root, file_at
        self._lock = threading.Lock()
        self._name = name
        self._files = {name: root}

    def refuse_failed(self) -> None:
        for file in list(self._files.values()):
            if file.failure:
                # Anew each time: raised twice, one exception would grow its traceback.
                failure = file.failure
                raise failure.with_traceback(None) from failure.__cause__

    def open(self, path: str, mode: str = "r", **_options: Any) -> "_Handle":
        if "w" in mode or "a" in mode or "+" in mode or not self.isfile(path):
            raise FileNotFoundError(path)
        return _Handle(self._file(path))

    def isfile(self, path: str) -> bool:
        # The files beside a raster are not asked for; those that a mosaic is made of are.
        return path in self._files or (self._is_mosaic and is_url(path) and not path.lower().endswith(_BESIDE))

    def isdir(self, _path: str) -> bool:
        return False

    def ls(self, _path: str) -> list[str]:
        return []

    def mtime(self, _path: str) -> int:
        return 0

    def size(self, path: str) -> int:
        return self._file(path).size if self.isfile(path) else 0

    def rm(self, path: str) -> None:
        raise FileNotFoundError(path)

    @property
    def _is_mosaic(self) -> bool:
        return urlsplit(self._name).path.lower().endswith(".vrt")

    def _file(self, path: str) -> _RemoteFile:
        with self._lock:
            if path not in self._files:
                file = self._files[path] = self._file_at(path)
                try:
                    file.probe()
                except BaseException as error:  # noqa: BLE001, kept for `refuse_failed`, which raises it
                    file.failure = error
            return self._files[path]


MultiByteRangeResourceContainer.register(_Container)
_OPEN: dict[str, _Container] = {}
"""By the name of the dataset, in which rasterio puts a number of its own."""


class _Handle:
    """A place in a file, as GDAL wants it; nothing is ever raised here."""

    def __init__(self, file: _RemoteFile) -> None:
        self._file = file
        self._at = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def close(self) -> None:
        pass

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._file.size)[whence]
        return self._at

    def read(self, length: int = -1) -> bytes:
        try:
            content = self._file.read(self._at, self._file.size if length < 0 else length)
        except BaseException as error:  # noqa: BLE001, kept for `refuse_failed`, which raises it
            self._file.failure = self._file.failure or error
            return b""
        self._at += len(content)
        return content

    def get_byte_ranges(self, offsets: Sequence[int], sizes: Sequence[int]) -> list[bytes]:
        try:
            content = self._file.ranges(list(zip(offsets, sizes, strict=True)))
            if [len(part) for part in content] != list(sizes):
                raise SourceError(f"{self._file.name} ends before its last pixel; get a whole copy of it")
        except BaseException as error:  # noqa: BLE001, kept for `refuse_failed`, which raises it
            self._file.failure = self._file.failure or error
            # As long as asked for: GDAL copies without looking.
            return [bytes(size) for size in sizes]
        return content
