"""The GeoPackage of all runs: a layer a class, sites, zones, runs, tables of counts and estimates, styles inside.

Version 1.3, because GDAL before 3.7 (Debian 12) warns of 1.4. The same tables give the same bytes: the file's own time
stamps are those of the data.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import geopandas as gpd
import pandas as pd
import pyogrio

from pipelines.layers.qgis_styles import Look, qml

__all__ = ["Layer", "is_multi", "write_geopackage"]

VERSION = "1.3"
STYLES = "layer_styles"
"""Name of the table in which QGIS looks for a layer's style."""


@dataclass(frozen=True)
class Layer:
    """One layer or attribute table of the file."""

    name: str
    title: str
    """For people; says so where data are of rendered imagery."""
    description: str
    frame: pd.DataFrame
    """A GeoDataFrame with its CRS for a layer, a plain frame for a table."""
    look: Look | None = None
    """How QGIS draws it; None for a table."""


def write_geopackage(path: Path, layers: list[Layer], stamp: datetime) -> None:
    """Write a new file.

    :param stamp: what the file says of when it was changed, UTC
    """
    options: Mapping[str, str] = {
        "OGR_CURRENT_DATE": f"{stamp:%Y-%m-%dT%H:%M:%S}.000Z",
        # The file is brought to the disk as a whole by whoever moves it into its place.
        "OGR_SQLITE_SYNCHRONOUS": "OFF",
    }
    with _gdal_options(options):
        for layer in layers:
            _write(path, layer)
        styled = [layer for layer in layers if layer.look is not None]
        if styled:
            _write(path, Layer(STYLES, STYLES, "Styles of QGIS", _styles(styled, stamp)))


def _write(path: Path, layer: Layer) -> None:
    options = {"IDENTIFIER": layer.title, "DESCRIPTION": layer.description}
    spatial = isinstance(layer.frame, gpd.GeoDataFrame)
    if spatial:
        options["GEOMETRY_NAME"] = "geom"
    pyogrio.write_dataframe(
        layer.frame,
        path,
        layer=layer.name,
        driver="GPKG",
        geometry_type=("MultiPolygon" if is_multi(layer.frame) else "Polygon") if spatial else None,
        dataset_options={"VERSION": VERSION} if not path.exists() else None,
        layer_options=options,
        use_arrow=True,
    )


def is_multi(frame: pd.DataFrame) -> bool:
    """Whether a layer holds polygons of several parts; all of its polygons are then of that type."""
    return isinstance(frame, gpd.GeoDataFrame) and bool((frame.geometry.geom_type == "MultiPolygon").any())


def _styles(layers: list[Layer], stamp: datetime) -> pd.DataFrame:
    count = len(layers)
    return pd.DataFrame(
        {
            "f_table_catalog": pd.Series([""] * count, dtype="string"),
            "f_table_schema": pd.Series([""] * count, dtype="string"),
            "f_table_name": pd.Series([layer.name for layer in layers], dtype="string"),
            "f_geometry_column": pd.Series(["geom"] * count, dtype="string"),
            "styleName": pd.Series([layer.name for layer in layers], dtype="string"),
            "styleQML": pd.Series([qml(layer.look) for layer in layers if layer.look], dtype="string"),
            "styleSLD": pd.Series([""] * count, dtype="string"),
            "useAsDefault": pd.Series([True] * count, dtype="bool"),
            "description": pd.Series([layer.title for layer in layers], dtype="string"),
            "owner": pd.Series(["Overwatt"] * count, dtype="string"),
            "ui": pd.Series([None] * count, dtype="string"),
            "update_time": pd.Series([stamp] * count, dtype=pd.DatetimeTZDtype("ms", "UTC")),
        }
    )


@contextmanager
def _gdal_options(options: Mapping[str, str]) -> Iterator[None]:
    before = {name: pyogrio.get_gdal_config_option(name) for name in options}
    pyogrio.set_gdal_config_options(dict(options))
    try:
        yield
    finally:
        pyogrio.set_gdal_config_options(before)
