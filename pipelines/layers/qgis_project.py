"""The QGIS project of the merged layers, written without QGIS: grouped, drawn, dated, on the GeoPackage beside it.

The temporal controller steps through the dates: a run's detections are shown from its day until the next day with a
scene of the site. Frames begin at the first day, and their length in days divides every distance between dates, so
that no frame shows two states of a site.
"""

import io
import math
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256

from pyproj import Transformer
from shapely import MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

from pipelines.layers.qgis_styles import QGIS_VERSION, Look, style_elements

__all__ = ["Group", "MapLayer", "frame_days", "write_project"]

PROJECT_CRS = ("EPSG:3857", "3857", "3857")
"""Web Mercator, so that tile servers fit underneath without warping; the layers stay in degrees."""
LAYER_CRS = ("EPSG:4326", "4326", "3452")
BACKGROUND = (247, 248, 249)
MARGIN = 0.08
"""Of a view, around what it shows."""


@dataclass(frozen=True)
class MapLayer:
    """One layer of the GeoPackage in the project."""

    name: str
    """Of the layer in the file."""
    title: str
    description: str
    look: Look | None
    """None for a table."""
    subset: str = ""
    """Condition of the features that are shown; empty: all."""
    checked: bool = True
    multi: bool = False
    """Whether it holds polygons of several parts."""


@dataclass(frozen=True)
class Group:
    """Layers under one heading of the legend."""

    title: str
    layers: Sequence[MapLayer]
    expanded: bool = True


def frame_days(days: Sequence[date]) -> int:
    """Length of a frame in days: the largest that divides the distances between all dates."""
    return math.gcd(*((day - min(days)).days for day in days)) or 1


def write_project(
    title: str,
    about: str,
    groups: Sequence[Group],
    days: Sequence[date],
    places: Sequence[tuple[str, BaseGeometry]],
    geopackage: str,
) -> bytes:
    """Return a `.qgz` file; the same arguments give the same bytes.

    :param about: what the project's properties say beside the title
    :param days: of acquisition, at least one
    :param places: names and outlines (longitude and latitude) that become bookmarks; the project opens on all of them
    :param geopackage: path of the GeoPackage, relative to the project
    """
    root = ET.Element("qgis", {"version": QGIS_VERSION, "projectname": title})
    ET.SubElement(root, "homePath", {"path": ""})
    ET.SubElement(root, "title").text = title
    root.append(_crs("projectCrs", PROJECT_CRS))
    layers = [layer for group in groups for layer in group.layers]
    ids = {layer.name: f"{layer.name}_{sha256(layer.name.encode()).hexdigest()[:16]}" for layer in layers}
    root.append(_tree(groups, ids, geopackage))
    view = _view([outline for _, outline in places])
    canvas = ET.SubElement(root, "mapcanvas", {"name": "theMapCanvas", "annotationsVisible": "1"})
    ET.SubElement(canvas, "units").text = "meters"
    extent = ET.SubElement(canvas, "extent")
    bounds = dict(zip(("xmin", "ymin", "xmax", "ymax"), (f"{value:.3f}" for value in view), strict=True))
    for side, metres in bounds.items():
        ET.SubElement(extent, side).text = metres
    ET.SubElement(canvas, "rotation").text = "0"
    canvas.append(_crs("destinationsrs", PROJECT_CRS))
    made = ET.SubElement(root, "projectlayers")
    for layer in layers:
        made.append(_map_layer(layer, ids[layer.name], geopackage))
    order = ET.SubElement(root, "layerorder")
    for layer in layers:
        ET.SubElement(order, "layer", {"id": ids[layer.name]})
    first, step = min(days), frame_days(days)
    span = [_midnight(first), _midnight(max(days) + timedelta(days=step))]
    root.append(_properties(span))
    bookmarks = ET.SubElement(root, "Bookmarks")
    for name, outline in places:
        box = _view([outline])
        corners = ((box[i], box[j]) for i, j in ((0, 1), (2, 1), (2, 3), (0, 3), (0, 1)))
        ring = ", ".join(f"{x:.3f} {y:.3f}" for x, y in corners)
        key = sha256(name.encode()).hexdigest()[:16]
        mark = ET.SubElement(
            bookmarks, "Bookmark", {"id": key, "name": name, "group": "Sites", "extent": f"POLYGON(({ring}))"}
        )
        mark.append(_crs(None, PROJECT_CRS))
    frames = {"timeStepUnit": "d", "timeStep": str(step), "frameRate": "1", "cumulativeTemporalRange": "0"}
    times = ET.SubElement(ET.SubElement(root, "ProjectTimeSettings", frames), "TemporalRange")
    for end, moment in zip(("start", "end"), span, strict=True):
        ET.SubElement(times, end).text = moment
    settings = ET.SubElement(root, "ProjectViewSettings", {"UseProjectScales": "0"})
    default = ET.SubElement(settings, "DefaultViewExtent", bounds)
    default.append(_crs(None, PROJECT_CRS))
    told = ET.SubElement(root, "projectMetadata")
    ET.SubElement(told, "title").text = title
    ET.SubElement(told, "abstract").text = about
    ET.indent(root, " ")
    head = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
    return _zipped((head + ET.tostring(root, encoding="unicode") + "\n").encode())


def _tree(groups: Sequence[Group], ids: dict[str, str], geopackage: str) -> ET.Element:
    tree = ET.Element("layer-tree-group")
    for group in groups:
        attributes = {"name": group.title, "expanded": str(int(group.expanded)), "checked": "Qt::Checked"}
        branch = ET.SubElement(tree, "layer-tree-group", attributes)
        for layer in group.layers:
            ET.SubElement(
                branch,
                "layer-tree-layer",
                {
                    "id": ids[layer.name],
                    "name": layer.title,
                    "source": _source(layer, geopackage),
                    "providerKey": "ogr",
                    "checked": "Qt::Checked" if layer.checked else "Qt::Unchecked",
                    "expanded": str(int(layer.look is not None and layer.checked)),
                },
            )
    ET.SubElement(tree, "custom-order", {"enabled": "0"})
    return tree


def _map_layer(layer: MapLayer, identity: str, geopackage: str) -> ET.Element:
    spatial = layer.look is not None
    attributes = {
        "type": "vector",
        "geometry": "Polygon" if spatial else "No geometry",
        "wkbType": ("MultiPolygon" if layer.multi else "Polygon") if spatial else "NoGeometry",
        "readOnly": "1",
        "labelsEnabled": str(int(layer.look is not None and layer.look.label is not None)),
        "styleCategories": "AllStyleCategories",
        "hasScaleBasedVisibilityFlag": "0",
        "simplifyDrawingHints": "0",
    }
    made = ET.Element("maplayer", attributes)
    ET.SubElement(made, "id").text = identity
    ET.SubElement(made, "datasource").text = _source(layer, geopackage)
    ET.SubElement(made, "layername").text = layer.title
    if spatial:
        made.append(_crs("srs", LAYER_CRS))
    told = ET.SubElement(made, "resourceMetadata")
    ET.SubElement(told, "title").text = layer.title
    ET.SubElement(told, "abstract").text = layer.description
    ET.SubElement(made, "provider", {"encoding": "UTF-8"}).text = "ogr"
    flags = ET.SubElement(made, "flags")
    for name, value in (("Identifiable", 1), ("Removable", 1), ("Searchable", 1), ("Private", 0)):
        ET.SubElement(flags, name).text = str(value)
    if layer.look is not None:
        made.extend(style_elements(layer.look))
    return made


def _source(layer: MapLayer, geopackage: str) -> str:
    subset = f"|subset={layer.subset}" if layer.subset else ""
    return f"./{geopackage}|layername={layer.name}{subset}"


def _properties(span: Sequence[str]) -> ET.Element:
    """Settings that QGIS keeps as a tree of typed values."""
    properties = ET.Element("properties")
    red, green, blue = BACKGROUND
    values: dict[str, dict[str, tuple[str, str]]] = {
        "Gui": {
            "CanvasColorRedPart": ("int", str(red)),
            "CanvasColorGreenPart": ("int", str(green)),
            "CanvasColorBluePart": ("int", str(blue)),
        },
        "PAL": {"PlacementEngineVersion": ("int", "1")},
        "Paths": {"Absolute": ("bool", "false")},
        # Without it QGIS draws every layer as if its coordinates were the project's.
        "SpatialRefSys": {"ProjectionsEnabled": ("int", "1")},
        "TemporalControllerWidget": {
            # 1: animated; the slider stands at the first frame when the project opens.
            "NavigationMode": ("int", "1"),
            "StartDateTime": ("QString", span[0]),
            "EndDateTime": ("QString", span[1]),
        },
    }
    for group, entries in values.items():
        branch = ET.SubElement(properties, group)
        for name, (kind, value) in entries.items():
            ET.SubElement(branch, name, {"type": kind}).text = value
    return properties


def _crs(name: str | None, crs: tuple[str, str, str]) -> ET.Element:
    """The element by which QGIS finds a CRS in its own list, in one of the name given."""
    authid, srid, srsid = crs
    inner = ET.Element("spatialrefsys")
    for tag, value in (("srsid", srsid), ("srid", srid), ("authid", authid)):
        ET.SubElement(inner, tag).text = value
    if name is None:
        return inner
    outer = ET.Element(name)
    outer.append(inner)
    return outer


def _view(outlines: Sequence[BaseGeometry]) -> tuple[float, float, float, float]:
    """Bounds in metres of the project's CRS, with a margin."""
    parts: list[Polygon] = []
    for outline in outlines:
        parts += list(outline.geoms) if isinstance(outline, MultiPolygon) else [outline]
    west, south, east, north = MultiPolygon(parts).bounds
    place = Transformer.from_crs("OGC:CRS84", PROJECT_CRS[0], always_xy=True)
    (left, right), (bottom, top) = place.transform((west, east), (south, north))
    margin = MARGIN * max(right - left, top - bottom)
    return left - margin, bottom - margin, right + margin, top + margin


def _midnight(day: date) -> str:
    return datetime(day.year, day.month, day.day, tzinfo=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _zipped(document: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        # The earliest time that a zip file can say: the same project must give the same bytes.
        entry = zipfile.ZipInfo("overwatt.qgs", date_time=(1980, 1, 1, 0, 0, 0))
        entry.compress_type = zipfile.ZIP_DEFLATED
        entry.external_attr = 0o644 << 16
        archive.writestr(entry, document)
    return buffer.getvalue()
