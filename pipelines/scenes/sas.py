"""Signatures for Azure blobs of the Planetary Computer: one token a container, kept until shortly before it expires.

Its own client was seen to wait for minutes on a host that is out of reach; here a token is had within seconds or it is
said that it cannot be had. A key for the service is optional and raises its limits: give it as a header
`Ocp-Apim-Subscription-Key` of its host in the file of keys.
"""

import json
import re
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import parse_qsl, urlsplit

import httpx
from pystac.utils import str_to_datetime

from pipelines.errors import SourceError
from pipelines.scenes.web import UnfitAnswerError, get_checked, new_client

__all__ = ["PLANETARY_COMPUTER", "SasSigner"]

PLANETARY_COMPUTER = "https://planetarycomputer.microsoft.com/api/sas/v1"
"""Root of the service that gives tokens, as its documentation has it."""
AZURE_BLOBS = r"https://(?P<account>[a-z0-9]{3,24})\.blob\.core\.windows\.net/(?P<container>[^/?#]+)/"
"""Addresses that are signed, with the account and the container in them; no others ever are."""
_TIMEOUT = httpx.Timeout(5.0, connect=4.0)
"""Of one attempt; with all of them and the waits between, a token is refused within half a minute."""
_EARLY_S = 300.0
_EARLY_SHARE = 0.2
"""A token is renewed this long, or this share of its life, before it expires, whichever is less."""
_SHORTEST_S = 60.0
"""Life of a token that seems to be expired when it is given: then a clock is wrong, and the blobs' server decides."""


@dataclass(frozen=True)
class _Token:
    query: str = field(repr=False)
    good_until_s: float
    """By the monotonic clock."""


class SasSigner:
    """Signs addresses of blobs with tokens of one service; see `pipelines.scenes.signing.Signer`."""

    def __init__(self, service: str = PLANETARY_COMPUTER, blobs: str = AZURE_BLOBS) -> None:
        """Use the tokens of `service` for addresses that begin as `blobs` says.

        :param blobs: regular expression with the groups `account` and `container`
        """
        self._service = service.rstrip("/")
        self._blobs = re.compile(blobs)
        self._tokens: dict[tuple[str, str], _Token] = {}
        self._lock = threading.Lock()

    def sign(self, url: str) -> str:
        """Return the signed address; one of another host, or one that is signed already, as it is."""
        return self._signed(url, anew=False)

    def refresh(self, url: str) -> str:
        """Return the address with a token got anew."""
        return self._signed(url, anew=True)

    def _signed(self, url: str, *, anew: bool) -> str:
        place = self._blobs.match(url)
        query = urlsplit(url).query
        if place is None or "sig" in dict(parse_qsl(query)):
            return url
        container = (place["account"], place["container"])
        # Threads that read one image wait for one token instead of asking for one each.
        with self._lock:
            token = self._tokens.get(container)
            if token is None or anew or time.monotonic() >= token.good_until_s:
                token = self._tokens[container] = self._ask(*container)
        return f"{url}{'&' if query else '?'}{token.query}"

    def _ask(self, account: str, container: str) -> _Token:
        with new_client() as client:
            client.timeout = _TIMEOUT
            try:
                return get_checked(client, f"{self._service}/token/{account}/{container}", _read)
            except SourceError as error:
                raise SourceError(f"the images of {account} need a signature, which cannot be had: {error}") from (
                    error.__cause__
                )


def _read(response: httpx.Response) -> _Token:
    response.raise_for_status()
    try:
        document = json.loads(response.text)
        query, expiry = str(document["token"]).lstrip("?"), str_to_datetime(document["msft:expiry"])
    except (ValueError, TypeError, KeyError, RecursionError):
        # Not as the cause: it may hold the token.
        raise UnfitAnswerError("the answer holds no token with its expiry") from None
    try:
        # The service's own clock: with ours wrong, a token would be kept too long or thrown away at once.
        now = parsedate_to_datetime(response.headers["Date"])
        now = now if now.tzinfo else now.replace(tzinfo=UTC)
    except (KeyError, ValueError):
        now = datetime.now(UTC)
    life_s = max(_SHORTEST_S, (expiry.astimezone(UTC) - now.astimezone(UTC)).total_seconds())
    return _Token(query, time.monotonic() + life_s - min(_EARLY_S, _EARLY_SHARE * life_s))
