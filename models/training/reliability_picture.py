"""How far a stated probability can be believed, as a picture: a panel a class, rendered scenes and real images apart.

The same measurement gives the same bytes.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure as Drawing
from PIL import Image

from models.classes import CLASSES
from models.detector.card import COUNTED_FROM
from models.training.measuring import COOLING_REAL

__all__ = ["HEIGHT_PX", "WIDTH_PX", "panels", "reliability_picture"]

WIDTH_PX, HEIGHT_PX = 1200, 690
_DPI = 100
_COLOURS = 64
"""Of the palette: enough for smooth edges, and a quarter of the bytes."""
_INK, _QUIET, _RENDERED, _REAL = "#1b1f24", "#6a737d", "#1f6feb", "#bc4c00"
_NAMES = {
    "air_cooled_chiller": "chillers",
    "dry_cooler": "dry-cooler fan cells",
    "cooling_tower": "cooling-tower fan cells",
    "gas_turbine": "gas turbines",
    "battery": "batteries",
    "roof_lettering": "painted words",
    COOLING_REAL: "cooling units, real images",
}
_HOW_TO_READ = (
    "How to read it. Each detection comes with a\n"
    "probability that it is real. Here all detections\n"
    "of nearly the same probability are put together:\n"
    "of those called 80% sure, about 80 in 100\n"
    "should be right. Then the dot lies on the line.\n\n"
    "Below the line: too sure of itself.\n"
    "Above the line: more often right than it says.\n\n"
    "The upright bar is what so few detections leave\n"
    "open (95%). The numbers below are how many\n"
    "detections there are. Those in the shaded part\n"
    "are too unsure to be counted at all."
)


def panels(record: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """Bins of a measurement's record by panel, classes in order and real images last; empty panels are absent."""
    bins: Sequence[Mapping[str, Any]] = record["reliability"]
    by_name = {name: [one for one in bins if one["cls"] == name] for name in (*CLASSES, COOLING_REAL)}
    return {name: some for name, some in by_name.items() if some}


def reliability_picture(record: Mapping[str, Any]) -> bytes:
    """PNG of `WIDTH_PX` x `HEIGHT_PX` from the record of a measurement."""
    drawing = Drawing(figsize=(WIDTH_PX / _DPI, HEIGHT_PX / _DPI), dpi=_DPI, layout="constrained")
    axes = drawing.subplots(2, 4, sharex=True, sharey=True).ravel()
    shown = panels(record)
    for place, (name, bins) in zip(axes, shown.items(), strict=False):
        _panel(place, name, bins)
    for place in axes[len(shown) :]:
        place.set_axis_off()
    axes[-1].text(0, 1, _HOW_TO_READ, transform=axes[-1].transAxes, va="top", fontsize=9, color=_INK, linespacing=1.35)
    drawing.suptitle(
        "When the detector says it is 80% sure, is it right 80 times in 100?",
        x=0.01,
        ha="left",
        fontsize=14,
        weight="bold",
        color=_INK,
    )
    drawing.supxlabel(
        f"probability that was stated     ({record['detector']}; blue: RENDERED IMAGERY - NOT PHOTOGRAPHS, "
        "scenes that no training saw; orange: real images labelled by hand)",
        fontsize=9,
        color=_QUIET,
    )
    drawing.supylabel("share of the detections that were right", fontsize=9, color=_QUIET)
    drawn, content = io.BytesIO(), io.BytesIO()
    with matplotlib.rc_context({"font.family": "DejaVu Sans"}):
        drawing.savefig(drawn, format="png", metadata={"Software": None})
    # The method that keeps colours which few pixels have.
    palette = Image.open(drawn).convert("RGB").quantize(_COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    palette.save(content, "PNG", optimize=True)
    return content.getvalue()


def _panel(place: Any, name: str, bins: Sequence[Mapping[str, Any]]) -> None:
    colour = _REAL if bins[0]["real"] else _RENDERED
    stated = np.array([one["stated"] for one in bins])
    right, low, high = (np.array([one["right"][end] for one in bins]) for end in ("value", "low", "high"))
    place.plot([0, 1], [0, 1], color=_QUIET, linewidth=1, linestyle="--")
    # An interval of Wilson's need not hold a share of exactly nothing or all by the last bit.
    error = np.clip([right - low, high - right], 0, None)
    place.errorbar(
        stated, right, yerr=error, color=colour, marker="o", markersize=4.5, linestyle="none", capsize=2, linewidth=1.2
    )
    for one in bins:
        middle = (one["low"] + one["high"]) / 2
        place.text(middle, -0.13, f"{one['detections']:,}", ha="center", va="center", fontsize=7, color=_QUIET)
    place.axvspan(-0.02, COUNTED_FROM, ymin=0.14 / 1.24, color="#f3f4f6", linewidth=0)
    place.axhline(-0.06, color="#d0d7de", linewidth=0.6)
    place.set_title(_NAMES[name], loc="left", fontsize=10, color=colour, weight="bold")
    place.set_title("" if bins[0]["real"] else "RENDERED", loc="right", fontsize=7, color=colour)
    place.set_xlim(-0.02, 1.02)
    place.set_ylim(-0.2, 1.04)
    place.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1], ["0", "20%", "40%", "60%", "80%", "100%"], fontsize=8)
    place.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1], ["0", "20%", "40%", "60%", "80%", "100%"], fontsize=8)
    place.tick_params(labelbottom=True)
    place.spines[["top", "right"]].set_visible(False)
    place.grid(color="#eaeef2", linewidth=0.6)
    place.set_axisbelow(True)
