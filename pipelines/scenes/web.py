"""HTTP for catalogs: bounded in time, retried when that can help, and one sentence when it does not."""

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

import httpx
from tenacity import Retrying, retry_if_exception, stop_after_attempt, stop_after_delay, wait_exponential

from pipelines.errors import SourceError

__all__ = ["get_bytes", "get_text", "new_client", "public_href", "version_of"]

_ATTEMPTS = 4
_GIVE_UP_S = 40.0


def new_client() -> httpx.Client:
    """Return a client that keeps its connections; close it after use."""
    return httpx.Client(
        timeout=httpx.Timeout(15.0, connect=8.0), follow_redirects=True, headers={"User-Agent": "overwatt"}
    )


def get_text(client: httpx.Client, url: str) -> str:
    """Read a text file from a web server.

    :raises SourceError: it cannot be had; the message names the address and says why
    """
    with _as_source_error(url):
        for attempt in _attempts():
            with attempt:
                response = client.get(url)
                response.raise_for_status()
        return response.text


def get_bytes(client: httpx.Client, url: str, at_most: int) -> bytes:
    """Read a file from a web server.

    :raises SourceError: it cannot be had, or is larger than `at_most` bytes
    """
    with _as_source_error(url):
        for attempt in _attempts():
            with attempt, client.stream("GET", url) as response:
                response.raise_for_status()
                content = bytearray()
                for part in response.iter_bytes():
                    content += part
                    if len(content) > at_most:
                        raise SourceError(f"{public_href(url)}: it has over {at_most >> 20} MB; check the address")
    return bytes(content)


def version_of(client: httpx.Client, url: str) -> str:
    """Return what tells one version of a remote file from another: its entity tag, date and length.

    :raises SourceError: the file cannot be had, or the server does not answer range requests, without which a raster
        would have to be read whole
    """
    with _as_source_error(url):
        for attempt in _attempts():
            # A GET of one byte, because addresses signed for GET refuse HEAD. The body is not read.
            with attempt, client.stream("GET", url, headers={"Range": "bytes=0-0"}) as response:
                response.raise_for_status()
        headers = response.headers
    if response.status_code != httpx.codes.PARTIAL_CONTENT:
        raise SourceError(
            f"{public_href(url)}: its server cannot send a part of a file (HTTP range requests); download the file "
            "and give it as local:PATH"
        )
    length = headers.get("Content-Range", "").rpartition("/")[2]
    return "|".join((headers.get("ETag", ""), headers.get("Last-Modified", ""), length))


def public_href(href: str) -> str:
    """Return an address without the parts that may hold a key: user, password, query and fragment."""
    parts = urlsplit(href)
    if parts.scheme not in {"http", "https"}:
        return href
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _attempts() -> Retrying:
    return Retrying(
        retry=retry_if_exception(_may_pass),
        stop=stop_after_attempt(_ATTEMPTS) | stop_after_delay(_GIVE_UP_S),
        wait=wait_exponential(multiplier=0.2, max=5),
        reraise=True,
    )


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code >= 500 or error.response.status_code == httpx.codes.TOO_MANY_REQUESTS
    return isinstance(error, httpx.TransportError)


@contextmanager
def _as_source_error(url: str) -> Iterator[None]:
    try:
        yield
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        remedy = f"it did so {_ATTEMPTS} times, try again later" if _may_pass(error) else "check the address"
        if status in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
            remedy = "it wants a key, give a signed address or download the file"
        reason = f"{status} {error.response.reason_phrase}".strip()
        raise SourceError(f"{public_href(url)}: the server answers {reason}; {remedy}") from error
    except httpx.TimeoutException as error:
        raise SourceError(f"{public_href(url)}: the server does not answer in time; try again later") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        reason = str(error) or type(error).__name__
        raise SourceError(f"{public_href(url)} cannot be reached ({reason}); check address and network") from error
