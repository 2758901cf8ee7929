"""Labels of an image as float32 tables, one row an object, so that a crop or a flip is one vectorised step.

Apart from the targets made of them because the processes that render chips need labels and no torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from models.classes import OBJECT_CLASSES
from models.rendering.objects import PlacedObject, PlacedText

# Columns of a label table. Coordinates in pixels of the image, headings clockwise from up.
X, Y, LENGTH, WIDTH, HEADING, CLASS, COUNT = range(7)


@dataclass(frozen=True)
class Labels:
    """What is on one image; each table is float32 (n, 7) with the columns above."""

    objects: np.ndarray
    """CLASS is the index in OBJECT_CLASSES, COUNT the fans on the unit."""
    texts: np.ndarray
    """Words; LENGTH along the reading direction, HEADING in [0, 360), CLASS and COUNT are zero."""
    ignored: np.ndarray
    """Objects that are neither a hit nor a miss."""
    unseen: np.ndarray = field(default_factory=lambda: np.zeros((0, 7), np.float32))
    """Ground on which neither objects nor words are there, or not there: nobody has looked at it, or what is painted
    there is too faint for any eye. CLASS and COUNT are zero."""

    @classmethod
    def of(
        cls,
        objects: Sequence[PlacedObject] = (),
        texts: Sequence[PlacedText] = (),
        ignored: Sequence[PlacedObject] = (),
        faint: Sequence[PlacedText] = (),
    ) -> "Labels":
        """Tables of placed objects and words; under `faint` ones the ground is `unseen`."""
        return cls(_object_table(objects), _text_table(texts), _object_table(ignored), _text_table(faint))


def _object_table(objects: Sequence[PlacedObject]) -> np.ndarray:
    rows = [
        (o.x_px, o.y_px, o.length_px, o.width_px, o.heading_deg, OBJECT_CLASSES.index(o.cls), o.fans) for o in objects
    ]
    return np.array(rows, dtype=np.float32).reshape(-1, 7)


def _text_table(texts: Sequence[PlacedText]) -> np.ndarray:
    rows = [(t.x_px, t.y_px, t.length_px, t.width_px, t.heading_deg, 0, 0) for t in texts]
    return np.array(rows, dtype=np.float32).reshape(-1, 7)
