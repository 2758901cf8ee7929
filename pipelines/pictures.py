"""Pictures of estimates: a site over time with what others published, and the way from equipment to accelerators.

PNG or SVG; the same estimate gives the same bytes. Rendered imagery is called rendered in every picture.
"""

import io
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

from pipelines.capacity import Estimate
from pipelines.census import Interval
from pipelines.cue import AT_ONCE, THRESHOLD, Cue
from pipelines.tables import Published
from pipelines.timeline import Timeline

__all__ = ["cue_picture", "timeline_picture", "waterfall_picture"]

_RENDERED = "RENDERED IMAGERY - NOT A PHOTOGRAPH"
_INK, _QUIET = "#1b1f24", "#6a737d"
_COLOURS = {"it_mw": "#1f6feb", "cooling_mw": "#2da44e", "generation_mw": "#bc4c00"}
_NAMES = {"it_mw": "IT power", "cooling_mw": "cooling in place", "generation_mw": "generation in place"}
_CLASSES = {
    "air_cooled_chiller": "air-cooled chillers",
    "dry_cooler": "dry coolers",
    "cooling_tower": "cooling towers",
}


def timeline_picture(timeline: Timeline, published: Sequence[Published] = (), form: str = "png") -> bytes:
    """Megawatts by date with their band p5 to p95, and published points of the same sites over it.

    :param form: `png` or `svg`
    """
    figure = Figure(figsize=(9, 5.2), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    sites = {site.id for site in timeline.sites}
    for name, colour in _COLOURS.items():
        given = [(moment.date, moment.figures[name]) for moment in timeline.moments if name in moment.figures]
        if any(interval.p95 > 0 for _, interval in given):
            days: Any = [day for day, _ in given]
            bands = np.array([(one.p5, one.p50, one.p95) for _, one in given]).T
            axes.fill_between(days, bands[0], bands[2], color=colour, alpha=0.15, linewidth=0)
            axes.errorbar(
                days,
                bands[1],
                yerr=np.abs(bands[[0, 2]] - bands[1]),
                color=colour,
                marker="o",
                capsize=3,
                label=f"{_NAMES[name]}, p50 with p5 to p95",
            )
        points = [(row.date_from, getattr(row, name)) for row in published if row.site in sites]
        points = [(day, value) for day, value in points if value is not None]
        if points:
            dates: Any = [day for day, _ in points]
            axes.plot(
                dates,
                [value for _, value in points],
                linestyle="none",
                marker="D",
                markerfacecolor="white",
                markeredgecolor=colour,
                label=f"{_NAMES[name]}, published",
            )
    locator = AutoDateLocator()
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.set_ylim(bottom=0)
    axes.set_ylabel("MW")
    axes.legend(loc="upper left", frameon=False, fontsize=8)
    _dress(axes, timeline.name, timeline.rendered)
    credit = [row.source.partition(":")[0] for row in published if row.site in sites and "CC BY" in row.source]
    _footnote(figure, "; ".join(("published figures: data/reference/published.csv", *dict.fromkeys(credit))))
    return _saved(figure, form)


def cue_picture(cue: Cue, form: str = "png") -> bytes:
    """The change of each zone over its noise, by date, with the heights from which it is flagged.

    :param form: `png` or `svg`
    """
    figure = Figure(figsize=(9, 5.2), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for zone in cue.zones:
        days: Any = [look.date for look in zone.looks]
        (line,) = axes.plot(
            days,
            [look.index for look in zone.looks],
            marker="o",
            markersize=3,
            linewidth=1,
            label=f"{zone.zone}{', flagged' * zone.flagged}",
        )
        if zone.first is not None:
            axes.axvline(zone.first, color=line.get_color(), linestyle=":", linewidth=1)  # type: ignore[arg-type]
    axes.axhline(THRESHOLD, color=_QUIET, linestyle="--", linewidth=1, label="flagged from here twice in a row")
    axes.axhline(AT_ONCE, color=_QUIET, linestyle="-", linewidth=1, label="flagged from here at once")
    locator = AutoDateLocator()
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.set_ylim(bottom=0)
    axes.set_ylabel("change / noise")
    axes.legend(loc="upper left", frameon=False, fontsize=8)
    _dress(axes, f"{cue.name}, Sentinel-2", cue.rendered)
    _footnote(figure, "; ".join(dict.fromkeys((*cue.attributions, *cue.licences))))
    return _saved(figure, form)


def waterfall_picture(estimate: Estimate, form: str = "png") -> bytes | None:
    """From the equipment in place to rated IT power and accelerators, in medians; None where no IT power is given.

    :param form: `png` or `svg`
    """
    drawn, it = estimate.drawn, estimate.it_mw
    if it is None or drawn.cooling_mw is None or drawn.it_by_cooling_mw is None or it.p95 == 0:
        return None
    inputs = {item.name: item.value for item in estimate.inputs}
    by_class = {cls: inputs[f"{cls} cooling"].p50 for cls in _CLASSES if f"{cls} cooling" in inputs}
    cooling, by_cooling = float(np.median(drawn.cooling_mw)), float(np.median(drawn.it_by_cooling_mw))
    heat = by_cooling * inputs["peak draw share"].p50
    steps: list[tuple[str, float]] = [(_CLASSES[cls], mw) for cls, mw in by_class.items() if mw > 0]
    # Medians of parts need not add up to the median of the whole.
    if abs(rest := cooling - sum(mw for _, mw in steps)) > 0.005 * cooling:
        steps.append(("medians\ndo not add", rest))
    steps.append(("reserve, not\nconnected,\nnon-IT heat", heat - cooling))
    steps.append(("machines draw\nless than rated", by_cooling - heat))
    if abs(short := it.p50 - by_cooling) > 0.005 * by_cooling:
        steps.append(("supply\nallows less", short))
    figure = Figure(figsize=(9, 5.2), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    level = 0.0
    for place, (_, mw) in enumerate(steps):
        colour = "#2da44e" if mw >= 0 else "#cf222e"
        axes.bar(place, abs(mw), bottom=min(level, level + mw), color=colour, alpha=0.8, width=0.65)
        axes.annotate(f"{mw:+,.0f}", (place, max(level, level + mw)), ha="center", va="bottom", fontsize=9, color=_INK)
        axes.plot([place - 0.33, place + 1.33], [level + mw] * 2, color=_QUIET, linewidth=0.8)
        level += mw
    last = len(steps)
    axes.bar(last, it.p50, color=_COLOURS["it_mw"], width=0.65)
    axes.errorbar(last, it.p50, yerr=[[it.p50 - it.p5], [it.p95 - it.p50]], color=_INK, capsize=4)
    axes.annotate(
        f"{it.p50:,.0f} MW\n({it.p5:,.0f} - {it.p95:,.0f})", (last, it.p95), ha="center", va="bottom", fontsize=9
    )
    axes.set_xticks(range(last + 1), [*(name for name, _ in steps), "IT power,\nrated"], fontsize=8)
    axes.set_ylim(0, 1.2 * max(it.p95, cooling))
    axes.set_ylabel("MW, medians")
    what = " ".join(part for part in (estimate.site_id, str(estimate.date or "")) if part) or "counts given"
    _dress(axes, what + _chips(estimate.gpus, estimate.accelerator), estimate.rendered)
    _footnote(figure, "every input with its source: estimate.json")
    return _saved(figure, form)


def _chips(gpus: Interval | None, accelerator: str | None) -> str:
    if gpus is None:
        return ""
    middle, low, high = (f"{float(f'{value:.3g}'):,.0f}" for value in (gpus.p50, gpus.p5, gpus.p95))
    return f": {middle} GPUs ({low} - {high}) as {accelerator}"


def _dress(axes: Any, title: str, rendered: bool) -> None:
    axes.set_title(f"{title}\n{_RENDERED}" if rendered else title, loc="left", fontsize=11, color=_INK, weight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#d0d7de", linewidth=0.6)
    axes.set_axisbelow(True)


def _footnote(figure: Figure, text: str) -> None:
    figure.supxlabel(text, fontsize=7, color=_QUIET, x=0.01, ha="left")


def _saved(figure: Figure, form: str) -> bytes:
    content = io.BytesIO()
    # Neither clock nor chance: the same estimate gives the same bytes.
    metadata: dict[str, Any] = {"Date": None} if form == "svg" else {"Software": None}
    with matplotlib.rc_context({"svg.hashsalt": "overwatt", "svg.fonttype": "none"}):
        figure.savefig(content, format=form, metadata=metadata)
    return content.getvalue()
