"""Faces that painted lettering is drawn with: one glyph in, its coverage out.

No font file is kept here: four faces are drawn from stroke skeletons, `aileron` is the face inside Pillow, `opencv` the
face inside OpenCV (Rubik in OpenCV 5, Hershey strokes in OpenCV 4), and the others come with Matplotlib (DejaVu, STIX,
Computer Modern). Faces of two families are held out of training, so that accuracy is also known on type that the reader
never saw. Type faces have small letters, stroke faces have capitals only.
"""

from functools import cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

SYMBOLS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
"""Characters that can be painted, apart from the space."""
STROKE_FACES = ("block", "rounded", "slab", "pixel")
_FILES = {
    "dejavu_sans": "DejaVuSans.ttf",
    "dejavu_sans_bold": "DejaVuSans-Bold.ttf",
    "dejavu_mono_bold": "DejaVuSansMono-Bold.ttf",
    "dejavu_serif": "DejaVuSerif.ttf",
    "dejavu_serif_bold": "DejaVuSerif-Bold.ttf",
    "computer_modern_sans": "cmss10.ttf",
    "computer_modern_bold": "cmb10.ttf",
    "stix_bold": "STIXGeneralBol.ttf",
}
"""Font files among those of Matplotlib."""
HELD_OUT_FACES = ("opencv", "stix_bold")
TRAINING_FACES = (*STROKE_FACES, "aileron", *(face for face in _FILES if face not in HELD_OUT_FACES))
FACES = (*TRAINING_FACES, *HELD_OUT_FACES)
_HAIRLINES = ("dejavu_serif", "dejavu_serif_bold", "computer_modern_bold", "stix_bold")
"""Faces whose thinnest strokes are too thin to be painted thinner."""

# Skeletons on a grid of 5 x 7 nodes: "xy" with x 0..4 rightwards and y 0..6 downwards; "|" lifts the pen.
_SKELETONS = {
    "A": "06 20|20 46|14 34",
    "B": "00 06|06 26 36 45 44 33|03 33|33 42 41 30 20 00",
    "C": "41 30 10 01 05 16 36 45",
    "D": "00 06|06 26 45 41 20 00",
    "E": "40 00|00 06|06 46|03 33",
    "F": "40 00|00 06|03 33",
    "G": "41 30 10 01 05 16 36 45|45 43|43 23",
    "H": "00 06|40 46|03 43",
    "I": "20 26",
    "J": "40 45 36 16 05",
    "K": "00 06|40 03|13 46",
    "L": "00 06|06 46",
    "M": "06 00|00 23|23 40|40 46",
    "N": "06 00|00 46|46 40",
    "O": "20 30 41 45 36 16 05 01 10 20",
    "P": "06 00|00 30 41 42 33 03",
    "Q": "20 30 41 45 36 16 05 01 10 20|24 46",
    "R": "06 00|00 30 41 42 33 03|23 46",
    "S": "41 30 10 01 02 13 33 44 45 36 16 05",
    "T": "00 40|20 26",
    "U": "00 05 16 36 45 40",
    "V": "00 26|26 40",
    "W": "00 16|16 22|22 36|36 40",
    "X": "00 46|40 06",
    "Y": "00 23|40 23|23 26",
    "Z": "00 40|40 06|06 46",
    "0": "20 30 41 45 36 16 05 01 10 20",
    "1": "11 20|20 26",
    "2": "01 10 30 41 42 06|06 46",
    "3": "01 10 30 41 42 33|13 33|33 44 45 36 16 05",
    "4": "36 30|30 04|04 44",
    "5": "40 00|00 02|02 32 43 45 36 16 05",
    "6": "41 30 10 01 05 16 36 45 44 33 13 04",
    "7": "00 40|40 16",
    "8": "20 30 41 42 33 13 02 01 10 20|23 33 44 45 36 16 05 04 13 23",
    "9": "05 16 36 45 41 30 10 01 02 13 33 42",
}
# Other common ways to draw the same letter.
_ALTERNATES = {
    "A": "06 01 10 30 41 46|03 43",
    "C": "40 10 01 05 16 46",
    "E": "40 00|00 06|06 46|03 43",
    "G": "40 10 01 05 16 36 46|46 43|43 33",
    "I": "20 26|10 30|16 36",
    "J": "10 40|40 45 36 16 05",
    "M": "06 00|00 24|24 40|40 46",
    "O": "00 40|40 46|46 06|06 00",
    "R": "06 00|00 30 41 42 33 03|13 46",
    "S": "40 10 01 02 13 33 44 45 36 06",
    "U": "00 06|06 46|46 40",
    "W": "00 06|06 23|23 46|46 40",
    "0": "20 30 41 45 36 16 05 01 10 20|15 31",
    "1": "11 20|20 26|06 46",
    "4": "10 04|04 44|32 36",
    "7": "00 40|40 16|13 33",
}
# Width over the face's common width.
_WIDTHS = {"I": 0.45, "1": 0.6, "J": 0.85, "E": 0.9, "F": 0.9, "L": 0.9, "M": 1.25, "W": 1.4, "0": 0.85}
_GLYPH_WIDTH = 0.64
"""Common width of a stroke face's letter over its height at stretch 1."""


def glyph(symbol: str, face: str, height_px: int, weight: float, stretch: float, alternate: bool) -> np.ndarray:
    """Coverage of one symbol, uint8 0..255 of shape (1.75 height_px, w), tight left and right.

    A quarter of the cap height is free above the capitals, a half below their baseline.

    Args:
        symbol: one of `SYMBOLS`, or the small letter of one for a type face.
        face: one of `FACES`.
        height_px: cap height.
        weight: stroke width over cap height (the face `pixel` has none of its own).
        stretch: width over the face's normal width.
        alternate: draw the letter's other form where a stroke face has one.
    """
    if face == "pixel":
        mask = _pixel_glyph(symbol, height_px, stretch, alternate)
    elif face in STROKE_FACES:
        mask = _stroke_glyph(symbol, face, height_px, weight, stretch, alternate)
    else:
        mask = _type_glyph(symbol, face, height_px, weight, stretch)
    columns = np.flatnonzero(mask.max(axis=0))
    return mask[:, columns[0] : columns[-1] + 1]


def _polylines(symbol: str, alternate: bool) -> list[np.ndarray]:
    """The skeleton as float arrays of (x, y) nodes on the 0..4 by 0..6 grid."""
    skeleton = _ALTERNATES.get(symbol, _SKELETONS[symbol]) if alternate else _SKELETONS[symbol]
    return [np.array([(int(p[0]), int(p[1])) for p in line.split()], np.float64) for line in skeleton.split("|")]


def _stroke_glyph(symbol: str, face: str, height_px: int, weight: float, stretch: float, alternate: bool) -> np.ndarray:
    """A skeleton drawn with a pen of the asked weight; stretching it leaves the pen's width alone."""
    pen = max(1, round(weight * height_px))
    # A grid wide enough that strokes of a heavy pen do not run into each other.
    width = max(_GLYPH_WIDTH * stretch * _WIDTHS.get(symbol, 1.0) * height_px, pen * (1.0 if symbol in "I1" else 2.6))
    pad = height_px // 4
    mask = np.zeros((height_px + 3 * pad, int(width) + 2 * pad), np.uint8)
    scale = np.array([max(width - pen, 1.0) / 4, (height_px - pen) / 6])
    offset = np.array([pad + pen / 2, pad + pen / 2])
    square_pen = face != "rounded"
    for line in _polylines(symbol, alternate):
        nodes = _rounded(line) if face == "rounded" else line
        strokes = [nodes]
        if face == "slab":
            strokes += _serifs(line)
        for stroke in strokes:
            points = np.round((stroke * scale + offset) * 16).astype(np.int32)
            # A hard thin line for the square pen: a soft one would spread its grey over the whole pen's width.
            line_type = cv2.LINE_8 if square_pen else cv2.LINE_AA
            cv2.polylines(mask, [points], False, 255, 1 if square_pen else pen, line_type, shift=4)
    if square_pen:
        mask = np.asarray(cv2.dilate(mask, np.ones((pen, pen), np.uint8)), np.uint8)
    return mask


def _rounded(line: np.ndarray) -> np.ndarray:
    """Chaikin's corner cutting, three rounds: the ends stay, the corners become curves; a closed line stays closed."""
    for _ in range(3):
        if len(line) < 3:
            break
        start, end = line[:-1], line[1:]
        cut = np.stack([0.75 * start + 0.25 * end, 0.25 * start + 0.75 * end], axis=1).reshape(-1, 2)
        line = np.concatenate([line[:1], cut[1:-1], line[-1:]])
    return line


def _serifs(line: np.ndarray) -> list[np.ndarray]:
    """Short horizontal strokes across the ends of a line that stop at the top or the bottom and are not level."""
    found = []
    for end, inner in ((line[0], line[1]), (line[-1], line[-2])):
        if end[1] in (0.0, 6.0) and inner[1] != end[1]:
            found.append(np.array([(end[0] - 0.7, end[1]), (end[0] + 0.7, end[1])]))
    return found


def _pixel_glyph(symbol: str, height_px: int, stretch: float, alternate: bool) -> np.ndarray:
    """The skeleton on a 5 x 7 lattice of square cells, as lettering laid out in roof panels looks."""
    cells = np.zeros((7, 5), np.uint8)
    for line in _polylines(symbol, alternate):
        cv2.polylines(cells, [np.round(line).astype(np.int32)], False, 255, 1)
    width = max(5, round(height_px * _GLYPH_WIDTH * stretch * 1.1))
    pad = height_px // 4
    mask = cv2.resize(cells, (width, height_px), interpolation=cv2.INTER_NEAREST)
    return cv2.copyMakeBorder(mask, pad, 2 * pad, 0, 0, cv2.BORDER_CONSTANT, value=0)


@cache
def _type_master(symbol: str, face: str) -> np.ndarray:
    """A type face's glyph at a cap height of 128 px on a canvas of 224 rows, baseline at row 160."""
    canvas = np.zeros((224, 384), np.uint8)
    if face != "opencv":
        image = Image.fromarray(canvas)
        ImageDraw.Draw(image).text((96, 160), symbol, fill=255, font=_font(face), anchor="ls")
        return np.array(image)
    scale = cv2.getFontScaleFromHeight(cv2.FONT_HERSHEY_DUPLEX, 128, 12)
    cv2.putText(canvas, symbol, (96, 160), cv2.FONT_HERSHEY_DUPLEX, scale, 255, 12, cv2.LINE_AA)
    rows = np.flatnonzero(_opencv_cap())
    # Bring the capitals to exactly 128 rows above the baseline, whatever this OpenCV's face measures.
    top, bottom = float(rows[0]), float(rows[-1] + 1)
    factor = 128 / (bottom - top)
    matrix = np.array([[factor, 0, 96 * (1 - factor)], [0, factor, 160 - factor * bottom]])
    return cv2.warpAffine(canvas, matrix, (384, 224), flags=cv2.INTER_LINEAR)


@cache
def _font(face: str) -> ImageFont.FreeTypeFont:
    """The face at the size at which its capitals are 128 px high."""
    probe = _font_of_size(face, 1000)
    return _font_of_size(face, 128 * 1000 / -probe.getbbox("H", anchor="ls")[1])


def _font_of_size(face: str, size_px: float) -> ImageFont.FreeTypeFont:
    if face == "aileron":
        font = ImageFont.load_default(size_px)
        assert isinstance(font, ImageFont.FreeTypeFont), "Pillow without FreeType has no face to scale"
        return font
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / _FILES[face]), size_px)


@cache
def _opencv_cap() -> np.ndarray:
    """Which rows OpenCV's capital H covers on the canvas of `_type_master`, before it is brought to size."""
    canvas = np.zeros((224, 384), np.uint8)
    scale = cv2.getFontScaleFromHeight(cv2.FONT_HERSHEY_DUPLEX, 128, 12)
    cv2.putText(canvas, "H", (96, 160), cv2.FONT_HERSHEY_DUPLEX, scale, 255, 12, cv2.LINE_AA)
    return canvas.max(axis=1) > 127


@cache
def _type_weight(face: str) -> float:
    """Stroke width of a type face as it comes, over cap height: the stem of its capital I, halfway up."""
    return float((_type_master("I", face)[96] > 127).sum() / 128)


def _type_glyph(symbol: str, face: str, height_px: int, weight: float, stretch: float) -> np.ndarray:
    """A type face's glyph, made bolder or lighter by growing or shrinking its ink, then stretched as a whole."""
    master = _type_master(symbol, face)
    # Half of the change on each side; no thin stroke may break and no small letter's eye close.
    stem = _type_weight(face)
    thinner = 0.0 if face in _HAIRLINES else -0.3 * stem
    grow = round(float(np.clip(weight - stem, thinner, 0.08 if symbol.islower() else 0.12)) * 128 / 2)
    if grow:
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * abs(grow) + 1, 2 * abs(grow) + 1))
        master = cv2.dilate(master, kernel) if grow > 0 else cv2.erode(master, kernel)
    rows = height_px + 3 * (height_px // 4)
    columns = max(8, round(384 * stretch * height_px / 128))
    return cv2.resize(master, (columns, rows), interpolation=cv2.INTER_AREA)
