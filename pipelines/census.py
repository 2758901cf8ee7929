"""Census: how many units of each class stand on a site on the day of a scene, by zone, each with an interval.

In: a site, a scene, its detections and the detector's measured recall. Out: a `Census`. Only detections whose centroid
lies inside the perimeter count; what the scene does not show is said (`covered_fraction`), never extrapolated; a class
that this scene cannot show is absent with a reason, which is not the same as zero.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from models.classes import CLASSES, LETTERING
from models.detector.card import RecallPoint
from pipelines.counting import DRAWS, MIN_RECALL, applicable, draw_true_units, recall_at, stream
from pipelines.geojson import area_m2
from pipelines.sites import Site

if TYPE_CHECKING:  # the detection module loads torch, which a census does not need
    from pipelines.detection import Detections
    from pipelines.scenes.types import Scene

__all__ = ["DETECTED", "Census", "ClassCount", "Interval", "assign_zones", "draw_counts", "take_census"]

DETECTED = 0.5
"""A detection at least this probable is counted as detected."""
WHOLE = 0.999
"""Coverage from which the whole perimeter counts as seen: its outline follows pixels."""


@dataclass(frozen=True)
class Interval:
    """Fifth, fiftieth and ninety-fifth percentile of a quantity's draws."""

    p5: float
    p50: float
    p95: float

    @classmethod
    def of(cls, draws: np.ndarray) -> "Interval":
        """Percentiles of draws, each one of the draws: counts stay whole numbers."""
        p5, p50, p95 = np.quantile(draws, (0.05, 0.5, 0.95), method="inverted_cdf")
        return cls(float(p5), float(p50), float(p95))

    def as_record(self) -> dict[str, float]:
        """For JSON: four significant digits are more than any of these figures deserves."""
        return {name: float(f"{getattr(self, name):.4g}") for name in ("p5", "p50", "p95")}


@dataclass(frozen=True)
class ClassCount:
    """The count of one class on a site or in one of its zones."""

    cls: str
    zone: str | None
    """Zone id; None: the whole perimeter in `Census.by_class`, outside every zone in `Census.by_zone`."""
    detected: int
    """Detections with a probability of `DETECTED` or more."""
    expected: Interval
    """Units that stand there: probabilities summed and corrected by recall."""
    fans: int | None
    """Fans on the detected units together; None where no unit shows them."""
    fans_per_unit: float | None
    """Median over the detected units that show their fans."""
    median_length_m: float | None
    """Of the detected units; None where there are none."""
    median_width_m: float | None

    def as_record(self) -> dict[str, Any]:
        """For JSON."""
        sizes = {name: getattr(self, name) for name in ("fans_per_unit", "median_length_m", "median_width_m")}
        return {
            "class": self.cls,
            "zone": self.zone,
            "detected": self.detected,
            "expected": self.expected.as_record(),
            "fans": self.fans,
            **{name: None if value is None else round(value, 2) for name, value in sizes.items()},
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "ClassCount":
        """The count that `as_record` wrote."""
        others = {name: value for name, value in record.items() if name not in ("class", "expected")}
        return cls(cls=record["class"], expected=Interval(**record["expected"]), **others)


@dataclass(frozen=True)
class Census:
    """The calibrated count of each class at a site on a date."""

    site_id: str
    scene_id: str
    acquired: datetime
    rendered: bool
    """The scene is rendered imagery, not a photograph."""
    model_version: str
    native_gsd_m: float
    by_class: Mapping[str, ClassCount]
    """Every class that could be counted, zero included."""
    by_zone: tuple[ClassCount, ...]
    """Zones in the site's order, then outside every zone; only where something was found."""
    texts: tuple[str, ...]
    """Painted words that were read, without repeats."""
    not_given: Mapping[str, str]
    """Classes that could not be counted, with the reason."""
    covered_fraction: float
    """Share of the perimeter's area that the scene shows."""
    probabilities: Mapping[str, tuple[float, ...]] = field(repr=False)
    """Calibrated probabilities of the detections inside the perimeter; with `recall` and `seed` they make the draws."""
    recall: Mapping[str, tuple[RecallPoint, ...]] = field(repr=False)
    seed: int = 0
    earliest: datetime | None = None
    """First moment the scene may have been acquired, where only a range is known; `acquired` is its end."""

    def as_record(self) -> dict[str, Any]:
        """For JSON."""
        earliest = {} if self.earliest is None else {"acquired_earliest": self.earliest.isoformat()}
        return earliest | {
            "site": self.site_id,
            "scene": self.scene_id,
            "acquired": self.acquired.isoformat(),
            "rendered": self.rendered,
            "model_version": self.model_version,
            "native_gsd_m": self.native_gsd_m,
            "covered_fraction": round(self.covered_fraction, 4),
            "counts": [count.as_record() for count in self.by_class.values()],
            "counts_by_zone": [count.as_record() for count in self.by_zone],
            "texts": list(self.texts),
            "not_given": dict(self.not_given),
            "probabilities": {cls: list(values) for cls, values in self.probabilities.items()},
            "recall": {cls: [asdict(point) for point in points] for cls, points in self.recall.items()},
            "seed": self.seed,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Census":
        """The census that `as_record` wrote, sizes and probabilities as they were rounded.

        :raises KeyError, TypeError, ValueError, AttributeError: it is no such record, or of a version that kept less
        """
        counts = [ClassCount.from_record(count) for count in record["counts"]]
        for count in counts:
            record["probabilities"][count.cls]
        acquired = datetime.fromisoformat(record["acquired"])
        if acquired.tzinfo is None:
            raise ValueError("the time of acquisition has no zone")
        earliest = record.get("acquired_earliest")
        return cls(
            site_id=record["site"],
            scene_id=record["scene"],
            acquired=acquired,
            rendered=record["rendered"],
            model_version=record["model_version"],
            native_gsd_m=record["native_gsd_m"],
            by_class={count.cls: count for count in counts},
            by_zone=tuple(ClassCount.from_record(count) for count in record["counts_by_zone"]),
            texts=tuple(record["texts"]),
            not_given=record["not_given"],
            covered_fraction=record["covered_fraction"],
            probabilities={name: tuple(values) for name, values in record["probabilities"].items()},
            recall={name: tuple(RecallPoint(**point) for point in points) for name, points in record["recall"].items()},
            seed=record["seed"],
            earliest=None if earliest is None else datetime.fromisoformat(earliest),
        )


def assign_zones(site: Site, frame: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Keep the detections whose centroid lies inside the perimeter and say in which zone each lies.

    :param frame: detections in a projected CRS
    :returns: a copy with a fresh index and the column `zone`: the id of the first zone of the site that holds the
        centroid, None outside every zone
    """
    if frame.crs is None or not frame.crs.is_projected:
        raise ValueError("detections must be in a projected CRS")
    degrees = gpd.GeoSeries([site.perimeter, *(zone.geometry for zone in site.zones)], crs="OGC:CRS84")
    perimeter, *outlines = degrees.to_crs(frame.crs)
    centroids = frame.geometry.centroid
    frame = frame[shapely.intersects_xy(perimeter, centroids.x, centroids.y)].reset_index(drop=True)
    centroids = frame.geometry.centroid
    zone_of = np.full(len(frame), None, dtype=object)
    for zone, outline in zip(reversed(site.zones), reversed(outlines), strict=True):
        zone_of[shapely.intersects_xy(outline, centroids.x, centroids.y)] = zone.id
    return frame.assign(zone=pd.Series(zone_of, dtype=object))


def take_census(
    site: Site,
    scene: "Scene",
    detections: "Detections",
    recall: Mapping[str, Sequence[RecallPoint]],
    seed: int = 0,
) -> Census:
    """Count every class on the site and in its zones.

    :param recall: validation counts by class, as in the detector's weights card; an equipment class without them is
        not given, since its misses are unknown. Lettering is counted as found.
    """
    frame = assign_zones(site, detections.frame)
    covered = area_m2(site.perimeter & detections.coverage) / area_m2(site.perimeter)
    covered = 1.0 if covered >= WHOLE else covered
    gsd_m = detections.native_gsd_m
    alike = {
        cls: applicable(points, frame.loc[frame["class"] == cls, "probability"].to_numpy(float))
        for cls, points in recall.items()
        # Words are read, not summed up: nobody asks how many more there may be.
        if cls != LETTERING.name
    }
    not_given = _not_given(detections.not_given, alike, gsd_m, covered)
    measured = {cls: points for cls, points in alike.items() if cls not in not_given}
    by_class: dict[str, ClassCount] = {}
    by_zone: list[ClassCount] = []
    probabilities: dict[str, tuple[float, ...]] = {}
    for cls in CLASSES:
        if cls in not_given:
            continue
        rows = frame[frame["class"] == cls]
        by_class[cls] = _count(cls, None, rows, measured.get(cls), gsd_m, stream(seed, cls))
        probabilities[cls] = tuple(rows["probability"])
        for zone in (*(zone.id for zone in site.zones), None):
            here = rows[rows["zone"].isna() if zone is None else rows["zone"] == zone]
            if here.empty:
                continue
            count = _count(cls, zone, here, measured.get(cls), gsd_m, stream(seed, f"{cls} in {zone}"))
            if count.detected or count.expected.p95 >= 1:
                by_zone.append(count)
    order = {zone.id: i for i, zone in enumerate(site.zones)}
    by_zone.sort(key=lambda count: order.get(count.zone or "", len(order)))
    return Census(
        site_id=site.id,
        scene_id=scene.id,
        acquired=scene.acquired,
        rendered=scene.rendered,
        model_version=detections.model_version,
        native_gsd_m=gsd_m,
        by_class=by_class,
        by_zone=tuple(by_zone),
        texts=() if LETTERING.name in not_given else _texts(frame),
        not_given=not_given,
        covered_fraction=covered,
        probabilities=probabilities,
        recall=measured,
        seed=seed,
        earliest=scene.earliest,
    )


def draw_counts(census: Census, cls: str, draws: int = DRAWS) -> np.ndarray:
    """Draw the number of units of a class again: the very draws behind `by_class[cls].expected`.

    :returns: int64 (draws,)
    """
    return draw_true_units(
        np.array(census.probabilities[cls], float),
        census.recall.get(cls),
        census.native_gsd_m,
        stream(census.seed, cls),
        draws,
    )


def _count(
    cls: str,
    zone: str | None,
    rows: gpd.GeoDataFrame,
    recall: Sequence[RecallPoint] | None,
    gsd_m: float,
    rng: np.random.Generator,
) -> ClassCount:
    draws = draw_true_units(rows["probability"].to_numpy(float), recall, gsd_m, rng)
    seen = rows[rows["probability"] >= DETECTED]
    fans = seen["fan_count"].dropna()
    return ClassCount(
        cls=cls,
        zone=zone,
        detected=len(seen),
        expected=Interval.of(draws),
        fans=int(fans.sum()) if len(fans) else None,
        fans_per_unit=float(fans.median()) if len(fans) else None,
        median_length_m=float(seen["length_m"].median()) if len(seen) else None,
        median_width_m=float(seen["width_m"].median()) if len(seen) else None,
    )


def _not_given(
    unresolved: Mapping[str, str], recall: Mapping[str, Sequence[RecallPoint]], gsd_m: float, covered: float
) -> dict[str, str]:
    """Reasons why a class cannot be counted on this scene, in the order of the classes."""
    reasons: dict[str, str] = {}
    for cls in CLASSES:
        if covered == 0:
            reasons[cls] = "the scene does not show the site"
        elif cls in unresolved:
            reasons[cls] = unresolved[cls]
        elif cls != LETTERING.name:
            share = recall_at(recall.get(cls, ()), gsd_m)
            if share is None:
                reasons[cls] = "its recall was never measured for these weights"
            elif share < MIN_RECALL:
                reasons[cls] = f"at {gsd_m:.2g} m the detector finds only {share:.0%} of them"
    return reasons


def _texts(frame: gpd.GeoDataFrame) -> tuple[str, ...]:
    rows = frame[(frame["class"] == LETTERING.name) & (frame["probability"] >= DETECTED)]
    texts: Iterable[Any] = rows["text"]
    return tuple(dict.fromkeys(text for text in texts if isinstance(text, str) and text))
