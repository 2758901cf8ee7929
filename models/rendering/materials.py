"""Ground and roof surfaces: a base colour with variation at several scales, streaks and seams.

Albedos are rough broadband reflectances of weathered materials as overhead imagery shows them (concrete 0.35-0.55,
asphalt 0.08-0.2, white membrane 0.65-0.9, gravel 0.3-0.5, grass 0.08-0.2); they are priors for variety, not
measurements.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from models.rendering.canvas import Array, Canvas, Frame, Mask

Rng = np.random.Generator
Colour = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Material:
    """A surface: range of base colours and strength of its variation."""

    dark: tuple[float, float, float]
    light: tuple[float, float, float]
    mottle: float
    """Relative brightness variation at scales of metres."""
    grain: float
    """Relative brightness variation from pixel to pixel."""
    streaks: float = 0.0
    """Strength of directional wear (tyre tracks, drainage)."""


MATERIALS = {
    "asphalt": Material((0.07, 0.07, 0.08), (0.24, 0.23, 0.23), 0.10, 0.05, 0.10),
    "concrete": Material((0.34, 0.33, 0.30), (0.62, 0.60, 0.55), 0.07, 0.04, 0.08),
    "gravel": Material((0.26, 0.24, 0.21), (0.58, 0.55, 0.50), 0.08, 0.12, 0.05),
    "soil": Material((0.26, 0.18, 0.12), (0.58, 0.46, 0.34), 0.16, 0.07, 0.18),
    "grass": Material((0.07, 0.12, 0.05), (0.26, 0.31, 0.16), 0.20, 0.12),
    "dry_grass": Material((0.26, 0.23, 0.13), (0.48, 0.42, 0.27), 0.16, 0.10),
    "water": Material((0.03, 0.06, 0.07), (0.16, 0.22, 0.20), 0.05, 0.02),
    "white_roof": Material((0.62, 0.62, 0.60), (0.90, 0.90, 0.88), 0.04, 0.02, 0.05),
    "grey_roof": Material((0.28, 0.28, 0.28), (0.58, 0.58, 0.57), 0.08, 0.04, 0.06),
    "dark_roof": Material((0.08, 0.08, 0.09), (0.26, 0.25, 0.25), 0.10, 0.04, 0.08),
    "tan_roof": Material((0.38, 0.33, 0.26), (0.64, 0.57, 0.46), 0.07, 0.06, 0.04),
    "metal_roof": Material((0.40, 0.43, 0.46), (0.78, 0.80, 0.82), 0.05, 0.02, 0.04),
}
GROUNDS = ("asphalt", "concrete", "gravel", "soil", "grass", "dry_grass")
YARDS = ("concrete", "gravel", "asphalt", "soil", "gravel")
ROOFS = ("white_roof", "grey_roof", "dark_roof", "tan_roof", "metal_roof", "white_roof")


def noise(rng: Rng, shape: tuple[int, int], cell_px: float) -> Array:
    """Smooth noise of unit variance whose features are about `cell_px` pixels wide, shape (h, w)."""
    if cell_px <= 1.0:
        return rng.standard_normal(shape, dtype=np.float32)
    small = (max(2, int(shape[0] / cell_px) + 2), max(2, int(shape[1] / cell_px) + 2))
    field = rng.standard_normal(small, dtype=np.float32)
    return np.asarray(cv2.resize(field, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC), np.float32)


def base_colour(rng: Rng, name: str) -> Colour:
    """A colour between the material's dark and light end, with a slight tint."""
    material = MATERIALS[name]
    t = rng.random()
    dark, light = np.array(material.dark), np.array(material.light)
    return np.clip((dark + (light - dark) * t) * (1 + rng.normal(0, 0.02, 3)), 0.01, 0.98).astype(np.float32)


def surface(rng: Rng, shape: tuple[int, int], cell_m: float, name: str, heading_deg: float = 0.0) -> Array:
    """An albedo picture (h, w, 3) of the material."""
    material = MATERIALS[name]
    value = 1 + material.mottle * (
        0.6 * noise(rng, shape, 12.0 / cell_m)
        + 0.5 * noise(rng, shape, 3.0 / cell_m)
        + 0.3 * noise(rng, shape, 0.9 / cell_m)
    )
    value += material.grain * rng.standard_normal(shape, dtype=np.float32)
    if material.streaks > 0 and rng.random() < 0.7:
        value += material.streaks * _streaks(rng, shape, cell_m, heading_deg)
    return np.clip(value[..., None] * base_colour(rng, name), 0.01, 1.0).astype(np.float32)


def _streaks(rng: Rng, shape: tuple[int, int], cell_m: float, heading_deg: float) -> Array:
    """Noise stretched along a heading: a 1-D profile across it, faded along it."""
    s, c = np.sin(np.deg2rad(heading_deg)), np.cos(np.deg2rad(heading_deg))
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    across = x * c + y * s
    reach = int(np.hypot(*shape)) + 2
    profile = noise(rng, (2, 2 * reach), 0.8 / cell_m)[0]
    return np.asarray(profile[np.clip(across.astype(np.int64) + reach, 0, 2 * reach - 1)], np.float32) * np.clip(
        noise(rng, shape, 15.0 / cell_m), 0, 1.5
    )


def pave(
    canvas: Canvas, rng: Rng, frame: Frame, length_m: float, width_m: float, name: str, height_m: float | None = None
) -> None:
    """Cover a rectangle with a material; with `height_m`, raise it to that absolute height."""
    with canvas.patch(frame, length_m, width_m) as patch:
        if patch is None:
            return
        mask: Mask = patch.rectangle(length_m, width_m)
        shape = (mask.shape[0], mask.shape[1])
        patch.paint(mask, surface(rng, shape, canvas.cell_m, name, frame.heading_deg), height_m)
