"""`publish`: the merged layers of an archive, made anew from the run folders, and put in place where they differ.

Everything is written into a folder beside its place and moved in file by file, so that a reader keeps a whole file and
a killed publisher leaves the old state. The same runs and sites give the same bytes, and a file whose bytes stay is not
touched.
"""

import filecmp
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import geopandas as gpd
import pandas as pd
from filelock import FileLock, Timeout
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from models.classes import BY_NAME, CLASSES, LETTERING, OBJECT_CLASSES
from pipelines.errors import ArchiveError
from pipelines.layers.archive import Archive, read_archive
from pipelines.layers.catalog import CATALOG_ID, catalog_documents
from pipelines.layers.geopackage import Layer, is_multi, write_geopackage
from pipelines.layers.qgis_project import Group, MapLayer, write_project
from pipelines.layers.qgis_styles import Look, class_look, outline_looks, plural
from pipelines.layers.tables import census_table, estimate_table, runs_table, sites_table, zones_table
from pipelines.sites import Site, load_sites

__all__ = ["FOLDER", "Published", "publish_layers"]

FOLDER = "layers"
"""Of the layers, in the archive."""
GEOPACKAGE, PARQUET, PROJECT = "overwatt.gpkg", "overwatt.parquet", "overwatt.qgz"
LOCK_TIMEOUT_S = 120.0
"""Longer than layers of a thousand runs take."""
CATALOG = Path("catalog.json")
READ_ONLY = 0o444


@dataclass(frozen=True)
class Published:
    """What was put in place."""

    folder: Path
    runs: int
    detections: int
    rendered: bool
    written: tuple[str, ...]
    """Files that are new or differ from before, relative to `folder`."""
    removed: tuple[str, ...]
    """Files of runs that are gone."""
    unchanged: int
    broken: tuple[str, ...]
    """Run folders that were left out, and sites whose units cannot be followed, a sentence each."""

    def as_record(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"folder": str(self.folder)}


def publish_layers(archive: Path, aoi: Path, folder: Path | None = None) -> Published:
    """Merge all runs of an archive into layers.

    :param aoi: folder of site files
    :param folder: where the layers go; `<archive>/layers` by default
    :raises ArchiveError: there is no run that can be read, or the folder cannot be written or holds another catalog
    :raises SiteError: a site file is broken
    """
    folder = folder or archive / FOLDER
    if not archive.is_dir():
        read_archive(archive)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".publishing.lock", timeout=LOCK_TIMEOUT_S):
            return _publish(archive, aoi, folder)
    except Timeout:
        raise ArchiveError(
            f"another process has been publishing to {folder} for {LOCK_TIMEOUT_S:.0f} s; end it or wait"
        ) from None
    except OSError as error:
        raise ArchiveError(f"{folder} cannot be written: {error.strerror}; give --out a writable folder") from None


def _publish(archive: Path, aoi: Path, folder: Path) -> Published:
    sites = load_sites(aoi)
    runs = read_archive(archive, sites)
    partial = folder / ".partial"
    shutil.rmtree(partial, ignore_errors=True)  # of a killed publisher
    partial.mkdir()
    try:
        detections = runs.detections
        layers = layers_of(runs, sites, detections)
        write_geopackage(partial / GEOPACKAGE, layers, _newest(runs))
        _write_parquet(partial / PARQUET, detections)
        (partial / PROJECT).write_bytes(project_of(runs, sites, layers))
        for name, document in catalog_documents(runs, sites, folder).items():
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            (partial / name).write_bytes(document)
        before = _catalogued(folder)
        made = sorted((path.relative_to(partial) for path in partial.rglob("*") if path.is_file()), key=_pointed_at)
        written = tuple(name.as_posix() for name in made if _put(partial / name, folder / name))
        removed = tuple(_clear(folder, before - set(made)))
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Published(
        folder=folder,
        runs=len(runs.runs),
        detections=len(detections),
        rendered=runs.rendered,
        written=written,
        removed=removed,
        unchanged=len(made) - len(written),
        broken=runs.faults,
    )


def layers_of(archive: Archive, sites: Sequence[Site], detections: gpd.GeoDataFrame) -> list[Layer]:
    """Return the layers and tables of the GeoPackage, what is drawn on top first; a class without units is empty."""
    layers = []
    observed = not all(run.rendered for run in archive.runs)
    looks = outline_looks(rendered=archive.rendered, observed=observed)
    for cls in CLASSES:
        frame = detections[detections["class"] == cls].reset_index(drop=True)
        rendered, photographed = bool(frame["rendered"].any()), bool((~frame["rendered"]).any())
        about = f"Detections of the class {cls}, all dates of all sites; one polygon is one {BY_NAME[cls].unit}."
        look = class_look(cls, rendered=rendered, observed=photographed)
        layers.append(_layer(cls, plural(cls), about, frame, rendered, look))
    runs = runs_table(archive)
    outlines: Mapping[str, tuple[str, str, gpd.GeoDataFrame]] = {
        "runs": ("scenes counted", "What each scene shows of its site, with the scene's metadata.", runs),
        "zones": ("zones", "Zones of the sites.", zones_table(sites)),
        "sites": ("sites", "Perimeters of the sites.", sites_table(sites, archive)),
    }
    for name, (title, about, frame) in outlines.items():
        layers.append(_layer(name, title, about, frame, name == "runs" and archive.rendered, looks[name]))
    tables = {
        "census": ("counts", "Counts by run, class and scope, with 90% intervals.", census_table(archive)),
        "estimates": ("estimates", "What the counts imply, by run and figure.", estimate_table(archive)),
    }
    for name, (title, about, table) in tables.items():
        layers.append(_layer(name, title, about, table, archive.rendered, None))
    return layers


def project_of(archive: Archive, sites: Sequence[Site], layers: Sequence[Layer]) -> bytes:
    """Return the QGIS project of these layers."""

    def shown(name: str, title: str = "", subset: str = "", checked: bool = True) -> MapLayer:
        layer = next(layer for layer in layers if layer.name == name)
        multi = layer.look is not None and is_multi(layer.frame)
        return MapLayer(name, title or layer.title, layer.description, layer.look, subset, checked, multi)

    every = all(run.rendered for run in archive.runs)
    which = "RENDERED IMAGERY, not photographs" if every else "part of it RENDERED IMAGERY" if archive.rendered else ""
    groups = [
        # Words lie over the roofs they stand on.
        Group("Equipment", [shown(name, subset='"chosen"') for name in (LETTERING.name, *OBJECT_CLASSES)]),
        Group("Places", [shown("sites"), shown("zones"), shown("runs", subset='"chosen"', checked=False)]),
        Group("Figures", [shown("census"), shown("estimates")], expanded=False),
    ]
    days = sorted({run.date for run in archive.runs})
    seen = {run.site for run in archive.runs}
    places: list[tuple[str, BaseGeometry]] = [(site.name, site.perimeter) for site in sites if site.id in seen]
    # Runs of a site whose file lies elsewhere.
    places = places or [(run.site, shape(run.item["geometry"])) for run in archive.runs]
    title = "Overwatt: cooling and power equipment" + (f" - {which}" if which else "")
    about = (
        f"{len(archive.runs)} runs of {len(seen)} sites, {days[0]} to {days[-1]}. The temporal controller steps "
        "through the dates: what a scene shows stands until the next scene of its site. Made anew by overwatt publish."
    )
    return write_project(title, about, groups, days, places, GEOPACKAGE)


def _layer(name: str, title: str, about: str, frame: pd.DataFrame, rendered: bool, look: Look | None) -> Layer:
    if rendered:
        title = f"{title} - RENDERED IMAGERY"
        about = f"RENDERED IMAGERY, not photographs, where the field rendered is true. {about}"
    return Layer(name, title, about, frame, look)


def _newest(archive: Archive) -> datetime:
    return max(run.acquired for run in archive.runs)


def _write_parquet(path: Path, detections: gpd.GeoDataFrame) -> None:
    detections.to_parquet(path, index=False, write_covering_bbox=True, schema_version="1.1.0", compression="zstd")


def _pointed_at(name: Path) -> tuple[bool, bool, Path]:
    """Order in which files are put in place: what is linked to comes before what links to it."""
    return name.name == "catalog.json", name.name == "collection.json", name


def _catalogued(folder: Path) -> set[Path]:
    """Return the documents of the catalog that lies in `folder`, which may hold others that are not ours to remove.

    :raises ArchiveError: the catalog there is somebody else's
    """
    found: set[Path] = set()
    collections = [CATALOG]
    while collections:
        name = collections.pop()
        try:
            document = json.loads((folder / name).read_bytes())
            links = [(link["rel"], name.parent / link["href"]) for link in document["links"]]
            ours = name != CATALOG or document["id"] == CATALOG_ID
        except FileNotFoundError:
            continue
        except (ValueError, KeyError, TypeError):
            links, ours = [], name != CATALOG
        if not ours:
            raise ArchiveError(
                f"{folder / name} was not made by overwatt publish: move it away, or give --out an empty folder"
            )
        found.add(name)
        inside = [(rel, path) for rel, path in links if ".." not in path.parts and not path.is_absolute()]
        found.update(path for rel, path in inside if rel == "item" and (folder / path).is_file())
        collections += [path for rel, path in inside if rel == "child" and path not in found]
    return found


def _clear(folder: Path, gone: set[Path]) -> Iterator[str]:
    """Remove documents of runs, sites and weights that are gone."""
    for name in sorted(gone):
        path = folder / name
        path.unlink()
        yield name.as_posix()
        if not any(path.parent.iterdir()):
            path.parent.rmdir()


def _put(made: Path, place: Path) -> bool:
    """Move a file to its place unless the same bytes lie there; say whether it was moved."""
    if place.is_file() and filecmp.cmp(made, place, shallow=False):
        return False
    place.parent.mkdir(parents=True, exist_ok=True)
    with made.open("rb+") as file:
        os.fsync(file.fileno())
    if place.suffix == ".gpkg":
        # A GIS program that may write keeps a journal beside the file, which must not be taken for the new one's.
        for journal in (place.with_name(f"{place.name}-wal"), place.with_name(f"{place.name}-shm")):
            journal.unlink(missing_ok=True)
        # Edits would be lost with the next run; opened read-only, QGIS leaves the file as it is.
        made.chmod(READ_ONLY)
    made.replace(place)
    return True
