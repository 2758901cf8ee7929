"""GeoJSON polygons, read from files that people draw and written for everybody.

RFC 7946: longitude and latitude in degrees on WGS 84 (CRS84), closed rings, exterior rings counter-clockwise.
Reading checks position by position, because each fault needs its own words; writing rounds to 7 decimals (11 mm).
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import shapely
from pyproj import Geod
from shapely.geometry import MultiPolygon, Polygon
from shapely.validation import explain_validity

from pipelines.errors import SiteError

__all__ = ["Place", "area_m2", "read_area", "read_polygon", "rounded"]

DECIMALS = 7
WGS84 = Geod(ellps="WGS84")
SMALLEST_M2 = 1.0
"""Below it a polygon is a line or a point drawn with rounding."""


@dataclass(frozen=True)
class Place:
    """Where in a file a fault is."""

    path: Path
    index: int
    id: object

    def refuse(self, fault: str) -> NoReturn:
        """Raise the `SiteError` that names file, feature and fault."""
        named = f" ('{self.id}')" if self.id else ""
        raise SiteError(f"{self.path}: feature {self.index}{named}: {fault}")


def read_polygon(geometry: object, place: Place) -> Polygon | MultiPolygon:
    """Build a valid polygon in longitude and latitude with right-handed rings, or say what is wrong with it."""
    if not isinstance(geometry, dict):
        place.refuse("it has no geometry")
    kind = geometry.get("type")
    if kind not in ("Polygon", "MultiPolygon"):
        place.refuse(f"its geometry must be a Polygon, got {kind!r}")
    coordinates = geometry.get("coordinates")
    parts = [coordinates] if kind == "Polygon" else coordinates
    if not isinstance(parts, list) or not parts:
        place.refuse("its geometry has no coordinates")
    polygons = [_rings(part, place) for part in parts]
    _check_degrees([position for rings in polygons for ring in rings for position in ring], place)
    shape = shapely.MultiPolygon([(shell, holes) for shell, *holes in polygons])
    # One part is what GIS programs make of a plain polygon.
    outline = shape.geoms[0] if len(polygons) == 1 else shape
    # Positions on one line enclose a few m2 by rounding and by the ellipsoid's curvature; a bow tie has a real hull.
    on_a_line = outline.convex_hull.area < 1e-9 * outline.length**2
    if on_a_line or outline.length == 0 or (outline.is_valid and area_m2(outline) < SMALLEST_M2):
        place.refuse("its geometry encloses no area")
    if not outline.is_valid:
        place.refuse(_why_invalid(outline))
    return shapely.orient_polygons(outline)


def read_area(path: Path) -> Polygon | MultiPolygon:
    """Read all polygons of a GeoJSON file as one area in longitude and latitude.

    :raises SiteError: the file is missing or is no GeoJSON, or one of its geometries is no valid polygon
    """
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise SiteError(f"area file {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise SiteError(f"area file {path} is not JSON ({error}); save it as GeoJSON") from error
    kind = document.get("type") if isinstance(document, dict) else None
    features = {"FeatureCollection": lambda: document.get("features"), "Feature": lambda: [document]}.get(
        str(kind), lambda: [{"geometry": document}]
    )()
    if not isinstance(features, list) or not features:
        raise SiteError(f"area file {path} holds no feature; draw a polygon into it")
    polygons = []
    for index, feature in enumerate(features):
        feature = feature if isinstance(feature, dict) else {}
        polygons.append(read_polygon(feature.get("geometry"), Place(path, index, feature.get("id"))))
    return shapely.orient_polygons(shapely.union_all(polygons))


def _rings(part: object, place: Place) -> list[list[tuple[float, float]]]:
    if not isinstance(part, list) or not part:
        place.refuse("its geometry is not a list of rings")
    rings = []
    for ring in part:
        if not isinstance(ring, list) or len(ring) < 4:
            place.refuse("a ring needs at least four positions, the last equal to the first")
        positions = []
        for position in ring:
            numbers = isinstance(position, list) and all(type(value) in (int, float) for value in position)
            if not numbers or not 2 <= len(position) <= 3:
                place.refuse(f"a position must be [longitude, latitude] in degrees, got {json.dumps(position)}")
            try:
                positions.append((float(position[0]), float(position[1])))
            except OverflowError:
                positions.append((math.inf, math.inf))
            if not all(map(math.isfinite, positions[-1])):
                place.refuse(f"coordinates must be finite, got {json.dumps(position)}")
        if positions[0] != positions[-1]:
            place.refuse("a ring is not closed: its last position must equal its first")
        rings.append(positions)
    return rings


def _check_degrees(positions: list[tuple[float, float]], place: Place) -> None:
    wrong = [(x, y) for x, y in positions if abs(x) > 180 or abs(y) > 90]
    if not wrong:
        return
    x, y = wrong[0]
    if all(abs(x) <= 90 and abs(y) <= 180 for x, y in positions):
        place.refuse(f"[{x}, {y}] has latitude and longitude swapped; GeoJSON gives longitude first")
    place.refuse(f"[{x}, {y}] is not longitude and latitude in degrees; save the file in WGS 84 (RFC 7946)")


def _why_invalid(outline: Polygon | MultiPolygon) -> str:
    """Turn GEOS's `Self-intersection[-90.03 35]` into words."""
    reason, _, where = explain_validity(outline).rstrip("]").partition("[")
    fault = "its outline crosses or touches itself" if "elf-intersection" in reason else f"its outline has {reason}"
    return f"{fault} at longitude and latitude {where}; redraw it there" if where else fault


def rounded(geometries: np.ndarray) -> np.ndarray:
    """Round polygons in longitude and latitude to 7 decimals, still valid, exterior rings counter-clockwise.

    :param geometries: object array of shapely polygons, CRS84
    :raises ValueError: a polygon is smaller than the rounding, about 1 cm
    """

    def on_grid(polygons: np.ndarray) -> np.ndarray:
        return shapely.transform(polygons, lambda xy: np.round(xy, DECIMALS) + 0.0)  # + 0.0: no -0.0 in files

    result = on_grid(geometries)
    broken = ~shapely.is_valid(result)
    if broken.any():
        result[broken] = on_grid(shapely.set_precision(geometries[broken], 10.0**-DECIMALS))
    if (~shapely.is_valid(result) | (shapely.is_empty(result) & ~shapely.is_empty(geometries))).any():
        raise ValueError("a polygon is smaller than the rounding of its coordinates")
    return shapely.orient_polygons(result)


def area_m2(geometry: shapely.Geometry) -> float:
    """Area on the WGS 84 ellipsoid; lines and points have none."""
    return abs(WGS84.geometry_area_perimeter(geometry)[0]) if geometry.area else 0.0
