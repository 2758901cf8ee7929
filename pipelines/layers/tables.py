"""Tables made from all runs besides the detections: runs, census, estimate, sites and zones."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import geopandas as gpd
import pandas as pd
import pyarrow as pa
from shapely.geometry import shape

from models.classes import CLASSES
from pipelines.census import ClassCount, Interval
from pipelines.layers.archive import CRS, FIGURES, Archive, Run
from pipelines.sites import Site

__all__ = ["census_table", "estimate_table", "runs_table", "sites_table", "zones_table"]

_TIME = pd.DatetimeTZDtype("ms", "UTC")
_DAY = pd.ArrowDtype(pa.date32())
_RUN: dict[str, Any] = {
    "site": "string",
    "campus": "string",
    "scene_id": "string",
    "acquired": _TIME,
    "rendered": "bool",
    "chosen": "bool",
    "valid_from": _TIME,
    "valid_until": _TIME,
}
"""What every row says of its run."""


def census_table(archive: Archive) -> pd.DataFrame:
    """Counts: a row a run, class and scope, which is the whole site, a zone, or what lies outside zones.

    `detected`, `p5`, `p50` and `p95` (expected) are missing where the class was not given; `not_given` then says why.
    """
    kinds: Mapping[str, Any] = _RUN | {
        "class": "string",
        "scope": "string",
        "zone": "string",
        "detected": "Int64",
        "p5": "float64",
        "p50": "float64",
        "p95": "float64",
        "fans": "Int64",
        "fans_per_unit": "float64",
        "median_length_m": "float64",
        "median_width_m": "float64",
        "not_given": "string",
        "covered_fraction": "float64",
        "model_version": "string",
    }
    rows = []
    for run in archive.runs:
        census = run.census
        same = _of(run) | {"covered_fraction": census.covered_fraction, "model_version": census.model_version}
        for cls in CLASSES:
            if cls in census.by_class:
                rows.append(same | _counted(census.by_class[cls], "site"))
            else:
                rows.append(
                    same | {"class": cls, "scope": "site", "not_given": census.not_given.get(cls, "not counted")}
                )
        for count in census.by_zone:
            rows.append(same | _counted(count, "outside zones" if count.zone is None else "zone"))
    return _table(rows, kinds)


def _counted(count: ClassCount, scope: str) -> dict[str, Any]:
    sizes = {name: getattr(count, name) for name in ("fans_per_unit", "median_length_m", "median_width_m")}
    return {
        "class": count.cls,
        "scope": scope,
        "zone": count.zone,
        "detected": count.detected,
        **count.expected.as_record(),
        "fans": count.fans,
        **sizes,
    }


def estimate_table(archive: Archive) -> pd.DataFrame:
    """What the counts imply: a row a run and figure; p5, p50 and p95 are missing where it was not given."""
    kinds: Mapping[str, Any] = _RUN | {
        "figure": "string",
        "unit": "string",
        "p5": "float64",
        "p50": "float64",
        "p95": "float64",
        "accelerator": "string",
        "notes": "string",
    }
    rows = []
    for run in archive.runs:
        estimate = run.estimate
        for figure, unit in FIGURES.items():
            interval = estimate[figure]
            values = {} if interval is None else Interval(**interval).as_record()
            about = {"figure": figure, "unit": unit, "accelerator": estimate["accelerator"]}
            rows.append(_of(run) | about | values | {"notes": " | ".join(estimate["notes"])})
    return _table(rows, kinds)


def runs_table(archive: Archive) -> gpd.GeoDataFrame:
    """Runs: a row a run with everything known of its scene; the geometry is what was seen of the site."""
    kinds: Mapping[str, Any] = _RUN | {
        "acquired_earliest": _TIME,
        "acquired_from": "string",
        "released": _DAY,
        "source": "string",
        "licence": "string",
        "attribution": "string",
        "native_gsd_m": "float64",
        "off_nadir_deg": "float64",
        "sun_azimuth_deg": "float64",
        "sun_elevation_deg": "float64",
        "cloud_cover_percent": "float64",
        "covered_fraction": "float64",
        "model_version": "string",
        "scene_sha256": "string",
        "texts": "string",
        "detections": "int64",
        "folder": "string",
    }
    rows = []
    for run in archive.runs:
        said = run.item["properties"]
        own = {name: said.get(f"overwatt:{name}") for name in ("acquired_from", "source", "licence", "attribution")}
        earliest, released = said.get("overwatt:acquired_earliest"), said.get("overwatt:released")
        rows.append(
            _of(run)
            | own
            | {
                "acquired_earliest": None if earliest is None else pd.Timestamp(earliest),
                "released": None if released is None else pd.Timestamp(released).date(),
                "native_gsd_m": run.census.native_gsd_m,
                "off_nadir_deg": said.get("view:off_nadir"),
                "sun_azimuth_deg": said.get("view:sun_azimuth"),
                "sun_elevation_deg": said.get("view:sun_elevation"),
                "cloud_cover_percent": said.get("eo:cloud_cover"),
                "covered_fraction": run.census.covered_fraction,
                "model_version": run.census.model_version,
                "scene_sha256": said.get("overwatt:scene_sha256"),
                "texts": ", ".join(run.census.texts) or None,
                "detections": len(run.detections),
                "folder": run.folder.relative_to(archive.path).as_posix(),
            }
        )
    shapes = [shape(run.item["geometry"]) for run in archive.runs]
    return gpd.GeoDataFrame(_table(rows, kinds), geometry=shapes, crs=CRS)


def sites_table(sites: Sequence[Site], archive: Archive) -> gpd.GeoDataFrame:
    """Perimeters of all sites, with how many runs there are of each."""
    kinds: Mapping[str, Any] = {
        "site": "string",
        "name": "string",
        "operator": "string",
        "address": "string",
        "campus": "string",
        "source": "string",
        "quality": "string",
        "accelerator": "string",
        "known_dates": "string",
        "runs": "int64",
        "first_date": _DAY,
        "last_date": _DAY,
        "rendered": "bool",
    }
    rows = []
    for site in sites:
        runs = [run for run in archive.runs if run.site == site.id]
        names = ("name", "operator", "address", "campus", "accelerator")
        known = [f"{one.date} {one.event} ({one.source})" for one in site.known_dates]
        rows.append(
            {"site": site.id}
            | {name: getattr(site, name) for name in names}
            | {
                "source": site.perimeter_source,
                "quality": site.perimeter_quality,
                "known_dates": "; ".join(known) or None,
                "runs": len(runs),
                "first_date": min((run.date for run in runs), default=None),
                "last_date": max((run.date for run in runs), default=None),
                "rendered": any(run.rendered for run in runs),
            }
        )
    return gpd.GeoDataFrame(_table(rows, kinds), geometry=[site.perimeter for site in sites], crs=CRS)


def zones_table(sites: Sequence[Site]) -> gpd.GeoDataFrame:
    """Zones of all sites."""
    names = ("site", "zone", "kind", "source", "quality")
    zones = [(site, zone) for site in sites for zone in site.zones]
    rows = [
        dict(zip(names, (site.id, zone.id, zone.kind, zone.source, zone.quality), strict=True)) for site, zone in zones
    ]
    kinds = dict.fromkeys(names, "string")
    return gpd.GeoDataFrame(_table(rows, kinds), geometry=[zone.geometry for _, zone in zones], crs=CRS)


def _of(run: Run) -> dict[str, Any]:
    return {name: getattr(run, name) for name in _RUN}


def _table(rows: Sequence[Mapping[str, Any]], kinds: Mapping[str, Any]) -> pd.DataFrame:
    unknown = {name for row in rows for name in row} - set(kinds)
    if unknown:
        raise KeyError(f"columns without a kind: {json.dumps(sorted(unknown))}")
    return pd.DataFrame({name: pd.Series([row.get(name) for row in rows], dtype=kind) for name, kind in kinds.items()})
