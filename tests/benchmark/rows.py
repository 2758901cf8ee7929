"""Rows of units that stand close, turned by an angle: in comes the angle, out come their true places in pixels.

Nothing of the project and nothing of a peer is imported, so that both environments count the same units.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

GSD_M = 0.3
LENGTH_PX, WIDTH_PX = 12.0 / GSD_M, 2.4 / GSD_M
"""A 12 m air-cooled chiller."""
PITCH_PX = 3.3 / GSD_M
"""From one unit of a row to the next beside it."""
GAP_PX = 1.5 / GSD_M
"""Between the ends of two rows."""
_MARGIN_PX = 24.37
"""Ground around the units; not a whole number of pixels, so that no centre or edge coincides with one."""


@dataclass(frozen=True)
class Units:
    """Units of one size and heading in a square image."""

    centres: npt.NDArray[np.float64]
    """(N, 2), x and y in pixels; pixel edges are at integers."""
    length_px: float
    width_px: float
    heading_deg: float
    """Direction of the long axis, clockwise from up, in [0, 180)."""
    side_px: int
    """Of the image, which holds all of every unit."""

    def corners(self) -> npt.NDArray[np.float64]:
        """(N, 4, 2), in order around each unit."""
        along, across = _axes(self.heading_deg)
        half = np.array([(1, 1), (1, -1), (-1, -1), (-1, 1)]) * (self.length_px / 2, self.width_px / 2)
        return self.centres[:, None] + half @ np.stack([along, across])


def units(angle_deg: float, beside: int = 168, rows: int = 44) -> Units:
    """`rows` rows of `beside` units each, 7,392 in all, turned clockwise by an angle."""
    across_px = (np.arange(beside) - (beside - 1) / 2) * PITCH_PX
    along_px = (np.arange(rows) - (rows - 1) / 2) * (LENGTH_PX + GAP_PX)
    along, across = _axes(angle_deg)
    grid = along_px[:, None, None] * along + across_px[None, :, None] * across
    about_nothing = Units(grid.reshape(-1, 2), LENGTH_PX, WIDTH_PX, angle_deg % 180, 0)
    reach = float(np.abs(about_nothing.corners()).max()) + _MARGIN_PX
    return Units(about_nothing.centres + reach, LENGTH_PX, WIDTH_PX, angle_deg % 180, int(np.ceil(2 * reach)))


def _axes(heading_deg: float) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Unit vectors along and across, in x to the right and y down."""
    turn = np.deg2rad(heading_deg)
    return np.array([np.sin(turn), -np.cos(turn)]), np.array([np.cos(turn), np.sin(turn)])
