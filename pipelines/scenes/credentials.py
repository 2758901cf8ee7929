"""Keys of imagery servers by host: read from one file, added to a request on its way out, shown nowhere.

The file is JSON: a host name, or `host:port`, and what requests to it carry::

    {"imagery.example.com": {"headers": {"Authorization": "Bearer ${IMAGERY_TOKEN}"}},
     "tiles.example.com:8443": {"query": {"api_key": "${TILES_KEY}"}}}

`${NAME}` stands for an environment variable. A host alone stands for all its ports. A key is never sent unencrypted,
but to this machine, and never to another host that a server redirects to.
"""

import ipaddress
import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.errors import CredentialsError

__all__ = ["NO_CREDENTIALS", "Credentials", "HostKeys", "is_loopback", "load_credentials"]

_VARIABLE = re.compile(r"\$\{([^}]*)\}")
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\s/@:?#\[\]]+)(:\d+)?")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OPEN_TO_OTHERS = stat.S_IROTH | stat.S_IWOTH


@dataclass(frozen=True)
class HostKeys:
    """What requests to one host carry; its text does not show it."""

    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Names and values of HTTP headers."""
    query: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Names and values of query parameters; one that an address has already is left alone."""


@dataclass(frozen=True)
class Credentials:
    """Keys by host; its text shows neither."""

    by_host: Mapping[str, HostKeys] = field(default_factory=dict, repr=False)
    """By host name or `host:port`, in lower case."""

    def of(self, host: str, port: int) -> HostKeys | None:
        """Return what requests to a host carry; keys of that very port come before those of the host."""
        host = f"[{host}]" if ":" in host else host
        return self.by_host.get(f"{host}:{port}".lower()) or self.by_host.get(host.lower())


NO_CREDENTIALS = Credentials()


def load_credentials(path: Path | None) -> Credentials:
    """Read the file of keys; no path, no keys.

    :raises CredentialsError: the file is missing or broken, names a variable that is not set, or holds a key and can
        be read or written by every user of this machine; the message never holds a value
    """
    if path is None:
        return NO_CREDENTIALS
    try:
        # The mode of the very file that is read, whatever is put in its place meanwhile.
        with path.expanduser().open(encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            document = json.load(file)
    except OSError as error:
        raise CredentialsError(
            f"the file of keys {path} cannot be read ({error.strerror}); correct OVERWATT_CREDENTIALS"
        ) from error
    except json.JSONDecodeError as error:
        # Not as the cause: it holds the whole text.
        place = f"line {error.lineno}, column {error.colno}: {error.msg}"
        raise CredentialsError(f"{path} is not JSON ({place})") from None
    except UnicodeDecodeError:
        raise CredentialsError(f"{path} is not JSON (not UTF-8 text)") from None
    except RecursionError:
        raise CredentialsError(f"{path} is nested too deeply; it holds hosts, and for each headers and query") from None
    if not isinstance(document, dict):
        raise CredentialsError(f"{path} is no JSON object; write a host name and its keys: {_FORM}")
    by_host = {_host(name, path): _keys(entry, name, path) for name, entry in document.items()}
    if os.name == "posix" and mode & _OPEN_TO_OTHERS and _holds_a_value(document):
        raise CredentialsError(
            f"{path} holds keys and is open to every user of this machine; close it with `chmod 600 {path}`, or write "
            "${NAME} for each key and set that variable"
        )
    return Credentials(by_host)


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


_FORM = '{"HOST": {"headers": {"NAME": "VALUE"}, "query": {"NAME": "VALUE"}}}'


def _host(name: str, path: Path) -> str:
    if not _HOST.fullmatch(name.lower()):
        # A mistaken address may hold a key.
        raise CredentialsError(f"{path}: a host is written like an address; give host or host:port alone: {_FORM}")
    return name.lower()


def _keys(entry: Any, host: str, path: Path) -> HostKeys:
    if not isinstance(entry, dict) or not entry or set(entry) - {"headers", "query"}:
        raise CredentialsError(f"{path}, {host}: give 'headers', 'query' or both: {_FORM}")
    for kind, pairs in entry.items():
        if not isinstance(pairs, dict) or not all(isinstance(value, str) for value in pairs.values()):
            raise CredentialsError(f"{path}, {host}: '{kind}' is no object of names and texts: {_FORM}")
    keys = {
        kind: tuple((name, _filled(value, f"{path}, {host}, {kind}, {name}")) for name, value in pairs.items())
        for kind, pairs in entry.items()
    }
    for name, value in keys.get("headers", ()):
        if not _HEADER_NAME.fullmatch(name) or not (value.isascii() and value.isprintable()):
            raise CredentialsError(
                f"{path}, {host}, headers, {name!r}: no HTTP header; name and value are plain text on one line"
            )
    return HostKeys(**keys)


def _filled(value: str, place: str) -> str:
    for name in _VARIABLE.findall(value):
        if not os.environ.get(name):
            raise CredentialsError(f"{place}: the environment variable '{name}' is not set")
    return _VARIABLE.sub(lambda match: os.environ[match[1]], value)


def _holds_a_value(document: Mapping[str, Mapping[str, Mapping[str, str]]]) -> bool:
    values = [value for entry in document.values() for pairs in entry.values() for value in pairs.values()]
    return not all(_VARIABLE.search(value) for value in values)
