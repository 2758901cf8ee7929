"""What the weights are to reach, beside what a measurement says they do.

A measurement is taken as the record that `overwatt evaluate` keeps, so that a page can be made without measuring again.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from models.training.uncertainty import Figure

__all__ = ["SITE_UNITS", "Reached", "reached_on_real_images", "reached_on_rendered_scenes"]

SITE_UNITS = 20
"""Units on the cooling yard or roof of one hall, at least; the sites of the rendered sample show about 120 chillers."""


@dataclass(frozen=True)
class Reached:
    """One figure at one GSD, what it is to be, and what it is."""

    what: str
    gsd_m: float | None
    """None for a figure that belongs to no one GSD."""
    least: float | None
    most: float | None
    """What it is to be between; None for no bound."""
    figure: Figure | None
    """None where nothing was measured."""
    of: str
    """What it was measured on, for example "412 units"."""
    percent: bool = False

    @property
    def met(self) -> bool | None:
        """Whether the figure is what it is to be; None where nothing was measured."""
        return None if self.figure is None else self._fits(self.figure.value)

    @property
    def verdict(self) -> str:
        """In a word or two; a miss is told from one that chance may have made."""
        if self.figure is None:
            return "not measured"
        if self.met:
            return "reached"
        within = (self.least is None or self.figure.high >= self.least) and (
            self.most is None or self.figure.low <= self.most
        )
        return "missed, within its interval" if within else "MISSED"

    @property
    def target(self) -> str:
        """For example ">= 0.98"."""
        if self.least is not None and self.most is not None:
            return f"{self._said(self.least)}-{self._said(self.most)}"
        if self.least is not None:
            return f">= {self._said(self.least)}"
        return "" if self.most is None else f"<= {self._said(self.most)}"

    @property
    def written(self) -> str:
        """For example "0.950 (0.941-0.962)"."""
        if self.figure is None:
            return ""
        value, low, high = (
            f"{end:.1%}" if self.percent else f"{end:.3f}"
            for end in (self.figure.value, self.figure.low, self.figure.high)
        )
        return f"{value} ({low}-{high})"

    def _fits(self, value: float) -> bool:
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    def _said(self, bound: float) -> str:
        return f"{bound:.0%}" if self.percent else f"{bound:g}"


_F1 = {
    "air_cooled_chiller": ("chiller F1", {0.3: 0.98, 0.5: 0.95}),
    "dry_cooler": ("dry cooler F1", {0.3: 0.97, 0.5: 0.94}),
    "cooling_tower": ("cooling tower F1", {0.3: 0.97, 0.5: 0.94}),
    "gas_turbine": ("gas turbine F1", {0.3: 0.97, 0.5: 0.94}),
    "battery": ("battery F1", {0.3: 0.96, 0.5: 0.90}),
}
_COUNT_ERROR = {0.3: 0.01, 0.5: 0.03}
_FANS = {0.3: 1.0}
_EXACT = {0.3: 0.95, 0.5: 0.90}
_COVERED = (0.85, 0.95)
_FALSE_PER_KM2 = 2.0
_REAL_FOUND = 0.8


def reached_on_rendered_scenes(record: Mapping[str, Any]) -> tuple[Reached, ...]:
    """Rows in the order of a table; a figure at 0.3 m is followed by the same at 0.5 m."""
    return tuple(_rendered(record))


def reached_on_real_images(record: Mapping[str, Any]) -> tuple[Reached, ...]:
    """False detections on ground, labelled objects by GSD; what there were no images for is absent."""
    return tuple(_real(record))


def _rendered(record: Mapping[str, Any]) -> Iterator[Reached]:
    scores = {(row["cls"], row["gsd_m"]): row for row in record["rendered"]}
    counts = {(row["cls"], row["gsd_m"]): row for row in record["counts"]}
    for cls, (what, targets) in _F1.items():
        for gsd_m, least in targets.items():
            row = scores.get((cls, gsd_m))
            yield Reached(what, gsd_m, least, None, _figure(row, "f1"), _of(row, "units"))
        if cls == "air_cooled_chiller":
            for gsd_m, most in _COUNT_ERROR.items():
                row = counts.get((cls, gsd_m))
                yield Reached(
                    f"chiller count error, {SITE_UNITS} and more",
                    gsd_m,
                    None,
                    most,
                    _figure(row, "site_error"),
                    _of(row, "site_scenes", "scenes"),
                    percent=True,
                )
            for gsd_m, most in _COUNT_ERROR.items():
                row = counts.get((cls, gsd_m))
                of = "" if row is None else _of(row["coverage"], "scenes")
                yield Reached(
                    "chiller count error, any number", gsd_m, None, most, _figure(row, "error"), of, percent=True
                )
    for gsd_m, most in _FANS.items():
        row = scores.get(("air_cooled_chiller", gsd_m))
        yield Reached("fans per chiller, off by", gsd_m, None, most, _figure(row, "fans_error"), _of(row, "units"))
    for word in record["words"]:
        yield Reached(
            "lettering read exactly",
            word["gsd_m"],
            _EXACT[word["gsd_m"]],
            None,
            _figure(word, "exact_share"),
            _of(word, "words"),
        )
    for row in record["coverage"]:
        yield Reached(
            "count intervals that hold the truth",
            row["gsd_m"],
            *_COVERED,
            _figure(row["coverage"], "share"),
            _of(row["coverage"], "scenes", "counts"),
            percent=True,
        )


def _real(record: Mapping[str, Any]) -> Iterator[Reached]:
    if record["ground_per_km2"] is not None:
        yield Reached(
            "false detections a km2",
            None,
            None,
            _FALSE_PER_KM2,
            _figure(record, "ground_per_km2"),
            f"{record['ground_images']} images, {record['ground_km2']:.2f} km2",
        )
    for row in record["labelled"]:
        yield Reached(
            "labelled real cooling units found",
            row["gsd_m"],
            _REAL_FOUND,
            None,
            _figure(row, "found_share"),
            _of(row, "objects"),
        )


def _figure(row: Mapping[str, Any] | None, name: str) -> Figure | None:
    return None if row is None or row[name] is None else Figure(**row[name])


def _of(row: Mapping[str, Any] | None, name: str, called: str = "") -> str:
    return "" if row is None else f"{row[name]} {called or name}"
