"""WMTS capabilities (OGC 07-057r7): a layer's levels, its moments in time, and the address of its tiles."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit, urlunsplit

import morecantile
import pyproj
from pyproj.exceptions import CRSError

from pipelines.errors import SourceError
from pipelines.scenes.tile_grid import Level, crs_text, is_northing_first

__all__ = ["WmtsLayer", "read_capabilities"]

_PIXEL_M = 0.00028
"""Side of the pixel that scale denominators are of (OGC 07-057r7, table 1)."""
_FORMATS = ("image/png", "image/webp", "image/jpeg", "image/jpg")
"""Without loss first, and with transparency before without."""


@dataclass(frozen=True)
class WmtsLayer:
    """One layer of a WMTS server, in one style and one tile matrix set."""

    title: str
    template: str
    """Address of a tile, with {z}, {x}, {y} and, where the layer has moments, {time}."""
    levels: tuple[Level, ...]
    times: tuple[str, ...]
    """Values of its dimension Time, as the server writes them; empty where it has none."""
    bounds: tuple[float, float, float, float] | None
    """West, south, east and north of what it shows, degrees."""
    attribution: str
    """Who provides the service."""


def read_capabilities(
    text: str, address: str, shown: str, layer: str | None, style: str | None, matrix_set: str | None
) -> WmtsLayer:
    """Read what a WMTS server says of a layer.

    :param address: of the document; tiles are asked for beside it where it names no address for them
    :param shown: what messages call the document
    :param layer: its identifier; not needed where there is one layer only
    :param style: the default is the style that the server calls so
    :param matrix_set: the default is one in EPSG:3857, else the layer's first
    :raises SourceError: it is no such document, or it holds no such layer, style or matrix set
    """
    try:
        root = ET.fromstring(text)
    except ET.ParseError as error:
        raise SourceError(f"{shown} is no WMTS capabilities document: it is not XML ({error})") from error
    if _local(root) != "Capabilities" or (contents := _child(root, "Contents")) is None:
        raise SourceError(
            f"{shown} is no WMTS capabilities document but <{_local(root)}>; give the address that ends in "
            "WMTSCapabilities.xml, or in ?SERVICE=WMTS&REQUEST=GetCapabilities"
        )
    layers = {_text(one, "Identifier"): one for one in _children(contents, "Layer")}
    chosen = layers[_one_of(layer, list(layers), "layer", shown)]
    sets = {_text(one, "Identifier"): one for one in _children(contents, "TileMatrixSet")}
    linked = {_text(link, "TileMatrixSet"): link for link in _children(chosen, "TileMatrixSetLink")}
    usable = [name for name in linked if name in sets]
    mercator = [name for name in usable if re.search(r"(?<!\d)(3857|900913)$", _text(sets[name], "SupportedCRS"))]
    if matrix_set is None and usable:
        matrix_set = (mercator or usable)[0]
    matrix_set = _one_of(matrix_set, usable, "matrix_set", shown)
    allowed = {_text(limit, "TileMatrix") for limit in _descendants(linked[matrix_set], "TileMatrixLimits")}
    levels = tuple(level for level in _levels(sets[matrix_set], shown) if not allowed or level.id in allowed)
    if not levels:
        raise SourceError(f"{shown}: the tile matrix set '{matrix_set}' has no level")
    name = _text(chosen, "Identifier")
    template, times = _template(root, chosen, address, name, _style(chosen, style, shown), matrix_set)
    provider = _text(next(_descendants(root, "ServiceProvider"), root), "ProviderName")
    return WmtsLayer(_text(chosen, "Title") or name, template, levels, times, _bounds(chosen), provider)


def _template(
    root: ET.Element, layer: ET.Element, address: str, name: str, style: str, matrix_set: str
) -> tuple[str, tuple[str, ...]]:
    dimensions = {_text(one, "Identifier"): one for one in _children(layer, "Dimension")}
    time = next((key for key in dimensions if key.lower() == "time"), None)
    times = tuple(_own_text(value) for value in _children(dimensions[time], "Value")) if time else ()
    others = {key: _text(one, "Default") for key, one in dimensions.items() if key != time}
    formats = [_own_text(one) for one in _children(layer, "Format")]
    resources = {
        one.get("format", ""): one.get("template", "")
        for one in _children(layer, "ResourceURL")
        if one.get("resourceType") == "tile"
    }
    fixed = {"style": style, "tilematrixset": matrix_set, **{key.lower(): value for key, value in others.items()}}
    if resources:
        kind = next((form for form in _FORMATS if form in resources), next(iter(resources)))

        def fill(match: re.Match[str]) -> str:
            key = match[1].lower()
            own = {"tilematrix": "{z}", "tilerow": "{y}", "tilecol": "{x}", (time or "").lower(): "{time}"}
            return fixed.get(key) or own.get(key) or match[0]

        return re.sub(r"\{([^{}]+)\}", fill, resources[kind]), times
    kind = next((form for form in _FORMATS if form in formats), formats[0] if formats else "image/png")
    query = {
        "SERVICE": "WMTS", "REQUEST": "GetTile", "VERSION": "1.0.0", "LAYER": name, "STYLE": style, "FORMAT": kind,
        "TILEMATRIXSET": matrix_set, **{key.upper(): value for key, value in others.items()},
    }  # fmt: skip
    tile = "TILEMATRIX={z}&TILEROW={y}&TILECOL={x}" + ("&TIME={time}" if time else "")
    base = _get_tile_address(root) or address
    parts = urlsplit(base)
    kept = [part for part in parts.query.split("&") if part and part.partition("=")[0].upper() not in _OWN_PARAMETERS]
    whole = "&".join([*kept, urlencode(query), tile])
    return urlunsplit((parts.scheme, parts.netloc, parts.path, whole, "")), times


_OWN_PARAMETERS = {"SERVICE", "REQUEST", "VERSION"}


def _get_tile_address(root: ET.Element) -> str | None:
    for operation in _descendants(root, "Operation"):
        if operation.get("name") != "GetTile":
            continue
        for get in _descendants(operation, "Get"):
            encodings = {_own_text(value).upper() for value in _descendants(get, "Value")}
            href = next((value for key, value in get.attrib.items() if key.rpartition("}")[2] == "href"), None)
            if href and (not encodings or "KVP" in encodings):
                return href
    return None


def _levels(matrix_set: ET.Element, shown: str) -> Iterator[Level]:
    name = _text(matrix_set, "Identifier")
    said = _text(matrix_set, "SupportedCRS")
    try:
        # Google's number for Web Mercator, before it had one of EPSG's.
        crs = pyproj.CRS.from_user_input("EPSG:3857" if said.endswith("900913") else said)
    except CRSError as error:
        raise SourceError(f"{shown}: the tile matrix set '{name}' is in an unknown CRS, '{said}'") from error
    metres = morecantile.utils.meters_per_unit(crs)
    # "EPSG:4326" without urn is written longitude first by some servers and latitude first by others; the standard
    # has the authority's order.
    swapped = is_northing_first(crs)
    for matrix in _children(matrix_set, "TileMatrix"):
        level = _text(matrix, "Identifier")
        try:
            x, y = (float(number) for number in _text(matrix, "TopLeftCorner").split())
            yield Level(
                level,
                crs_text(crs),
                y if swapped else x,
                x if swapped else y,
                float(_text(matrix, "ScaleDenominator")) * _PIXEL_M / metres,
                *(int(_text(matrix, key)) for key in ("TileWidth", "TileHeight", "MatrixWidth", "MatrixHeight")),
            )
        except ValueError as error:
            raise SourceError(
                f"{shown}: level '{level}' of the tile matrix set '{name}' is broken ({error}); its TopLeftCorner, "
                "ScaleDenominator and sizes must be numbers"
            ) from error


def _style(layer: ET.Element, style: str | None, shown: str) -> str:
    styles = {_text(one, "Identifier"): one for one in _children(layer, "Style")}
    if style is None:
        default = next((key for key, one in styles.items() if one.get("isDefault") == "true"), None)
        return default if default is not None else next(iter(styles), "default")
    return _one_of(style, list(styles), "style", shown)


def _bounds(layer: ET.Element) -> tuple[float, float, float, float] | None:
    box = _child(layer, "WGS84BoundingBox")
    if box is None:
        return None
    try:
        west, south = (float(number) for number in _text(box, "LowerCorner").split())
        east, north = (float(number) for number in _text(box, "UpperCorner").split())
    except ValueError:
        return None
    return west, south, east, north


def _one_of(wanted: str | None, known: Sequence[str], field: str, shown: str) -> str:
    if wanted is None and len(known) == 1:
        return known[0]
    if wanted in known and wanted is not None:
        return wanted
    listed = ", ".join(known[:20]) + (f" and {len(known) - 20} more" if len(known) > 20 else "")
    if not known:
        raise SourceError(f"{shown} offers no {field}")
    if wanted is None:
        raise SourceError(f"{shown} offers several of '{field}': name one of {listed} in a descriptor, tiles:FILE.json")
    raise SourceError(f"{shown} has no {field} '{wanted}'; choose from {listed}")


def _local(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


def _children(element: ET.Element, name: str) -> Iterator[ET.Element]:
    return (child for child in element if _local(child) == name)


def _descendants(element: ET.Element, name: str) -> Iterator[ET.Element]:
    return (child for child in element.iter() if _local(child) == name)


def _child(element: ET.Element, name: str) -> ET.Element | None:
    return next(_children(element, name), None)


def _text(element: ET.Element, name: str) -> str:
    child = _child(element, name)
    return "" if child is None else _own_text(child)


def _own_text(element: ET.Element) -> str:
    return (element.text or "").strip()
