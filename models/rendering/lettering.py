"""Painted words: a text and a style in, its coverage out, for rendered roofs and for training the reader.

The mask is tight, reads left to right and is as high as asked. Texts and styles are drawn at random from a seeded
generator; the names that the reader is judged by never occur among the random texts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from models.rendering.letter_faces import FACES, HELD_OUT_FACES, STROKE_FACES, SYMBOLS, TRAINING_FACES, glyph

__all__ = [
    "FACES",
    "HELD_OUT_FACES",
    "SYMBOLS",
    "TRAINING_FACES",
    "LetteringStyle",
    "random_style",
    "random_text",
    "word_mask",
]


@dataclass(frozen=True)
class LetteringStyle:
    """How a word is painted; lengths are shares of the letter height."""

    face: str = "block"
    """One of `FACES`."""
    stretch: float = 1.0
    """Letter width over the face's normal width."""
    weight: float = 0.2
    """Stroke width."""
    spacing: float = 0.16
    """Gap between letters."""
    shear: float = 0.0
    """Italic slant: shift to the right from bottom to top."""
    outline: float = 0.0
    """Width of the painted outline; 0 paints the letter solid."""
    stencil_gap: float = 0.0
    """Height of an unpainted band across the lower half, as stencil bridges and roof seams leave; 0 for none."""
    alternate: bool = False
    """Other letter forms of the stroke faces: flat A, slashed zero, serifed I, square O."""
    case: Literal["upper", "title", "lower"] = "upper"
    """Which letters of a type face are painted small; the text that a word stands for is in capitals all the same."""


def word_mask(text: str, letter_height_px: float, style: LetteringStyle) -> np.ndarray:
    """Coverage of a painted word.

    Args:
        text: characters of `SYMBOLS` and spaces; small letters stand for capitals.
        letter_height_px: height of the ink, from the highest letter's top to the foot of the one that reaches lowest;
            may be fractional, the array is rounded to whole pixels.
        style: how it is painted.

    Returns:
        float32 array (h, w) in 0..1 with h = round(letter_height_px), tight around the ink, reading left to right.

    Raises:
        ValueError: the text is empty or holds a character that cannot be painted.
    """
    text = text.upper()
    if not text.strip() or set(text) - set(SYMBOLS) - {" "}:
        raise ValueError(f"cannot paint {text!r}: only A-Z, 0-9 and spaces")
    # Drawn at least twice too large, then averaged down: coverage comes from area, not from hard edges.
    master_px = int(np.clip(np.ceil(2 * letter_height_px), 64, 320))
    word = _compose(text.strip(), master_px, style)
    if style.outline > 0:
        width = 2 * max(1, round(style.outline * master_px)) + 1
        word = word - cv2.erode(word, np.ones((width, width), np.uint8))
    if style.stencil_gap > 0:
        middle, half = round(0.25 * master_px + 0.68 * master_px), max(1, round(style.stencil_gap * master_px / 2))
        word[middle - half : middle + half] = 0
    if style.shear:
        rows, columns = word.shape
        extra = int(np.ceil(abs(style.shear) * rows))
        matrix = np.array([[1, -style.shear, style.shear * rows if style.shear > 0 else 0], [0, 1, 0]], np.float64)
        word = cv2.warpAffine(word, matrix, (columns + extra, rows), flags=cv2.INTER_LINEAR)
    rows_with_ink, columns_with_ink = np.flatnonzero(word.max(axis=1)), np.flatnonzero(word.max(axis=0))
    word = word[rows_with_ink[0] : rows_with_ink[-1] + 1, columns_with_ink[0] : columns_with_ink[-1] + 1]
    height = max(1, round(letter_height_px))
    width = max(1, round(word.shape[1] * letter_height_px / word.shape[0]))
    small = cv2.resize(word, (width, height), interpolation=cv2.INTER_AREA)
    return small.astype(np.float32) / 255


def _compose(text: str, height_px: int, style: LetteringStyle) -> np.ndarray:
    """The letters side by side, uint8, each gap as wide as the style says."""
    gap = max(1, round(style.spacing * height_px))
    rows = height_px + 3 * (height_px // 4)
    if style.face not in STROKE_FACES and style.case != "upper":
        text = text.title() if style.case == "title" else text.lower()
    parts: list[np.ndarray] = []
    for symbol in text:
        if symbol == " ":
            parts.append(np.zeros((rows, round(0.35 * height_px * max(style.stretch, 0.8))), np.uint8))
        else:
            parts.append(glyph(symbol, style.face, height_px, style.weight, style.stretch, style.alternate))
        parts.append(np.zeros((rows, gap), np.uint8))
    return np.concatenate(parts, axis=1)


def random_style(rng: np.random.Generator, faces: Sequence[str] = TRAINING_FACES) -> LetteringStyle:
    """A style with a face from `faces`: solid upright capitals, at times small, outlined, slanted or stencilled."""
    face = str(rng.choice(list(faces)))
    stretch = float(np.exp(rng.uniform(np.log(0.6), np.log(1.8))))
    weight = float(rng.uniform(0.09, 0.24))
    outline = float(rng.uniform(0.03, 0.05)) if weight > 0.18 and rng.random() < 0.12 else 0.0
    return LetteringStyle(
        face=face,
        stretch=stretch,
        weight=weight,
        # The space is 0.35 wide and more: gaps stay clearly below it.
        spacing=float(rng.uniform(0.07, 0.32)),
        shear=float(rng.uniform(-0.05, 0.3)) if rng.random() < 0.25 else 0.0,
        outline=outline,
        stencil_gap=float(rng.uniform(0.03, 0.07)) if outline == 0 and rng.random() < 0.1 else 0.0,
        alternate=bool(rng.random() < 0.3),
        case="upper" if face in STROKE_FACES or rng.random() < 0.5 else "title" if rng.random() < 0.75 else "lower",
    )


_NAMES = """
ALPHA AMBER ANCHOR APEX ARC ATLAS AURORA BASIN BAY BEACON BLUE BOLT BRIDGE CARGO CAROLINA CENTER CENTRAL CIRCUIT
CITY CLOUD COLD COMPUTE COPPER CORE CORP CROWN DATA DELTA DEPOT DIGITAL DOCK DYNAMICS EAGLE EAST ECHO EDGE ELECTRIC
ENERGY ENGINE EXPRESS FACTORY FALCON FIBER FLEX FOODS FORGE FREIGHT FUSION GALAXY GATE GIGA GLOBAL GOLD GRAND GRID
GROUP GULF HARBOR HARDWARE HAWK HELIX HIGHWAY HOME HORIZON HUB HYDRO INDUSTRIES ION IRON JET JUNCTION KEYSTONE
KINETIC LABS LAKE LIBERTY LINE LOGISTICS LUMEN MARKET MATRIX MEDIA MEMPHIS METAL METRO MILL MOTORS NEXUS NORTH NOVA
OMEGA ORBIT ORION PACIFIC PARK PHOENIX PLANT PLAZA POINT POLAR PORT POWER PRIME PULSE QUANTUM QUARRY QUICK RADIUS
RAIL RAPID RIVER ROBOT ROCKET SHELBY SIERRA SIGMA SILVER SKY SOLAR SOUTH SPACE STAR STATION STEEL STORAGE SUMMIT
SUPPLY SYSTEMS TECH TEXAS TITAN TOWER TRADE TRANSIT TRUCK TURBO UNION UNITED UNIVERSAL VALLEY VECTOR VERTEX VIKING
VISTA VOLT WAREHOUSE WATER WAVE WEST WIZARD WORKS WORLD YARD ZENITH ZEPHYR ZONE
"""
_PREFIXES = "MACRO MICRO MEGA GIGA HYPER ULTRA INTER TRANS NEO OMNI AERO ELECTRO AUTO PETRO THERMO NET"
_SUFFIXES = "SOFT WARE TECH TRON NET LINK WORKS MART CORP CHIP FRAME LOGIC DRIVE PORT GEN PLEX STACK STREAM"
_ONSETS = "B BR C CH CL D DR F FR G GL GR H J K KR L M N P PH QU R S SH ST T TH TR V W X Y Z"
_NUCLEI = "A E I O U A E I O U AI EA IO OO OU"
_CODAS = "B CK D G K L LD M N ND NG NT P R RD RK RR RT S SS ST T X Z"
_WORDS = tuple(_NAMES.split())
_WORD_ENDS = (*_SUFFIXES.split(), *_WORDS)
_NUMBERED = (*_WORDS, "DC", "XI", "B", "HALL", "UNIT")
_SYLLABLES = ((*_ONSETS.split(), ""), _NUCLEI.split(), (*_CODAS.split(), "", "", "", ""))
_HELD_OUT_PART = "MACROHARD"
"""Real roofs carry it, so it is a test of the reader and never part of its training."""


def random_text(rng: np.random.Generator) -> str:
    """A text of 3 to 16 characters: names, invented words, words with a number, random strings; at most one space."""
    while True:
        text = _candidate(rng)
        if 3 <= len(text) <= 16 and _HELD_OUT_PART not in text.replace(" ", ""):
            return text


def _candidate(rng: np.random.Generator) -> str:
    """One draw of any length."""
    kind = rng.random()
    if kind < 0.2:
        return _pick(rng, _WORDS)
    if kind < 0.3:
        return f"{_pick(rng, _WORDS)} {_pick(rng, _WORDS)}"
    if kind < 0.38:
        return _pick(rng, _PREFIXES.split()) + _pick(rng, _WORD_ENDS)
    if kind < 0.62:
        syllables = int(rng.integers(1, 5))
        return "".join(_pick(rng, part) for _ in range(syllables) for part in _SYLLABLES)
    if kind < 0.74:
        number = str(rng.integers(0, 10 ** int(rng.integers(1, 5))))
        return _pick(rng, _NUMBERED) + (" " if rng.random() < 0.5 else "") + number
    if kind < 0.94:
        return "".join(rng.choice(list(SYMBOLS[:26]), int(rng.integers(3, 13))))
    # Any mixture: nothing but the shape tells a letter from a digit here.
    return "".join(rng.choice(list(SYMBOLS), int(rng.integers(3, 11))))


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]
