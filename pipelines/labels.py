"""Labels that a person has corrected, and the scene they are of, as chips to train and to measure on.

The scene is read as the engine reads it, so that what is learned is what will be seen. Ground that was not reviewed, or
that the scene does not show, is not judged. A block of the reviewed ground is held out of training and measured on.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyogrio
import rasterio.features
import shapely
from pyogrio.errors import DataLayerError, DataSourceError
from pyproj import Transformer
from rasterio.transform import Affine
from shapely.geometry import MultiPolygon, Polygon
from shapely.validation import explain_validity

from models.classes import BY_NAME, CLASSES, COARSEST_EQUIPMENT_GSD_M, LETTERING, equipment_resolved_at
from models.detector.labels import CLASS, COUNT, HEADING, LENGTH, WIDTH, Labels, X, Y
from models.training.chip_pool import PooledChip
from models.training.corrections import HALO_PX, HELD_OUT_CORE_PX, Corrected
from pipelines.errors import LabelError, SceneError
from pipelines.grid import Grid, boxes
from pipelines.label_file import FORMAT, LABELS, REVIEWED, SCENE, STATUSES, SceneIdentity
from pipelines.scenes.georeference import open_raster
from pipelines.single_raster import SingleRaster, open_single
from pipelines.windows import Box

__all__ = ["Drawn", "held_out_ground", "identify", "read_corrected", "read_drawn", "refuse_coarse"]

UNSEEN_GREY = 115
"""What the network takes invalid ground for: `models.detector.network.normalise` makes it zero, nearly this."""
CELL_PX = 4
"""Unseen ground is told by cells of this side; one that is not wholly seen is unseen."""
CHIP_PX, OVERLAP_PX = 768, 128
"""Cores of training chips, and how much farther they reach, so that a unit or word on an edge is whole in one."""
HELD_OUT, HELD_OUT_SHARES = 0.25, (0.15, 0.4)
"""How much of the labels, or of the ground where there are few, is held out; and between which shares it may be."""
_GROUND = (0.1, 0.5)
"""Between which shares of the reviewed ground it may be: what is false there is measured as well."""
FEW_LABELS = 4
SMALLEST_M2 = 0.25


def identify(path: Path, image: SingleRaster, licence: str | None = None) -> SceneIdentity:
    """Say which image this is: by the checksum of its file.

    :param licence: where the image does not state its own
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return SceneIdentity(path.name, digest, image.licence or licence, image.rendered, image.native_gsd_m)


def refuse_coarse(name: str, native_gsd_m: float) -> None:
    """Refuse a scene on which no unit can be counted, and none can be labelled.

    :raises SceneError: its pixels are too large
    """
    # Large lettering alone is no reason: every unit on such a scene would be taught to be ground.
    if not equipment_resolved_at(native_gsd_m):
        raise SceneError(
            f"{name} has pixels of {native_gsd_m:.2f} m, coarser than {COARSEST_EQUIPMENT_GSD_M:.2f} m, the coarsest "
            "at which any unit can be told: take a sharper image of the place"
        )


def held_out_ground(labels: Path, scene: Path, *, detector_gsd_m: float, cache: Path) -> Polygon | MultiPolygon:
    """The reviewed ground that a scene is measured on, in longitude and latitude.

    :raises LabelError: as `read_corrected` does
    :raises SceneError: as `read_corrected` does
    """
    with _reviewing(labels, scene, detector_gsd_m, cache) as (image, _, _, reviewed, _, cut):
        grid = image.gridded.grid
        ground = shapely.transform(reviewed & cut.block, grid.to_crs, interleaved=False)
    to_lonlat = Transformer.from_crs(grid.crs, "OGC:CRS84", always_xy=True)
    return shapely.transform(ground, to_lonlat.transform, interleaved=False)


def read_corrected(
    labels: Path, scene: Path, *, detector_gsd_m: float, cache: Path, elsewhere: Sequence[Polygon | MultiPolygon] = ()
) -> Corrected:
    """Read a corrected label file and its scene.

    The file may have been saved in any CRS. Units whose centre is outside the reviewed ground are not used.

    :param detector_gsd_m: ground sampling distance of the detector's lattice
    :param cache: folder for a copy of the scene, where one is needed
    :param elsewhere: ground that other scenes are measured on, in longitude and latitude: not trained on in this one
    :raises LabelError: the file is of another scene, or something in it makes no sense; the message names the feature
    :raises SceneError: the scene cannot be read or placed, or is too coarse
    """
    with _reviewing(labels, scene, detector_gsd_m, cache) as (image, identity, about, reviewed, units, cut):
        grid = image.gridded.grid
        trained_on = reviewed - cut.block - shapely.union_all([_shown(ground, grid) for ground in elsewhere])
        trained, measured = units.beyond(cut).within(trained_on), units.inside(cut)
        with image.gridded:
            chips = tuple(_training_chips(image, trained_on, trained, identity.native_gsd_m))
            held_out = tuple(_held_out_chips(image, reviewed & cut.block, measured, identity.native_gsd_m))
    if not chips or not held_out:
        without = ", without what other scenes of the place are measured on," if elsewhere else ""
        raise LabelError(
            f"{labels}, layer {REVIEWED}: the reviewed ground{without} is too small to train on one part of it and "
            "measure on another; review more of the scene"
        )
    return Corrected(
        chips=chips,
        held_out=held_out,
        about={
            "labels": labels.name,
            "scene": identity.name,
            "scene_sha256": identity.sha256,
            "licence": identity.licence or _text(about.get("licence")),
            "rendered": identity.rendered,
            "native_gsd_m": round(identity.native_gsd_m, 3),
            "corrected_from": _text(about.get("weights")),
            "reviewed_km2": round(reviewed.area * grid.gsd_m**2 / 1e6, 4),
            "units": trained.counts,
            "ignored": int((~trained.sure[trained.used]).sum()),
            "held_out_units": measured.counts,
            "held_out_ground": _where(cut, reviewed, grid),
            "outside_reviewed": int((~units.used).sum()),
        },
    )


@contextmanager
def _reviewing(
    labels: Path, scene: Path, detector_gsd_m: float, cache: Path
) -> Iterator[tuple[SingleRaster, SceneIdentity, Mapping[str, Any], Polygon | MultiPolygon, "Drawn", "_Cut"]]:
    """Scene, who it is, what the label file says of itself, ground and units on its lattice, and how it is divided."""
    about = _about(labels)
    # Placed: without a georeference there are no labels of it.
    with open_raster(scene), open_single(scene, detector_gsd_m=detector_gsd_m, cache=cache) as image:
        identity = identify(scene, image)
        if about["scene_sha256"] != identity.sha256:
            raise LabelError(
                f"{labels} holds labels of {about['scene']} (SHA-256 {str(about['scene_sha256'])[:12]}...), and "
                f"{scene} is another file ({identity.sha256[:12]}...): give the scene that they were made on"
            )
        refuse_coarse(scene.name, identity.native_gsd_m)
        grid = image.gridded.grid
        reviewed = _reviewed(labels, _layer(labels, REVIEWED), grid)
        units = read_drawn(labels, grid).within(reviewed)
        yield image, identity, about, reviewed, units, _cut(units, reviewed)


def _shown(ground: Polygon | MultiPolygon, grid: Grid) -> Polygon | MultiPolygon:
    """Ground of another scene in pixels of the lattice; empty where the lattice's CRS does not reach."""
    placed = grid.to_pixels(ground)
    return placed if np.isfinite(shapely.get_coordinates(placed)).all() else Polygon()


@dataclass(frozen=True)
class Drawn:
    """Labels as they were drawn, in pixels of the lattice."""

    table: npt.NDArray[np.float32]
    """(n, 7), columns of `models.detector.labels`; CLASS is the index in CLASSES."""
    sure: npt.NDArray[np.bool_]
    used: npt.NDArray[np.bool_]
    """False: it lies on ground that is not judged."""

    @property
    def centres(self) -> npt.NDArray[np.float64]:
        """X and y, (n, 2)."""
        return self.table[:, [X, Y]].astype(np.float64)

    @property
    def counts(self) -> dict[str, int]:
        """Sure ones that are used, by class."""
        number = Counter(self.table[self.used & self.sure, CLASS].astype(int).tolist())
        return {name: number[index] for index, name in enumerate(CLASSES) if number[index]}

    def within(self, area: Polygon | MultiPolygon) -> "Drawn":
        """Use those alone whose centre lies in the area."""
        return Drawn(self.table, self.sure, self.used & shapely.contains_xy(area, *self.centres.T))

    def inside(self, cut: "_Cut") -> "Drawn":
        """Use those alone that are held out."""
        return Drawn(self.table, self.sure, self.used & (self.centres[:, cut.axis] >= cut.at_px))

    def beyond(self, cut: "_Cut") -> "Drawn":
        """Use those alone that are trained on."""
        return Drawn(self.table, self.sure, self.used & (self.centres[:, cut.axis] < cut.at_px))

    def labels(self, box: Box, seen: npt.NDArray[np.bool_]) -> Labels:
        """What is in a window, in its pixels.

        What is not used, or cut by the window's edge, is not judged: what is seen of it is no background.
        """
        table = self.table.copy()
        table[:, X] -= box.x0
        table[:, Y] -= box.y0
        reach = np.hypot(table[:, LENGTH], table[:, WIDTH]) / 2
        here = (np.abs(table[:, X] - box.width / 2) < box.width / 2 + reach) & (
            np.abs(table[:, Y] - box.height / 2) < box.height / 2 + reach
        )
        words = table[:, CLASS] == CLASSES.index(LETTERING.name)
        centred = (table[:, [X, Y]] >= 0).all(axis=1) & (table[:, X] < box.width) & (table[:, Y] < box.height)
        judged = self.used & self.sure & np.where(words, _whole(table, box), centred)
        texts, doubted = table[here & words & judged], table[here & words & ~judged]
        texts[:, CLASS] = doubted[:, CLASS] = 0
        objects, ignored = table[here & ~words & judged], table[here & ~words & ~judged]
        return Labels(
            objects=objects,
            texts=texts,
            ignored=ignored,
            unseen=np.concatenate([unseen_rectangles(seen), doubted]),
        )


def _whole(table: npt.NDArray[np.float32], box: Box) -> npt.NDArray[np.bool_]:
    """Whether a row's rectangle lies in a window of the box's size."""
    turn = np.deg2rad(table[:, HEADING])
    sine, cosine = np.abs(np.sin(turn)), np.abs(np.cos(turn))
    half_x = (table[:, LENGTH] * sine + table[:, WIDTH] * cosine) / 2
    half_y = (table[:, LENGTH] * cosine + table[:, WIDTH] * sine) / 2
    x, y = table[:, X], table[:, Y]
    inside = (x >= half_x) & (x + half_x <= box.width) & (y >= half_y) & (y + half_y <= box.height)
    return np.asarray(inside)


@dataclass(frozen=True)
class _Cut:
    """Where the reviewed ground is divided: what lies at or past `at_px` along an axis is held out."""

    axis: int
    """0: x, east of it is held out; 1: y, south of it."""
    at_px: float

    @property
    def block(self) -> Polygon:
        far = 1e9
        return shapely.box(self.at_px, -far, far, far) if self.axis == 0 else shapely.box(-far, self.at_px, far, far)


def unseen_rectangles(seen: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Rectangles (n, 7), as label rows, that cover the cells of `CELL_PX` that are not wholly seen."""
    below, right = -seen.shape[0] % CELL_PX, -seen.shape[1] % CELL_PX
    padded = np.pad(seen, ((0, below), (0, right)))
    rows, columns = (side // CELL_PX for side in padded.shape)
    cells: npt.NDArray[np.bool_] = np.all(padded.reshape(rows, CELL_PX, columns, CELL_PX), axis=(1, 3))
    growing: dict[tuple[int, int], int] = {}
    found: list[tuple[float, ...]] = []
    for y in range(rows + 1):
        runs = _runs(~cells[y]) if y < rows else set()
        for run in [run for run in growing if run not in runs]:
            top, (left, end) = growing.pop(run), run
            length, width = (y - top) * CELL_PX, (end - left) * CELL_PX
            # Headed north: the length is down the rows.
            found.append((left * CELL_PX + width / 2, top * CELL_PX + length / 2, length, width, 0, 0, 0))
        growing |= {run: y for run in runs if run not in growing}
    return np.array(found, np.float32).reshape(-1, 7)


def _runs(row: npt.NDArray[np.bool_]) -> set[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(np.int8), [0]])))
    return {(int(start), int(end)) for start, end in edges.reshape(-1, 2)}


def _about(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise LabelError(f"{path} {what}: make a file with `overwatt label SCENE` and correct it in QGIS")
    try:
        names = set(pyogrio.list_layers(path)[:, 0])
    except (DataSourceError, DataLayerError):
        raise LabelError(
            f"{path} is no GeoPackage that can be read: give the file that `overwatt label` wrote"
        ) from None
    for name in (LABELS, REVIEWED, SCENE):
        if name not in names:
            raise LabelError(
                f"{path} has no table {name}: correct the file that `overwatt label` wrote, which has all three"
            )
    table = _read(path, SCENE)
    if len(table) != 1 or table.get("format", pd.Series([None])).iloc[0] != FORMAT:
        raise LabelError(f"{path}, table {SCENE}, is not as `overwatt label` wrote it: write a new file and copy over")
    return dict(table.iloc[0])


def _read(path: Path, layer: str) -> pd.DataFrame:
    try:
        return pyogrio.read_dataframe(path, layer=layer, fid_as_index=True)
    except (DataSourceError, DataLayerError) as error:
        raise LabelError(f"{path}, layer {layer}, cannot be read ({error}): write a new file and copy over") from None


def _layer(path: Path, layer: str) -> gpd.GeoDataFrame:
    frame = _read(path, layer)
    if not isinstance(frame, gpd.GeoDataFrame):
        raise LabelError(f"{path}, layer {layer}, has no geometry: correct the file that `overwatt label` wrote")
    # "Undefined" coordinate systems of a GeoPackage are a local one and, to pyproj, no geographic or projected one.
    if frame.crs is None or not (frame.crs.is_geographic or frame.crs.is_projected):
        raise LabelError(
            f"{path}, layer {layer}, does not say its CRS: set it in QGIS (Layer > Set CRS) and save it so"
        )
    return frame


def _on_grid(path: Path, layer: str, frame: gpd.GeoDataFrame, shapes: Sequence[Any], grid: Grid) -> npt.NDArray:
    """Geometries of a layer, in its CRS, in pixels of the lattice."""
    assert grid.crs is not None
    transformer = Transformer.from_crs(frame.crs, grid.crs, always_xy=True)
    inverse = ~grid.transform

    def convert(xy: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        x, y = transformer.transform(xy[:, 0], xy[:, 1])
        if not np.isfinite([x, y]).all():
            raise LabelError(
                f"{path}, layer {layer}, has coordinates that its CRS, {frame.crs.name}, does not know: set the right "
                "one in QGIS (Layer > Set CRS) and save it so"
            )
        return np.column_stack(inverse @ (x, y))

    return np.asarray(shapely.transform(np.array(shapes, object), convert))


def read_drawn(path: Path, grid: Grid) -> Drawn:
    """Read everything that is drawn in a label file, on the lattice of its scene, all of it `used`.

    :raises LabelError: the layer cannot be read or a label makes no sense; the message names the feature
    """
    frame = _layer(path, LABELS)
    for name in ("class", "status", "text", "heading_deg", "fan_count"):
        if name not in frame.columns:
            raise LabelError(
                f"{path}, layer {LABELS}, has no field {name}: correct the file that `overwatt label` wrote"
            )
    shapes = [_polygon(path, LABELS, fid, shape) for fid, shape in frame.geometry.items()]
    classes = [_choice(path, fid, "class", value, CLASSES) for fid, value in frame["class"].items()]
    statuses = [_choice(path, fid, "status", value, STATUSES) for fid, value in frame["status"].items()]
    on_grid = _on_grid(path, LABELS, frame, shapes, grid)
    heading_deg = _numbers(path, frame["heading_deg"])
    fans = _numbers(path, frame["fan_count"])
    table = np.zeros((len(frame), 7), np.float32)
    whole = shapely.box(0, 0, grid.width_px, grid.height_px)
    for row, (fid, shape) in enumerate(zip(frame.index, on_grid, strict=True)):
        cls = classes[row]
        x, y, length, width, axis_deg = _oriented(shape)
        if length * width * grid.gsd_m**2 < SMALLEST_M2:
            raise LabelError(f"{path}, layer {LABELS}, feature {fid}: it encloses no area; delete it or draw it again")
        # The centre of a unit at the very edge may lie a hair outside.
        if not shape.intersects(whole):
            raise LabelError(f"{path}, layer {LABELS}, feature {fid}: it lies outside the scene; delete it or move it")
        table[row, [X, Y, LENGTH, WIDTH]] = x, y, length, width
        table[row, HEADING] = axis_deg
        table[row, CLASS] = CLASSES.index(cls)
        # The unit of these is one fan cell.
        single = cls in ("dry_cooler", "cooling_tower")
        table[row, COUNT] = 1 if single else fans[row] if BY_NAME[cls].has_fans and fans[row] >= 1 else 0
    words = table[:, CLASS] == CLASSES.index(LETTERING.name)
    if words.any():
        table[words] = _reading(table[words], heading_deg[words], grid)
    sure = np.array([status == STATUSES[0] for status in statuses], bool)
    return Drawn(table, sure, np.ones(len(table), bool))


def _polygon(path: Path, layer: str, fid: object, shape: Any) -> Polygon:
    where = f"{path}, layer {layer}, feature {fid}"
    if not isinstance(shape, Polygon | MultiPolygon) or shape.is_empty:
        raise LabelError(f"{where}: it has no polygon; delete it or draw one")
    if isinstance(shape, MultiPolygon):
        if len(shape.geoms) > 1:
            raise LabelError(f"{where}: it has {len(shape.geoms)} parts; split it, a polygon is one unit")
        shape = shape.geoms[0]
    if not shape.is_valid:
        raise LabelError(f"{where}: its geometry is invalid ({explain_validity(shape)}); draw it again")
    return shape


def _choice(path: Path, fid: object, field: str, value: Any, known: Sequence[str]) -> str:
    if value not in known:
        what = f"has no {field}" if pd.isna(value) else f"has the {field} {value!r}, which is none"
        raise LabelError(f"{path}, layer {LABELS}, feature {fid} {what}: choose from {', '.join(known)}")
    return str(value)


def _numbers(path: Path, column: pd.Series) -> npt.NDArray[np.float64]:
    numbers = pd.to_numeric(column, errors="coerce").astype("Float64")
    wrong = column.index[numbers.isna() & column.notna() & (column.astype("string").str.strip() != "")]
    if len(wrong):
        raise LabelError(f"{path}, layer {LABELS}, feature {wrong[0]}: {column.name} is no number; write one or none")
    return np.asarray(numbers.to_numpy(np.float64, na_value=np.nan), np.float64)


def _oriented(shape: Polygon) -> tuple[float, float, float, float, float]:
    """Centre, length, width and heading [0, 180) of the smallest rectangle around a polygon on the lattice."""
    rectangle = shapely.minimum_rotated_rectangle(shape)
    if not isinstance(rectangle, Polygon):
        return 0.0, 0.0, 0.0, 0.0, 0.0
    corners = np.asarray(rectangle.exterior.coords)
    sides = np.diff(corners[:3], axis=0)
    lengths = np.hypot(*sides.T)
    along = sides[int(np.argmax(lengths))]
    x, y = corners[:4].mean(axis=0)
    return float(x), float(y), float(lengths.max()), float(lengths.min()), _heading_deg(along)


def _heading_deg(along: npt.NDArray[np.float64]) -> float:
    heading = float(np.rad2deg(np.arctan2(along[0], -along[1]))) % 180.0
    return 0.0 if heading >= 180.0 else heading  # the remainder of a tiny negative rounds up to the period


def _reading(table: npt.NDArray[np.float32], heading_deg: npt.NDArray[np.float64], grid: Grid) -> npt.NDArray:
    """Give words their reading direction, [0, 360) from the lattice's up.

    It is that of the long axis which `heading_deg` (from true north) is nearer to, where they agree within 45 degrees;
    otherwise the one that runs from left to right on a map with north up.
    """
    columns = (table[:, column].astype(np.float64) for column in (X, Y, LENGTH, WIDTH, HEADING))
    _, true_deg = boxes(grid, *columns)
    off_deg: npt.NDArray[np.float64] = np.abs((heading_deg - true_deg + 180) % 360 - 180)
    # True headings in [0, 180) run to the east, as the lattice's do up to the grid's convergence.
    turned = np.where(np.isnan(off_deg), False, off_deg > 135)
    table = table.copy()
    table[:, HEADING] = (table[:, HEADING] + 180 * turned) % 360
    return table


def _reviewed(path: Path, frame: gpd.GeoDataFrame, grid: Grid) -> Polygon | MultiPolygon:
    """The reviewed ground in pixels of the lattice."""
    shapes = []
    for fid, shape in frame.geometry.items():
        if shape is None or shape.is_empty:
            continue
        if not isinstance(shape, Polygon | MultiPolygon):
            raise LabelError(f"{path}, layer {REVIEWED}, feature {fid}: it is no polygon; delete it or draw one")
        if not shape.is_valid:
            why = explain_validity(shape)
            raise LabelError(f"{path}, layer {REVIEWED}, feature {fid}: its geometry is invalid ({why}); draw it again")
        shapes.append(shape)
    area = shapely.union_all(_on_grid(path, REVIEWED, frame, shapes, grid)) if shapes else Polygon()
    area = shapely.intersection(area, shapely.box(0, 0, grid.width_px, grid.height_px))
    parts = [part for part in shapely.get_parts(area) if isinstance(part, Polygon) and not part.is_empty]
    if not parts:
        raise LabelError(
            f"{path}, layer {REVIEWED}, holds no ground of the scene: draw a polygon around what you have looked at"
        )
    return shapely.union_all(parts)


def _cut(units: Drawn, reviewed: Polygon | MultiPolygon) -> _Cut:
    """Divide the reviewed ground so that each class has its share on either side, and through a gap between units."""
    judged = units.used & units.sure
    centres, classes = units.centres[judged], units.table[judged, CLASS].astype(int)
    candidates: list[tuple[float, float, _Cut]] = []
    if len(centres) >= FEW_LABELS:
        for axis in (0, 1):
            places = np.sort(centres[:, axis])
            for first in range(1, len(places)):
                cut = _Cut(axis, float(places[first - 1] + places[first]) / 2)
                out = centres[:, axis] >= cut.at_px
                if (
                    HELD_OUT_SHARES[0] <= out.mean() <= HELD_OUT_SHARES[1]
                    and _GROUND[0] <= _share(reviewed, cut) <= _GROUND[1]
                ):
                    number, held_out = np.bincount(classes), np.bincount(classes[out], minlength=classes.max() + 1)
                    uneven = float(np.abs(held_out - HELD_OUT * number).sum() / len(classes))
                    gap_px = float(places[first] - places[first - 1])
                    candidates.append((round(uneven, 1), -gap_px, cut))
    if candidates:
        return min(candidates, key=lambda one: one[:2])[2]
    left, top, right, bottom = reviewed.bounds
    axis = int(bottom - top > right - left)
    low, high = ((left, right), (top, bottom))[axis]
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if _share(reviewed, _Cut(axis, middle)) > HELD_OUT else (low, middle)
    return _Cut(axis, (low + high) / 2)


def _share(reviewed: Polygon | MultiPolygon, cut: _Cut) -> float:
    return float((reviewed & cut.block).area / reviewed.area)


def _where(cut: _Cut, reviewed: Polygon | MultiPolygon, grid: Grid) -> str:
    x, y = grid.to_crs(np.array([cut.at_px]), np.array([cut.at_px]))
    assert grid.crs is not None
    side, place = (("east of x", x[0]), ("south of y", y[0]))[cut.axis]
    epsg = grid.crs.to_epsg()
    name = f"EPSG:{epsg}" if epsg else grid.crs.name
    return f"{side} = {place:.1f} ({name}), {_share(reviewed, cut):.0%} of the reviewed ground"


def _training_chips(
    image: SingleRaster, area: Polygon | MultiPolygon, units: Drawn, native_gsd_m: float
) -> list[PooledChip]:
    grid = image.gridded.grid
    whole = Box(0, 0, grid.width_px, grid.height_px)
    chips = []
    for core in _tiles(area, CHIP_PX):
        box = core.grown(OVERLAP_PX, whole)
        rgb, seen = _ground(image, box, area)
        if not seen[core.y0 - box.y0 : core.y1 - box.y0, core.x0 - box.x0 : core.x1 - box.x0].any():
            continue
        rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
        near = Box(
            box.x0 + int(columns[0]), box.y0 + int(rows[0]), box.x0 + int(columns[-1]) + 1, box.y0 + int(rows[-1]) + 1
        )
        # The surroundings are seen by the network, and not judged.
        near = near.grown(OVERLAP_PX, box)
        part = np.s_[near.y0 - box.y0 : near.y1 - box.y0, near.x0 - box.x0 : near.x1 - box.x0]
        chips.append(PooledChip(np.ascontiguousarray(rgb[part]), units.labels(near, seen[part]), native_gsd_m))
    return chips


def _held_out_chips(
    image: SingleRaster, area: Polygon | MultiPolygon, units: Drawn, native_gsd_m: float
) -> list[PooledChip]:
    """Windows of one size whose cores tile the held-out ground: each unit is judged in one of them."""
    chips = []
    for core in _tiles(area, HELD_OUT_CORE_PX):
        box = Box(core.x0 - HALO_PX, core.y0 - HALO_PX, core.x1 + HALO_PX, core.y1 + HALO_PX)
        rgb, seen = _ground(image, box, area)
        inside = np.zeros_like(seen)
        inside[HALO_PX:-HALO_PX, HALO_PX:-HALO_PX] = True
        seen &= inside
        mine = shapely.contains_xy(shapely.box(core.x0, core.y0, core.x1, core.y1), *units.centres.T)
        if seen.any():
            here = Drawn(units.table, units.sure, units.used & mine)
            chips.append(PooledChip(rgb, here.labels(box, seen), native_gsd_m))
    return chips


def _tiles(area: Polygon | MultiPolygon, side: int) -> list[Box]:
    if area.is_empty:
        return []
    left, top, right, bottom = area.bounds
    columns = range(int(left // 1), int(-(-right // 1)), side)
    rows = range(int(top // 1), int(-(-bottom // 1)), side)
    tiles = [Box(x, y, x + side, y + side) for y in rows for x in columns]
    return [tile for tile in tiles if area.intersects(shapely.box(tile.x0, tile.y0, tile.x1, tile.y1))]


def _ground(
    image: SingleRaster, box: Box, area: Polygon | MultiPolygon
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Pixels of a window, grey where the scene shows nothing, and which of them lie in the area and are shown."""
    pixels = image.gridded.read(box)
    shape = (box.height, box.width)
    valid = np.ones(shape, np.bool_) if pixels.valid is None else pixels.valid
    rgb = np.where(valid[:, :, None], pixels.rgb, np.uint8(UNSEEN_GREY))
    place = Affine.translation(box.x0, box.y0)
    inside = rasterio.features.rasterize([(area, 1)], out_shape=shape, transform=place, dtype="uint8") == 1
    return np.ascontiguousarray(rgb), inside & valid


def _text(value: object) -> str | None:
    return None if value is None or pd.isna(value) else str(value)  # type: ignore[call-overload]
