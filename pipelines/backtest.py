"""Backtest: what the method says from published counts alone, held against the figures published beside them.

The table says of every row whether an input of the method was taken from it (`fit`) or not (`score`): only the latter
say how good the method is.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from pipelines.capacity import Estimate, estimate_from_counts
from pipelines.census import Interval
from pipelines.errors import EstimateError
from pipelines.supply import parse_turbines
from pipelines.tables import PublishedCount, Tables, load_tables

__all__ = ["Backtest", "Score", "Summary", "backtest"]

FIGURES = ("cooling_mw", "generation_mw", "battery_mw", "it_mw", "gpus")
WITHIN = (1.2, 1.25, 1.4)
"""Factors whose shares are stated; 80% of Epoch AI's own IT estimates lie within 1.4, as it says."""


@dataclass(frozen=True)
class Score:
    """One published figure and what its counts make of it."""

    site: str
    date: date
    use: str
    """`score`, or `fit` where an input of the method was taken from the row."""
    bound: str | None
    """`lower` or `upper` where no more than a bound was published: it can be broken, but not hit."""
    figure: str
    published: float
    estimated: Interval
    remark: str
    source: str

    @property
    def scored(self) -> bool:
        """Whether it says how good the method is."""
        return self.use == "score" and self.bound is None

    @property
    def factor(self) -> float:
        """Estimated median over published."""
        return self.estimated.p50 / self.published

    @property
    def error_x(self) -> float:
        """The factor or its inverse, whichever is over 1."""
        return max(self.factor, 1 / self.factor) if self.factor > 0 else math.inf

    @property
    def inside(self) -> bool:
        """Whether the published figure lies in the interval p5 to p95, or the interval on the right side of a bound."""
        above = self.estimated.p5 <= self.published or self.bound == "lower"
        below = self.published <= self.estimated.p95 or self.bound == "upper"
        return above and below

    def as_record(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "site": self.site,
            "date": self.date.isoformat(),
            "use": self.use,
            "bound": self.bound,
            "figure": self.figure,
            "published": self.published,
            "estimated": self.estimated.as_record(),
            "factor": round(self.factor, 3) if math.isfinite(self.factor) else None,
            "inside": self.inside,
            "remark": self.remark,
            "source": self.source,
        }


@dataclass(frozen=True)
class Summary:
    """How good the method is in one figure, or in all of them, over the rows that nothing was taken from."""

    figure: str
    scored: int
    within: dict[float, int]
    """How many lie within each factor of `WITHIN`."""
    inside: int
    """How many published figures lie in their interval."""

    def as_record(self) -> dict[str, Any]:
        """For JSON."""
        within = {f"within_x{factor:g}": count for factor, count in self.within.items()}
        return {"figure": self.figure, "scored": self.scored, **within, "inside_p5_p95": self.inside}


@dataclass(frozen=True)
class Backtest:
    """All scores, in the order of the table."""

    scores: tuple[Score, ...]

    @property
    def site_dates(self) -> int:
        """Sites and dates of the table, fitted ones included."""
        return len({(score.site, score.date) for score in self.scores})

    @property
    def summaries(self) -> tuple[Summary, ...]:
        """A summary for each figure that was scored, and one for all."""
        scored = [score for score in self.scores if score.scored]
        by_figure = {name: [score for score in scored if score.figure == name] for name in FIGURES}
        return tuple(_summary(name, some) for name, some in (by_figure | {"all": scored}).items() if some)

    @property
    def worst(self) -> tuple[Score, ...]:
        """Scored figures that are off by more than a factor of 1.25 or outside their interval, the worst first."""
        bad = (score for score in self.scores if score.scored and (score.error_x > 1.25 or not score.inside))
        return tuple(sorted(bad, key=lambda score: -score.error_x))

    def as_record(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "site_dates": self.site_dates,
            "summary": [summary.as_record() for summary in self.summaries],
            "scores": [score.as_record() for score in self.scores],
        }


def backtest(rows: Iterable[PublishedCount], tables: Tables | None = None) -> Backtest:
    """Estimate from the counts of each row and compare with what the row has published.

    :raises EstimateError: a row names an accelerator or a turbine that no table knows, or gives too little for a figure
    """
    tables = tables or load_tables()
    scores: list[Score] = []
    for row in rows:
        result = _estimate(row, tables)
        for figure in FIGURES:
            published: float | None = getattr(row, figure)
            estimated: Interval | None = getattr(result, figure)
            if published is not None and estimated is None:
                raise EstimateError(
                    f"{row.site} {row.date}: {figure} is published, but its counts and accelerator give none; complete "
                    "the row or leave the figure out"
                )
            if published is not None and estimated is not None:
                scores.append(
                    Score(
                        row.site,
                        row.date,
                        row.use,
                        row.bound,
                        figure,
                        published,
                        estimated,
                        row.remark or "",
                        row.source,
                    )
                )
    return Backtest(tuple(scores))


def _estimate(row: PublishedCount, tables: Tables) -> Estimate:
    unknown, fleet = parse_turbines((row.turbines or "").split(), tables)
    return estimate_from_counts(
        chillers=row.chillers or 0,
        length_m=row.chiller_length_m,
        width_m=row.chiller_width_m,
        dry_cooler_cells=row.dry_cooler_cells or 0,
        cooling_towers=row.cooling_towers or 0,
        cooling_tower_cells=row.cooling_tower_cells or 0,
        turbines=unknown,
        turbine_fleet=fleet,
        batteries=row.batteries or 0,
        accelerator=row.accelerator,
        date=row.date,
        tables=tables,
    )


def _summary(figure: str, scores: Sequence[Score]) -> Summary:
    return Summary(
        figure=figure,
        scored=len(scores),
        within={factor: sum(score.error_x <= factor for score in scores) for factor in WITHIN},
        inside=sum(score.inside for score in scores),
    )
