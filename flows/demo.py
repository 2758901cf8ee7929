"""`overwatt demo`: the embedded rendered scenes through the real flow, held against what was rendered and published."""

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from flows.monitor import monitor
from flows.summary import FIGURES, Count, RunSummary, class_label, figure, written
from models.classes import OBJECT_CLASSES
from pipelines.documents import to_json
from pipelines.errors import SceneError
from pipelines.settings import SAMPLE_CATALOG
from pipelines.tables import Published, latest_published, load_published

CHILLER = "air_cooled_chiller"
CHILLER_TOLERANCE = 0.03
"""Share by which a chiller count may differ from what was rendered."""
PUBLISHED_AS = {CHILLER: "chillers", "gas_turbine": "turbines", "battery": "batteries"}
"""Classes with published counts, and their columns."""


@dataclass(frozen=True)
class Shot:
    """One sample scene: what was rendered, what was found, what others published."""

    rendered_counts: Mapping[str, int]
    rendered_texts: tuple[str, ...]
    run: RunSummary
    published: Mapping[str, Published]
    """Latest on or before the day, by its column; absent where nobody published that figure."""

    def as_record(self) -> dict[str, Any]:
        """For JSON."""
        published = {
            column: {"value": getattr(row, column), "date": row.date_from, "scope": row.scope, "source": row.source}
            for column, row in self.published.items()
        }
        record: dict[str, Any] = to_json({name: value for name, value in asdict(self).items() if name != "published"})
        return record | {"run": self.run.as_record(), "published": to_json(published)}


def run_demo(device: str, archive: Path | None) -> list[Shot]:
    """Count every sample scene.

    :raises SceneError: the sample is missing
    """
    items = [json.loads(path.read_text()) for path in sorted(SAMPLE_CATALOG.parent.glob("*/*.json"))]
    if not items:
        raise SceneError(f"{SAMPLE_CATALOG.parent} holds no sample scene; make them with overwatt render-sample")
    published = load_published()
    shots = []
    for properties in (item["properties"] for item in items):
        site = properties["overwatt:site"]
        day = datetime.date.fromisoformat(properties["datetime"][:10])
        columns = (*PUBLISHED_AS.values(), *FIGURES)
        found = {column: latest_published(published, site, day, column) for column in columns}
        [run] = monitor(site, date=day, source="sample", device=device, archive=archive)
        shots.append(
            Shot(
                properties["overwatt:rendered_counts"],
                tuple(properties["overwatt:rendered_texts"]),
                run,
                {column: row for column, row in found.items() if row is not None},
            )
        )
    return shots


def faults_of(shots: Sequence[Shot]) -> list[str]:
    """Say where a chiller count or the lettering is not what was rendered."""
    faults = []
    for shot in shots:
        run, rendered = shot.run, shot.rendered_counts.get(CHILLER, 0)
        where = f"{run.site} {run.acquired:%Y-%m-%d}"
        if not run.rendered:
            faults.append(f"{where}: the run is not labelled rendered")
        count = run.counts.get(CHILLER)
        if count is None:
            faults.append(f"{where}: chillers are not given ({run.not_given[CHILLER]})")
        elif _differs(count, rendered):
            median = figure(count.expected.p50)
            faults.append(f"{where}: {count.detected} chillers found, {median} expected, {rendered} rendered")
        if sorted(run.texts) != sorted(set(shot.rendered_texts)):
            faults.append(f"{where}: lettering {_words(run.texts)} read, {_words(shot.rendered_texts)} rendered")
    return faults


def _differs(count: Count, rendered: int) -> bool:
    """Whether a count is too far from what was rendered; where there is nothing, none may be found."""
    return max(abs(n - rendered) for n in (count.detected, count.expected.p50)) > CHILLER_TOLERANCE * rendered


def demo_table(shots: Sequence[Shot]) -> Table:
    """Found beside rendered beside published, by site and date."""
    title = "RENDERED IMAGERY: pictures made by a renderer, counted as if they were photographs"
    table = Table(title=Text(title, style="bold"), title_justify="left")
    table.add_column("")
    for column in ("found", "p50", "p5 - p95", "rendered", "published"):
        table.add_column(column, justify="right")
    for shot in shots:
        table.add_section()
        table.add_row(Text(f"{shot.run.site_name}\n{shot.run.acquired:%Y-%m-%d}", style="bold"))
        for cls in OBJECT_CLASSES:
            count, rendered = shot.run.counts.get(cls), shot.rendered_counts.get(cls, 0)
            what = class_label(cls)
            published = _published(shot, PUBLISHED_AS.get(cls))
            if count is None:
                table.add_row(what, "not given", "", "", str(rendered), published)
            elif rendered or count.detected or published:
                table.add_row(what, str(count.detected), *written(count.expected), str(rendered), published)
        for name, what in FIGURES.items():
            interval, published = shot.run.figures[name], _published(shot, name)
            if interval and (interval.p95 or published):
                table.add_row(what, "", *written(interval), "", published)
        if shot.rendered_texts or shot.run.texts:
            table.add_row("lettering", _words(shot.run.texts), "", "", _words(shot.rendered_texts), "")
    return table


def _published(shot: Shot, column: str | None) -> str:
    row = shot.published.get(column or "")
    return f"{figure(getattr(row, column or ''))} ({row.date_from})" if row else ""


def _words(texts: Sequence[str]) -> str:
    return ", ".join(texts) or "none"
