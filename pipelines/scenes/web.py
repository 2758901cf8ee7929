"""HTTP for imagery: bounded in time, retried when that can help, and one sentence when it does not.

Keys join a request in its transport, below redirects, messages and logs: they go to the host they are for, encrypted,
and what is above never sees them.
"""

import logging
import re
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit, urlunsplit

import httpx
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    sleep_using_event,
    stop_after_attempt,
    stop_before_delay,
)

from pipelines.errors import SourceError
from pipelines.scenes.credentials import Credentials, HostKeys, is_loopback, load_credentials
from pipelines.settings import Settings

__all__ = [
    "PATIENT",
    "Patience",
    "UnfitAnswerError",
    "as_source_error",
    "attempts",
    "body_of",
    "get_bytes",
    "get_checked",
    "get_text",
    "may_pass",
    "new_client",
    "public_href",
    "refuse_status",
    "request_text",
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


@dataclass(frozen=True)
class Patience:
    """How long a server is waited for."""

    attempts: int = 4
    """For one request, the first one counted."""
    give_up_s: float = 40.0
    """From the first attempt of one request on, no attempt is begun any more."""
    longest_wait_s: float = 20.0
    """Between two attempts, whatever a server asks for."""
    first_wait_s: float = 0.2
    """Doubled from attempt to attempt where the server asks for nothing."""
    slow_after_s: float = 20.0
    """A body may take this long; from then on it must have come at `slowest_bytes_per_s`."""
    slowest_bytes_per_s: float = 10_000.0
    lost_s: float = 180.0
    """For all requests of one file together: time spent on attempts that failed and on waiting for the next."""


PATIENT = Patience()


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


def get_text(client: httpx.Client, url: str, patience: Patience = PATIENT) -> str:
    """Read a text file from a web server.

    :raises SourceError: it cannot be had; the message names the address and says why
    """
    return request_text(client, url, patience=patience)


def request_text(
    client: httpx.Client,
    url: str,
    *,
    method: str = "GET",
    parameters: Mapping[str, Any] | None = None,
    patience: Patience = PATIENT,
) -> str:
    """Ask a web server and return the text of its answer.

    :param method: of a question that may be asked again: `GET`, or `POST` to search
    :param parameters: JSON body of a POST, joined to the query of a GET
    :raises SourceError: it cannot be had; the message names the address and says why
    """
    with as_source_error(url, patience):
        body = dict(parameters or {}) if method == "POST" else None
        address = httpx.URL(url) if body is not None else httpx.URL(url).copy_merge_params(parameters or {})
        for attempt in attempts(patience):
            with attempt:
                response = _ask(client, client.build_request(method, address, json=body), patience)
                refuse_status(response)
        return response.text


class UnfitAnswerError(Exception):
    """A server answered with something else than was asked for, which asking again may mend; the message says what."""


def get_checked(
    client: httpx.Client, url: str, read: Callable[[httpx.Response], Result], patience: Patience = PATIENT
) -> Result:
    """Return what `read` makes of an answer; it raises `UnfitAnswerError` for one that is to be asked for again.

    :param read: gets every answer, whatever its status
    :raises SourceError: nothing fit can be had; the message names the address and says why
    """
    with as_source_error(url, patience):
        for attempt in attempts(patience):
            with attempt:
                return read(_ask(client, client.build_request("GET", url), patience))
    raise AssertionError("the last attempt returns or raises")


def _ask(client: httpx.Client, request: httpx.Request, patience: Patience) -> httpx.Response:
    """Return an answer with its body, which has come fast enough."""
    response = client.send(request, stream=True)
    try:
        content = b"".join(body_of(response, patience))
    finally:
        response.close()
    headers = [(name, value) for name, value in response.headers.multi_items() if name != "content-encoding"]
    return httpx.Response(response.status_code, headers=headers, content=content, request=response.request)


def get_bytes(client: httpx.Client, url: str, at_most: int, patience: Patience = PATIENT) -> bytes:
    """Read a file from a web server.

    :raises SourceError: it cannot be had, or is larger than `at_most` bytes
    """
    with as_source_error(url, patience):
        for attempt in attempts(patience):
            with attempt, client.stream("GET", url) as response:
                refuse_status(response)
                content = bytearray()
                for part in body_of(response, patience):
                    content += part
                    if len(content) > at_most:
                        raise SourceError(f"{public_href(url)}: it has over {at_most >> 20} MB; check the address")
    return bytes(content)


def public_href(href: str) -> str:
    """Return an address without the parts that may hold a key: user, password, query and fragment."""
    try:
        parts = urlsplit(href)
    except ValueError:
        # No address, but it may hold a key all the same.
        return re.sub(r"//[^/]*@", "//", re.split("[?#]", href, maxsplit=1)[0])
    if parts.scheme not in {"http", "https"}:
        return href
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def attempts(patience: Patience, cancelled: threading.Event | None = None) -> Retrying:
    """Return the attempts of one request: what may pass is tried again, what cannot is not.

    :param cancelled: ends a wait when it is set
    """

    def wait(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked_s = _retry_after_s(error.response) if isinstance(error, httpx.HTTPStatusError) else None
        own_s = patience.first_wait_s * 2 ** (state.attempt_number - 1)
        return min(patience.longest_wait_s, own_s if asked_s is None else max(asked_s, own_s))

    return Retrying(
        retry=retry_if_exception(may_pass),
        stop=stop_after_attempt(patience.attempts) | stop_before_delay(patience.give_up_s),
        wait=wait,
        sleep=sleep_using_event(cancelled or threading.Event()),
        reraise=True,
    )


def may_pass(error: BaseException) -> bool:
    """Whether the same request may succeed a little later."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code >= 500 or error.response.status_code == httpx.codes.TOO_MANY_REQUESTS
    return isinstance(error, httpx.TransportError | UnfitAnswerError) and not isinstance(
        error, httpx.UnsupportedProtocol
    )


def refuse_status(response: httpx.Response) -> None:
    """Raise `httpx.HTTPStatusError` for an answer that is none; its text, unlike that of httpx, holds no address.

    A redirect that was not followed is none either.
    """
    if not response.is_success:
        raise httpx.HTTPStatusError(_status(response), request=response.request, response=response)


def body_of(response: httpx.Response, patience: Patience) -> Iterator[bytes]:
    """Yield the body part by part, as long as it comes fast enough.

    :raises httpx.ReadTimeout: it does not
    """
    started, received = time.monotonic(), 0
    for part in response.iter_bytes():
        received += len(part)
        yield part
        late_s = time.monotonic() - started - patience.slow_after_s
        if late_s > 0 and received < late_s * patience.slowest_bytes_per_s:
            raise httpx.ReadTimeout(f"only {received} bytes came", request=response.request)


@contextmanager
def as_source_error(url: str, patience: Patience = PATIENT) -> Iterator[None]:
    """Turn what goes wrong with a request into one sentence, a `SourceError`; its cause tells whether it may pass."""
    try:
        yield
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        remedy = f"it did so {patience.attempts} times, try again later" if may_pass(error) else "check the address"
        asked_s = _retry_after_s(error.response)
        if may_pass(error) and asked_s:
            remedy = f"it asks to wait {asked_s:.0f} s, try again later"
        if status in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
            remedy = (
                "it wants a key, or another one: put it into the file that OVERWATT_CREDENTIALS names, give a signed "
                "address or download the file"
            )
        # The text of httpx's own holds the whole address, and a traceback would show it.
        cause = httpx.HTTPStatusError(_status(error.response), request=error.request, response=error.response)
        raise SourceError(f"{public_href(url)}: the server answers {cause}; {remedy}") from cause
    except UnfitAnswerError as error:
        raise SourceError(
            f"{public_href(url)}: {error}; it did so {patience.attempts} times, check the address"
        ) from error
    except httpx.TimeoutException as error:
        raise SourceError(f"{public_href(url)}: the server does not answer in time; try again later") from error
    except httpx.TooManyRedirects as error:
        raise SourceError(f"{public_href(url)} redirects in circles; check the address") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        reason = str(error) or type(error).__name__
        raise SourceError(f"{public_href(url)} cannot be reached ({reason}); check address and network") from error


def _status(response: httpx.Response) -> str:
    return f"{response.status_code} {response.reason_phrase}".strip()


def _retry_after_s(response: httpx.Response) -> float | None:
    """What a server asks for, in seconds from its own present: its clock and this machine's may differ."""
    asked = response.headers.get("Retry-After", "").strip()
    if asked.isascii() and asked.isdigit():
        return float(asked[:9])
    until, now = (_moment(text) for text in (asked, response.headers.get("Date", "")))
    return max(0.0, (until - (now or datetime.now(UTC))).total_seconds()) if until else None


def _moment(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
