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
from models.reader.reader import Reader, transcribe
from models.rendering.lettering import HELD_OUT_FACES, TRAINING_FACES, random_style, random_text
from models.training.painted_words import PaintedCrop, empty_crop, legible, painted_crop, painted_word

HEIGHT_BINS_PX = ((6, 10), (10, 17), (17, 33), (33, 60))
"""Letter heights in the image; 33 px is 10 m at 0.30 m."""
HELD_OUT_NAMES = ("MACROHARD", "MACROHARDER", "MACROHARDRR")
"""Names on real roofs; no training text holds them."""
_CALIBRATION_SEED, _EVALUATION_SEED = 1_000_001, 1_000_002
"""Far from the seeds of training, which are `[seed, pool]`."""


def calibrate(net: ReaderNet, samples: int = 1500) -> dict[str, Any]:
    """Logistic fit of "the whole text is right" on its log-odds, over the mixture that training uses.

    Returns:
        `calibration` (a, b) with confidence = sigmoid(a * logit(p) + b), and the `threshold` of confidence below
        which nothing is given: one half, since a text that is more likely wrong than right misleads.
    """
    rng = np.random.default_rng(_CALIBRATION_SEED)
    crops = [painted_crop(rng) for _ in range(samples)]
    found = transcribe(net, [crop.image for crop in crops])
    given = [
        (np.exp(transcript.log_probability), transcript.text == crop.text)
        for transcript, crop in zip(found, crops, strict=True)
        if transcript.text
    ]
    score, right = np.array(given, float).reshape(-1, 2).T
    a, b = fit_calibration(score, right)
    return {"calibration": {"a": a, "b": b}, "threshold": 0.5}


def evaluate(net: ReaderNet, card: dict[str, Any], per_bin: int = 200) -> dict[str, Any]:
    """Metrics of the reader as it is used, refusals counted as faults, half of the crops given upside down."""
    reader = Reader(net, card)
    rng = np.random.default_rng(_EVALUATION_SEED)
    metrics: dict[str, Any] = {}
    for group, faces in (("training_faces", TRAINING_FACES), ("unseen_face", HELD_OUT_FACES)):
        for low, high in HEIGHT_BINS_PX:
            words = [_word(rng, random_text(rng), faces, low, high) for _ in range(per_bin)]
            metrics[f"{group}_{low}_{high}_px"] = _score(reader, words, rng)
    for low, high in HEIGHT_BINS_PX[1:]:
        words = [
            _word(rng, name, (*TRAINING_FACES, *HELD_OUT_FACES), low, high)
            for name in HELD_OUT_NAMES
            for _ in range(per_bin // 4)
        ]
        metrics[f"held_out_names_{low}_{high}_px"] = _score(reader, words, rng)
    empty = [empty_crop(rng, float(np.exp(rng.uniform(np.log(6), np.log(60))))) for _ in range(2 * per_bin)]
    false_texts = [r.text for r in reader.read([crop.image for crop in empty]) if r.text]
    metrics["empty_roofs"] = {"n": len(empty), "read_something": len(false_texts)}
    return metrics


def _word(rng: np.random.Generator, text: str, faces: Sequence[str], low_px: float, high_px: float) -> PaintedCrop:
    height_px = float(rng.uniform(low_px, high_px))
    return painted_word(rng, text, height_px, legible(random_style(rng, faces), height_px))


def _score(reader: Reader, words: list[PaintedCrop], rng: np.random.Generator) -> dict[str, float]:
    """Exact match, character error rate and refusals of one group of words."""
    turned = rng.random(len(words)) < 0.5
    crops = [w.image[::-1, ::-1] if t else w.image for w, t in zip(words, turned, strict=True)]
    readings = reader.read(crops)
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
