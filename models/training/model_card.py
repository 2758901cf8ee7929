"""The model card: what the weights files say of themselves and what was measured of them, as a page for people.

`python -m models.training.model_card` writes `models/weights/MODEL_CARD.md` and `reliability.png` anew, from the weights
and from the measurement beside them; a test holds the page against both.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from models.classes import CLASSES
from models.detector.card import COUNTED_FROM
from models.errors import InputError
from models.training.goals import SITE_UNITS, Reached, reached_on_real_images, reached_on_rendered_scenes
from models.training.measuring import WidthRecall
from models.weights_file import load_weights

WEIGHTS = Path(__file__).resolve().parent.parent / "weights"
MEASURED, PICTURE = "measured.json", "reliability.png"
"""Beside the weights: what `overwatt evaluate --keep` wrote of them, and its picture."""

LIMITS = """
## What it was not tested on, and what still differs

* **No real image of a datacenter's chiller yard, of gas turbines or of battery rows was available.** Every figure above
  that does not say that it is of real images comes from rendered scenes, made by the same renderer as the training scenes;
  validation leaves out five chiller models, a range of sun directions, and all layouts and seeds of training.
* On sixteen small real images labelled by hand (rooftop cooling towers and packaged units at 0.15 and 0.3 m; evaluation
  only, not in this repository) the detector finds LABELLED. They were looked at after each training since 2026-11-26, so they
  are no longer a blind test. False on them are a painted sign and a roof hatch.
  Missed are banks that the picture's edge cuts and small dark boxes without visible fans.
* **Cooling-tower cells and, at 0.5 m, dry-cooler cells are the weakest classes.** Missed are above all cells below 4 m, dark
  ones on dark or mottled roofs and small clusters.
* Dry coolers and towers are told apart by how their cells stand, rows that touch against single rows, because nothing else
  that is seen from above does. Real towers back to back will be given as dry coolers, a single row of dry coolers as towers.
* Rendered units that another one hides, or that stand in a shadow that is black in the picture, count as missed.
* Rendered ground is cleaner than real ground; there are no puddles, people, cranes, scaffolds, snow or cloud shadows.
  Metal has no glint, glass no reflection, and nothing is curved but fans and tanks.
* Turbine packages, dry-cooler cells and batteries have sizes from priors with spread, because no drawings were found.
* In the rendered sample chillers, batteries, turbines and dry coolers are found exactly, and nothing where nothing is; their
  neighbours are those of a site that is drawn with care, not those of the scenes above.
* No false detection on 0.48 km2 of real ground may still mean 8 a km2.
* Counts of one class at one GSD are corrected by the recall of few images: with 600 validation chips instead of 1,250 the dry
  coolers at 0.5 m came out 56% too many, with these 6% too few; batteries at 0.5 m are 20% too many.
* Where nothing of a class is found its count is 0 to 0, though small units may have been missed.
* Of rendered words only those count whose paint differs from the roof by 8 grey levels or more in an eighth of their box;
  no eye finds the others. Where the letters are faint they may be found and refused, or not found.
* Heading of a square cell means nothing and is not scored.
* Fans of a chiller up to 2.75 m wide are counted by the period of their pattern, near what the network takes for likely, and
  chillers of one size within 60 m have the median of theirs; of wider ones the network's number is given. Finer than 0.35 m only.
"""


def model_card(detector: Mapping[str, Any], reader: Mapping[str, Any], measured: Mapping[str, Any] | None) -> str:
    """Markdown page of the two cards and of the record of a measurement of them; None: they were not measured yet.

    Raises `InputError` where the measurement is of other weights.
    """
    if measured is not None:
        _refuse_other(measured, detector, reader)
    return "\n".join(
        [
            *_head(detector),
            *_measured(measured),
            *_detector(detector),
            *_reader(reader),
            LIMITS.strip().replace("LABELLED", _labelled(measured)),
            "",
        ]
    )


def _refuse_other(measured: Mapping[str, Any], detector: Mapping[str, Any], reader: Mapping[str, Any]) -> None:
    for kind, card in (("detector", detector), ("reader", reader)):
        version = f"{kind}-{card['sha256'][:8]}"
        if measured[kind] != version:
            raise InputError(
                f"Measurement {MEASURED} is of {measured[kind]} and the weights are {version}: measure these "
                "with `make measure`."
            )


def _head(card: Mapping[str, Any]) -> Iterator[str]:
    yield "# Model card"
    yield ""
    yield f"Weights `detector-{card['sha256'][:8]}`, `detector.safetensors`; this page is made from the files themselves."
    yield ""


def _measured(record: Mapping[str, Any] | None) -> Iterator[str]:
    yield "## What it is to reach, and what it reaches"
    yield ""
    if record is None:
        yield "These weights were not measured yet: `make measure`."
        yield ""
        return
    yield (
        f"`overwatt evaluate` on {record['scenes']} **rendered** scenes of 134 m at each GSD, with layouts, chiller models and "
        "sun directions that no training saw; found within half a unit's width and 15 degrees. In brackets 95% intervals: the "
        "bootstrap's over scenes, Wilson's for shares, Poisson's for rates. Words are measured on half as many scenes more at "
        "each GSD, each of which shows a roof with a painted name."
    )
    yield ""
    yield "| figure | target at 0.3 m | reached at 0.3 m | target at 0.5 m | reached at 0.5 m |"
    yield "|---|---|---|---|---|"
    rows = reached_on_rendered_scenes(record)
    for what in dict.fromkeys(row.what for row in rows):
        by_gsd = {row.gsd_m: row for row in rows if row.what == what}
        yield f"| {what} | {' | '.join(cell for gsd_m in (0.3, 0.5) for cell in _reached(by_gsd.get(gsd_m)))} |"
    yield ""
    yield (
        "The count error is the mean, over scenes, of the distance between the count (p50, corrected for recall) and the "
        f"chillers that stand there, as a share of these: over scenes that show {SITE_UNITS} chillers and more, as a site does (those of "
        "the rendered sample show about 120), and over all that show any, where one of one is all or nothing. Fans are given at "
        "0.35 m and finer only."
    )
    yield ""
    yield (
        "Packaged rooftop units with a fan array are kin of chillers: every figure here leaves them out, calibration, count error and "
        f"intervals too, and a run counts those that it finds as chillers. {_kin(record['kin'])}"
    )
    yield ""
    yield f"Fan cells come in sizes that differ by a factor of six. Found are, by width: {_by_width(record['rendered'])}."
    real = reached_on_real_images(record)
    if real:
        yield ""
        yield "On **real** images:"
        yield ""
        yield "| figure | at | target | reached |"
        yield "|---|---|---|---|"
        for row in real:
            at = "" if row.gsd_m is None else f"{row.gsd_m:g} m"
            yield f"| {row.what} | {at} | {row.target} | {_reached(row)[1]}, {row.of} |"
    for name in record["roof_names"]:
        yield ""
        yield (
            f"The painted name {name['text']!r} at {name['gsd_m']:g} m is {'found' if name['found'] else 'not found'} and "
            + (f"read as {name['read']!r}" if name["read"] else "not read")
            + ("." if name["given"] else "; a run gives no lettering of so coarse an image.")
        )
    yield ""
    yield "### Count intervals"
    yield ""
    yield (
        "Scenes with units of a class on which the interval p5 to p95 holds the true number, and scenes without any on which "
        "something was counted nevertheless (p50 above 0) or zero was excluded (p5 above 0):"
    )
    yield ""
    yield "| class | GSD | hold the truth | units more than p95 | fewer than p5 | empty scenes | counted | zero excluded | count off by | in all |"
    yield "|---" * 10 + "|"
    for row in record["counts"]:
        yield _coverage(row["cls"], row["gsd_m"], row["coverage"], _percent(row["error"]), _percent(row["total"], "+"))
    for row in record["coverage"]:
        yield _coverage("all", row["gsd_m"], row["coverage"], "", "")
    yield ""
    yield "### Painted words"
    yield ""
    yield "Letters of 5 m and more, from the picture to the text; another text than the painted one misleads, a refusal does not:"
    yield ""
    yield "| GSD | words | found | read exactly | refused | another text | read where no word is |"
    yield "|---|---|---|---|---|---|---|"
    for row in record["words"]:
        numbers = (row[name] for name in ("words", "found", "exact", "refused", "wrong", "read_nowhere"))
        yield f"| {row['gsd_m']:g} m | {' | '.join(str(number) for number in numbers)} |"
    yield ""
    yield "### How far a stated probability can be believed"
    yield ""
    yield f"![Share of detections that were right, by the probability that was stated]({PICTURE})"
    yield ""


def _by_width(rows: Sequence[Mapping[str, Any]]) -> str:
    """Recall of cells by their width, in words."""
    said = (
        f"{row['cls'].replace('_', '-')} cells "
        + " and ".join(
            f"{WidthRecall(**part).range} {_share(part['recall'])} of {part['units']}" for part in row["by_width"]
        )
        + f" at {row['gsd_m']:g} m"
        for row in rows
        if row["by_width"]
    )
    return "; ".join(said) or "nothing, the scenes show none"


def _share(figure: Mapping[str, float]) -> str:
    return f"{figure['value']:.0%} ({figure['low']:.0%}-{figure['high']:.0%})"


def _kin(rows: Sequence[Mapping[str, Any]]) -> str:
    """How many of the packaged units are counted, in words."""
    said = [f"{_share(row['found'])} of {row['units']} at {row['gsd_m']:g} m" for row in rows if row["found"]]
    return f"It finds {' and '.join(said)}." if said else "The scenes show none."


def _reached(row: Reached | None) -> tuple[str, str]:
    if row is None:
        return "", "not given"
    return row.target, f"{row.written} {'' if row.met else f'**{row.verdict}**'}".strip()


def _coverage(cls: str, gsd_m: float | None, coverage: Mapping[str, Any], off: str, total: str) -> str:
    share = coverage["share"]
    held = "" if share is None else f" ({share['value']:.0%}, {share['low']:.0%}-{share['high']:.0%})"
    numbers = (coverage[name] for name in ("below", "above", "empty", "empty_counted", "empty_excluded"))
    at = "" if gsd_m is None else f"{gsd_m:g} m"
    return (
        f"| {cls} | {at} | {coverage['covered']} of {coverage['scenes']}{held} | "
        f"{' | '.join(str(number) for number in numbers)} | {off} | {total} |"
    )


def _percent(figure: Mapping[str, float] | None, sign: str = "") -> str:
    return "" if figure is None else f"{figure['value']:{sign}.1%}"


def _labelled(record: Mapping[str, Any] | None) -> str:
    """What was found on labelled real images, in words."""
    rows: Sequence[Mapping[str, Any]] = [] if record is None else record["labelled"]
    if not rows:
        return "what was not measured yet for these weights"
    return ", ".join(
        f"{row['found']} of {row['objects']} labelled objects at {row['gsd_m']:g} m ({row['fans_found']} of {row['fans']} tower "
        f"fans, {row['false_positives']} false detections in {row['area_km2']:.2f} km2)"
        for row in rows
    )


def _detector(card: Mapping[str, Any]) -> Iterator[str]:
    recipe, metrics = card["recipe"], card["metrics"]
    rendered, real = metrics["rendered_validation"], metrics["real_backgrounds"]
    yield "## Detector"
    yield ""
    yield (
        f"Trained on {recipe['crops_seen']:,} crops of {recipe['crop_px']} px from {_chips(recipe)} **rendered** chips at "
        f"0.30 m, {recipe['backgrounds']} real public-domain backgrounds (UC Merced Land Use, USGS) as ground and as "
        f"negatives; {_length(recipe)} on a CPU in {recipe['precision']}, seed {card['seed']}."
    )
    grounds = recipe.get("rendered_grounds")
    if grounds:
        yield f"Windows of {grounds:,} chips that hold nothing were negatives as well."
    yield from _corrected(recipe)
    yield from _second_stage(recipe)
    earlier = recipe.get("start_recipe")
    while earlier:
        yield ""
        yield (
            f"It went on from weights trained on {earlier['crops_seen']:,} crops of {_chips(earlier)} chips for "
            f"{_length(earlier)}."
        )
        yield from _corrected(earlier)
        yield from _second_stage(earlier)
        earlier = earlier.get("start_recipe")
    yield ""
    yield f"On {rendered['chips']} rendered validation chips, native GSD 0.15 to 0.60 m, matched within half a unit's width:"
    yield ""
    yield "| class | units | recall | precision | F1 | expected / true | calibration error | heading error, deg | fan error |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for name in CLASSES:
        row = rendered["classes"][name]
        heading, fans = row["heading_mean_absolute_error_deg"], row["fan_mean_absolute_error"]
        yield (
            f"| {name} | {row['units']} | {_cell(row['recall'])} | {_cell(row['precision'])} | {_cell(row['f1'])} | "
            f"{_cell(row['expected_over_true'])} | {_cell(row['calibration_error'])} | "
            f"{_cell(heading if name not in ('dry_cooler', 'cooling_tower') else None, 1)} | "
            f"{_cell(fans if name == 'air_cooled_chiller' else None, 1)} |"
        )
    yield ""
    yield from _reliability(rendered["classes"])
    yield f"Units found at a probability of {COUNTED_FROM} or more, by native GSD; images whose finds were certain, then the others:"
    yield ""
    yield "| class | certain | not certain |"
    yield "|---|---|---|"
    for name in CLASSES:
        cells = [
            ", ".join(
                f"{p['gsd_m']:.2f} m: {p['found']}/{p['total']}" for p in card["recall"][name] if p["certain"] is kind
            )
            for kind in (True, False)
        ]
        yield f"| {name} | {cells[0]} | {cells[1]} |"
    yield ""
    yield (
        f"On {real['images']} real backgrounds without equipment that were kept out of training ({real['area_km2']:.2f} km2), "
        "false positives at a probability of 0.5 or more:"
    )
    yield ""
    yield "| class | false positives | per km2 | sum of probabilities per km2 |"
    yield "|---|---|---|---|"
    for name in CLASSES:
        row = real["classes"][name]
        yield (
            f"| {name} | {row['false_positives']} | {_cell(row['false_positives_per_km2'], 1)} | "
            f"{_cell(row['expected_count_per_km2'], 1)} |"
        )
    yield ""


def _reliability(classes: Mapping[str, Any]) -> Iterator[str]:
    if not all("reliability" in row for row in classes.values()):
        return
    yield "How far a stated probability can be believed: share of detections that were right, of how many, by what was stated:"
    yield ""
    steps = [f"{low / 5:.1f}-{(low + 1) / 5:.1f}" for low in range(5)]
    yield f"| class | {' | '.join(steps)} |"
    yield "|---" * 6 + "|"
    for name in CLASSES:
        cells = [""] * 5
        for number, said, seen in classes[name]["reliability"]:
            cells[min(int(said * 5), 4)] = f"{seen:.2f} of {number} (said {said:.2f})"
        yield f"| {name} | {' | '.join(cells)} |"
    yield ""


def _second_stage(recipe: Mapping[str, Any]) -> Iterator[str]:
    if recipe.get("second_stage_only"):
        yield "This taught the second stage alone: the first one is that of the weights it went on from."
    apart = recipe.get("second_stage")
    if apart is not None:
        yield (
            f"The second stage was taught apart, by a script that is not in the repository: shown {apart['proposals']:,} "
            f"cut-outs of what this first stage proposes on {apart['chips']:,} of these chips and on the backgrounds, turned "
            f"and scaled, in {apart['minutes']:.3g} minutes."
        )


def _corrected(recipe: Mapping[str, Any]) -> Iterator[str]:
    for one in recipe.get("corrected_labels") or ():
        counts = ", ".join(f"{count} {name}" for name, count in one["units"].items()) or "ground without a unit"
        rendered = "**rendered** " if one["rendered"] else ""
        yield (
            f"Labels that a person corrected on the {rendered}scene {one['scene']} (licence {one['licence'] or 'unknown'}) "
            f"were trained on as well: {counts}."
        )


def _length(recipe: Mapping[str, Any]) -> str:
    return f"{recipe['steps_made']:,} steps" if recipe["minutes"] is None else f"{recipe['minutes']:.3g} minutes"


def _chips(recipe: Mapping[str, Any]) -> str:
    earlier = recipe.get("chips_of_earlier_pools", 0)
    return f"{recipe['chips']:,}" + (f" new and {earlier:,} earlier" if earlier else "")


def _reader(card: Mapping[str, Any]) -> Iterator[str]:
    yield "## Lettering reader"
    yield ""
    yield (
        f"Weights `reader-{card['sha256'][:8]}`, trained on {card['training']['samples']:,} rendered words; never shown "
        "MACROHARD, MACROHARDER or MACROHARDRR. A reading counts only if the whole text is right; refusals are faults."
    )
    yield ""
    yield "| words and letter height in the source | words | exact | refused | wrong way up |"
    yield "|---|---|---|---|---|"
    for name, row in card["metrics"].items():
        if "exact" in row:
            yield f"| {name} | {row['n']} | {row['exact']:.2f} | {row['refused']:.2f} | {row['wrong_way_up']} |"
    empty = card["metrics"]["empty_roofs"]
    yield ""
    yield f"Something was read on {empty['read_something']} of {empty['n']} empty or cluttered roofs."
    yield ""


def _cell(value: float | None, decimals: int = 3) -> str:
    return "" if value is None else f"{value:.{decimals}f}"


def main() -> None:
    """Write the page and the picture."""
    cards = [load_weights(WEIGHTS / f"{name}.safetensors")[1] for name in ("detector", "reader")]
    measured = read_measured(WEIGHTS / MEASURED)
    try:
        page = model_card(cards[0], cards[1], measured)
    except InputError as error:
        sys.exit(f"model_card: {error}")
    (WEIGHTS / "MODEL_CARD.md").write_text(page)
    if measured is not None:
        # matplotlib is loaded by those who draw.
        from models.training.reliability_picture import reliability_picture

        (WEIGHTS / PICTURE).write_bytes(reliability_picture(measured))


def read_measured(path: Path) -> dict[str, Any] | None:
    """The record of a measurement, None where there is none."""
    if not path.is_file():
        return None
    record: dict[str, Any] = json.loads(path.read_text())
    return record


if __name__ == "__main__":
    main()
