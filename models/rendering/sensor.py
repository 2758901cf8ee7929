"""From the scene to a picture: sunlight and shadow, off-nadir lean, atmosphere, sensor and product processing.

The order is that of light: shade the scene, displace what stands high, haze, blur by the sensor's modulation transfer,
sample to the native ground sampling distance, fuse the colour of a pan-sharpened product, add noise, tone-map,
compress, and resample to the ground sampling distance that the detector works at.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from models.rendering.canvas import Array, Canvas
from models.rendering.materials import Rng


@dataclass(frozen=True)
class Sensor:
    """One acquisition: where the sun and the satellite stood, what the air, the optics and the product did."""

    native_gsd_m: float
    sun_azimuth_deg: float
    """Direction the light comes from, clockwise from up."""
    sun_elevation_deg: float
    off_nadir_deg: float
    lean_azimuth_deg: float
    """Direction in which tall objects lean in the image, clockwise from up."""
    ambient: float
    """Skylight as a share of direct sunlight on flat ground."""
    haze: float
    exposure: float
    gamma: float
    cast: tuple[float, float, float]
    blur_px: float
    """Gaussian sigma of the point spread function in native pixels."""
    sharpen: float
    chroma_blur_px: float
    """Width of the colour bands relative to the panchromatic one, in native pixels; 0 for a colour sensor."""
    noise: float
    jpeg_quality: int
    halo_px: float = 1.0
    """Radius of the sharpening, in native pixels: the width of the bright and dark edges that it leaves."""
    contrast: float = 1.0
    """Stretch of the tones about the middle before they are clipped: above 1, shadows drown and roofs burn out."""
    fringe_px: tuple[float, float] = (0.0, 0.0)
    """Displacement (x, y) of the red band against green, and of blue the other way, in native pixels."""


def draw_sensor(rng: Rng, validation: bool = False) -> Sensor:
    """A random acquisition. Validation uses sun directions and qualities that training leaves out."""
    sun_azimuth_deg = float(rng.uniform(95, 265) if rng.random() < 0.85 else rng.uniform(0, 360))
    held_out = 150 <= sun_azimuth_deg <= 170
    if held_out != validation:
        sun_azimuth_deg = float(rng.uniform(150, 170) if validation else rng.uniform(170, 265))
    native_gsd_m = float(
        rng.choice([rng.uniform(0.15, 0.28), rng.uniform(0.28, 0.34), rng.uniform(0.34, 0.60)], p=[0.2, 0.5, 0.3])
    )
    return Sensor(
        native_gsd_m=native_gsd_m,
        sun_azimuth_deg=sun_azimuth_deg,
        sun_elevation_deg=float(rng.uniform(22, 75)),
        off_nadir_deg=float(np.clip(rng.gamma(1.6, 6.0), 0, 28)),
        lean_azimuth_deg=float(rng.uniform(0, 360)),
        ambient=float(rng.uniform(0.12, 0.42)),
        haze=float(rng.uniform(0, 0.22) if rng.random() < 0.7 else rng.uniform(0.1, 0.4)),
        exposure=float(np.exp(rng.normal(0.28, 0.25))),
        gamma=float(rng.uniform(0.55, 1.05)),
        cast=tuple(np.exp(rng.normal(0, 0.05, 3)).tolist()),
        blur_px=float(rng.uniform(0.45, 0.95)),
        sharpen=float(rng.uniform(0.0, 1.2) if rng.random() < 0.6 else 0.0),
        chroma_blur_px=float(rng.uniform(1.0, 3.0) if rng.random() < 0.5 else 0.0),
        noise=float(rng.uniform(0.002, 0.018)),
        jpeg_quality=int(rng.integers(60, 97)),
        halo_px=float(rng.uniform(0.8, 1.8)),
        contrast=float(rng.uniform(1.1, 1.7) if rng.random() < 0.35 else 1.0),
        fringe_px=tuple(rng.normal(0, 0.35, 2).tolist()) if rng.random() < 0.25 else (0.0, 0.0),
    )


def shadow_mask(height_m: Array, cell_m: float, azimuth_deg: float, elevation_deg: float) -> npt.NDArray[np.bool_]:
    """Cells that the sun does not reach, from the height map (H, W).

    The shadow height S(x) = max_k (H(x - k d) - k c), with d one cell away from the sun and c the ray's drop over it,
    is a max-plus sum that doubles: S_2n(x) = max(S_n(x), S_n(x - n d) - n c), so log2(reach) shifts are enough.
    """
    s, c = np.sin(np.deg2rad(azimuth_deg)), np.cos(np.deg2rad(azimuth_deg))
    drop_m = cell_m * np.tan(np.deg2rad(elevation_deg))
    ceiling = height_m.copy()
    reach = max(1.0, float(height_m.max() - height_m.min()) / drop_m)
    step = 1
    while step <= reach:
        # Away from the sun: the sun stands at azimuth, shadows fall to -(sin, -cos) in x right, y down.
        dx, dy = round(-s * step), round(c * step)
        shifted = shift(ceiling, dx, dy, fill=-1e3)
        np.maximum(ceiling, shifted - np.float32(np.hypot(dx, dy) * drop_m), out=ceiling)
        step *= 2
    return np.asarray(ceiling > height_m + 0.12)


def shift(image: npt.NDArray, dx: int, dy: int, fill: float = 0.0) -> npt.NDArray:
    """The image moved by whole pixels, right and down for positive values; what comes in is `fill`."""
    out = np.full_like(image, fill)
    h, w = image.shape[:2]
    if abs(dx) < w and abs(dy) < h:
        out[max(0, dy) : h + min(0, dy), max(0, dx) : w + min(0, dx)] = image[
            max(0, -dy) : h + min(0, -dy), max(0, -dx) : w + min(0, -dx)
        ]
    return out


def lean_m(sensor: Sensor, height_m: float) -> tuple[float, float]:
    """Displacement (x right, y down) in metres of a point at a height, in the image."""
    d = height_m * np.tan(np.deg2rad(sensor.off_nadir_deg))
    return (
        float(d * np.sin(np.deg2rad(sensor.lean_azimuth_deg))),
        float(-d * np.cos(np.deg2rad(sensor.lean_azimuth_deg))),
    )


def lit(canvas: Canvas, sensor: Sensor) -> Array:
    """Radiance (H, W, 3) of every surface element under sun and sky."""
    shadow = shadow_mask(canvas.height_m, canvas.cell_m, sensor.sun_azimuth_deg, sensor.sun_elevation_deg)
    sun = cv2.GaussianBlur(1.0 - shadow.astype(np.float32), (0, 0), 0.7)
    # Skylight is blue: a shadow is not only darker.
    sky = np.array([0.92, 0.98, 1.12], np.float32) * sensor.ambient
    light = sun[..., None] + sky
    return np.asarray(canvas.albedo * light / (1 + sensor.ambient), np.float32)


def leaning(radiance: Array, canvas: Canvas, sensor: Sensor) -> Array:
    """Displace surfaces by their height; walls that come into view are darker than the roofs above them."""
    tangent = np.tan(np.deg2rad(sensor.off_nadir_deg))
    layers = int(float(canvas.height_m.max()) * tangent / canvas.cell_m)
    if layers < 1:
        return radiance
    away_from_sun = np.cos(np.deg2rad(sensor.lean_azimuth_deg - sensor.sun_azimuth_deg))
    # A wall that comes into view faces against the lean.
    wall = np.float32(0.45 - 0.2 * away_from_sun)
    # Which layer is seen is found first, with one byte a cell; colours are moved once, at the end.
    rows, columns = canvas.height_m.shape
    highest = np.zeros((rows, columns), np.uint16)
    moves = np.zeros((layers + 1, 2), np.int64)
    for layer in range(1, layers + 1):
        dx_m, dy_m = lean_m(sensor, layer * canvas.cell_m / tangent)
        dx, dy = moves[layer] = round(dx_m / canvas.cell_m), round(dy_m / canvas.cell_m)
        if abs(dx) >= columns or abs(dy) >= rows:
            break
        reaches = canvas.height_m[_overlap(-dy, rows), _overlap(-dx, columns)] >= layer * canvas.cell_m / tangent
        np.copyto(highest[_overlap(dy, rows), _overlap(dx, columns)], layer, where=reaches)
    out = radiance.copy()
    row, column = np.nonzero(highest)
    layer_of = highest[row, column]
    from_row, from_column = row - moves[layer_of, 1], column - moves[layer_of, 0]
    colour = radiance[from_row, from_column]
    # What reaches up to the next layer as well is cut by this one: a wall.
    colour[canvas.height_m[from_row, from_column] >= (layer_of + 1) * (canvas.cell_m / tangent)] *= wall
    out[row, column] = colour
    return out


def _overlap(move: int, size: int) -> slice:
    """Of a row of `size` cells, those that hold something once it has moved by `move`."""
    return slice(max(0, move), size + min(0, move))


def expose(radiance: Array, cell_m: float, sensor: Sensor, rng: Rng) -> npt.NDArray[np.uint8]:
    """The delivered product at the native GSD: uint8 (h, w, 3)."""
    hazy = radiance * (1 - sensor.haze) + sensor.haze * np.array([0.42, 0.46, 0.52], np.float32)
    sigma = sensor.blur_px * sensor.native_gsd_m / cell_m
    blurred = cv2.GaussianBlur(hazy, (0, 0), sigma)
    size = (
        max(1, round(radiance.shape[1] * cell_m / sensor.native_gsd_m)),
        max(1, round(radiance.shape[0] * cell_m / sensor.native_gsd_m)),
    )
    image = cv2.resize(
        blurred, size, interpolation=cv2.INTER_AREA if sensor.native_gsd_m > cell_m else cv2.INTER_LINEAR
    )
    if any(sensor.fringe_px):
        for band, sign in ((0, 1), (2, -1)):
            moved = np.array([[1, 0, sign * sensor.fringe_px[0]], [0, 1, sign * sensor.fringe_px[1]]], np.float32)
            image[..., band] = cv2.warpAffine(
                np.ascontiguousarray(image[..., band]), moved, size, borderMode=cv2.BORDER_REPLICATE
            )
    if sensor.chroma_blur_px > 0:
        brightness = image.mean(axis=2, keepdims=True)
        image = brightness + cv2.GaussianBlur(image - brightness, (0, 0), sensor.chroma_blur_px)
    if sensor.sharpen > 0:
        image = image + sensor.sharpen * (image - cv2.GaussianBlur(image, (0, 0), sensor.halo_px))
    image = image + rng.standard_normal(image.shape, dtype=np.float32) * np.float32(sensor.noise) * np.sqrt(
        np.clip(image, 0.02, 1)
    )
    toned = np.clip(image * sensor.exposure * np.array(sensor.cast, np.float32), 0, 1) ** np.float32(sensor.gamma)
    if sensor.contrast != 1.0:
        toned = np.clip((toned - 0.5) * np.float32(sensor.contrast) + 0.5, 0, 1)
    encoded = np.clip(toned * 255 + 0.5, 0, 255).astype(np.uint8)
    return _jpeg(encoded, sensor.jpeg_quality)


def _jpeg(image: npt.NDArray[np.uint8], quality: int) -> npt.NDArray[np.uint8]:
    _, buffer = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(buffer, cv2.IMREAD_COLOR)
    assert decoded is not None, "OpenCV reads what it just wrote"
    return np.asarray(decoded[..., ::-1], np.uint8)


def resampled(image: npt.NDArray[np.uint8], size_px: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """The product resampled to (width, height) pixels as the engine does: averaged when shrinking, else bilinear."""
    shrinking = size_px[0] < image.shape[1]
    return np.asarray(
        cv2.resize(image, size_px, interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR), np.uint8
    )


def photograph(canvas: Canvas, sensor: Sensor, rng: Rng) -> npt.NDArray[np.uint8]:
    """The delivered product of the whole canvas at the native GSD."""
    return expose(leaning(lit(canvas, sensor), canvas, sensor), canvas.cell_m, sensor, rng)
