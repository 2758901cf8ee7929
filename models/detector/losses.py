"""What the detector is trained to make small, part by part."""

import torch
from torch.nn import functional

from models.detector.network import FANS, HEADING, HEAT, LETTERING, OFFSET, SIZE

NEARLY_SQUARE = 0.8
"""Width by length from which on a unit's heading is not judged."""
WEIGHTS = {"heat": 1.0, "offset": 0.5, "size": 1.0, "heading": 0.5, "fans": 0.6, "lettering": 0.5}
"""Chosen so that the parts are of one order of magnitude after the first hundred steps."""


def detection_losses(maps: torch.Tensor, targets: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weighted losses by part, as scalars to be summed.

    `maps` is the network's output (N, CHANNELS, h, w) in float32; `targets` holds the fields of
    `models.detector.targets.Targets`, stacked along a first axis.
    """
    boxes, weight = targets["boxes"], targets["weight"]
    # Gather the few supervised cells: the rest of the box maps is free.
    image, y, x = torch.nonzero(weight, as_tuple=True)
    predicted = maps[image, :, y, x]
    wanted = boxes[image, :, y, x]
    share = weight[image, y, x]
    share = share / share.sum().clamp(min=1.0)

    # A square has no long axis, so its heading is not judged. That of a unit up to `NEARLY_SQUARE` is, and counts in
    # full: (1 - w/l)^2, as in studies of DOTA, left half of the tower cells turned by more than 15 degrees.
    elongated = elongation(wanted[:, 7])
    with_fans = (wanted[:, 6] >= 0).float()
    parts = {
        "heat": focal_loss(maps[:, HEAT], targets),
        "offset": (_absolute(predicted[:, OFFSET], wanted[:, 0:2]) * share).sum(),
        "size": (_absolute(predicted[:, SIZE], wanted[:, 2:4]) * share).sum(),
        "heading": (_absolute(predicted[:, HEADING], wanted[:, 4:6]) * share * elongated).sum(),
        "fans": (_absolute(predicted[:, FANS], wanted[:, 6:7]) * share * with_fans).sum(),
        "lettering": lettering_loss(maps[:, LETTERING.start], targets["lettering"], targets["seen"]),
    }
    return {name: WEIGHTS[name] * value for name, value in parts.items()}


def elongation(width_by_length: torch.Tensor) -> torch.Tensor:
    """0..1: how much the heading of units of this width by length counts; nothing for squares."""
    return ((1 - width_by_length) / (1 - NEARLY_SQUARE)).clamp(0, 1)


def focal_loss(logits: torch.Tensor, targets: dict[str, torch.Tensor]) -> torch.Tensor:
    """Penalty-reduced focal loss of CenterNet (Zhou et al. 2019, eq. 1; alpha 2, beta 4), a mean over the centres."""
    judged = targets["judged"].unsqueeze(1)
    centres = targets["centres"] & judged
    probability = logits.sigmoid()
    hit = functional.logsigmoid(logits) * (1 - probability) ** 2 * centres
    softened = (1 - targets["heat"]) ** 4
    miss = functional.logsigmoid(-logits) * probability**2 * softened * (judged & ~centres)
    # Crops without any object must not weigh more than those with many: one divisor for the whole batch.
    return -(hit.sum() + miss.sum()) / centres.sum().clamp(min=len(logits))


def lettering_loss(logits: torch.Tensor, mask: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Cross-entropy plus Dice where `seen`, the latter over the whole batch because most crops carry no word."""
    probability, mask = logits.sigmoid() * seen, mask * seen
    overlap = 2 * (probability * mask).sum() + 1
    dice = 1 - overlap / (probability.sum() + mask.sum() + 1)
    entropy = functional.binary_cross_entropy_with_logits(logits, mask, reduction="none") * seen
    return 5 * entropy.sum() / seen.sum().clamp(min=1) + dice


def _absolute(predicted: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    return (predicted - wanted).abs().sum(dim=1)
