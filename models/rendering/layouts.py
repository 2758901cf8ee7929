"""How a site is laid out: blocks of one use each, side by side in one grid direction, with roads between.

`plot` fills a canvas with random blocks for training and evaluation; the block painters are also what the embedded
sample scenes are built from, with stated counts.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from models.rendering import confusers
from models.rendering.canvas import Canvas, Frame, Truth
from models.rendering.cooling_equipment import (
    ChillerStyle,
    cell_grid,
    chiller,
    chiller_style,
    cooling_tower_style,
    dry_cooler_style,
    plume,
    rows_m,
)
from models.rendering.lettering import LetteringStyle, random_style, random_text, word_mask
from models.rendering.materials import GROUNDS, ROOFS, YARDS, Rng, pave, surface
from models.rendering.power_equipment import BatteryStyle, TurbineStyle, battery, battery_style, turbine, turbine_style
from models.rendering.rooftop_equipment import (
    bank_look,
    ducts,
    enclosed_bank,
    packaged_look,
    packaged_unit,
    tower_bank,
)


def ground(canvas: Canvas, rng: Rng, heading_deg: float, name: str | None = None) -> None:
    """Cover the canvas with one open-ground material and patches of a second one."""
    shape = (canvas.height_px, canvas.width_px)
    name = name or str(rng.choice(GROUNDS))
    canvas.albedo[:] = surface(rng, shape, canvas.cell_m, name, heading_deg)


def chiller_rows(
    canvas: Canvas,
    rng: Rng,
    frame: Frame,
    length_m: float,
    width_m: float,
    style: ChillerStyle,
    count: int | None = None,
    gap_m: float | None = None,
    aisle_m: float | None = None,
    fill: float = 1.0,
) -> int:
    """Chillers side by side in rows: long axes along u, neighbours along v, `gap_m` apart, rows along u.

    Returns how many were placed; stops at `count`.
    """
    gap_m = float(rng.uniform(0.9, 3.2)) if gap_m is None else gap_m
    aisle_m = float(rng.uniform(0.8, 7.0)) if aisle_m is None else aisle_m
    pitch_v, pitch_u = style.width_m + gap_m, style.length_m + aisle_m
    columns, rows = int((width_m + gap_m) / pitch_v), int((length_m + aisle_m) / pitch_u)
    flip = rng.random() < 0.5
    placed = 0
    for r in range(rows):
        for c in range(columns):
            if count is not None and placed >= count:
                return placed
            if rng.random() < fill:
                at = frame.at((r - (rows - 1) / 2) * pitch_u, (c - (columns - 1) / 2) * pitch_v)
                chiller(canvas, rng, at.at(0, 0, 180.0 * (flip and r % 2)), style)
                placed += 1
        if rng.random() < 0.6 and r + 1 < rows:
            pipe = frame.at((r + 0.5 - (rows - 1) / 2) * pitch_u, 0)
            canvas.box(pipe, min(0.7, aisle_m * 0.6), columns * pitch_v, np.full(3, rng.uniform(0.25, 0.75)), 1.0)
    return placed


def battery_rows(
    canvas: Canvas,
    rng: Rng,
    frame: Frame,
    length_m: float,
    width_m: float,
    style: BatteryStyle,
    count: int | None = None,
    end_m: float | None = None,
) -> int:
    """Battery enclosures in back-to-back pairs with aisles, `end_m` apart in a row. Returns how many."""
    back_m, aisle_m, drawn_m = float(rng.uniform(0.15, 0.6)), float(rng.uniform(1.8, 4.0)), float(rng.uniform(0.3, 2.5))
    end_m = drawn_m if end_m is None else end_m
    single = rng.random() < 0.3
    placed, v = 0, -width_m / 2 + style.width_m / 2
    lane = 0
    transformer = _shade(rng, 0.3, 0.6)
    with_transformers = rng.random() < 0.6
    while v < width_m / 2 - style.width_m / 2:
        u = -length_m / 2 + style.length_m / 2
        while u < length_m / 2 - style.length_m / 2 + 0.01:
            if count is not None and placed >= count:
                return placed
            battery(canvas, rng, frame.at(u, v, 180.0 * (lane % 2)), style)
            placed += 1
            u += style.length_m + end_m
            if with_transformers and placed % 4 == 0 and u < length_m / 2 - 4:
                canvas.box(frame.at(u - style.length_m / 2 + 1.2, v), 2.2, 1.8, transformer, 2.0)
                u += 3.2
        v += style.width_m + (back_m if lane % 2 == 0 and not single else aisle_m)
        lane += 1
    return placed


def turbine_pads(
    canvas: Canvas,
    rng: Rng,
    frame: Frame,
    length_m: float,
    width_m: float,
    style: TurbineStyle,
    count: int | None = None,
) -> int:
    """Turbine packages side by side, long axes along u. Returns how many."""
    pitch_v = style.width_m + float(rng.uniform(4.0, 12.0))
    pitch_u = style.length_m + float(rng.uniform(8.0, 20.0))
    placed = 0
    rows = max(1, int((length_m + 8) / pitch_u))
    columns = max(1, int((width_m + 4) / pitch_v))
    for r in range(rows):
        for c in range(columns):
            if count is not None and placed >= count:
                return placed
            at = frame.at((r - (rows - 1) / 2) * pitch_u, (c - (columns - 1) / 2) * pitch_v)
            turbine(canvas, rng, at.at(0, 0, float(rng.normal(0, 0.5))), style)
            placed += 1
    return placed


def paint_text(
    canvas: Canvas,
    rng: Rng,
    frame: Frame,
    text: str,
    letter_m: float,
    style: LetteringStyle,
    colour: npt.ArrayLike,
    wear: float = 0.0,
) -> float:
    """Paint a word centred on the frame, reading along u. Returns its length in metres."""
    coverage = word_mask(text, letter_m / canvas.cell_m, style)
    length_m, height_m = coverage.shape[1] * canvas.cell_m, coverage.shape[0] * canvas.cell_m
    with canvas.painting(frame, length_m, height_m) as patch:
        if patch is not None:
            column = patch.u_m / canvas.cell_m + coverage.shape[1] / 2 - 0.5
            row = patch.v_m / canvas.cell_m + coverage.shape[0] / 2 - 0.5
            alpha = _bilinear(coverage, row, column)
            if wear > 0:
                shape = (alpha.shape[0], alpha.shape[1])
                alpha = alpha * np.clip(1 - wear * np.abs(rng.standard_normal(shape)), 0, 1)
            patch.blend(alpha.astype(np.float32), colour)
    canvas.truth.append(Truth("roof_lettering", frame, length_m, height_m, canvas.base_m(frame), text=text))
    return length_m


def _bilinear(image: npt.NDArray, row: npt.NDArray, column: npt.NDArray) -> npt.NDArray:
    padded = np.pad(image, 1)
    row, column = np.clip(row + 1, 0, padded.shape[0] - 1.001), np.clip(column + 1, 0, padded.shape[1] - 1.001)
    r, c = row.astype(np.int64), column.astype(np.int64)
    fr, fc = row - r, column - c
    top = padded[r, c] * (1 - fc) + padded[r, c + 1] * fc
    return np.asarray(top * (1 - fr) + (padded[r + 1, c] * (1 - fc) + padded[r + 1, c + 1] * fc) * fr)


def _shade(rng: Rng, low: float, high: float) -> npt.NDArray:
    return np.clip(rng.uniform(low, high) + rng.normal(0, 0.02, 3), 0.02, 0.97)


def roof(canvas: Canvas, rng: Rng, frame: Frame, length_m: float, width_m: float, name: str, height_m: float) -> None:
    """A flat roof with parapet, seams and a few stains."""
    pave(canvas, rng, frame, length_m, width_m, name, height_m)
    seam_m = float(rng.uniform(6, 30))
    with canvas.patch(frame, length_m, width_m) as patch:
        if patch is None:
            return
        inside = patch.rectangle(length_m, width_m)
        if rng.random() < 0.6:
            patch.shade(float(rng.uniform(0.82, 1.12)), inside & (np.mod(patch.v_m + 900, seam_m) < 0.25))
        if rng.random() < 0.7:
            parapet = inside & ~patch.rectangle(length_m - 0.8, width_m - 0.8)
            patch.paint(parapet, _shade(rng, 0.3, 0.85), height_m + float(rng.uniform(0.4, 1.2)))


# Blocks: each fills a rectangle about the frame's origin with one use.


def _yard(canvas: Canvas, rng: Rng, frame: Frame, length_m: float, width_m: float) -> None:
    if rng.random() < 0.75:
        pave(canvas, rng, frame, length_m, width_m, str(rng.choice(YARDS)), 0.0)


def block_chillers(canvas: Canvas, rng: Rng, frame: Frame, length_m: float, width_m: float, validation: bool) -> None:
    """A chiller yard: rows on the ground or on steel dunnage, sometimes half installed."""
    _yard(canvas, rng, frame, length_m, width_m)
    style = chiller_style(rng, validation)
    if rng.random() < 0.3:
        canvas.box(frame, length_m * 0.95, width_m * 0.95, _shade(rng, 0.15, 0.5), float(rng.uniform(0.5, 4)))
    fill = float(rng.choice([1.0, 1.0, 0.9, 0.6]))
    chiller_rows(canvas, rng, frame, length_m * 0.94, width_m * 0.94, style, fill=fill)


def block_chiller_roof(
    canvas: Canvas, rng: Rng, frame: Frame, length_m: float, width_m: float, validation: bool
) -> None:
    """A building with chillers on its roof, and small units beside them."""
    roof(canvas, rng, frame, length_m, width_m, str(rng.choice(ROOFS)), float(rng.uniform(5, 14)))
    share = float(rng.uniform(0.3, 0.8))
    style = chiller_style(rng, validation)
    at = frame.at(0, (share - 1) / 2 * width_m * 0.9)
    chiller_rows(canvas, rng, at, length_m * 0.85, width_m * share * 0.85, style, fill=float(rng.choice([1.0, 0.85])))
    painter = confusers.ROOF_CONFUSERS[rng.integers(len(confusers.ROOF_CONFUSERS))]
    painter(canvas, rng, frame.at(0, share / 2 * width_m * 0.9), length_m * 0.8, width_m * (1 - share) * 0.8)


def block_dry_coolers(
    canvas: Canvas, rng: Rng, frame: Frame, length_m: float, width_m: float, _validation: bool
) -> None:
    """Part of a dry-cooler array on stilts."""
    _yard(canvas, rng, frame, length_m, width_m)
    if rng.random() < 0.35:
        _dry_cooler_banks(canvas, rng, frame, length_m, width_m)
        return
    style = dry_cooler_style(rng)
    gap_m, street_m = float(rng.uniform(0.0, 0.6)), float(rng.choice([0.0, 0.0, rng.uniform(1, 4)]))
    columns = max(1, int(length_m * 0.95 / (style.length_m + gap_m)))
    rows = max(2, min(int(width_m * 0.95 / (style.width_m + gap_m + street_m / 2)), int(rng.integers(2, 13))))
    rows -= rows % 2 if street_m else 0
    cell_grid(
        canvas, rng, frame, "dry_cooler", style, columns, rows, gap_m, street_m, missing=float(rng.choice([0, 0, 0.3]))
    )


def _dry_cooler_banks(canvas: Canvas, rng: Rng, frame: Frame, length_m: float, width_m: float) -> None:
    """Banks of dry-cooler cells, with fans of every look, that touch in pairs.

    A single row of fan cells is a cooling tower's, and so are rows that stand apart: nothing else that is seen from
    above tells the two classes from each other.
    """
    look = bank_look(rng)
    side_m = float(rng.uniform(2.6, min(8.0, 0.35 * width_m)))
    look = replace(
        look,
        pitch_m=side_m,
        width_m=side_m * float(rng.uniform(0.9, 1.25)),
        radius_m=side_m / 2 * float(rng.uniform(0.66, 0.89)),
        aside_m=0.0,
        basin=0.0,
        height_m=float(rng.uniform(2.5, 11.0)),
    )
    gap_m = float(rng.choice([0.0, rng.uniform(0.1, 0.8)]))
    street_m = float(rng.choice([0.0, rng.uniform(1.0, 5.0)]))
    cells = max(2, int(length_m * 0.95 / look.pitch_m))
    pairs = max(1, min(int(width_m * 0.95 / (2 * (look.width_m + gap_m) + street_m)), int(rng.integers(1, 5))))
    for across_m in rows_m(2 * pairs, look.width_m + gap_m, street_m):
        tower_bank(canvas, rng, frame.at(0, float(across_m)), look, cells, "dry_cooler")


def block_roof_plant(
    canvas: Canvas, rng: Rng, frame: Frame, length_m: float, width_m: float, _validation: bool
) -> None:
    """A building with small tower banks on its roof, in wells, behind screens and among ducts."""
    length_m, width_m = length_m * float(rng.uniform(0.6, 1.0)), width_m * float(rng.uniform(0.6, 1.0))
    on_roof = rng.random() < 0.85
    if on_roof:
        roof(canvas, rng, frame, length_m, width_m, str(rng.choice(ROOFS)), float(rng.uniform(4, 22)))
        _penthouses(canvas, rng, frame, length_m, width_m)
    else:
        _yard(canvas, rng, frame, length_m, width_m)
    ducts(canvas, rng, frame, length_m * 0.9, width_m * 0.9, int(rng.integers(0, 12)))
    columns, rows = max(1, int(length_m / 22)), max(1, int(width_m / 17))
    used = rng.permutation(columns * rows)[: int(rng.integers(1, 4))]
    turn_deg = float(rng.choice([0, 180]))
    for place in used:
        cell_m, across_m = length_m * 0.92 / columns, width_m * 0.92 / rows
        at = frame.at(
            (place // rows - (columns - 1) / 2) * cell_m + float(rng.uniform(-2, 2)),
            (place % rows - (rows - 1) / 2) * across_m + float(rng.uniform(-1.5, 1.5)),
            turn_deg,
        )
        turned = across_m > 9 and rng.random() < 0.4
        size = (across_m, cell_m) if turned else (cell_m, across_m)
        enclosed_bank(canvas, rng, at.at(0, 0, 90.0 if turned else 0.0), size[0] * 0.9, size[1] * 0.8)


def block_packaged_roof(
    canvas: Canvas, rng: Rng, frame: Frame, length_m: float, width_m: float, _validation: bool
) -> None:
    """A roof with large packaged units standing apart, some with a fan array at one end, some without any fans."""
    roof(canvas, rng, frame, length_m, width_m, str(rng.choice(ROOFS)), float(rng.uniform(4, 16)))
    ducts(canvas, rng, frame, length_m * 0.9, width_m * 0.9, int(rng.integers(0, 14)))
    look = packaged_look(rng)
    turn_deg = float(rng.choice([0, 90]))
    pitch_u = look.length_m + float(rng.uniform(2.5, 16))
    pitch_v = look.width_m + float(rng.uniform(2.5, 16))
    reach_u, reach_v = (length_m, width_m) if turn_deg == 0 else (width_m, length_m)
    for u in np.arange(-reach_u * 0.46 + look.length_m / 2, reach_u * 0.46 - look.length_m / 2 + 0.01, pitch_u):
        for v in np.arange(-reach_v * 0.46 + look.width_m / 2, reach_v * 0.46 - look.width_m / 2 + 0.01, pitch_v):
            choice = rng.random()
            if choice < 0.6:
                unit = look if choice < 0.45 else packaged_look(rng)
                unit = replace(unit, length_m=min(unit.length_m, pitch_u - 1), width_m=min(unit.width_m, pitch_v - 0.8))
                if unit.length_m < unit.columns * unit.pitch_m or unit.width_m > unit.length_m:
                    continue
                at = frame.at(0, 0, turn_deg).at(u, v, 180.0 * int(rng.integers(2)))
                packaged_unit(canvas, rng, at, unit if rng.random() < 0.75 else replace(unit, columns=0))


def _penthouses(canvas: Canvas, rng: Rng, frame: Frame, length_m: float, width_m: float) -> None:
    """Parts of a roof that stand higher, whose shadows fall on the rest."""
    for _ in range(int(rng.integers(0, 4))):
        at = frame.at(float(rng.uniform(-0.45, 0.45) * length_m), float(rng.uniform(-0.45, 0.45) * width_m))
        size = (float(rng.uniform(4, 18)), float(rng.uniform(3, 14)))
        top_m = canvas.base_m(at) + float(rng.uniform(1.5, 9))
        pave(canvas, rng, at, min(size[0], length_m / 2), min(size[1], width_m / 2), str(rng.choice(ROOFS)), top_m)


def block_towers(canvas: Canvas, rng: Rng, frame: Frame, length_m: float, width_m: float, _validation: bool) -> None:
    """Cooling tower banks in a yard or in a roof well, some with a plume."""
    if rng.random() < 0.5:
        roof(canvas, rng, frame, length_m, width_m, str(rng.choice(ROOFS)), float(rng.uniform(4, 16)))
    else:
        _yard(canvas, rng, frame, length_m, width_m)
    style = cooling_tower_style(rng)
    wind_deg = float(rng.uniform(0, 360))
    v = -width_m / 2 + style.width_m
    while v < width_m / 2 - style.width_m:
        columns = min(int(rng.integers(1, 9)), max(1, int(length_m * 0.9 / style.length_m)))
        slack_m = max(0.0, length_m * 0.9 - columns * style.length_m) / 2
        at = frame.at(float(rng.uniform(-slack_m, slack_m)), v)
        if rng.random() < 0.4 and canvas.base_m(at) > 3:
            # A screened well around the bank.
            with canvas.patch(at, columns * style.length_m + 4, style.width_m + 4) as patch:
                if patch is not None:
                    screen = patch.rectangle(columns * style.length_m + 3, style.width_m + 3)
                    screen &= ~patch.rectangle(columns * style.length_m + 2.4, style.width_m + 2.4)
                    patch.paint(screen, _shade(rng, 0.3, 0.8), canvas.base_m(at) + style.height_m + 1)
        cell_grid(canvas, rng, at, "cooling_tower", style, columns, 1, gap_m=float(rng.choice([0, 0, 0.5])))
        if rng.random() < 0.12:
            plume(canvas, rng, Frame(at.x_m, at.y_m, wind_deg), style.width_m)
        v += style.width_m + float(rng.uniform(1.5, 14))


def block_turbines(canvas: Canvas, rng: Rng, frame: Frame, length_m: float, width_m: float, _validation: bool) -> None:
    """A row of turbine packages on gravel or concrete pads."""
    _yard(canvas, rng, frame, length_m, width_m)
    turbine_pads(canvas, rng, frame, length_m * 0.95, width_m * 0.95, turbine_style(rng))


def block_batteries(canvas: Canvas, rng: Rng, frame: Frame, length_m: float, width_m: float, _validation: bool) -> None:
    """A battery field."""
    _yard(canvas, rng, frame, length_m, width_m)
    style = battery_style(rng)
    if rng.random() < 0.4:
        # End to end: the joint is a dark line of a hand's breadth or two, or only the frames' edges.
        style = replace(style, ends=float(rng.uniform(0.35, 0.95)))
        battery_rows(canvas, rng, frame, length_m * 0.95, width_m * 0.95, style, end_m=float(rng.uniform(0.0, 0.3)))
        return
    battery_rows(canvas, rng, frame, length_m * 0.95, width_m * 0.95, style)


def block_lettering(canvas: Canvas, rng: Rng, frame: Frame, length_m: float, width_m: float, _validation: bool) -> None:
    """A roof with painted lettering, and units or skylights that may hide part of it."""
    name = str(rng.choice(ROOFS))
    roof(canvas, rng, frame, length_m, width_m, name, float(rng.uniform(5, 14)))
    if rng.random() < 0.5:
        painter = confusers.ROOF_CONFUSERS[rng.integers(len(confusers.ROOF_CONFUSERS))]
        painter(canvas, rng, frame.at(0, width_m * 0.35), length_m * 0.8, width_m * 0.2)
    text = random_text(rng)
    style = random_style(rng)
    letter_m = float(np.exp(rng.uniform(np.log(3), np.log(34))))
    probe = word_mask(text, 20, style)
    letter_m = min(letter_m, length_m * 0.92 * probe.shape[0] / probe.shape[1], width_m * 0.8)
    if letter_m < 2.5:
        return
    column, row = int(frame.x_m / canvas.cell_m), int(frame.y_m / canvas.cell_m)
    inside = 0 <= row < canvas.height_px and 0 <= column < canvas.width_px
    under = canvas.albedo[row, column] if inside else np.full(3, 0.5)
    colour = _shade(rng, 0.65, 0.95) if under.mean() < 0.45 else _shade(rng, 0.02, 0.2)
    if rng.random() < 0.3:
        vivid = np.array([[0.5, 0.05, 0.05], [0.05, 0.15, 0.5], [0.05, 0.3, 0.12], [0.7, 0.6, 0.1]])[rng.integers(4)]
        colour = vivid if abs(float(vivid.mean()) - float(under.mean())) > 0.2 else colour
    if rng.random() < 0.25:
        # Faded, or as bright as the roof and of another colour: names on real roofs are seldom black on white.
        faint = np.clip(under + rng.uniform(-0.16, 0.16, 3), 0.02, 0.97)
        colour = faint if np.abs(faint - under).max() > 0.08 else colour
    if rng.random() < 0.3:
        _logo(canvas, rng, frame, letter_m, colour)
    paint_text(
        canvas,
        rng,
        frame.at(0, 0, float(rng.choice([0, 180]))),
        text,
        letter_m,
        style,
        colour,
        wear=float(rng.choice([0, 0.1, 0.4])),
    )


def _logo(canvas: Canvas, rng: Rng, frame: Frame, letter_m: float, colour: npt.NDArray) -> None:
    """Painted arcs, rings, wedges and stripes beside a word: paint that is not lettering."""
    side = float(rng.choice([-1, 1]))
    at = frame.at(float(rng.uniform(-1, 1)) * letter_m, side * letter_m * float(rng.uniform(1.2, 2.0)))
    size_m = letter_m * float(rng.uniform(0.6, 1.6))
    kind = rng.integers(4)
    with canvas.patch(at, 3 * size_m, size_m) as patch:
        if patch is None:
            return
        r, phi = np.hypot(patch.u_m, patch.v_m), np.arctan2(patch.v_m, patch.u_m)
        if kind == 0:
            mask = np.abs(r - 0.35 * size_m) < 0.1 * size_m
        elif kind == 1:
            curve = 0.4 * size_m * np.sin(patch.u_m / size_m * rng.uniform(0.8, 2.0))
            mask = (np.abs(patch.v_m - curve) < 0.08 * size_m) & (np.abs(patch.u_m) < 1.4 * size_m)
        elif kind == 2:
            mask = (r < 0.45 * size_m) & (np.abs(phi) < rng.uniform(0.4, 1.5))
        else:
            mask = patch.rectangle(2 * size_m, 0.8 * size_m) & (
                np.mod(patch.v_m + 50 * size_m, 0.3 * size_m) < 0.1 * size_m
            )
        patch.blend((float(rng.uniform(0.5, 1.0)) * mask).astype(np.float32), colour)


def block_roof(canvas: Canvas, rng: Rng, frame: Frame, length_m: float, width_m: float, _validation: bool) -> None:
    """A building with nothing of interest on its roof."""
    roof(canvas, rng, frame, length_m, width_m, str(rng.choice(ROOFS)), float(rng.uniform(3, 14)))
    for _ in range(int(rng.integers(0, 3))):
        painter = confusers.ROOF_CONFUSERS[rng.integers(len(confusers.ROOF_CONFUSERS))]
        at = frame.at(float(rng.uniform(-0.2, 0.2) * length_m), float(rng.uniform(-0.2, 0.2) * width_m))
        painter(canvas, rng, at, length_m * 0.5, width_m * 0.5)


def block_confuser(canvas: Canvas, rng: Rng, frame: Frame, length_m: float, width_m: float, _validation: bool) -> None:
    """A yard of something that is not counted."""
    _yard(canvas, rng, frame, length_m, width_m)
    painter = confusers.GROUND_CONFUSERS[rng.integers(len(confusers.GROUND_CONFUSERS))]
    painter(canvas, rng, frame, length_m * 0.95, width_m * 0.95)


def block_empty(canvas: Canvas, rng: Rng, frame: Frame, length_m: float, width_m: float, _validation: bool) -> None:
    """Bare ground, perhaps with trees."""
    if rng.random() < 0.6:
        pave(canvas, rng, frame, length_m, width_m, str(rng.choice(GROUNDS)), 0.0)
    if rng.random() < 0.4:
        confusers.trees(canvas, rng, frame, length_m, width_m)


Block = Callable[[Canvas, Rng, Frame, float, float, bool], None]
BLOCKS: Sequence[tuple[Block, float]] = (
    (block_chillers, 0.17),
    (block_chiller_roof, 0.09),
    (block_dry_coolers, 0.08),
    (block_towers, 0.07),
    (block_roof_plant, 0.15),
    (block_packaged_roof, 0.05),
    (block_turbines, 0.11),
    (block_batteries, 0.09),
    (block_lettering, 0.10),
    (block_roof, 0.06),
    (block_confuser, 0.16),
    (block_empty, 0.05),
)


def plot(canvas: Canvas, rng: Rng, validation: bool, sparse: bool = False) -> None:
    """Split the canvas into blocks along one grid direction and fill each.

    `sparse` leaves most of the ground as it is, for composition onto real backgrounds.
    """
    width_m, height_m = canvas.extent_m
    heading_deg = float(rng.uniform(0, 180))
    frame = Frame(width_m / 2, height_m / 2, heading_deg)
    reach_m = 0.72 * max(width_m, height_m)
    share = np.cumsum([weight for _, weight in BLOCKS])
    share /= share[-1]
    if not sparse:
        confusers.litter(canvas, rng)
    u = -reach_m
    while u < reach_m:
        length_m = float(rng.uniform(28, 80))
        v = -reach_m
        while v < reach_m:
            width = float(rng.uniform(22, 85))
            at = frame.at(u + length_m / 2, v + width / 2)
            near = -30 < at.x_m < width_m + 30 and -30 < at.y_m < height_m + 30
            if near and not (sparse and rng.random() < 0.6):
                block = BLOCKS[int(np.argmax(rng.random() < share))][0]
                turned = rng.random() < 0.5
                size = (width, length_m) if turned else (length_m, width)
                block(canvas, rng, at.at(0, 0, 90.0 if turned else 0.0), size[0], size[1], validation)
            v += width + float(rng.uniform(1, 9))
        u += length_m + float(rng.uniform(2, 14))


def named_roof(canvas: Canvas, rng: Rng, validation: bool) -> None:
    """One roof with a painted name amid what the canvas shows, and something that is not counted on two sides of it."""
    width_m, height_m = canvas.extent_m
    middle = Frame(width_m / 2, height_m / 2, float(rng.uniform(0, 180)))
    length_m, roof_width_m = float(rng.uniform(45, 110)), float(rng.uniform(25, 70))
    for side in (-1, 1):
        beside = middle.at(0, side * (roof_width_m / 2 + 22))
        block_confuser(canvas, rng, beside, length_m, 30.0, validation)
    block_lettering(canvas, rng, middle, length_m, roof_width_m, validation)


def scatter(canvas: Canvas, rng: Rng, validation: bool) -> None:
    """Put small groups of units straight onto what the canvas shows, a real photograph: no roof or yard of their own.

    Most real cooling units stand on roofs that no renderer draws; here only the unit, its shadow and some ducts are
    rendered. Groups keep to the cells of a loose grid, so that none stands on another.
    """
    width_m, height_m = canvas.extent_m
    # Photographs show more streets and roofs along their edges than across, and units follow the roofs.
    heading_deg = float(rng.normal(0, 2) if rng.random() < 0.5 else rng.uniform(0, 180))
    middle = Frame(width_m / 2, height_m / 2, heading_deg)
    cell_m = float(rng.uniform(17, 30))
    reach = int(0.72 * max(width_m, height_m) / cell_m)
    wanted = float(rng.uniform(0.08, 0.5))
    for row in range(-reach, reach + 1):
        for column in range(-reach, reach + 1):
            at = middle.at(
                (row + float(rng.uniform(-0.1, 0.1))) * cell_m,
                (column + float(rng.uniform(-0.1, 0.1))) * cell_m,
                float(rng.choice([0, 90, 180, 270])) + (float(rng.uniform(0, 90)) if rng.random() < 0.15 else 0.0),
            )
            near = -10 < at.x_m < width_m + 10 and -10 < at.y_m < height_m + 10
            if near and rng.random() < wanted:
                _group(canvas, rng, at, 0.8 * cell_m, validation)


def _group(canvas: Canvas, rng: Rng, frame: Frame, side_m: float, validation: bool) -> None:
    """One group of units of the same kind within `side_m` squared, or something that is not counted."""
    # What stands on a roof is as high above the ground as the roof; here the photograph is flat, so only the unit is.
    if rng.random() < 0.5:
        ducts(canvas, rng, frame, side_m, side_m, int(rng.integers(1, 6)))
    kind = rng.choice(5, p=[0.38, 0.17, 0.17, 0.05, 0.23])
    if kind == 0:
        enclosed_bank(canvas, rng, frame, side_m * 0.95, side_m * 0.8)
    elif kind == 1:
        look = packaged_look(rng)
        pitch_m = look.width_m + float(rng.uniform(1.0, 6.0))
        number = min(int(rng.integers(1, 4)), int(side_m / pitch_m))
        if look.length_m < side_m:
            for place in range(number):
                at = frame.at(0, (place - (number - 1) / 2) * pitch_m, 180.0 * int(rng.integers(2)))
                packaged_unit(canvas, rng, at, look if rng.random() < 0.85 else replace(look, columns=0))
    elif kind == 2:
        chiller_rows(canvas, rng, frame, side_m, side_m, chiller_style(rng, validation), count=int(rng.integers(1, 6)))
    elif kind == 3:
        _dry_cooler_banks(canvas, rng, frame, side_m, side_m * 0.6)
    else:
        painters = (*confusers.ROOF_CONFUSERS, *confusers.SCATTERED_CONFUSERS)
        painters[rng.integers(len(painters))](canvas, rng, frame, side_m * 0.9, side_m * float(rng.uniform(0.3, 0.9)))
