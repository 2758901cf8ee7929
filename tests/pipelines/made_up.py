"""Sites and censuses that nobody took, for tests of what follows from them."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from shapely.geometry import box

from models.classes import CLASSES
from models.detector.card import RecallPoint
from pipelines.census import Census, ClassCount, Interval, draw_counts
from pipelines.sites import Site, Supply

CHILLER = "air_cooled_chiller"
DRAWS = 4000


def site(*supplies: Supply, campus: str = "here", **fields: Any) -> Site:
    made = Site(
        id="here",
        name="Here",
        operator="A",
        address="",
        campus=campus,
        perimeter=box(-90.0, 35.0, -89.99, 35.01),
        perimeter_source="drawn",
        perimeter_quality="traced",
        zones=(),
        known_dates=(),
        supplies=supplies,
        accelerator="GB200",
        accelerator_source="given",
        pue=None,
        pue_source=None,
        path=Path("here.geojson"),
    )
    return replace(made, **fields)


def supply(kind: Any, mw: float, start: date = date(2025, 1, 1)) -> Supply:
    return Supply(kind, mw, start, "a report")


def census(
    not_given: Mapping[str, str] | None = None,
    day: date = date(2025, 8, 22),
    of: str = "here",
    recall: Mapping[str, tuple[RecallPoint, ...]] | None = None,
    size_m: tuple[float, float] | None = (13.0, 2.3),
    fans: float | None = None,
    covered: float = 1.0,
    gsd_m: float = 0.3,
    rendered: bool = False,
    probability: float = 1.0,
    **counts: int,
) -> Census:
    """A census with so many detections of each class, all of one probability, and nothing missed."""
    missing = dict(not_given or {})
    draft = Census(
        site_id=of,
        scene_id="s1" if (of, day) == ("here", date(2025, 8, 22)) else f"{of}-{day}",
        acquired=datetime(day.year, day.month, day.day, tzinfo=UTC),
        rendered=rendered,
        model_version="detector-1",
        native_gsd_m=gsd_m,
        by_class={},
        by_zone=(),
        texts=(),
        not_given=missing,
        covered_fraction=covered,
        probabilities={cls: (probability,) * counts.get(cls, 0) for cls in CLASSES if cls not in missing},
        recall=recall or {},
    )
    by_class = {}
    for cls in draft.probabilities:
        length_m, width_m = size_m if size_m and cls == CHILLER and counts.get(cls) else (None, None)
        by_class[cls] = ClassCount(
            cls=cls,
            zone=None,
            detected=counts.get(cls, 0),
            expected=Interval.of(draw_counts(draft, cls, DRAWS)),
            fans=None,
            fans_per_unit=fans if cls == CHILLER else None,
            median_length_m=length_m,
            median_width_m=width_m,
        )
    return replace(draft, by_class=by_class)
