"""The border between imagery and everything after it: what a source offers, a scene, and a scene fetched.

A source finds scenes of a site and hands one over in **one form** whatever it was before: a COG of three uint8 bands
(red, green, blue) with a mask of valid pixels, in the scene's own CRS and geotransform, beside its STAC item.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Protocol

from shapely.geometry import MultiPolygon, Polygon

from pipelines.sites import Site

__all__ = ["Band", "FetchedScene", "ImagerySource", "RasterDeclaration", "Scene", "SceneProblem"]


@dataclass(frozen=True)
class RasterDeclaration:
    """What a STAC item says of its pixels and the raster itself may not."""

    nodata: float | None = None
    """Value of pixels that hold nothing, used where the raster declares none (asset fields `nodata`, `bands`)."""
    stretch: tuple[tuple[float, float], ...] | None = None
    """Low and high pixel value that become 0 and 255: one pair, or one for each of red, green and blue.

    From the item property `overwatt:stretch`; it has no effect on uint8 pixels, which are taken as they are.
    """
    rgb_bands: tuple[int, int, int] | None = None
    """Band numbers, counted from 1, of red, green and blue (asset field `bands` or `eo:bands`)."""


@dataclass(frozen=True)
class Band:
    """One spectral band of a scene in a file of its own."""

    name: str
    """Common name: `red`, `green`, `blue`, `nir`, `swir16`, or `scl` (classes of what a pixel shows)."""
    href: str
    """An absolute path or an http(s) URL."""
    scale: float = 1.0
    offset: float = 0.0
    """Reflectance is the pixel value times `scale` plus `offset`."""
    nodata: float | None = None


@dataclass(frozen=True)
class Scene:
    """One acquisition that covers a site, or a part of it."""

    id: str
    """Unique in its source and safe as a folder name."""
    source: str
    """Where it was found: `sample`, `local:NAME`, `stac:ADDRESS`, `tiles:NAME` or the name of a known source."""
    acquired: datetime
    """When the sensor saw it, with time zone UTC; 00:00 where only the day is known.

    Where only a range of days is known, the last of them: what is seen stood there by then.
    """
    gsd_m: float
    """Native ground sampling distance in metres: the coarser of the two pixel directions."""
    footprint: Polygon | MultiPolygon
    """What the image covers in longitude and latitude (CRS84), nodata edges included."""
    licence: str
    """Licence as it was given; `unknown (...)` where nobody said."""
    rendered: bool
    """True for imagery made by a renderer; it must be labelled so wherever it is shown."""
    href: str
    """The raster: an absolute path or an http(s) URL."""
    acquired_from: str
    """Where the date comes from: `item`, `item end_datetime`, `image metadata`, `tiff tag`, `file name`,
    `command line`, `tile descriptor`, `list of dates`, `wmts time` or `wayback metadata`."""
    off_nadir_deg: float | None = None
    """Angle between the line of sight and the vertical."""
    sun_azimuth_deg: float | None = None
    """Direction of the sun, clockwise from north."""
    sun_elevation_deg: float | None = None
    """Height of the sun above the horizon."""
    cloud_cover_percent: float | None = None
    """Share of the whole image under cloud, 0 to 100."""
    attribution: str = ""
    """Who must be named beside the image; empty where nobody asks for it."""
    declared: RasterDeclaration = field(default_factory=RasterDeclaration)
    """What the scene's STAC item says of its pixels."""
    earliest: datetime | None = None
    """First moment it may have been acquired, UTC, where only a range is known; `acquired` is its end."""
    released: date | None = None
    """When it was published or delivered; never used as the date of acquisition. None where nobody says."""
    price: str = "unknown"
    """Price class: `free`, `requester pays`, `priced` (must be bought), `owned` (was bought) or `unknown`."""
    acknowledged: str = ""
    """Licence that the user acknowledged explicitly, when and how; empty where none asks for it."""
    parts: tuple[str, ...] = ()
    """Further rasters of the same acquisition, mosaicked with `href` (which lies on top) when the scene is fetched."""
    bands: tuple[Band, ...] = field(default=(), repr=False)
    """Single bands beside the picture, where the source has them; no part of what is fetched."""


@dataclass(frozen=True)
class FetchedScene:
    """A scene on this machine, in the one form that detection reads."""

    scene: Scene
    """The scene, its `gsd_m` and `rendered` corrected by what the raster itself showed."""
    path: Path
    """COG of exactly three uint8 bands (red, green, blue) whose dataset mask is 0 where there is no image.

    CRS and geotransform are the scene's own: degrees, rotation and non-square pixels are possible. It covers the
    bounding box of the area and a margin of 60 m, as far as the scene reaches.
    """
    item_path: Path
    """STAC item (JSON) of the COG: date, GSD, CRS, source, licence, checksum, and how the pixels were made."""
    sha256: str
    """SHA-256 of the COG, in hexadecimal."""
    coverage: Polygon | MultiPolygon
    """Valid pixels within the area, longitude and latitude (CRS84), right to a few pixels."""


@dataclass(frozen=True)
class SceneProblem:
    """Something in a source that was passed over, so that it is not passed over in silence."""

    href: str
    """The file or address."""
    reason: str
    """One sentence."""


class ImagerySource(Protocol):
    """A place to look for imagery."""

    @property
    def name(self) -> str:
        """What `Scene.source` says of this source's scenes."""
        ...

    @property
    def problems(self) -> Sequence[SceneProblem]:
        """What the last search passed over, and why."""
        ...

    def search(self, site: Site, start: date | None = None, end: date | None = None) -> list[Scene]:
        """Find the scenes that overlap the site's perimeter, acquired from `start` to `end`, both included (UTC).

        :returns: at least one scene, ordered by `acquired`, then `id`
        :raises NoSceneError: the source holds nothing for the site and the dates; the message says what it does hold
        :raises SceneError: the imagery that was asked for cannot be read, dated or placed on the ground
        :raises SourceError: the source cannot be reached or is no source
        """
        ...

    def fetch(self, scene: Scene, area: Polygon | MultiPolygon) -> FetchedScene:
        """Bring the part of a scene around `area` (longitude and latitude, CRS84) to this machine, once.

        :raises SceneError: the scene does not overlap the area, or its pixels cannot be used
        :raises SourceError: the scene cannot be read from where it is, or the cache cannot be written
        """
        ...
