"""The seam for servers that want each address signed, with signatures that expire."""

from typing import Protocol

__all__ = ["NO_SIGNING", "Signer"]


class Signer(Protocol):
    """Makes addresses that a server accepts, out of those that catalogs hold; called from several threads.

    Signed addresses are used for requests alone: scenes, items, messages and the cache hold the unsigned ones.
    """

    def sign(self, url: str) -> str:
        """Return the address to ask for, the same one where none of this signer's servers is named.

        It may keep a signature until shortly before it expires.

        :raises SourceError: the signature cannot be had, which it says within half a minute
        """
        ...

    def refresh(self, url: str) -> str:
        """Return the address with a signature got anew, because the server refused the one of `sign`.

        :param url: the unsigned address
        :raises SourceError: the signature cannot be had
        """
        ...


class _NoSigning:
    def sign(self, url: str) -> str:
        return url

    def refresh(self, url: str) -> str:
        return url


NO_SIGNING: Signer = _NoSigning()
"""Every address as it is."""
