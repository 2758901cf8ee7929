"""Roofs with words on them, not by the generator of training."""

import cv2
import numpy as np


def roof(rng: np.random.Generator, h: int, w: int, tone: float = 150.0) -> np.ndarray:
    """A membrane roof with ribs, mottling, stains and grain, float32 (h, w, 3); not the generator of training."""
    ribs = 4 * (np.arange(w) // 5 % 2)[None, :] + 6 * (np.arange(h) % 41 == 0)[:, None]
    mottle = cv2.resize(rng.normal(0, 5, (h // 16 + 1, w // 16 + 1)), (w, h), interpolation=cv2.INTER_CUBIC)
    return (tone + ribs + mottle + rng.normal(0, 3, (h, w)))[..., None] * np.array([1.0, 0.99, 0.97])


def paint(image: np.ndarray, mask: np.ndarray, x: float, y: float, heading_deg: float, colour: float) -> None:
    """Paint a mask on an image with its centre at x, y (edge coordinates) and its reading direction at the heading."""
    h, w = mask.shape
    heading = np.deg2rad(heading_deg)
    axes = np.array([[np.sin(heading), np.cos(heading)], [-np.cos(heading), np.sin(heading)]])
    matrix = np.column_stack([axes, np.array([x, y]) - 0.5 - axes @ ((np.array([w, h]) - 1) / 2)])
    coverage = cv2.warpAffine(mask, matrix, image.shape[1::-1], flags=cv2.INTER_LINEAR)
    coverage = cv2.GaussianBlur(coverage, (0, 0), 0.5)[..., None]
    image += coverage * (colour - image)


def seen(image: np.ndarray) -> np.ndarray:
    return np.clip(image, 0, 255).astype(np.uint8)
