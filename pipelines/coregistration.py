"""Co-registration: how far the scenes of a site lie apart on the ground, measured on ground that did not change.

Orthorectified imagery of different dates is placed a few metres apart, which is as much as rows of equipment are. The
shift of each scene against the site's reference scene is measured, stored with its accuracy, and never baked in:
polygons stay where their own scene puts them.

A run keeps a grey picture of the site's ground (`ground.tif`) beside its counts, a function of its scene alone. The
shifts follow from these pictures of all runs of a site and stand in one document for the site, `coregistration.json`,
which can be rebuilt at any time; no run folder changes when another scene arrives.

The reference is the earliest scene of those that show as much of the ground as any (`NEARLY_ALL`) with pixels of
`SHARP_M` or less: scenes that are added later never change it. Rendered scenes have a reference of their own.

The method: gradients, their amplitudes compressed so that no bright roof outweighs the ground, are correlated over the
whole site within `RANGE_M`, then in patches of `PATCH_PX` around the best places. Patches that changed, or whose
shadows moved, disagree with the others and drop out; the site's zones, where building goes on, are left out as long as
there is ground enough outside them. What is left says the shift, by its mean, and how well it is known, by its spread.
Where too few patches agree the answer is why not.
"""

import hashlib
import json
import math
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyproj
import rasterio.features
import scipy.fft
import shapely
from numpy.typing import NDArray
from pyproj.aoi import AreaOfInterest
from pyproj.database import query_utm_crs_info
from rasterio import Affine
from rasterio.enums import Resampling
from rasterio.io import MemoryFile
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window
from scipy import ndimage

from pipelines.errors import ArchiveError, SceneError
from pipelines.gdal_env import gdal_env
from pipelines.scenes.cache import LICENCE_TAG, RENDERED_TAG
from pipelines.scenes.georeference import gsd_m, open_raster, reading
from pipelines.sites import Site

__all__ = [
    "DOCUMENT",
    "GROUND",
    "Ground",
    "Refusal",
    "Shift",
    "choose_reference",
    "coregister",
    "ground_tif",
    "measure_shift",
    "read_ground",
    "read_shifts",
    "view_ground",
]

GROUND = "ground.tif"
"""File of a run folder."""
DOCUMENT = "coregistration.json"
"""File of a site's folder in the archive."""
METHOD = 1
"""Raise it when the same pictures would give other shifts: what was measured before is then measured again."""
SHARP_M = 1.0
NEARLY_ALL = 0.9
"""Of the ground that the fullest scene shows."""

PIXEL_M = 0.6
"""Of the picture of the ground: half a metre is lost in no shift that matters, and the picture stays small."""
LARGEST_PX = 4096
MARGIN_M = 60.0
"""Kept around the perimeter: what a cached scene has there, and ground where nothing is built."""
RANGE_M = 25.0
"""Orthorectified scenes lie closer together than this; one that does not is refused, not guessed."""
SMOOTHED_PX = 1.0
PATCH_PX = 64
SLACK_PX = 5
"""How far a patch may lie from what the whole site says."""
AGREE_PX = 1.0
LEAST_PATCHES = 6
CHANCE = 0.06
"""Share of the patches of two unrelated pictures that is taken to agree by chance."""
BEYOND_CHANCE = 6.0
"""Standard deviations above that share from which agreement is believed: 11 of 35 patches, 71 of 600.

Of 960 unrelated pairs of rendered pictures the luckiest had 7 of 35 patches agree.
"""
LEAST_VALID = 0.6
"""Of a patch's pixels: image, and outside the zones."""
CANDIDATES = 3
NINE_OF_TEN = 2.146
"""Radius, in standard deviations of one axis, that holds nine tenths of a normal scatter in the plane."""
FLOOR_M = 0.12
"""Standard deviation of what all patches have in common (shadows on one side, resampling), from rendered pairs."""
COARSEST_ACCURACY_M = 1.5
"""A shift known no better than this could not tell units of a row apart."""


@dataclass(frozen=True)
class Shift:
    """How far a scene shows the ground from where the site's reference scene shows it.

    A position in the scene minus the shift is the position in the reference scene.
    """

    east_m: float
    north_m: float
    """Along the axes of `crs`."""
    accuracy_m: float
    """Distance within which the true shift lies in nine cases of ten; 0 for the reference scene itself."""
    reference: str
    """The reference scene's run, `<date>/<scene id>`."""
    crs: str
    """Projected CRS, such as `EPSG:32615`; one for all scenes of a site."""
    patches: int = 0
    """Patches of ground that agree."""
    share: float = 1.0
    """Of the patches with anything to see."""


@dataclass(frozen=True)
class Refusal:
    """Why there is no shift."""

    reason: str


@dataclass(frozen=True)
class Ground:
    """A grey picture of a site's ground on a grid that is the same for all its scenes."""

    grey: NDArray[np.uint8]
    """(rows, columns), north up; 0 where there is no image."""
    west_m: float
    north_m: float
    """Of the outer corner; a multiple of `pixel_m`."""
    pixel_m: float
    crs: str


def view_ground(path: Path, site: Site) -> Ground:
    """Look at a fetched scene on the site's grid: UTM, `PIXEL_M` or a power of two coarser where the site is large.

    :param path: a raster of three bands with a mask, in any CRS
    :raises SceneError: it cannot be read
    """
    crs = _utm_of(site)
    outline = shapely.transform(
        shapely.segmentize(site.perimeter, 0.001),
        pyproj.Transformer.from_crs("OGC:CRS84", crs, always_xy=True).transform,
        interleaved=False,
    )
    left, bottom, right, top = outline.buffer(MARGIN_M).bounds
    pixel_m = PIXEL_M
    while max(right - left, top - bottom) > LARGEST_PX * pixel_m:
        pixel_m *= 2
    west, north = math.floor(left / pixel_m), math.ceil(top / pixel_m)
    width, height = math.ceil(right / pixel_m) - west, north - math.floor(bottom / pixel_m)
    with open_raster(path) as dataset, reading(path):
        shrinks = gsd_m(dataset) < pixel_m
        with WarpedVRT(
            dataset,
            crs=crs,
            transform=Affine(pixel_m, 0, west * pixel_m, 0, -pixel_m, north * pixel_m),
            width=width,
            height=height,
            resampling=Resampling.average if shrinks else Resampling.cubic,
            add_alpha=True,
        ) as warped:
            grey = np.empty((height, width), np.uint8)
            for row in range(0, height, 512):
                strip = Window(0, row, width, min(512, height - row))
                red, green, blue, alpha = warped.read(window=strip).astype(np.float32)
                light = np.clip(np.rint(0.299 * red + 0.587 * green + 0.114 * blue), 1, 255)
                grey[row : row + 512] = np.where(alpha > 127, light, 0)
    return Ground(grey, west * pixel_m, north * pixel_m, pixel_m, crs)


def ground_tif(ground: Ground, *, rendered: bool, licence: str) -> bytes:
    """Return the picture as a GeoTIFF without loss: JPEG would leave a grid of its own in every scene."""
    profile = {
        "driver": "GTiff",
        "width": ground.grey.shape[1],
        "height": ground.grey.shape[0],
        "count": 1,
        "dtype": "uint8",
        "nodata": 0,
        "crs": ground.crs,
        "transform": Affine(ground.pixel_m, 0, ground.west_m, 0, -ground.pixel_m, ground.north_m),
        "compress": "deflate",
        "predictor": 2,
        "tiled": True,
    }
    with gdal_env(), MemoryFile() as memory:
        with memory.open(**profile) as raster:
            raster.write(ground.grey, 1)
            raster.update_tags(**{RENDERED_TAG: "YES" if rendered else "NO", LICENCE_TAG: licence})
        return bytes(memory.read())


def read_ground(path: Path) -> Ground:
    """Read what `ground_tif` made.

    :raises SceneError: it is missing or damaged
    """
    with open_raster(path) as raster, reading(path):
        at = raster.transform
        return Ground(raster.read(1), at.c, at.f, at.a, f"EPSG:{raster.crs.to_epsg()}")


def coregister(site: Site, archive: Path) -> Mapping[str, Shift | Refusal]:
    """Bring the site's `coregistration.json` up to date with its run folders, and return what it says.

    What was measured before between the same two pictures is kept, so that one more scene costs one measurement. The
    document is the same whenever and in whatever order the runs came.

    :returns: by run, `<date>/<scene id>`
    :raises ArchiveError: the archive cannot be read or written
    """
    runs = {run.key: run for run in _runs(archive, site)}
    path = archive / site.id / DOCUMENT
    before = _read_document(path)
    outlines = hashlib.sha256(
        b"".join(shapely.to_wkb(shape) for shape in (site.perimeter, *(zone.geometry for zone in site.zones)))
    ).hexdigest()
    entries: dict[str, Any] = {}
    for rendered in sorted({run.rendered for run in runs.values()}):
        alike = [run for run in runs.values() if run.rendered == rendered and run.sha256]
        reference = choose_reference(alike)
        known: Ground | None = None
        for run in (one for one in runs.values() if one.rendered == rendered):
            about: dict[str, Any] = {"method": METHOD, "outlines": outlines, "ground_sha256": run.sha256}
            about["reference_sha256"] = reference.sha256 if reference else None
            earlier = before.get(run.key)
            if _says(earlier, about):
                entries[run.key] = earlier
                continue
            if run.sha256 is None or reference is None:
                answer: Shift | Refusal = Refusal(
                    "the run has no picture of the ground that can be read; count that date again"
                )
            elif run.key == reference.key:
                answer = Shift(0.0, 0.0, 0.0, run.key, read_ground(run.folder / GROUND).crs)
            else:
                known = known or read_ground(reference.folder / GROUND)
                answer = measure_shift(read_ground(run.folder / GROUND), known, reference.key, site)
            entries[run.key] = about | _as_record(answer)
    if entries != before:
        _write_document(path, site, entries)
    return {key: _from_record(entry) for key, entry in entries.items()}


def read_shifts(site_id: str, archive: Path) -> Mapping[str, Shift | Refusal]:
    """Return what the site's `coregistration.json` says, by run (`<date>/<scene id>`); empty where there is none.

    :raises ArchiveError: it is damaged
    """
    path = archive / site_id / DOCUMENT
    try:
        runs = json.loads(path.read_bytes())["runs"]
        return {key: _from_record(entry) for key, entry in runs.items()}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ArchiveError(f"{path} cannot be read: {error.strerror}; make it readable or delete it") from None
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        raise ArchiveError(f"{path} is damaged; delete it, overwatt publish makes it anew from the runs") from None


@dataclass(frozen=True)
class GroundRun:
    """What the choice of a reference rests on."""

    key: str
    folder: Path
    acquired: str
    rendered: bool
    gsd_m: float
    sha256: str | None
    """Of the picture of the ground; None where there is none that can be read."""
    shown: int
    """Its pixels with image."""


def choose_reference(runs: list[GroundRun]) -> GroundRun | None:
    """Return the earliest of the sharp scenes that show nearly all; the earliest of all where none is sharp."""
    full = max((run.shown for run in runs), default=0) * NEARLY_ALL
    whole = [run for run in runs if run.shown >= full]
    sharp = [run for run in whole if run.gsd_m <= SHARP_M]
    return min(sharp or whole, key=lambda run: (run.acquired, run.key), default=None)


def _runs(archive: Path, site: Site) -> Iterator[GroundRun]:
    for path in sorted((archive / site.id).glob("????-??-??/[!.]*/item.json")):
        try:
            properties = json.loads(path.read_text(encoding="utf-8"))["properties"]
            # An acquisition of which only a range is known has no datetime; the range's end is when it counts.
            acquired = str(properties["datetime"] or properties["end_datetime"])
            rendered = bool(properties["overwatt:rendered"])
            native_m = float(properties["gsd"])
        except OSError as error:
            raise ArchiveError(f"{path} cannot be read: {error.strerror}; make it readable or delete it") from None
        except (KeyError, TypeError, ValueError):
            continue  # whoever reads the run says what is wrong with it
        folder = path.parent
        try:
            shown = int((read_ground(folder / GROUND).grey > 0).sum())
            digest = hashlib.sha256((folder / GROUND).read_bytes()).hexdigest()
        except (SceneError, OSError):
            shown, digest = 0, None
        key = f"{folder.parent.name}/{folder.name}"
        yield GroundRun(key, folder, acquired, rendered, native_m, digest, shown)


def _as_record(answer: Shift | Refusal) -> dict[str, Any]:
    if isinstance(answer, Refusal):
        return {"refused": answer.reason}
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in asdict(answer).items()}


def _from_record(entry: Mapping[str, Any]) -> Shift | Refusal:
    if "refused" in entry:
        return Refusal(str(entry["refused"]))
    shift = Shift(**{name: entry[name] for name in Shift.__dataclass_fields__})
    if not (math.isfinite(shift.east_m) and math.isfinite(shift.north_m) and re.fullmatch(r"EPSG:\d+", shift.crs)):
        raise ValueError("no shift")
    return shift


def _says(entry: object, about: Mapping[str, Any]) -> bool:
    if not (isinstance(entry, dict) and about.items() <= entry.items()):
        return False
    try:
        _from_record(entry)
    except (KeyError, TypeError, ValueError):
        return False
    return True


def _read_document(path: Path) -> dict[str, Any]:
    try:
        runs = json.loads(path.read_bytes())["runs"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return runs if isinstance(runs, dict) else {}


def _write_document(path: Path, site: Site, entries: Mapping[str, Any]) -> None:
    document = {
        "site": site.id,
        "note": "position in the scene minus its shift is the position in the reference; made from the run folders",
        "runs": dict(entries),
    }
    text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise ArchiveError(f"{path} cannot be written: {error.strerror}; make its folder writable") from None


def measure_shift(ground: Ground, reference: Ground, name: str, site: Site | None = None) -> Shift | Refusal:
    """Measure how far `ground` lies from where `reference` shows the same.

    :param name: what the answer calls the reference scene
    :param site: its zones, where building goes on, are left out if the rest says enough
    """
    if (ground.crs, ground.pixel_m) != (reference.crs, reference.pixel_m):
        return Refusal("the site's outline was another one when one of the two scenes was counted; count both again")
    here, there = _common(ground, reference)
    if here is None or there is None:
        return Refusal("the two scenes show no ground in common")
    zones = _zones(site, here) if site is not None else np.zeros(here.grey.shape, bool)
    answer = _measure(here, there, name, zones)
    if isinstance(answer, Refusal) and zones.any():
        # Outlines drawn wide leave nothing outside; what did not change inside can still agree.
        return _measure(here, there, name, np.zeros_like(zones))
    return answer


def _measure(here: Ground, there: Ground, name: str, masked: NDArray[np.bool_]) -> Shift | Refusal:
    pixel_m = here.pixel_m
    seen, known = _Edges.of(here.grey, masked), _Edges.of(there.grey, masked)
    best = _Agreement(0, 0, math.inf, 0, 0)
    for column, row in _coarse(known.field, seen.field, round(RANGE_M / pixel_m)):
        agreement = _agree(known, seen, column, row)
        if agreement.count > best.count or not best.tried:
            best = agreement
    if best.tried < LEAST_PATCHES:
        return Refusal(f"only {best.tried} patches of ground have anything to see in both scenes")
    by_chance = CHANCE * best.tried + BEYOND_CHANCE * math.sqrt(CHANCE * (1 - CHANCE) * best.tried)
    if best.count < max(LEAST_PATCHES, by_chance):
        return Refusal(
            f"only {best.count} of {best.tried} patches of ground agree on a shift of {RANGE_M:.0f} m or less"
        )
    accuracy_m = NINE_OF_TEN * math.hypot(best.error_px * pixel_m, FLOOR_M)
    if accuracy_m > COARSEST_ACCURACY_M:
        return Refusal(f"the patches of ground that agree leave the shift uncertain by {accuracy_m:.1f} m")
    return Shift(
        east_m=best.column * pixel_m,
        north_m=-best.row * pixel_m,
        accuracy_m=accuracy_m,
        reference=name,
        crs=here.crs,
        patches=best.count,
        share=best.count / best.tried,
    )


def _utm_of(site: Site) -> str:
    west, south, east, north = site.perimeter.bounds
    lon, lat = (west + east) / 2, (south + north) / 2
    (info, *_) = query_utm_crs_info("WGS 84", AreaOfInterest(lon, lat, lon, lat))
    return f"{info.auth_name}:{info.code}"


def _common(one: Ground, other: Ground) -> tuple[Ground | None, Ground | None]:
    """Both pictures cut to the rectangle that they share."""
    column = round((other.west_m - one.west_m) / one.pixel_m)
    row = round((one.north_m - other.north_m) / one.pixel_m)
    left, top = max(0, column), max(0, row)
    right = min(one.grey.shape[1], column + other.grey.shape[1])
    bottom = min(one.grey.shape[0], row + other.grey.shape[0])
    if right - left < PATCH_PX or bottom - top < PATCH_PX:
        return None, None
    west_m, north_m = one.west_m + left * one.pixel_m, one.north_m - top * one.pixel_m
    return (
        Ground(one.grey[top:bottom, left:right], west_m, north_m, one.pixel_m, one.crs),
        Ground(
            other.grey[top - row : bottom - row, left - column : right - column],
            west_m,
            north_m,
            one.pixel_m,
            one.crs,
        ),
    )


def _zones(site: Site, ground: Ground) -> NDArray[np.bool_]:
    to_grid = pyproj.Transformer.from_crs("OGC:CRS84", ground.crs, always_xy=True)
    outlines = [shapely.transform(zone.geometry, to_grid.transform, interleaved=False) for zone in site.zones]
    if not outlines:
        return np.zeros(ground.grey.shape, bool)
    transform = Affine(ground.pixel_m, 0, ground.west_m, 0, -ground.pixel_m, ground.north_m)
    return np.asarray(rasterio.features.rasterize(outlines, ground.grey.shape, transform=transform), bool)


@dataclass(frozen=True)
class _Edges:
    """The edges of a picture."""

    field: NDArray[np.complex64]
    """Gradients (real to the right, imaginary down), amplitude below 1; 0 where nothing is looked at."""
    looked_at: NDArray[np.bool_]

    @classmethod
    def of(cls, grey: NDArray[np.uint8], masked: NDArray[np.bool_]) -> "_Edges":
        valid = grey > 0
        # Nothing has no edge: what lies beside it is drawn on into it before it is smoothed.
        filled = grey.astype(np.float32)
        if not valid.all() and valid.any():
            nearest = ndimage.distance_transform_edt(~valid, return_distances=False, return_indices=True)
            filled = filled[tuple(nearest)]
        smooth = cv2.GaussianBlur(filled, (0, 0), SMOOTHED_PX)
        field = cv2.Sobel(smooth, cv2.CV_32F, 1, 0) + 1j * cv2.Sobel(smooth, cv2.CV_32F, 0, 1)
        size = np.abs(field)
        looked_at = ndimage.binary_erosion(valid, iterations=4, border_value=1) & ~masked
        typical = float(np.median(size[looked_at])) if looked_at.any() else 1.0
        field = np.where(looked_at, field / (size + max(2 * typical, 1.0)), 0).astype(np.complex64)
        return cls(field, looked_at)


def _coarse(known: NDArray[np.complex64], seen: NDArray[np.complex64], reach_px: int) -> list[tuple[int, int]]:
    """The most likely whole shifts (columns, rows), best first, from the whole picture."""
    shape = [scipy.fft.next_fast_len(side + reach_px) for side in known.shape]
    spectrum = scipy.fft.fft2(seen, shape) * np.conj(scipy.fft.fft2(known, shape))
    likeness = np.real(scipy.fft.ifft2(spectrum))
    steps = np.arange(-reach_px, reach_px + 1)
    near = likeness[np.ix_(steps, steps)]
    peaks = (near == ndimage.maximum_filter(near, 5)) & (near > 0)
    rows, columns = np.nonzero(peaks)
    order = np.argsort(-near[rows, columns], kind="stable")[:CANDIDATES]
    return [(int(steps[columns[i]]), int(steps[rows[i]])) for i in order]


@dataclass(frozen=True)
class _Agreement:
    column: float
    row: float
    """Pixels right and down, the mean of the patches that agree."""
    error_px: float
    """Standard error of either."""
    count: int
    tried: int


def _agree(known: _Edges, seen: _Edges, column: int, row: int) -> _Agreement:
    """Ask every patch for its own shift near (column, row), and take the mean of those that agree."""
    patches, windows = [], []
    reach = PATCH_PX + 2 * SLACK_PX
    edge = SLACK_PX + max(abs(column), abs(row))
    field, looked_at = np.pad(seen.field, edge), np.pad(seen.looked_at, edge)
    down, right = edge - SLACK_PX + row, edge - SLACK_PX + column
    for top in range(0, known.field.shape[0] - PATCH_PX + 1, PATCH_PX):
        for left in range(0, known.field.shape[1] - PATCH_PX + 1, PATCH_PX):
            patch = np.s_[top : top + PATCH_PX, left : left + PATCH_PX]
            window = np.s_[top + down : top + down + reach, left + right : left + right + reach]
            if min(known.looked_at[patch].mean(), looked_at[window].mean()) >= LEAST_VALID:
                patches.append(known.field[patch])
                windows.append(field[window])
    if not patches:
        return _Agreement(column, row, math.inf, 0, 0)
    size = scipy.fft.next_fast_len(reach)
    spectra = scipy.fft.fft2(np.array(windows), (size, size)) * np.conj(scipy.fft.fft2(np.array(patches), (size, size)))
    likeness = np.real(scipy.fft.ifft2(spectra))[:, : 2 * SLACK_PX + 1, : 2 * SLACK_PX + 1]
    found = np.array([_peak(surface) for surface in likeness])
    inside = np.isfinite(found).all(axis=1)
    found = found[inside] - SLACK_PX
    if not len(found):
        return _Agreement(column, row, math.inf, 0, len(patches))
    apart = np.hypot(*(found[:, None] - found[None, :]).transpose(2, 0, 1))
    centre = found[np.argmax((apart < AGREE_PX).sum(axis=1))]
    for _ in range(10):
        chosen = np.hypot(*(found - centre).T) < AGREE_PX
        centre = found[chosen].mean(axis=0)
    count = int(chosen.sum())
    spread = found[chosen].std(axis=0, ddof=1) if count > 1 else np.array([np.inf, np.inf])
    return _Agreement(
        float(column + centre[0]),
        float(row + centre[1]),
        float(np.sqrt((spread**2).mean() / count)),
        count,
        len(patches),
    )


def _peak(surface: NDArray[np.float64]) -> tuple[float, float]:
    """Column and row of the highest place, between pixels by a parabola each way; NaN where it is at the rim."""
    row, column = np.unravel_index(np.argmax(surface), surface.shape)
    if not (0 < row < surface.shape[0] - 1 and 0 < column < surface.shape[1] - 1):
        return math.nan, math.nan
    across, down = surface[row, column - 1 : column + 2], surface[row - 1 : row + 2, column]
    return float(column + _vertex(across)), float(row + _vertex(down))


def _vertex(three: NDArray[np.float64]) -> float:
    left, middle, right = three.tolist()
    return 0.5 * (left - right) / (left - 2 * middle + right) if left - 2 * middle + right < 0 else 0.0
