"""Imagery sources known by name: address, licence, price and terms as data that can be corrected.

The table `data/imagery/sources.csv` holds them; each row says where its statement comes from.
Addresses are those of the documentation.
"""

import csv
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pipelines.errors import SourceError
from pipelines.settings import ROOT

__all__ = ["PRESETS", "Preset", "load_presets", "preset"]

PRESETS = ROOT / "data" / "imagery" / "sources.csv"
"""The table of sources known by name."""
KINDS = ("stac", "tiles", "wayback")


@dataclass(frozen=True)
class Preset:
    """One source known by name."""

    name: str
    """What a user writes: lower-case letters, digits and -."""
    title: str
    kind: str
    """`stac`, `tiles` or `wayback`: which reader speaks to it."""
    address: str
    """Root of a STAC API, a tile template, or a configuration file."""
    collections: tuple[str, ...]
    gsd_m: float
    """Native ground sampling distance in metres, the finest it offers."""
    cadence: str
    licence: str
    licence_url: str
    attribution: str
    price: str
    """`free`, `requester pays`, `priced` or `owned`."""
    derived: str
    """What may be done with detections made from it."""
    acknowledge: str
    """Name of the licence that must be acknowledged explicitly before it is used; empty where none must."""
    signing: str
    """How addresses of its files are signed: `planetary-computer`, or empty."""
    source: str
    """Where this row's statements come from."""


@cache
def load_presets(path: Path = PRESETS) -> Mapping[str, Preset]:
    """Read the table of sources.

    :raises SourceError: it is missing, or a row is broken; the message names the line and the field
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error
    presets: dict[str, Preset] = {}
    for line, row in enumerate(rows, 2):
        fields = {name: (row.get(name) or "").strip() for name in Preset.__dataclass_fields__}
        for needed in ("name", "title", "kind", "address", "gsd_m", "licence", "price", "source"):
            if not fields[needed]:
                raise SourceError(f"{path}, line {line}: '{needed}' is empty")
        if fields["kind"] not in KINDS:
            raise SourceError(f"{path}, line {line}: kind is '{fields['kind']}', choose from {', '.join(KINDS)}")
        if fields["name"] in presets:
            raise SourceError(f"{path}, line {line}: the name '{fields['name']}' stands there twice")
        try:
            gsd_m = float(fields["gsd_m"])
        except ValueError as error:
            raise SourceError(f"{path}, line {line}: gsd_m is '{fields['gsd_m']}', no number of metres") from error
        collections = tuple(name for name in fields["collections"].split() if name)
        presets[fields["name"]] = Preset(**fields | {"gsd_m": gsd_m, "collections": collections})  # type: ignore[arg-type]
    return presets


def preset(name: str) -> Preset:
    """Return the source of that name.

    :raises SourceError: there is none; the message names those there are
    """
    known = load_presets()
    if name not in known:
        close = difflib.get_close_matches(name.lower(), known, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise SourceError(f"there is no imagery source '{name}' (known: {', '.join(known)}{hint})")
    return known[name]
