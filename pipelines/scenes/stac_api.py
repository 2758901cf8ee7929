"""Item search of a STAC API: pystac-client asks the questions, our HTTP carries them.

One HTTP stack means one set of keys by host, one bound in time and one way to say what went wrong, for the landing
page, for each page of results, and for a `search` or `next` link that leads to another host.
"""

import json
import logging
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any
from urllib.parse import urljoin

import httpx
import pystac_client
from pystac_client.conformance import ConformanceClasses
from pystac_client.stac_api_io import StacApiIO
from shapely.geometry import MultiPolygon, Polygon, mapping

from pipelines.errors import SourceError
from pipelines.gdal_env import is_url
from pipelines.scenes.selection import NO_LIMITS, Limits
from pipelines.scenes.web import public_href, request_text

__all__ = ["PAGES_AT_MOST", "ItemSearch", "is_api", "read_object", "search_items"]

log = logging.getLogger(__name__)

ITEMS_A_PAGE = 100
"""Asked for; a server may give fewer. Earth Search and Planetary Computer both advise against much more."""
PAGES_AT_MOST = 50
"""Bound on what one search may ask of a server: 5000 items of one perimeter are years of daily imagery."""


@dataclass(frozen=True)
class ItemSearch:
    """What is asked of a STAC API."""

    area: Polygon | MultiPolygon
    """Longitude and latitude (CRS84)."""
    start: date | None = None
    end: date | None = None
    """First and last day, both included, UTC."""
    collections: tuple[str, ...] = ()
    """None for all."""
    limits: Limits = NO_LIMITS
    """Sent to servers that can filter; the answer must be held against them all the same."""
    items_a_page: int = ITEMS_A_PAGE
    pages_at_most: int = PAGES_AT_MOST


def is_api(document: Mapping[str, Any]) -> bool:
    """Whether a catalog's JSON is the landing page of an API."""
    return bool(document.get("conformsTo"))


def search_items(
    client: httpx.Client, landing: Mapping[str, Any], href: str, wanted: ItemSearch
) -> Generator[dict[str, Any], None, bool]:
    """Yield the JSON of the items that a STAC API finds, page by page; a dictionary each, otherwise unchecked.

    :param landing: JSON of the API's landing page, read from `href`
    :returns: True if everything was seen, False if there are more than `pages_at_most` pages (value of the generator)
    :raises SourceError: the API has no item search, cannot be reached, or answers something else than items
    """
    api = _open(client, landing, href)
    links = [link.to_dict() for link in api.get_links("search")]
    if not api.conforms_to(ConformanceClasses.ITEM_SEARCH) or api.get_search_link() is None:
        raise SourceError(f"{public_href(href)} is a STAC API without item search; give another, or a static catalog")
    with_post = any(str(link.get("method")).upper() == "POST" for link in links)
    can_filter = with_post and api.conforms_to(ConformanceClasses.FILTER) and _speaks_cql2(landing)
    wish = _cql2(wanted.limits) if can_filter else None
    try:
        return (yield from _pages(api, "POST" if with_post else "GET", wanted, wish))
    except SourceError as error:
        if wish is None or _status_of(error) != httpx.codes.BAD_REQUEST:
            raise
        # A server may know the language and not the properties; what it does not filter is filtered here.
        log.info("%s refuses a filter by %s", public_href(href), ", ".join(wanted.limits.named()))
    return (yield from _pages(api, "POST", wanted, None))


def _pages(
    api: pystac_client.Client, method: str, wanted: ItemSearch, cql2: dict[str, Any] | None
) -> Generator[dict[str, Any], None, bool]:
    search = api.search(
        method=method,
        limit=wanted.items_a_page,
        collections=list(wanted.collections) or None,
        intersects=mapping(wanted.area),
        datetime=_interval(wanted.start, wanted.end),
        filter=cql2,
        filter_lang="cql2-json" if cql2 else None,
    )
    seen: set[tuple[str, str]] = set()
    for number, page in enumerate(search.pages_as_dicts(), 1):
        fresh = 0
        for item in page["features"]:
            key = (str(item.get("collection")), str(item.get("id")))
            if key not in seen:
                seen.add(key)
                fresh += 1
                yield item
        if not fresh:
            # A server that answers each page with the same items has no more.
            return True
        if number >= wanted.pages_at_most:
            return not _leads_on(page)
    return True


def _leads_on(page: Mapping[str, Any]) -> bool:
    return any(link["rel"] == "next" for link in page.get("links", ()))


def _open(client: httpx.Client, landing: Mapping[str, Any], href: str) -> pystac_client.Client:
    # A landing page without them can be searched all the same.
    fields = {"id": "api", "description": "", "type": "Catalog"} | dict(landing)
    classes = fields["conformsTo"]
    if fields["type"] != "Catalog" or not isinstance(classes, list) or not all(isinstance(one, str) for one in classes):
        raise SourceError(f"{public_href(href)} is not the landing page of a STAC API; give the address of its root")
    # Older ones are migrated by pystac through files it fetches by itself.
    if not str(fields.get("stac_version")).startswith("1."):
        raise SourceError(f"{public_href(href)}: 'stac_version' is {fields.get('stac_version')!r}, but 1.x is needed")
    _check_links(fields, href)
    api = pystac_client.Client.from_dict(fields, href=href)
    api._stac_io = _SharedHttp(client, href)
    return api


class _SharedHttp(StacApiIO):
    """What pystac-client reads with: our HTTP client, and answers checked before they are taken apart."""

    def __init__(self, client: httpx.Client, base: str) -> None:
        super().__init__(max_retries=None)
        self._client = client
        self._base = base

    def read_text(self, source: Any, *args: Any, **kwargs: Any) -> str:
        if isinstance(source, str):
            return self.request(source, *args, **kwargs)
        return str(super().read_text(source, *args, **kwargs))

    def request(
        self,
        href: str,
        method: str | None = None,
        headers: dict[str, str] | None = None,  # noqa: ARG002
        parameters: dict[str, Any] | None = None,
    ) -> str:
        """Ask and return the text of a JSON object; `headers` that a server wishes for are not sent."""
        url = urljoin(self._base, href)
        if not is_url(url):
            raise SourceError(f"{public_href(self._base)} leads to {url}, which is not on a web server")
        document, text = read_object(self._client, url, method=method or "GET", parameters=parameters)
        _check_links(document, url)
        features = document.get("features", [])
        if not isinstance(features, list) or not all(isinstance(item, dict) for item in features):
            raise SourceError(f"{public_href(url)}: the answer's 'features' are no list of STAC items")
        return text


def read_object(
    client: httpx.Client, url: str, *, method: str = "GET", parameters: Mapping[str, Any] | None = None
) -> tuple[dict[str, Any], str]:
    """Ask a web server for a JSON object; return it and its text.

    :param parameters: JSON body of a POST, query of a GET
    :raises SourceError: it cannot be had, or the answer is no JSON object
    """
    text = request_text(client, url, method=method, parameters=parameters)
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise SourceError(
            f"{public_href(url)} is not JSON (line {error.lineno}, column {error.colno}: {error.msg}); "
            "a STAC catalog, collection, item or API is needed"
        ) from error
    except RecursionError as error:
        raise SourceError(f"{public_href(url)} is nested too deeply to be STAC") from error
    if not isinstance(document, dict):
        raise SourceError(f"{public_href(url)} is no STAC catalog, collection or item; check the address")
    return document, text


def _check_links(document: Mapping[str, Any], href: str) -> None:
    links = document.get("links", [])
    if not isinstance(links, list) or not all(
        isinstance(link, dict) and isinstance(link.get("rel"), str) and isinstance(link.get("href"), str)
        for link in links
    ):
        raise SourceError(f"{public_href(href)}: 'links' is no list of STAC links, each with 'rel' and 'href'")
    for link in links:
        try:
            urljoin(href, link["href"])
        except ValueError as error:
            raise SourceError(
                f"{public_href(href)} names {public_href(link['href'])}, which is no address ({error})"
            ) from error


def _interval(start: date | None, end: date | None) -> str | None:
    if start is None and end is None:
        return None
    first = f"{start}T00:00:00Z" if start else ".."
    # The last day to its end; a server compares instants.
    return f"{first}/{f'{end}T23:59:59.999Z' if end else '..'}"


def _speaks_cql2(landing: Mapping[str, Any]) -> bool:
    classes: Sequence[Any] = landing.get("conformsTo") or ()
    return any("basic-cql2" in str(uri) for uri in classes) and any("cql2-json" in str(uri) for uri in classes)


def _cql2(limits: Limits) -> dict[str, Any] | None:
    """Write limits in CQL2; an item that does not state a property is kept, as it is where they are applied here."""
    terms = []
    for name, most in limits.named().items():
        stated = {"property": name}
        terms.append({"op": "or", "args": [{"op": "<=", "args": [stated, most]}, {"op": "isNull", "args": [stated]}]})
    if not terms:
        return None
    return terms[0] if len(terms) == 1 else {"op": "and", "args": terms}


def _status_of(error: SourceError) -> int | None:
    return error.__cause__.response.status_code if isinstance(error.__cause__, httpx.HTTPStatusError) else None
