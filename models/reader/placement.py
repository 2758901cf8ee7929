"""Where exactly a word lies: the box that the reader explains best, found by moving the detector's box step by step.

The detector's map says that there is lettering, not where its first letter begins: boxes cut words off, take a logo in,
or lie a little aslant. The reader sees that, because a whole word explains the paint better than a part of it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from models.reader.reader import Reader, Transcript
from models.reader.rectify import END_MARGIN, rectify

MOST_STEPS = 8
"""Steps from the detector's box; one step moves an end by 1.2 letter heights at most."""
_MOST_DRAWS = 16
"""Steps in which the ends are drawn in."""
_LEAST_GAIN = 1e-3
"""Natural logarithm of what a step must gain to be made."""
_ROOM_ACROSS, _ROOM_ALONG = 1.35, 0.36
"""Height of a box that reads best over that of its letters, and what it is longer than its word, its ends drawn in, in
heights of the box: medians over words on rendered roofs that were read rightly."""
_DRAWN_IN = 6.0
"""Natural logarithm of what drawing the ends in may cost: less than any letter of a word is worth."""
_MARGINS = (0.0, 0.12)
"""Room around the detector's box, as shares of its height, with which the search begins."""


class Place(NamedTuple):
    """A box around a word in an image, as `rectify` takes it."""

    x_px: float
    y_px: float
    length_px: float
    width_px: float
    heading_deg: float
    """Along the word; from which end it reads stays open."""

    def moved(
        self, start: float = 0.0, end: float = 0.0, across: float = 0.0, height: float = 1.0, turn_deg: float = 0.0
    ) -> "Place":
        """The box with its ends moved outwards and its middle across, in letter heights, scaled and turned."""
        heading = np.deg2rad(self.heading_deg)
        along = (end - start) * self.width_px / 2
        sideways = across * self.width_px
        return Place(
            float(self.x_px + along * np.sin(heading) + sideways * np.cos(heading)),
            float(self.y_px - along * np.cos(heading) + sideways * np.sin(heading)),
            max(self.length_px + (start + end) * self.width_px, _SHORTEST * self.width_px),
            self.width_px * height,
            self.heading_deg + turn_deg,
        )


_SHORTEST = 0.8
"""Least length of a box over its height."""
_STEPS: tuple[dict[str, float], ...] = (
    *({end: share} for end in ("start", "end") for share in (-0.4, -0.15, 0.15, 0.4, 1.2)),
    {"across": -0.1},
    {"across": 0.1},
    {"height": 0.87},
    {"height": 1.15},
    *({"turn_deg": turn_deg} for turn_deg in (-5.0, -2.0, 2.0, 5.0)),
)
"""What is tried from where the search stands; the best of them is the next step."""


def find_place(reader: Reader, image: np.ndarray, first: Place, longest_px: float) -> Place:
    """The box near `first` in an image, uint8 (H, W, 3), whose text the reader has most evidence for.

    It has room around the letters, see `letters_in`. The heading comes out in [0, 180). No box becomes longer than
    `longest_px`.
    """
    begin = [
        first.moved(start=END_MARGIN * margin, end=END_MARGIN * margin, height=1 + 2 * margin) for margin in _MARGINS
    ]
    best, most = _upright(reader, image, begin)
    for _ in range(MOST_STEPS):
        tries = [place for place in (best.moved(**step) for step in _STEPS) if place.length_px <= longest_px]
        place, found = _best(reader, image, tries, upright=True)
        if found.evidence < most + _LEAST_GAIN:
            break
        best, most = place, found.evidence
    return best._replace(heading_deg=best.heading_deg % 180.0)


def letters_in(reader: Reader, image: np.ndarray, place: Place) -> Place:
    """The letters alone, in a box that `find_place` chose: it reaches beyond them, because reading is easier so."""
    heading_deg = place.heading_deg
    place, most = _upright(reader, image, [place])
    for _ in range(_MOST_DRAWS):
        tries = [place.moved(**{end: share}) for end in ("start", "end") for share in (-0.4, -0.12)]
        shorter, found = _best(reader, image, tries, upright=True)
        if found.evidence < most - _DRAWN_IN or shorter.length_px >= place.length_px:
            break
        place = shorter
    tight = place.moved(height=1 / _ROOM_ACROSS)
    length_px = max(place.length_px - _ROOM_ALONG * place.width_px, _SHORTEST * tight.width_px)
    return tight._replace(length_px=length_px, heading_deg=heading_deg)


def _upright(reader: Reader, image: np.ndarray, places: Sequence[Place]) -> tuple[Place, float]:
    """The best of the places, turned so that its heading is the direction of reading, and its evidence."""
    place, found = _best(reader, image, places)
    return place.moved(turn_deg=180.0 if found.flipped else 0.0), found.evidence


def _best(
    reader: Reader, image: np.ndarray, places: Sequence[Place], upright: bool = False
) -> tuple[Place, Transcript]:
    found = reader.transcripts([rectify(image, *place, margin=0.0) for place in places], upright)
    chosen = max(range(len(places)), key=lambda number: found[number].evidence)
    return places[chosen], found[chosen]
