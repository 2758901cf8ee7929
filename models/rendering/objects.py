"""Ground truth of a rendered image: what was placed where, in the image's own pixels.

Pixel convention everywhere in `models`: x to the right, y down, pixel edges at integers, so the centre of the first
pixel is (0.5, 0.5). Headings are clockwise from up.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class PlacedObject:
    """One unit of equipment, as the outline of its top face in the image."""

    cls: str
    """Class name, one of `models.classes.OBJECT_CLASSES`."""
    x_px: float
    y_px: float
    length_px: float
    """Long side; never less than `width_px`."""
    width_px: float
    heading_deg: float
    """Direction of the long axis, in [0, 180)."""
    fans: int
    """Fans on the unit; 0 for classes without."""
    kin: bool = False
    """A packaged unit with a fan array: trained on as a chiller, because on real roofs it is to be found, and scored
    neither way."""


@dataclass(frozen=True)
class PlacedText:
    """One painted word or line of words."""

    text: str
    x_px: float
    y_px: float
    length_px: float
    """Extent along the reading direction."""
    width_px: float
    """Letter height."""
    heading_deg: float
    """Reading direction, in [0, 360)."""
