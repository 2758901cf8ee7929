"""From a lettering region in an image to an upright crop that the reader understands."""

import cv2
import numpy as np

from models.reader.network import HEIGHT_PX

END_MARGIN = 3.0
"""Room at both ends over the room above and below: a detector's region is off along its length by a share of its
length, across it by a share of its height."""
_WIDEST_PX = 1024
"""Crops are never wider: a region this long holds no word, and memory stays bounded."""


def rectify(
    image: np.ndarray,
    x_px: float,
    y_px: float,
    length_px: float,
    width_px: float,
    heading_deg: float,
    margin: float = 0.15,
) -> np.ndarray:
    """Cut a rotated region out of an image so that it reads left to right (or upside down, when the heading is turned).

    The crop's axes are u (reading direction) and v (down the letters). With s crop pixels per image pixel and d the
    reading direction (sin h, -cos h), crop point (u, v) shows image point
    (x, y) + (u / s - L / 2) d + (v / s - H / 2) d', d' = (cos h, sin h), with L and H the sides including margins.

    Args:
        image: uint8 (H, W, 3). Beyond its edges the edge pixels are repeated.
        x_px: centre, x to the right; pixel edges are at integers.
        y_px: centre, y down.
        length_px: extent along the reading direction.
        width_px: letter height.
        heading_deg: reading direction, clockwise from up.
        margin: room above and below as a share of `width_px`; `END_MARGIN` times as much at both ends.

    Returns:
        uint8 (32, w, 3), w in proportion to the region, each pixel the mean of what it covers when the crop shrinks.
    """
    height = width_px * (1 + 2 * margin)
    length = length_px + 2 * END_MARGIN * margin * width_px
    scale = HEIGHT_PX / height
    columns = int(np.clip(round(length * scale), 8, _WIDEST_PX))
    # Sampled a whole number of times too fine where the crop shrinks, then averaged: no letter edge is skipped over.
    fine = max(1, int(np.ceil(1 / scale - 1e-6)))
    step = 1 / (scale * fine)
    heading = np.deg2rad(heading_deg)
    along = np.array([np.sin(heading), -np.cos(heading)])
    across = np.array([np.cos(heading), np.sin(heading)])
    axes = np.column_stack([along, across])
    corners = (
        np.array([(x_px, y_px)]) + 0.5 * np.array([(a * length, b * height) for a in (-1, 1) for b in (-1, 1)]) @ axes.T
    )
    # Only the part of the image that is needed: OpenCV cannot warp from images wider than 32767 pixels.
    low = np.clip(np.floor(corners.min(axis=0)).astype(int) - 2, 0, [image.shape[1] - 1, image.shape[0] - 1])
    high = np.clip(np.ceil(corners.max(axis=0)).astype(int) + 2, low + 1, [image.shape[1], image.shape[0]])
    part = image[low[1] : high[1], low[0] : high[0]]
    # OpenCV's coordinates count from the centre of the first pixel, hence the halves.
    size = np.array([columns * fine, HEIGHT_PX * fine])
    origin = np.array([x_px, y_px]) - low + axes @ ((0.5 - size / 2) * step) - 0.5
    matrix = np.column_stack([axes * step, origin])
    fine_crop = cv2.warpAffine(
        part,
        matrix,
        (int(size[0]), int(size[1])),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    if fine == 1:
        return fine_crop
    return cv2.resize(fine_crop, (columns, HEIGHT_PX), interpolation=cv2.INTER_AREA)
