"""Reads painted roof words: rectified crops in, texts with calibrated confidence out.

A region's heading says along which line a word runs but not from which end, so every crop is read both ways up in one
batch and the reading that explains the crop better is kept. What is more likely wrong than right is not given.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import ctc_loss

from models.calibration import calibrated
from models.detector.detector import resolve_device, resolve_precision
from models.errors import WeightsError
from models.reader.network import ReaderNet, batch, decode, encode
from models.reader.rectify import rectify
from models.weights_file import load_weights

__all__ = ["Reader", "Reading", "rectify"]

KIND = "reader"
"""What the card of the reader's weights calls itself."""
_BATCH = 32
"""Crops per batch (each is read twice): some 60 MB of activations at the widest crop."""
_WIDTHS = (1.0, 0.8, 0.65, 1.3)
"""Each crop is read as it is, squeezed and drawn out, and the likeliest text kept: wide, heavy letters lose a symbol
at their own width, narrow ones when squeezed. Of 200 held-out words of 17 to 33 px 183 are right instead of 174."""


@dataclass(frozen=True)
class Reading:
    """What stands in one crop."""

    text: str
    """A-Z, 0-9 and spaces; empty where nothing can be read."""
    confidence: float
    """Probability that the whole text is right, 0..1; for an empty text, that of the best text that was refused."""
    flipped: bool
    """The crop was upside down: the reading direction is opposite to the heading it was cut out with."""


class Reader:
    """A trained reader on a device."""

    def __init__(self, net: ReaderNet, card: Mapping[str, Any], device: str = "cpu") -> None:
        self.card = card
        """Recipe, seed, code version, metrics, calibration and threshold, as training wrote them."""
        self.version = f"reader-{str(card.get('sha256', 'unsaved'))[:8]}"
        self.device = device
        self._net = net.to(device).eval()

    @classmethod
    def load(cls, path: Path, device: str = "auto") -> "Reader":
        """A reader from a weights file, on `auto` (CUDA when there is one, else CPU), `cpu`, `cuda`, `cuda:1`, ...

        Raises:
            WeightsError: the file is missing, foreign, changed after it was written, or holds another network.
            DeviceError: the device does not exist here.
        """
        place = resolve_device(device)
        tensors, card = load_weights(path)
        net = ReaderNet()
        try:
            net.load_state_dict(tensors)
        except RuntimeError as error:
            raise WeightsError(
                f"Weights file {path} does not hold a reader of this version: train one with train_reader."
            ) from error
        return cls(net, card, place)

    def read(self, crops: Sequence[np.ndarray]) -> list[Reading]:
        """Read crops, uint8 RGB (32, w, 3) as `rectify` makes them; order is kept."""
        calibration = self.card["calibration"]
        readings = []
        for text, score, _, flipped in transcribe(self._net, crops, self.device):
            confidence = float(calibrated(np.exp(score), (calibration["a"], calibration["b"]))) if text else 0.0
            if confidence < self.card["threshold"]:
                readings.append(Reading("", confidence, False))
            else:
                readings.append(Reading(text, confidence, flipped))
        return readings

    def transcripts(self, crops: Sequence[np.ndarray], upright: bool = False) -> list["Transcript"]:
        """What each crop says at its own width, good enough to be given or not.

        Crops that are known to be `upright` are not read the other way up, which takes half the time.
        """
        return _transcribe_once(self._net, crops, self.device, upright)


class Transcript(NamedTuple):
    """What a crop says, without judging whether that is good enough."""

    text: str
    log_probability: float
    """Of the text given the crop."""
    evidence: float
    """`log_probability` less that of no text: comparable between both ways up, and between crops of one place.

    It grows with every letter that is really there, so it finds a box that holds a whole word.
    """
    flipped: bool
    """The crop was upside down."""


def transcribe(net: ReaderNet, crops: Sequence[np.ndarray], device: str = "cpu") -> list[Transcript]:
    """Likeliest text of each crop; both ways up and four widths are tried."""
    readings = [_transcribe_once(net, [_widened(crop, width) for crop in crops], device) for width in _WIDTHS]
    return [max(each, key=lambda transcript: transcript.log_probability) for each in zip(*readings, strict=True)]


def _widened(crop: np.ndarray, factor: float) -> np.ndarray:
    if factor == 1.0:
        return crop
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(crop, (max(1, round(crop.shape[1] * factor)), crop.shape[0]), interpolation=how))


@torch.inference_mode()
def _transcribe_once(
    net: ReaderNet, crops: Sequence[np.ndarray], device: str, upright: bool = False
) -> list[Transcript]:
    found: dict[int, Transcript] = {}
    precision = resolve_precision("auto", device)
    # Those of one width together, so that little of a batch is padding.
    by_width = sorted(range(len(crops)), key=lambda i: crops[i].shape[1])
    for start in range(0, len(by_width), _BATCH):
        chosen = by_width[start : start + _BATCH]
        turned_crops = [] if upright else [crops[i][::-1, ::-1] for i in chosen]
        images, widths = batch([crops[i] for i in chosen] + turned_crops)
        with torch.autocast(torch.device(device).type, precision, enabled=precision != torch.float32):
            scores, steps = net(images.to(device), widths.to(device))
        scores, steps = scores.cpu(), steps.cpu()
        texts = [decode(path[:n].tolist()) for path, n in zip(scores.argmax(dim=2), steps, strict=True)]
        text_score = log_probability(scores, steps, texts)
        evidence = text_score - log_probability(scores, steps, [""] * len(texts))
        for place, i in enumerate(chosen):
            turned = place + len(chosen)
            flipped = not upright and bool(evidence[turned] > evidence[place])
            best = turned if flipped else place
            found[i] = Transcript(texts[best], float(text_score[best]), float(evidence[best]), flipped)
    return [found[i] for i in range(len(crops))]


def log_probability(scores: Tensor, steps: Tensor, texts: Sequence[str]) -> Tensor:
    """Log-probability of each text given its crop, summed over all alignments; float32 (N,).

    The negative of the loss of connectionist temporal classification (Graves et al., 2006).
    """
    targets = [encode(text) for text in texts]
    flat = torch.tensor([channel for target in targets for channel in target], dtype=torch.long)
    lengths = torch.tensor([len(target) for target in targets])
    return -ctc_loss(scores.transpose(0, 1), flat, steps, lengths, reduction="none")
