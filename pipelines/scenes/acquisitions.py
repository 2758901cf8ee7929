"""From items to acquisitions: what a catalog cut into tiles, or holds in two versions, is one scene of a site.

Tiles become one scene where they are of one collection and platform, of the same pixel size and licence, and were
acquired together. Satellites say their platform: what one of them took within ten minutes is one pass, and its next
pass is over an hour away. Aerial surveys say none, and often only the day: what was flown on one day is one survey.
A tile that shows the whole perimeter needs no other. Items without a collection are never joined.
"""

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pystac
import shapely
from pystac.utils import str_to_datetime
from shapely.geometry import MultiPolygon, Polygon

from pipelines.scenes.items import safe_id
from pipelines.scenes.types import Scene, SceneProblem

__all__ = ["Candidate", "join_acquisitions"]

_ONE_PASS = timedelta(minutes=10)
_SAME_MOMENT = timedelta(seconds=60)
"""Two versions of an acquisition may differ by how their time was rounded."""
_SAME_PLACE = 0.8
"""Share of the area shown by either that both show, for two items to be versions of one tile; tiles beside each other
share far less, and so do two halves of a tile."""
_COVERED = 1 - 1e-6
"""Share of a perimeter that counts as all of it: outlines are rounded to a few centimetres."""
_WRITTEN = ("created", "updated", "published", "processing:datetime", "s2:generation_time")
_BASELINES = ("version", "s2:processing_baseline")


@dataclass(frozen=True)
class Candidate:
    """An item of a site as a scene, with what tells whether it is one with another."""

    scene: Scene
    collection: str
    platform: str
    version: tuple[Any, ...]
    """Greater is newer."""

    @classmethod
    def of(cls, scene: Scene, item: pystac.Item, collection: str) -> "Candidate":
        """Take what an item says of its platform and version."""
        properties = item.properties
        platform = properties.get("platform") or properties.get("constellation") or ""
        return cls(scene, collection, str(platform), _version(properties, item.id))


def join_acquisitions(
    candidates: Sequence[Candidate], perimeter: Polygon | MultiPolygon
) -> tuple[list[Scene], list[SceneProblem]]:
    """Return one scene an acquisition, as far as items say what belongs together, and what could not be joined.

    A joined scene lies with its `href` where most of the perimeter is, was acquired by the last of its parts
    (`earliest` is the first), and has the cloud cover of the cloudiest.
    """
    scenes: list[Scene] = []
    problems: list[SceneProblem] = []
    for group in _passes(_newest(candidates)):
        whole = [one for one in group if _share(one.scene, perimeter) >= _COVERED]
        partial = [one for one in group if one not in whole]
        if whole and group[0].platform:
            scenes.append(min(whole, key=lambda one: (one.scene.cloud_cover_percent or 0.0, one.scene.id)).scene)
        elif whole or len(partial) == 1 or not group[0].collection:
            scenes += [one.scene for one in group]
        elif len({one.scene.declared for one in partial}) > 1:
            names = ", ".join(one.scene.id for one in partial)
            reason = (
                f"STAC items {names} are tiles of one acquisition but declare different pixels (bands, nodata or "
                "stretch), so that they cannot become one image; each is a scene of its own"
            )
            problems.append(SceneProblem(partial[0].scene.href, reason))
            scenes += [one.scene for one in partial]
        else:
            scenes.append(_joined([one.scene for one in partial], perimeter))
    return _distinct(scenes, candidates), problems


def _newest(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Keep the newest version of each item that a catalog holds more than once."""
    kept: list[Candidate] = []
    for one in sorted(candidates, key=lambda one: one.version, reverse=True):
        if not any(_is_version(one, other) for other in kept):
            kept.append(one)
    return kept


def _is_version(one: Candidate, other: Candidate) -> bool:
    a, b = one.scene, other.scene
    if not one.collection or (one.collection, one.platform) != (other.collection, other.platform):
        return False
    if abs(a.acquired - b.acquired) > _SAME_MOMENT or not _alike(a.gsd_m, b.gsd_m):
        return False
    union = shapely.union(a.footprint, b.footprint).area
    return bool(shapely.intersection(a.footprint, b.footprint).area >= _SAME_PLACE * union)


def _passes(candidates: Sequence[Candidate]) -> Iterator[list[Candidate]]:
    """Part candidates into those that were acquired together, in time's order."""
    rest = sorted(candidates, key=lambda one: (one.scene.acquired, one.scene.id))
    while rest:
        first = rest[0]
        together = [one for one in rest if one is first or _is_tile(first, one)]
        yield together
        rest = [one for one in rest if not any(one is taken for taken in together)]


def _is_tile(first: Candidate, other: Candidate) -> bool:
    a, b = first.scene, other.scene
    if not first.collection or (first.collection, first.platform) != (other.collection, other.platform):
        return False
    if (a.rendered, a.licence) != (b.rendered, b.licence) or not _alike(a.gsd_m, b.gsd_m):
        return False
    if first.platform:
        return b.acquired - a.acquired <= _ONE_PASS
    return a.acquired.date() == b.acquired.date()


def _joined(tiles: Sequence[Scene], perimeter: Polygon | MultiPolygon) -> Scene:
    """Put tiles together, those that show most of the perimeter first; one that adds nothing is left out."""
    ordered = sorted(tiles, key=lambda tile: (-round(_share(tile, perimeter), 9), tile.id))
    used: list[Scene] = []
    shown: Polygon | MultiPolygon = Polygon()
    for tile in ordered:
        grown = shapely.union(shown, shapely.intersection(tile.footprint, perimeter))
        if grown.area > shown.area + (1 - _COVERED) * perimeter.area:
            used.append(tile)
            shown = grown
    main = used[0]
    if len(used) == 1:
        return main
    ids = sorted(tile.id for tile in used)
    times = [tile.acquired for tile in used]
    clouds = [tile.cloud_cover_percent for tile in used if tile.cloud_cover_percent is not None]
    return dataclasses.replace(
        main,
        # Another tile makes another scene, so that a site counted without it is counted again.
        id=safe_id(f"{ids[0]}-and-{len(ids) - 1}-{hashlib.sha256('|'.join(ids).encode()).hexdigest()[:8]}"),
        acquired=max(times),
        earliest=min(times) if min(times) < max(times) else main.earliest,
        gsd_m=max(tile.gsd_m for tile in used),
        footprint=shapely.union_all([tile.footprint for tile in used]),
        cloud_cover_percent=max(clouds) if clouds else None,
        parts=tuple(tile.href for tile in used[1:]),
    )


def _distinct(scenes: Sequence[Scene], candidates: Sequence[Candidate]) -> list[Scene]:
    """Put the collection before ids that stand in several collections."""
    collection_of = {id(one.scene): one.collection for one in candidates}
    held: dict[str, set[str]] = {}
    for one in candidates:
        held.setdefault(one.scene.id, set()).add(one.collection)
    return [
        dataclasses.replace(scene, id=safe_id(f"{collection_of[id(scene)]}-{scene.id}"))
        if len(held.get(scene.id, ())) > 1 and id(scene) in collection_of
        else scene
        for scene in scenes
    ]


def _share(scene: Scene, perimeter: Polygon | MultiPolygon) -> float:
    return float(shapely.intersection(scene.footprint, perimeter).area / perimeter.area)


def _alike(a_m: float, b_m: float) -> bool:
    return abs(a_m - b_m) <= 0.01 * max(a_m, b_m)


def _version(properties: Mapping[str, Any], item_id: str) -> tuple[Any, ...]:
    """Order versions of one item: not withdrawn, then by number, then by when they were written, then by id."""
    numbers = [_number(properties.get(name)) for name in _BASELINES]
    written = [_instant(properties.get(name)) for name in _WRITTEN]
    return (properties.get("deprecated") is not True, max(numbers), max(written), item_id)


def _number(text: object) -> tuple[int, ...]:
    parts = str(text).split(".") if isinstance(text, (str, int, float)) else []
    return tuple(int(part) for part in parts) if parts and all(part.isdigit() for part in parts) else ()


def _instant(text: object) -> float:
    try:
        when: datetime = str_to_datetime(text)  # type: ignore[arg-type]
        return when.timestamp()
    except (TypeError, ValueError):
        return 0.0
