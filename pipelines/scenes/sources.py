"""From what a user writes to an imagery source."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from urllib.parse import urlsplit

from pipelines.errors import SourceError
from pipelines.gdal_env import is_url
from pipelines.scenes.acknowledgements import acknowledged
from pipelines.scenes.library import LibrarySource
from pipelines.scenes.local import LocalSource
from pipelines.scenes.presets import load_presets, preset
from pipelines.scenes.sas import SasSigner
from pipelines.scenes.selection import NO_LIMITS, Limits
from pipelines.scenes.signing import NO_SIGNING
from pipelines.scenes.stac import StacSource
from pipelines.scenes.tiles import TileSource
from pipelines.scenes.types import ImagerySource
from pipelines.scenes.wayback import WaybackSource
from pipelines.scenes.web import public_href
from pipelines.settings import SAMPLE_CATALOG, Settings

__all__ = ["SOURCE_FORMS", "limits_given", "open_source", "public_spec", "takes_limits"]

SOURCE_FORMS = (
    "library (what overwatt ingest took in), sample (the embedded rendered scenes), "
    "local:PATH (an image, a folder of them, or a pattern such as /data/{site}/{date}/**), "
    "stac:PATH_OR_URL (a static STAC catalog, collection or item, or a STAC API, #COLLECTION,... behind it), "
    "tiles:TEMPLATE_OR_FILE (dated XYZ, TMS or WMTS tiles), "
    "or a source known by name such as planetary-computer-naip"
)
"""The forms of a source, for messages and help."""


def open_source(
    spec: str,
    *,
    cache: Path,
    acquired: date | None = None,
    licence: str | None = None,
    limits: Limits | None = None,
    acknowledge: Sequence[str] | None = None,
) -> ImagerySource:
    """Return the source that `spec` names.

    A name of `data/imagery/sources.csv` goes before a path of that name.

    A bare path or URL is taken for what it is: `.json` for STAC, a folder with a `catalog.json` for STAC, any other
    file or folder for local.

    :param cache: folder of fetched scenes
    :param acquired: date of acquisition of a single local image
    :param licence: of local images
    :param limits: on what a STAC source offers; None for those of the settings OVERWATT_MAX_CLOUD_PERCENT and
        OVERWATT_MAX_GSD_M
    :param acknowledge: licences that the user acknowledges; None for those of the setting OVERWATT_ACKNOWLEDGE
    :raises SourceError: `spec` is none of the forms, its path does not exist, `acquired` or `licence` is given for
        something else than local images, or `limits` for local images, or a licence is not acknowledged that must be
    """
    kind, _, rest = spec.strip().partition(":")
    address = rest if is_url(rest) else spec.strip()
    if is_url(address):
        try:
            _ = urlsplit(address).port
        except ValueError as error:
            raise SourceError(f"{public_spec(spec)} is no address ({error}); correct it") from error
    if limits not in (None, NO_LIMITS) and not takes_limits(spec):
        raise SourceError(
            f"{public_spec(spec)}: cloud cover and GSD can be limited for STAC sources only; leave the limits out"
        )
    if spec.strip() == "library":
        source: ImagerySource = LibrarySource(Settings().library, cache=cache)
    elif spec.strip() == "sample":
        source = StacSource(str(SAMPLE_CATALOG), cache=cache, name="sample", limits=limits or NO_LIMITS)
    elif kind == "local" and rest:
        return LocalSource(Path(rest), cache=cache, acquired=acquired, licence=licence)
    elif kind == "tiles" and rest and not acquired:
        return TileSource(rest, cache=cache, licence=licence)
    elif kind == "wayback":
        source = _wayback(rest, cache, acknowledge)
    elif kind == "stac" and rest:
        source = StacSource(rest, cache=cache, limits=limits or _limits_set())
    elif spec.strip() in load_presets():
        source = _known(spec.strip(), cache, limits or _limits_set())
    else:
        kind = _kind_of(spec.strip())
        whole = f"{kind}:{spec.strip()}"
        return open_source(whole, cache=cache, acquired=acquired, licence=licence, limits=limits)
    if acquired or licence:
        raise SourceError(f"{public_spec(spec)} says its dates and licences itself; give them for local images only")
    return source


def public_spec(spec: str) -> str:
    """Return what a user writes for a source without the parts of its address that may hold a key."""
    kind, colon, rest = spec.strip().partition(":")
    return f"{kind}{colon}{public_href(rest)}" if is_url(rest) else public_href(spec.strip())


def limits_given(max_cloud_percent: float | None, max_gsd_m: float | None) -> Limits | None:
    """Return the limits that a user gives, each with the setting's where it is not given; None where none is.

    :raises SourceError: one is not possible
    """
    if max_cloud_percent is None and max_gsd_m is None:
        return None
    if max_cloud_percent is not None and not 0 <= max_cloud_percent <= 100:
        raise SourceError(f"a cloud cover of at most {max_cloud_percent:g}% is not possible; give 0 to 100")
    if max_gsd_m is not None and not max_gsd_m > 0:
        raise SourceError(f"a GSD of at most {max_gsd_m:g} m is not possible; give metres above 0")
    default = _limits_set()
    return Limits(
        default.max_cloud_percent if max_cloud_percent is None else max_cloud_percent,
        default.max_gsd_m if max_gsd_m is None else max_gsd_m,
    )


def _limits_set() -> Limits:
    settings = Settings()
    return Limits(settings.max_cloud_percent, settings.max_gsd_m)


def takes_limits(spec: str) -> bool:
    """Whether a source leaves out by itself what is over the limits."""
    kind = spec.strip().partition(":")[0]
    if kind in ("local", "tiles", "wayback", "library"):
        return False
    path = Path(spec.strip()).expanduser()
    return (
        kind in ("sample", "stac")
        or spec.strip() in load_presets()
        or not path.exists()
        or _kind_of(str(path)) == "stac"
    )


def _known(name: str, cache: Path, limits: Limits) -> ImagerySource:
    known = preset(name)
    if known.kind != "stac":
        raise SourceError(f"{name} is a {known.kind} source, which cannot be opened")
    signer = SasSigner() if known.signing == "planetary-computer" else NO_SIGNING
    return StacSource(known.address, cache=cache, name=name, limits=limits, preset=known, signer=signer)


def _wayback(address: str, cache: Path, acknowledge: Sequence[str] | None) -> WaybackSource:
    terms = preset("wayback")
    how = "OVERWATT_ACKNOWLEDGE" if acknowledge is None else "--acknowledge"
    names = Settings().acknowledge.split(",") if acknowledge is None else acknowledge
    consent = acknowledged(terms, [name.strip() for name in names if name.strip()], how, cache)
    return WaybackSource(terms, cache=cache, acknowledged=consent, address=address or None)


def _kind_of(bare: str) -> str:
    path = Path(bare).expanduser()
    if is_url(bare) and bare.partition("?")[0].lower().endswith(".json"):
        return "stac"
    if bare and path.exists():
        is_stac = path.suffix.lower() == ".json" or (path.is_dir() and (path / "catalog.json").exists())
        return "stac" if is_stac else "local"
    raise SourceError(
        f"'{public_spec(bare)}' is no imagery source: give one of {SOURCE_FORMS}, or the path of an image"
    )
