"""What a trained reader is worth, on rendered words it never saw: calibration, exact match and character errors.

Exact match is the share of words read without any fault. Character error rate is the edit distance to the true text
over its length, summed over words. Both are given by letter height in the image, for the faces of training with new
words and styles, and for a type family that training never used.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from models.calibration import fit_calibration
from models.reader.network import ReaderNet
from models.reader.placement import find_place
from models.reader.reader import Reader, transcribe
from models.reader.rectify import rectify
from models.rendering.lettering import HELD_OUT_FACES, TRAINING_FACES, random_style, random_text
from models.training.painted_words import (
    EMPTY_SHARE,
    PaintedRegion,
    empty_region,
    legible,
    painted_region,
    random_height_px,
)

HEIGHT_BINS_PX = ((6, 10), (10, 17), (17, 33), (33, 60))
"""Letter heights in the image; 33 px is 10 m at 0.30 m."""
HELD_OUT_NAMES = ("MACROHARD", "MACROHARDER", "MACROHARDRR")
"""Names on real roofs; no training text holds them."""
_CALIBRATION_SEED, _EVALUATION_SEED = 1_000_001, 1_000_002
"""Far from the seeds of training, which are `[seed, pool]`."""


def calibrate(net: ReaderNet, samples: int = 600) -> dict[str, Any]:
    """Logistic fit of "the whole text is right" on its log-odds, over the mixture that training uses, read as in a run.

    Returns:
        `calibration` (a, b) with confidence = sigmoid(a * logit(p) + b), and the `threshold` of confidence below
        which nothing is given: one half, since a text that is more likely wrong than right misleads.
    """
    rng = np.random.default_rng(_CALIBRATION_SEED)
    empty = rng.random(samples) < EMPTY_SHARE
    regions = [
        empty_region(rng, random_height_px(rng)) if nothing else _word(rng, random_text(rng), TRAINING_FACES)
        for nothing in empty
    ]
    reader = Reader(net, {})
    found = transcribe(net, [_cut_out(reader, region) for region in regions])
    given = [
        (np.exp(transcript.log_probability), transcript.text == region.text)
        for transcript, region in zip(found, regions, strict=True)
        if transcript.text
    ]
    score, right = np.array(given, float).reshape(-1, 2).T
    a, b = fit_calibration(score, right)
    return {"calibration": {"a": a, "b": b}, "threshold": 0.5}


def evaluate(net: ReaderNet, card: dict[str, Any], per_bin: int = 100) -> dict[str, Any]:
    """Metrics of the reader as it is used, refusals counted as faults, half of the words given upside down."""
    reader = Reader(net, card)
    rng = np.random.default_rng(_EVALUATION_SEED)
    metrics: dict[str, Any] = {}
    for group, faces in (("training_faces", TRAINING_FACES), ("unseen_face", HELD_OUT_FACES)):
        for bounds in HEIGHT_BINS_PX:
            words = [_word(rng, random_text(rng), faces, bounds) for _ in range(per_bin)]
            metrics[f"{group}_{bounds[0]}_{bounds[1]}_px"] = _score(reader, words, rng)
    for bounds in HEIGHT_BINS_PX[1:]:
        words = [
            _word(rng, name, (*TRAINING_FACES, *HELD_OUT_FACES), bounds)
            for name in HELD_OUT_NAMES
            for _ in range(per_bin // 4)
        ]
        metrics[f"held_out_names_{bounds[0]}_{bounds[1]}_px"] = _score(reader, words, rng)
    empty = [empty_region(rng, float(np.exp(rng.uniform(np.log(6), np.log(60))))) for _ in range(2 * per_bin)]
    false_texts = [r.text for r in reader.read([_cut_out(reader, region) for region in empty]) if r.text]
    metrics["empty_roofs"] = {"n": len(empty), "read_something": len(false_texts)}
    return metrics


def _word(
    rng: np.random.Generator, text: str, faces: Sequence[str], bounds_px: tuple[float, float] | None = None
) -> PaintedRegion:
    height_px = random_height_px(rng) if bounds_px is None else float(rng.uniform(*bounds_px))
    return painted_region(rng, text, height_px, legible(random_style(rng, faces), height_px))


def _cut_out(reader: Reader, region: PaintedRegion) -> np.ndarray:
    """What of a region is read in a run."""
    longest_px = float(max(region.image.shape))
    return rectify(region.image, *find_place(reader, region.image, region.place, longest_px), margin=0.0)


def _score(reader: Reader, words: list[PaintedRegion], rng: np.random.Generator) -> dict[str, float]:
    """Exact match, character error rate and refusals of one group of words."""
    turned = rng.random(len(words)) < 0.5
    shown = [word.turned() if turn else word for word, turn in zip(words, turned, strict=True)]
    readings = reader.read([_cut_out(reader, region) for region in shown])
    pairs = list(zip(readings, words, strict=True))
    exact = sum(r.text == w.text for r, w in pairs)
    given = [(r, w, t) for (r, w), t in zip(pairs, turned, strict=True) if r.text]
    return {
        "n": len(words),
        "exact": round(exact / len(words), 4),
        "cer": round(sum(edit_distance(r.text, w.text) for r, w in pairs) / sum(len(w.text) for w in words), 4),
        "refused": round(1 - len(given) / len(words), 4),
        "wrong_way_up": sum(r.flipped != bool(t) for r, _, t in given),
        "mean_confidence": round(float(np.mean([r.confidence for r in readings])), 4),
    }


def edit_distance(a: str, b: str) -> int:
    """Fewest insertions, deletions and substitutions that turn one text into the other (Levenshtein, 1966)."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]
