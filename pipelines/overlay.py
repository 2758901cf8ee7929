"""The picture of a run: its detections drawn over the scene, with a legend, a scale and where the imagery is from.

The picture keeps the scene's own orientation (a rotated scene stays rotated, the arrow shows north) and equal scale in
both directions. Rendered imagery says so above and below the image.
"""

import io
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import rasterio
import shapely
import shapely.ops
from PIL import Image, ImageDraw
from pyproj import CRS, Geod, Transformer
from rasterio import Affine
from rasterio.enums import Resampling
from rasterio.windows import Window

from models.classes import LETTERING
from pipelines.census import DETECTED
from pipelines.gdal_env import gdal_env
from pipelines.legend import INK, PALETTE, draw_page, font, plain
from pipelines.sites import Site

if TYPE_CHECKING:
    from pipelines.census import Census
    from pipelines.detection import Detections
    from pipelines.scenes.types import FetchedScene

__all__ = ["draw_overlay"]

IMAGE_PX = 1800
"""Longer side of the image inside the picture."""
MARGIN = 0.02
"""Ground shown around the perimeter, as a share of its longer side."""
SMOOTH = 2
"""Outlines are drawn this much larger and reduced, because Pillow draws jagged lines."""

INSET_PX = 24
"""From the image's edge to the scale bar and the arrow."""


@dataclass(frozen=True)
class _View:
    """From the ground to the picture's pixels."""

    window: Window
    """Part of the raster, in its pixels, that the image shows; it may reach beyond the raster."""
    width_px: int
    height_px: int
    m_per_px: float
    up_deg: float
    """Direction on the ground, clockwise from north, of the picture's up."""
    crs: CRS
    to_pixels: Affine
    """From the scene's CRS to the raster's columns and rows."""

    def place(self, geometries: np.ndarray, crs: CRS) -> np.ndarray:
        """Bring geometries of a CRS into pixels of the image."""
        to_scene = Transformer.from_crs(crs, self.crs, always_xy=True)

        def project(xy: np.ndarray) -> np.ndarray:
            column, row = _apply(self.to_pixels, *to_scene.transform(*xy.T))
            x = (column - self.window.col_off) * (self.width_px / self.window.width)
            y = (row - self.window.row_off) * (self.height_px / self.window.height)
            return np.column_stack((x, y))

        return shapely.transform(geometries, project)


def draw_overlay(site: Site, fetched: "FetchedScene", detections: "Detections", census: "Census") -> bytes:
    """Draw the picture of a run.

    :param detections: those inside the perimeter (see `pipelines.census.assign_zones`)
    :returns: a PNG, the same bytes for the same arguments
    """
    with gdal_env(fetched.path), rasterio.open(fetched.path) as raster:
        view = _view(raster, site)
        image = _photograph(raster, view)
    _draw_outlines(image, view, site, detections)
    _draw_scale(image, view)
    _draw_north(image, view)
    buffer = io.BytesIO()
    draw_page(image, site, fetched, detections, census).save(buffer, "PNG")
    return buffer.getvalue()


def _view(raster: rasterio.DatasetReader, site: Site) -> _View:
    crs = CRS.from_wkt(raster.crs.to_wkt())
    to_scene = Transformer.from_crs("OGC:CRS84", crs, always_xy=True)
    to_pixels = ~raster.transform

    def project(xy: np.ndarray) -> np.ndarray:
        return np.column_stack(_apply(to_pixels, *to_scene.transform(*xy.T)))

    outline = shapely.transform(site.perimeter, project)
    left, top, right, bottom = outline.bounds
    m_per_column, m_per_row, up_deg = _ground_sampling(raster.transform, crs, (left + right) / 2, (top + bottom) / 2)
    longer_m = max((right - left) * m_per_column, (bottom - top) * m_per_row)
    margin_m = MARGIN * longer_m
    left, right = left - margin_m / m_per_column, right + margin_m / m_per_column
    top, bottom = top - margin_m / m_per_row, bottom + margin_m / m_per_row
    m_per_px = (longer_m + 2 * margin_m) / IMAGE_PX
    return _View(
        window=Window(left, top, right - left, bottom - top),
        width_px=max(1, round((right - left) * m_per_column / m_per_px)),
        height_px=max(1, round((bottom - top) * m_per_row / m_per_px)),
        m_per_px=m_per_px,
        up_deg=up_deg,
        crs=crs,
        to_pixels=to_pixels,
    )


def _ground_sampling(transform: Affine, crs: CRS, column: float, row: float) -> tuple[float, float, float]:
    """Metres on the ground per column and per row about a pixel, and the direction of up, clockwise from north."""
    to_degrees = Transformer.from_crs(crs, "OGC:CRS84", always_xy=True)
    columns, rows = np.array([column, column + 10, column]), np.array([row, row, row - 10])
    lon, lat = to_degrees.transform(*_apply(transform, columns, rows))
    azimuths, _, metres = Geod(ellps="WGS84").inv(lon[[0, 0]], lat[[0, 0]], lon[1:], lat[1:])
    return metres[0] / 10, metres[1] / 10, float(azimuths[1])


def _apply(affine: Affine, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return affine.a * x + affine.b * y + affine.c, affine.d * x + affine.e * y + affine.f


def _photograph(raster: rasterio.DatasetReader, view: _View) -> Image.Image:
    """Read what the raster shows of the view; where it has no pixels the picture is hatched."""
    rows, columns = np.mgrid[: view.height_px, : view.width_px]
    hatched = ((rows + columns) // 8 % 2).astype(np.uint8)
    canvas = np.where(hatched[..., None], np.uint8(52), np.uint8(44)).repeat(3, axis=2)
    window = view.window
    scale_x, scale_y = view.width_px / window.width, view.height_px / window.height
    left, top = max(0, math.floor(window.col_off)), max(0, math.floor(window.row_off))
    right = min(raster.width, math.ceil(window.col_off + window.width))
    bottom = min(raster.height, math.ceil(window.row_off + window.height))
    if left >= right or top >= bottom:
        return Image.fromarray(canvas)
    # Where these source pixels fall in the image; they may stick out of it by a part of one source pixel.
    x0, x1 = (round((x - window.col_off) * scale_x) for x in (left, right))
    y0, y1 = (round((y - window.row_off) * scale_y) for y in (top, bottom))
    shape = (max(1, y1 - y0), max(1, x1 - x0))
    part = Window(left, top, right - left, bottom - top)
    resampling = Resampling.average if scale_x < 1 else Resampling.cubic
    pixels = np.moveaxis(raster.read((1, 2, 3), window=part, out_shape=(3, *shape), resampling=resampling), 0, -1)
    valid = raster.dataset_mask(window=part, out_shape=shape, resampling=Resampling.nearest) > 0
    inside = (slice(max(0, -y0), view.height_px - y0), slice(max(0, -x0), view.width_px - x0))
    pixels, valid = pixels[inside], valid[inside]
    target = canvas[max(0, y0) :, max(0, x0) :][: valid.shape[0], : valid.shape[1]]
    target[valid] = pixels[valid]
    return Image.fromarray(canvas)


def _paint_smooth(
    image: Image.Image, corner: tuple[int, int], size: tuple[int, int], paint: Callable[[ImageDraw.ImageDraw], None]
) -> None:
    """Paint a part of the image at SMOOTH times the size and lay the reduced result over it."""
    layer = Image.new("RGBA", (size[0] * SMOOTH, size[1] * SMOOTH))
    paint(ImageDraw.Draw(layer))
    layer = layer.reduce(SMOOTH)
    image.paste(layer.convert("RGB"), corner, layer.getchannel("A"))


def _draw_outlines(image: Image.Image, view: _View, site: Site, detections: "Detections") -> None:
    crs84, frame = CRS.from_user_input("OGC:CRS84"), detections.frame
    perimeter = view.place(np.array([site.perimeter], dtype=object), crs84)[0]
    zones = view.place(np.array([zone.geometry for zone in site.zones], dtype=object), crs84)
    units = view.place(frame.geometry.to_numpy(), CRS.from_user_input(frame.crs))
    counted = (frame["probability"] >= DETECTED).to_numpy()

    def paint(draw: ImageDraw.ImageDraw) -> None:
        for ring in _rings(zones):
            draw.line(ring, fill=(255, 255, 255, 150), width=SMOOTH)
        for dash in _dashes(perimeter.exterior, 18.0):
            draw.line(dash, fill=(0, 0, 0, 150), width=5 * SMOOTH)
            draw.line(dash, fill=(255, 255, 255, 255), width=3 * SMOOTH)
        for unit, cls, sure in zip(units, frame["class"], counted, strict=True):
            # Units stand a few pixels apart; a word has room for a line that shows on a white roof.
            line = SMOOTH * (4 if cls == LETTERING.name else 2) - 1
            for ring in _rings([unit]):
                if sure:
                    draw.line(ring, fill=(0, 0, 0, 120), width=line + 3, joint="curve")
                draw.line(ring, fill=PALETTE[cls] + ("" if sure else "80"), width=line, joint="curve")

    _paint_smooth(image, (0, 0), image.size, paint)
    draw = ImageDraw.Draw(image)
    for zone, outline in zip(site.zones, zones, strict=True):
        left, top, _, _ = outline.bounds
        _label(draw, (left + 10, top + 8), zone.id, 17, INK)
    for unit, cls, text, sure in zip(units, frame["class"], frame["text"], counted, strict=True):
        if sure and cls == LETTERING.name and isinstance(text, str) and text:
            _label(draw, _beside(unit, text, image), text, 26, PALETTE[cls])


def _beside(box: shapely.Polygon, text: str, image: Image.Image) -> tuple[float, float]:
    """Place a text right of a box, else left of it, else below it, inside the image."""
    width, height = font(26).getlength(plain(text)), 30
    left, top, right, bottom = box.bounds
    x, y = right + 12, (top + bottom - height) / 2
    if x + width > image.width - 8:
        x = left - 12 - width
    if x < 8:
        x, y = max(8.0, min(left, image.width - width - 8)), bottom + 10
    return x, min(max(8.0, y), image.height - height - 8)


def _label(draw: ImageDraw.ImageDraw, xy: tuple[float, float], text: str, size_px: int, colour: str) -> None:
    draw.text(xy, plain(text), colour, font(size_px), stroke_width=2, stroke_fill="#000000")


def _rings(polygons: "np.ndarray | list[shapely.Geometry]") -> Iterator[list[tuple[float, float]]]:
    for polygon in shapely.get_parts(polygons):
        for ring in (polygon.exterior, *polygon.interiors):
            yield [(x * SMOOTH, y * SMOOTH) for x, y in ring.coords]


def _dashes(ring: shapely.LinearRing, dash_px: float) -> Iterator[list[tuple[float, float]]]:
    """Cut a ring into dashes with gaps of the same length."""
    count = max(2, round(ring.length / (2 * dash_px)))
    ends = np.linspace(0, ring.length, 2 * count + 1)
    for start, end in zip(ends[0:-1:2], ends[1::2], strict=True):
        dash = shapely.ops.substring(ring, start, end)
        yield [(x * SMOOTH, y * SMOOTH) for x, y in dash.coords]


def _draw_scale(image: Image.Image, view: _View) -> None:
    longest_m = view.width_px * view.m_per_px / 4
    power = 10 ** math.floor(math.log10(longest_m))
    length_m = max(step * power for step in (1, 2, 5) if step * power <= longest_m)
    draw = ImageDraw.Draw(image, "RGBA")
    length_px = length_m / view.m_per_px
    x, y = INSET_PX, image.height - INSET_PX
    text = f"{length_m / 1000:g} km" if length_m >= 1000 else f"{length_m:g} m"
    draw.rectangle((x - 10, y - 46, x + length_px + 10, y + 10), fill=(0, 0, 0, 150))
    draw.line([(x, y - 12), (x, y), (x + length_px, y), (x + length_px, y - 12)], fill=INK, width=3)
    draw.text((x + length_px / 2, y - 8), text, INK, font(20), anchor="ms")


def _draw_north(image: Image.Image, view: _View) -> None:
    radius = 30
    corner = (image.width - INSET_PX - 2 * radius, INSET_PX)

    def point(angle_deg: float, distance: float) -> tuple[float, float]:
        turn = math.radians(angle_deg - view.up_deg)
        return radius + distance * math.sin(turn), radius - distance * math.cos(turn)

    def paint(draw: ImageDraw.ImageDraw) -> None:
        draw.ellipse((0, 0, 2 * radius * SMOOTH, 2 * radius * SMOOTH), fill=(0, 0, 0, 150))
        arrow = [point(0, 27), point(145, 15), point(180, 5), point(215, 15)]
        draw.polygon([(x * SMOOTH, y * SMOOTH) for x, y in arrow], fill=INK)

    _paint_smooth(image, corner, (2 * radius, 2 * radius), paint)
    x, y = point(180, 17)
    ImageDraw.Draw(image).text((corner[0] + x, corner[1] + y), "N", INK, font(17), anchor="mm")
