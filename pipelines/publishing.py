"""Publishing: a run's files, written beside their place and moved in at once, so that a reader never sees half a run.

The run folder is `<archive>/<site>/<acquired date>/<scene id>/`. A re-run replaces it as a whole; where the operating
system can exchange two folders in one step (Linux), there is no moment without a run.
"""

import ctypes
import errno
import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from pipelines.coregistration import GROUND, ground_tif, view_ground
from pipelines.documents import detections_geojson, json_text, run_item
from pipelines.errors import ArchiveError
from pipelines.overlay import draw_overlay
from pipelines.pictures import waterfall_picture
from pipelines.sites import Site

if TYPE_CHECKING:
    from pipelines.capacity import Estimate
    from pipelines.census import Census
    from pipelines.detection import Detections
    from pipelines.scenes.types import FetchedScene, Scene

__all__ = ["counted_by", "publish_run", "replace_folder", "run_folder"]

LOCK_TIMEOUT_S = 60.0
"""Moving a run in takes a fraction of a second; the lock of a process that dies is released with it."""


def run_folder(archive: Path, site: Site, fetched: "FetchedScene") -> Path:
    """Return where the run of a scene is published."""
    return archive / site.id / f"{fetched.scene.acquired:%Y-%m-%d}" / fetched.scene.id


def counted_by(archive: Path, site: Site, scene: "Scene") -> str | None:
    """Return the version of the weights that counted a scene, if the archive holds its run."""
    census = archive / site.id / f"{scene.acquired:%Y-%m-%d}" / scene.id / "census.json"
    try:
        return str(json.loads(census.read_bytes())["model_version"])
    except (OSError, ValueError, KeyError, TypeError):
        # None, or one that must be counted again.
        return None


def publish_run(
    archive: Path,
    site: Site,
    fetched: "FetchedScene",
    detections: "Detections",
    census: "Census",
    estimate: "Estimate",
) -> Path:
    """Write a run to the archive and return its folder.

    It holds `detections.geojson`, `census.json`, `estimate.json`, `overlay.png`, `ground.tif` (for co-registration),
    `item.json` (STAC) and, where IT power is given, `waterfall.png`. The same scene and weights give the same bytes.

    :param detections: its frame has the column `zone` (see `pipelines.census.assign_zones`)
    :raises ArchiveError: the archive cannot be written
    """
    contents = {
        "detections.geojson": detections_geojson(site, fetched.scene, detections, census).encode(),
        "census.json": json_text(census.as_record()).encode(),
        "estimate.json": json_text(estimate.as_record()).encode(),
        "overlay.png": draw_overlay(site, fetched, detections, census),
        GROUND: ground_tif(
            view_ground(fetched.path, site), rendered=fetched.scene.rendered, licence=fetched.scene.licence
        ),
    }
    waterfall = waterfall_picture(estimate)
    if waterfall is not None:
        contents["waterfall.png"] = waterfall
    contents["item.json"] = run_item(site, fetched, detections, census, waterfall=waterfall is not None).encode()
    folder = run_folder(archive, site, fetched)
    replace_folder(folder, contents)
    return folder


def replace_folder(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Make `folder` hold exactly these files, in one step for whoever reads it; writers take turns.

    What killed writers left beside it, or in the folders beside its parent, is cleared away first.

    :param folder: `<site>/<date>/<scene id>`; missing parents are made
    :raises ArchiveError: it cannot be written, or another process keeps writing there
    """
    site_folder = folder.parent.parent
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(site_folder / ".publishing.lock", timeout=LOCK_TIMEOUT_S):
            _clear_leftovers(site_folder)
            _replace(folder, contents)
    except Timeout:
        raise ArchiveError(
            f"another process has been publishing to {site_folder} for {LOCK_TIMEOUT_S:.0f} s; end it or wait"
        ) from None
    except OSError as error:
        raise ArchiveError(
            f"{folder} cannot be written: {error.strerror}; set OVERWATT_ARCHIVE to a writable folder"
        ) from None


def _replace(folder: Path, contents: Mapping[str, bytes]) -> None:
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    partial, previous = _partial(folder), _previous(folder)
    try:
        partial.mkdir()
        for name, content in contents.items():
            _write_durably(partial / name, content)
        _sync(partial)
        if not folder.exists():
            partial.rename(folder)
        elif not _exchange(partial, folder):
            folder.rename(previous)
            partial.rename(folder)
        _sync(folder.parent)
    finally:
        if previous.exists() and not folder.exists():
            previous.rename(folder)
        shutil.rmtree(partial, ignore_errors=True)  # the old run after an exchange, an unfinished one after a failure
    shutil.rmtree(previous, ignore_errors=True)


def _partial(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.partial")


def _previous(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.previous")


def _clear_leftovers(site_folder: Path) -> None:
    """Remove what killed runs left behind; a run that was moved aside and not yet replaced goes back to its place."""
    for previous in site_folder.glob("*/.*.previous"):
        folder = previous.with_name(previous.name.removeprefix(".").removesuffix(".previous"))
        if folder.exists():
            shutil.rmtree(previous)
        else:
            previous.rename(folder)
    for partial in site_folder.glob("*/.*.partial"):
        shutil.rmtree(partial)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two folders in one step (renameat2, Linux 3.15); False where system or file system cannot."""
    if sys.platform != "linux":
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    at_working_directory, exchange = -100, 2
    if rename(at_working_directory, os.fsencode(one), at_working_directory, os.fsencode(other), exchange) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
        return False
    raise OSError(code, os.strerror(code), str(other))


def _write_durably(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Bring a folder's entries to the disk, so that a power cut cannot leave a run of empty files."""
    if sys.platform == "win32":  # folders cannot be opened there
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
