"""What a run found, small enough to pass around, print and store: one `RunSummary` a scene."""

import dataclasses
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.classes import BY_NAME, CLASSES, LETTERING
from pipelines.scenes.dates import written_days

if TYPE_CHECKING:
    from pipelines.capacity import Estimate
    from pipelines.census import Census, Interval
    from pipelines.scenes.selection import Taken
    from pipelines.scenes.types import FetchedScene
    from pipelines.sites import Site

FIGURES = {
    "cooling_mw": "cooling, MW",
    "generation_mw": "generation, MW",
    "it_mw": "IT, MW",
    "gpus": "GPUs",
    "h100_equivalents": "H100 equivalents",
}
"""Figures of an estimate that a summary carries, with their names for people."""


@dataclass(frozen=True)
class Count:
    """The count of one class on the whole site."""

    detected: int
    """Detections that are more likely real than not."""
    expected: "Interval"
    """Units that stand there."""
    fans: int | None


@dataclass(frozen=True)
class RunSummary:
    """One site on one scene."""

    site: str
    site_name: str
    scene: str
    source: str
    acquired: datetime
    acquired_from: str
    rendered: bool
    """The imagery was rendered, not photographed; whatever shows a figure says so."""
    licence: str
    attribution: str
    native_gsd_m: float
    covered_fraction: float
    """Share of the perimeter that the scene shows."""
    model_version: str
    counts: Mapping[str, Count]
    """By class; a class that could not be counted is absent and stands in `not_given`."""
    texts: tuple[str, ...]
    figures: Mapping[str, "Interval | None"]
    """By the names of `FIGURES`; None where the figure is not given, with the reason in `notes`."""
    accelerator: str | None
    binding: Mapping[str, float]
    """Probability that cooling, or supply, is what limits IT."""
    not_given: Mapping[str, str]
    notes: tuple[str, ...]
    folder: str
    files: tuple[str, ...]
    earliest: datetime | None = None
    """First moment the scene may have been acquired, where only a range is known; `acquired` is its end."""
    released: date | None = None
    """When the imagery was published or delivered."""
    price: str = "unknown"
    asked: "Taken | None" = None
    """What was taken for the day asked for, if one was."""

    def as_record(self) -> dict[str, Any]:
        """For JSON."""
        from pipelines.documents import to_json

        fields = asdict(dataclasses.replace(self, asked=None))
        if self.asked is not None:
            fields["asked"] = {"date": self.asked.asked, "off_days": self.asked.off_days, "in_words": str(self.asked)}
        record: dict[str, Any] = to_json(fields)
        return record


def summarise(
    site: "Site", fetched: "FetchedScene", census: "Census", estimate: "Estimate", folder: Path
) -> RunSummary:
    """Put together what a published run says."""
    scene = fetched.scene
    return RunSummary(
        site=site.id,
        site_name=site.name,
        scene=scene.id,
        source=scene.source,
        acquired=scene.acquired,
        acquired_from=scene.acquired_from,
        rendered=scene.rendered,
        licence=scene.licence,
        attribution=scene.attribution,
        native_gsd_m=census.native_gsd_m,
        covered_fraction=census.covered_fraction,
        model_version=census.model_version,
        counts={cls: Count(n.detected, n.expected, n.fans) for cls, n in census.by_class.items()},
        texts=census.texts,
        figures={name: getattr(estimate, name) for name in FIGURES},
        accelerator=estimate.accelerator,
        binding=dict(estimate.binding),
        not_given=dict(census.not_given),
        notes=tuple(estimate.notes),
        folder=str(folder),
        files=tuple(sorted(path.name for path in folder.iterdir())),
        earliest=scene.earliest,
        released=scene.released,
        price=scene.price,
    )


def run_title(run: RunSummary) -> str:
    """Return what a run is of, saying so where no sensor saw it."""
    title = f"{run.site_name}, {written_days(run.acquired, run.earliest)}"
    return f"{title} - RENDERED IMAGERY, not a photograph" if run.rendered else title


@dataclass(frozen=True)
class Row:
    """One line of a summary's table, as text."""

    what: str
    value: str
    """Median, or the lettering, or `not given`."""
    interval: str
    """`p5 - p95`, empty where there is none."""
    remark: str


def table_rows(run: RunSummary) -> list[Row]:
    """Return the table that the terminal and Prefect's pages show."""
    rows = []
    for cls in CLASSES:
        count = run.counts.get(cls)
        what = class_label(cls)
        if count is None:
            rows.append(Row(what, "not given", "", run.not_given.get(cls, "")))
        elif cls == LETTERING.name:
            words = ", ".join(run.texts) or ("not readable" if count.detected else "none")
            rows.append(Row(what, words, "", ""))
        else:
            fans = f", {count.fans} fans" if count.fans else ""
            rows.append(Row(what, *written(count.expected), f"{count.detected} detected{fans}"))
    for name, what in FIGURES.items():
        interval = run.figures[name]
        remark = _remark(run, name)
        rows.append(Row(what, *(written(interval) if interval else ("not given", "")), remark))
    return rows


def class_label(cls: str) -> str:
    """Return the plural of what one detection of a class is: `air cooled chillers`, `dry cooler fan cells`."""
    name = cls.replace("_", " ")
    if cls == LETTERING.name:
        return name
    if BY_NAME[cls].unit == "fan cell":
        return f"{name} fan cells"
    return f"{name[:-1]}ies" if name.endswith("y") else f"{name}s"


def figure(value: float) -> str:
    """Three significant digits, with thousands apart; whole below a thousand only where the value is whole."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 100 or rounded.is_integer() else f"{rounded:g}"


def written(interval: "Interval") -> tuple[str, str]:
    """Return median and interval as text."""
    return figure(interval.p50), f"{figure(interval.p5)} - {figure(interval.p95)}"


def _remark(run: RunSummary, name: str) -> str:
    if name == "gpus" and run.accelerator and run.figures["gpus"]:
        return f"as {run.accelerator}"
    if name == "it_mw" and run.figures["it_mw"]:
        shares = sorted(run.binding.items(), key=lambda item: -item[1])
        return "limited by " + ", ".join(f"{what} ({share:.0%})" for what, share in shares if share > 0)
    return ""
