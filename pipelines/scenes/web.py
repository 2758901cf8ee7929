"""HTTP for imagery: bounded in time, retried when that can help, and one sentence when it does not.

Keys join a request in its transport, below redirects, messages and logs: they go to the host they are for, encrypted,
and what is above never sees them.
"""

import logging
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit, urlunsplit

import httpx
from tenacity import Retrying, retry_if_exception, stop_after_attempt, stop_after_delay, wait_exponential

from pipelines.errors import SourceError
from pipelines.scenes.credentials import Credentials, HostKeys, is_loopback, load_credentials
from pipelines.settings import Settings

__all__ = [
    "UnfitAnswerError",
    "get_bytes",
    "get_checked",
    "get_text",
    "new_client",
    "public_href",
    "request_text",
    "version_of",
]

Result = TypeVar("Result")


def _publicly(record: logging.LogRecord) -> bool:
    if isinstance(record.args, tuple):
        record.args = tuple(public_href(str(arg)) if isinstance(arg, httpx.URL) else arg for arg in record.args)
    return True


# httpx logs each whole address, and httpcore the headers of answers with the addresses they redirect to.
logging.getLogger("httpx").addFilter(_publicly)
for _name in ("httpcore.connection", "httpcore.http11", "httpcore.http2", "httpcore.proxy", "httpcore.socks"):
    logging.getLogger(_name).setLevel(logging.INFO)

_ATTEMPTS = 4
_GIVE_UP_S = 40.0


def new_client(
    credentials: Credentials | None = None,
    *,
    wrap: Callable[[httpx.BaseTransport], httpx.BaseTransport] = lambda transport: transport,
) -> httpx.Client:
    """Return a client that keeps its connections; close it after use. Threads may share it.

    :param credentials: keys by host; None for those of the setting OVERWATT_CREDENTIALS
    :param wrap: put around the transport: no message, redirect or log sees what it changes in a request
    :raises CredentialsError: the file of keys cannot be used
    """
    if credentials is None:
        credentials = load_credentials(Settings().credentials)
    return httpx.Client(
        transport=wrap(_KeyedTransport(credentials)),
        timeout=httpx.Timeout(15.0, connect=8.0),
        follow_redirects=True,
        max_redirects=8,
        headers={"User-Agent": "overwatt"},
    )


class _KeyedTransport(httpx.BaseTransport):
    """Adds to each request the keys of its host, and refuses what would send them, or bytes, less safely."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        verify = httpx.create_ssl_context()
        self._direct = httpx.HTTPTransport(verify=verify)
        # httpx looks for proxies only where no transport is given.
        self._proxied = {
            scheme: httpx.HTTPTransport(verify=verify, proxy=proxy)
            for scheme, proxy in urllib.request.getproxies().items()
            if scheme in {"http", "https", "all"} and proxy
        }

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        keys = self._credentials.of(url.host, url.port or {"http": 80, "https": 443}.get(url.scheme, 0))
        if keys and url.scheme != "https" and not is_loopback(url.host):
            raise SourceError(f"{public_href(str(url))}: the key of {url.host} is sent encrypted only; use https")
        response = self._route(url).handle_request(_with_keys(request, keys) if keys else request)
        target = response.headers.get("Location", "")
        if response.has_redirect_location and url.scheme == "https" and target.lower().startswith("http:"):
            response.close()
            raise SourceError(
                f"{public_href(str(url))} redirects to {public_href(target)}, which is not encrypted; this is refused, "
                "ask who runs the server for its https address"
            )
        return response

    def close(self) -> None:
        self._direct.close()
        for transport in self._proxied.values():
            transport.close()

    def _route(self, url: httpx.URL) -> httpx.HTTPTransport:
        proxied = self._proxied.get(url.scheme) or self._proxied.get("all")
        if proxied is None or is_loopback(url.host) or urllib.request.proxy_bypass(url.host):
            return self._direct
        return proxied


def _with_keys(request: httpx.Request, keys: HostKeys) -> httpx.Request:
    # A copy: the request that was given stays what redirects are made from and what errors and responses show.
    added = [(name, value) for name, value in keys.query if name not in request.url.params]
    # Put behind it: written anew, the query of a signed address would no longer fit its signature.
    query = b"&".join(part for part in (request.url.query, urlencode(added).encode()) if part)
    headers = request.headers.copy()
    for name, value in keys.headers:
        headers[name] = value
    return httpx.Request(
        request.method,
        request.url.copy_with(query=query) if added else request.url,
        headers=headers,
        stream=request.stream,
        extensions=request.extensions,
    )


def get_text(client: httpx.Client, url: str) -> str:
    """Read a text file from a web server.

    :raises SourceError: it cannot be had; the message names the address and says why
    """
    return request_text(client, url)


def request_text(
    client: httpx.Client, url: str, *, method: str = "GET", parameters: Mapping[str, Any] | None = None
) -> str:
    """Ask a web server and return the text of its answer.

    :param method: of a question that may be asked again: `GET`, or `POST` to search
    :param parameters: JSON body of a POST, joined to the query of a GET
    :raises SourceError: it cannot be had; the message names the address and says why
    """
    with _as_source_error(url):
        body = dict(parameters or {}) if method == "POST" else None
        address = httpx.URL(url) if body is not None else httpx.URL(url).copy_merge_params(parameters or {})
        for attempt in _attempts():
            with attempt:
                response = client.request(method, address, json=body)
                response.raise_for_status()
        return response.text


class UnfitAnswerError(Exception):
    """A server answered with something else than was asked for, which asking again may mend; the message says what."""


def get_checked(client: httpx.Client, url: str, read: Callable[[httpx.Response], Result]) -> Result:
    """Return what `read` makes of an answer; it raises `UnfitAnswerError` for one that is to be asked for again.

    :param read: gets every answer, whatever its status
    :raises SourceError: nothing fit can be had; the message names the address and says why
    """
    with _as_source_error(url):
        for attempt in _attempts():
            with attempt:
                return read(client.get(url))
    raise AssertionError("the last attempt returns or raises")


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
    return isinstance(error, httpx.TransportError | UnfitAnswerError)


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
    except UnfitAnswerError as error:
        raise SourceError(f"{public_href(url)}: {error}; it did so {_ATTEMPTS} times, check the address") from error
    except httpx.TimeoutException as error:
        raise SourceError(f"{public_href(url)}: the server does not answer in time; try again later") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        reason = str(error) or type(error).__name__
        raise SourceError(f"{public_href(url)} cannot be reached ({reason}); check address and network") from error
