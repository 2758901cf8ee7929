"""The file in which a person corrects detections: a GeoPackage that QGIS opens styled, with a form, ready to edit.

It holds three tables: `labels`, a polygon a unit or painted word; `reviewed`, the ground that the person has looked at,
which is the whole scene until they make it smaller; and `scene`, which says of which image all that is true.
`pipelines.labels` reads it back.
"""

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import rasterio.features
import shapely
from pyogrio.errors import DataLayerError, DataSourceError
from rasterio.transform import Affine

from models.classes import CLASSES, LETTERING
from pipelines.detection import Detections
from pipelines.errors import LabelError
from pipelines.layers.geopackage import Layer, write_geopackage
from pipelines.layers.qgis_styles import FormField, correction_looks
from pipelines.single_raster import SingleRaster
from pipelines.windows import Box

__all__ = ["FORMAT", "LABELS", "REVIEWED", "SCENE", "STATUSES", "SceneIdentity", "refuse_existing", "write_label_file"]

FORMAT = "overwatt-labels-1"
LABELS, REVIEWED, SCENE = "labels", "reviewed", "scene"
STATUSES = ("sure", "ignore")
"""`ignore`: neither a hit nor a miss, for what nobody can tell."""
FORM = (
    FormField("class", "class", choices=CLASSES, required=True),
    FormField("status", "status", choices=STATUSES, default="'sure'", required=True),
    FormField("fan_count", "fans on the unit (empty: not counted)"),
    FormField("text", "text (roof lettering)"),
    FormField("heading_deg", "reading direction, degrees clockwise from north (roof lettering)"),
    FormField("note", "note"),
    FormField("probability", "probability of the detection", editable=False),
)
_MOST_CELLS = 1024
"""Sides of the lattice on which the outline of a scene is found."""
_SMALLEST_M2 = 25.0
"""A smaller part of a scene is a speck."""


@dataclass(frozen=True)
class SceneIdentity:
    """Which image labels are of."""

    name: str
    sha256: str
    licence: str | None
    rendered: bool
    native_gsd_m: float


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Refuse to write over what may be hours of somebody's work.

    :raises LabelError: there is such a file and it may not be replaced, or a program holds it open
    """
    if not path.parent.is_dir():
        raise LabelError(f"{path.parent} is no folder: make it, or name another file with --output")
    if path.suffix.lower() != ".gpkg":
        raise LabelError(f"--output {path} is no GeoPackage: name a file that ends in .gpkg")
    if path.exists() and not (overwrite and path.is_file()):
        raise LabelError(
            f"{path} exists and may hold corrections: name another file with --output, or replace it with --overwrite"
        )
    if path.with_name(f"{path.name}-wal").exists():
        raise LabelError(f"{path} is open in another program: close it there first, or name another file with --output")


def write_label_file(path: Path, identity: SceneIdentity, image: SingleRaster, found: Detections) -> int:
    """Write detections to be corrected, in the metre CRS of the detector's lattice, and return how many there are.

    `image` is open.

    :raises LabelError: the file cannot be written
    """
    form_look, edge_look = correction_looks(FORM)
    rendered = "RENDERED imagery, not a photograph: " if identity.rendered else ""
    now = datetime.now(UTC)
    layers = [
        Layer(
            LABELS,
            f"{rendered}labels of {identity.name}",
            "A polygon a unit or painted word; delete what is false, draw what is missing",
            _labels(found),
            form_look,
        ),
        Layer(
            REVIEWED,
            f"{rendered}reviewed ground of {identity.name}",
            "What was looked at; nothing outside is trained on",
            _extent(image),
            edge_look,
        ),
        Layer(SCENE, SCENE, "The image that the labels are of; do not edit", _about(identity, found, now)),
    ]
    beside = path.with_name(f".{path.stem}.{os.getpid()}.gpkg")
    try:
        write_geopackage(beside, layers, now)
        beside.replace(path)
    except (OSError, DataSourceError, DataLayerError) as error:
        reason = getattr(error, "strerror", None) or error
        raise LabelError(f"{path} cannot be written: {reason}; name another file with --output") from None
    finally:
        beside.unlink(missing_ok=True)
    return len(found.frame)


def _labels(found: Detections) -> gpd.GeoDataFrame:
    frame = found.frame
    words = (frame["class"] == LETTERING.name).to_numpy(bool)
    count = len(frame)
    return gpd.GeoDataFrame(
        {
            "class": frame["class"].astype("string"),
            "status": pd.Series([STATUSES[0]] * count, dtype="string"),
            "fan_count": frame["fan_count"].astype("Int64"),
            "text": frame["text"].astype("string"),
            "heading_deg": frame["heading_deg"].astype(float).where(words).round(1),
            "note": pd.Series([None] * count, dtype="string"),
            "probability": frame["probability"].astype(float).round(3),
        },
        geometry=frame.geometry.array,
        crs=frame.crs,
    )


def _extent(image: SingleRaster) -> gpd.GeoDataFrame:
    """Outline of what the image shows, in parts, on a lattice of at most `_MOST_CELLS`."""
    grid = image.gridded.grid
    factor = max(1, -(-max(grid.width_px, grid.height_px) // _MOST_CELLS))
    columns, rows = max(1, grid.width_px // factor), max(1, grid.height_px // factor)
    with image.gridded.coarser(factor) as coarse:
        valid = coarse.read(Box(0, 0, columns, rows)).valid
    place = grid.transform @ Affine.scale(grid.width_px / columns, grid.height_px / rows)
    if valid is None:
        parts = [shapely.box(*_bounds(place, columns, rows))]
    else:
        cells = valid.astype(np.uint8)
        outlines = [shapely.geometry.shape(one) for one, _ in rasterio.features.shapes(cells, valid, transform=place)]
        # Past the staircase of the lattice, so that an edge can be moved by one vertex.
        parts = [part.simplify(1.5 * factor * grid.gsd_m) for part in outlines if part.area >= _SMALLEST_M2]
    note = pd.Series([None] * len(parts), dtype="string")
    return gpd.GeoDataFrame({"note": note}, geometry=parts, crs=grid.crs)


def _bounds(place: Affine, columns: int, rows: int) -> tuple[float, float, float, float]:
    (west, north), (east, south) = place @ (0, 0), place @ (columns, rows)
    return west, south, east, north


def _about(identity: SceneIdentity, found: Detections, now: datetime) -> pd.DataFrame:
    texts = {
        "format": FORMAT,
        "scene": identity.name,
        "scene_sha256": identity.sha256,
        "licence": identity.licence,
        "weights": found.model_version,
        "written": f"{now:%Y-%m-%dT%H:%M:%SZ}",
        "not_given": "; ".join(f"{name}: {reason}" for name, reason in found.not_given.items()),
    }
    columns = {name: pd.Series([text], dtype="string") for name, text in texts.items()}
    figures = {
        "rendered": pd.Series([identity.rendered], dtype="bool"),
        "native_gsd_m": pd.Series([identity.native_gsd_m], dtype="float64"),
        "min_probability": pd.Series([found.min_probability], dtype="float64"),
        "detections": pd.Series([len(found.frame)], dtype="int64"),
    }
    return pd.DataFrame(columns | figures)
