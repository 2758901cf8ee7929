"""The page around the picture of a run: title, warning of rendered imagery, legend with counts, credits."""

import unicodedata
from functools import cache
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

from models.classes import BY_NAME, CLASSES
from pipelines.census import DETECTED
from pipelines.scenes.dates import written_days
from pipelines.sites import Site

if TYPE_CHECKING:
    from pipelines.census import Census
    from pipelines.detection import Detections
    from pipelines.scenes.types import FetchedScene

__all__ = ["INK", "PALETTE", "draw_page", "font", "plain"]

PALETTE = {
    "air_cooled_chiller": "#56B4E9",
    "dry_cooler": "#F0E442",
    "cooling_tower": "#009E73",
    "gas_turbine": "#D55E00",
    "battery": "#CC79A7",
    "roof_lettering": "#E69F00",
}
"""Colours that people with any colour vision tell apart: Okabe and Ito (2008), Color Universal Design."""

PANEL, INK, QUIET, WARNING = "#14181d", "#ffffff", "#a9b4c0", "#ffd400"
RENDERED = "RENDERED IMAGERY - NOT A PHOTOGRAPH"
NARROWEST_PX = 1200
"""A legend must fit below a tall, narrow site."""
PAD = 28
ROW_PX = 38


def draw_page(
    image: Image.Image, site: Site, fetched: "FetchedScene", detections: "Detections", census: "Census"
) -> Image.Image:
    """Put the image on a page with title, legend and credits; rendered imagery is called so above and below it."""
    scene = fetched.scene
    width = max(image.width, NARROWEST_PX)
    notes = _notes(width, site, fetched, detections, census)
    parts = [_title(width, site, fetched), _centred(image, width), _legend(width, census), notes]
    if scene.rendered:
        parts.insert(1, _warning(width))
        parts.insert(3, _warning(width))
    page = Image.new("RGB", (width, sum(part.height for part in parts)), PANEL)
    y = 0
    for part in parts:
        page.paste(part, (0, y))
        y += part.height
    return page


@cache
def font(size_px: int) -> ImageFont.FreeTypeFont:
    """Return Pillow's own font, which is the same on every machine."""
    face = ImageFont.load_default(size_px)
    assert isinstance(face, ImageFont.FreeTypeFont)  # Pillow's wheels have FreeType
    return face


def plain(text: str) -> str:
    """Reduce text to the characters that `font` has: ASCII, with accents dropped and dashes made plain."""
    for dash in "\u2010\u2011\u2012\u2013\u2014\u2212":
        text = text.replace(dash, "-")
    decomposed = unicodedata.normalize("NFKD", text)
    return "".join(c for c in decomposed if not unicodedata.combining(c)).encode("ascii", "replace").decode()


def _title(width: int, site: Site, fetched: "FetchedScene") -> Image.Image:
    strip = Image.new("RGB", (width, 118), PANEL)
    draw, scene = ImageDraw.Draw(strip), fetched.scene
    day = written_days(scene.acquired, scene.earliest)
    draw.text((PAD, 18), plain(site.name), INK, font(46))
    draw.text((width - PAD, 18), day, INK, font(46 if scene.earliest is None else 30), anchor="ra")
    place = plain(", ".join(part for part in (site.operator, site.address) if part))
    draw.text((PAD, 78), place, QUIET, font(24))
    draw.text((width - PAD, 78), f"imagery {scene.gsd_m:.2f} m", QUIET, font(24), anchor="ra")
    return strip


def _warning(width: int) -> Image.Image:
    strip = Image.new("RGB", (width, 56), WARNING)
    ImageDraw.Draw(strip).text((width / 2, 29), RENDERED, "#000000", font(34), anchor="mm", stroke_width=1)
    return strip


def _centred(image: Image.Image, width: int) -> Image.Image:
    strip = Image.new("RGB", (width, image.height), PANEL)
    strip.paste(image, ((width - image.width) // 2, 0))
    return strip


def _legend(width: int, census: "Census") -> Image.Image:
    """Two columns of three classes."""
    strip = Image.new("RGB", (width, PAD + 3 * ROW_PX + 8), PANEL)
    draw = ImageDraw.Draw(strip)
    column_px = (width - 3 * PAD) // 2
    for i, cls in enumerate(CLASSES):
        _entry(draw, PAD + (i // 3) * (column_px + PAD), PAD + (i % 3) * ROW_PX, cls, census)
    return strip


def _entry(draw: ImageDraw.ImageDraw, x: int, y: int, cls: str, census: "Census") -> None:
    """One class: swatch, name, count and interval."""
    draw.rectangle((x, y + 4, x + 34, y + 24), outline=PALETTE[cls], width=4)
    draw.text((x + 50, y), _name(cls), INK, font(26))
    count = census.by_class.get(cls)
    if count is None:
        draw.text((x + 342, y + 4), "not given", QUIET, font(20))
        return
    draw.text((x + 400, y), f"{count.detected}", INK if count.detected else QUIET, font(26), anchor="ra")
    if count.expected.p95 > 0:
        draw.text((x + 416, y + 4), f"[{count.expected.p5:.0f} - {count.expected.p95:.0f}]", QUIET, font(20))


def _name(cls: str) -> str:
    cells = BY_NAME[cls].unit == "fan cell"
    return cls.replace("_", " ") + (" (fan cells)" if cells else "")


def _notes(width: int, site: Site, fetched: "FetchedScene", detections: "Detections", census: "Census") -> Image.Image:
    """Say what the lines and figures mean, how much of the site was seen, and where everything comes from."""
    scene = fetched.scene
    faint = int((detections.frame["probability"] < DETECTED).sum())
    proxy = "" if site.perimeter_quality == "traced" else " (a proxy, not surveyed)"
    lines = [
        f"Counted and solid: probability {DETECTED:g} or more. Faint: {faint} less probable. "
        f"In brackets: 90% interval of what stands there. Dashed: perimeter{proxy}."
    ]
    if census.covered_fraction < 1:
        lines.append(f"The scene shows {census.covered_fraction:.0%} of the perimeter; nothing is counted in the rest.")
    lines += [f"Not given: {_name(cls)}: {reason}." for cls, reason in census.not_given.items()]
    if census.texts:
        lines.append(f"Read on the roof: {', '.join(census.texts)}.")
    when = f"{scene.acquired:%Y-%m-%d %H:%M} UTC"
    if scene.earliest is not None:
        when = f"on one of the days {written_days(scene.acquired, scene.earliest)}"
    acquired = f"acquired {when} (date from {scene.acquired_from})"
    lines.append(f"Scene {scene.id} from {scene.source}, {acquired}.")
    credit = f"Imagery: {scene.attribution}. " if scene.attribution else ""
    lines.append(f"{credit}Licence: {scene.licence}. Detections: Overwatt, {detections.model_version}.")
    rows = [row for line in lines for row in _wrapped(plain(line), font(20), width - 2 * PAD)]
    strip = Image.new("RGB", (width, 28 * len(rows) + PAD), PANEL)
    draw = ImageDraw.Draw(strip)
    for i, row in enumerate(rows):
        draw.text((PAD, 28 * i), row, QUIET, font(20))
    return strip


def _fitted(text: str, face: ImageFont.FreeTypeFont, width: float) -> str:
    """Shorten a text to a width."""
    if face.getlength(text) <= width:
        return text
    while text and face.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."


def _wrapped(text: str, face: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """Break a text at spaces; a word longer than a line is shortened."""
    rows = [""]
    for word in text.split():
        longer = f"{rows[-1]} {word}".strip()
        if face.getlength(longer) <= width:
            rows[-1] = longer
        else:
            rows.append(_fitted(word, face, width))
    return [row for row in rows if row]
