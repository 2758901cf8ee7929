"""The model card: what the weights files say of themselves, as a page for people.

`python -m models.training.model_card` writes `models/weights/MODEL_CARD.md` anew; a test holds the page against the
weights that it describes.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from models.classes import CLASSES
from models.detector.card import MIN_PROBABILITY
from models.weights_file import load_weights

WEIGHTS = Path(__file__).resolve().parent.parent / "weights"

LIMITS = """
## What it was not tested on, and what still differs

* **No real image of a datacenter's chiller yard, of gas turbines or of battery rows was available.** Every figure above
  except the false positives comes from rendered scenes, made by the same renderer as the training scenes; validation
  leaves out five chiller models, a range of sun directions, and all layouts and seeds of training.
* On sixteen small real images labelled by hand (rooftop cooling towers and packaged units at 0.15 and 0.3 m; evaluation
  only, not in this repository) the detector finds REAL_TOWERS. Small towers in dark roof wells and packaged units with
  a fan array at one end are mostly missed: the renders that these weights were trained on were larger, cleaner and better
  lit. **Do not read a count of cooling towers from these weights on real imagery without looking at the detections.**
* Rendered ground is cleaner than real ground; there are no puddles, people, cranes, scaffolds, snow or cloud shadows.
  Metal has no glint, glass no reflection, and nothing is curved but fans and tanks.
* Turbine packages, dry-cooler cells and batteries have sizes from priors with spread, because no drawings were found.
* Batteries that stand end to end without a visible gap are counted low, and turbines coarser than 0.5 m are often missed.
* Streaks on bare asphalt can pass for a chiller: one does in the rendered sample of the Southaven plant, at a probability of
  0.6. The painted bars of a runway's threshold pass for 22 batteries on one of the 173 held-out grounds, in the half that
  fits the calibration and is not in the table above.
* The rim of a ground, 40 px, is not judged. Weights made before 2026-11-26 give the area with it: their false positives are
  of 0.24 km2, not of 0.51, so the figures per km2 above are twice as high.
* Heading of a square cell means nothing and is not scored.
* Fans of a chiller are regressed, not counted one by one, and given only at 0.35 m and finer.
"""


def model_card(detector: Mapping[str, Any], reader: Mapping[str, Any], real: str) -> str:
    """Markdown page of the two cards; `real` is what was found on labelled real images, in words."""
    return "\n".join([*_detector(detector), *_reader(reader), LIMITS.strip().replace("REAL_TOWERS", real), ""])


def _detector(card: Mapping[str, Any]) -> Iterator[str]:
    recipe, metrics = card["recipe"], card["metrics"]
    rendered, real = metrics["rendered_validation"], metrics["real_backgrounds"]
    yield "# Model card"
    yield ""
    yield f"Weights `detector-{card['sha256'][:8]}`, `detector.safetensors`; this page is made from the files themselves."
    yield ""
    yield "## Detector"
    yield ""
    yield (
        f"Trained on {recipe['crops_seen']:,} crops of {recipe['crop_px']} px from {_chips(recipe)} **rendered** chips at "
        f"0.30 m, {recipe['backgrounds']} real public-domain backgrounds (UC Merced Land Use, USGS) as ground and as "
        f"negatives; {recipe['minutes']:g} minutes on a CPU in {recipe['precision']}, seed {card['seed']}."
    )
    grounds = recipe.get("rendered_grounds")
    if grounds:
        yield f"Windows of {grounds:,} chips that hold nothing were negatives as well."
    earlier = recipe.get("start_recipe")
    while earlier:
        yield ""
        yield (
            f"It went on from weights trained on {earlier['crops_seen']:,} crops of {_chips(earlier)} chips for "
            f"{earlier['minutes']:g} minutes."
        )
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
    yield f"Units found at a probability of {MIN_PROBABILITY} or more, by native GSD; images whose finds were certain, then the others:"
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


REAL = (
    "6 of 19 labelled objects at 0.3 m (10 of 25 tower fans), 4 of 11 at 0.15 m (8 of 14 fans), 5 of 19 at 0.5 m (5 of 25 fans), "
    "with 2 to 4 false detections in 0.06 to 0.09 km2"
)
"""Measured on the labelled real images; see `models/training/LOG.md`."""


def main() -> None:
    """Write the page."""
    cards = [load_weights(WEIGHTS / f"{name}.safetensors")[1] for name in ("detector", "reader")]
    (WEIGHTS / "MODEL_CARD.md").write_text(model_card(cards[0], cards[1], REAL))


if __name__ == "__main__":
    main()
