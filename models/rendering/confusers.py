"""What stands beside the equipment and looks a little like it. None of it is counted.

Each painter fills a rectangle of `length_m` x `width_m` about a frame with one kind of thing.
Small rooftop units with real fans are kin of chillers: they are marked ignored, scored neither way.
"""

from collections.abc import Callable

import numpy as np

from models.rendering.canvas import Canvas, Frame, Truth
from models.rendering.materials import Rng, noise, pave
from models.rendering.rooftop_equipment import packaged_look, packaged_unit, vent

Painter = Callable[[Canvas, Rng, Frame, float, float], None]


def _bright(rng: Rng, low: float, high: float, tint: float = 0.03) -> np.ndarray:
    return np.clip(rng.uniform(low, high) + rng.normal(0, tint, 3), 0.02, 0.97)


def _vivid(rng: Rng) -> np.ndarray:
    """Container and car colours: red, blue, green, orange, white, grey, black."""
    palette = np.array(
        [
            [0.55, 0.12, 0.10],
            [0.10, 0.22, 0.45],
            [0.12, 0.32, 0.20],
            [0.65, 0.33, 0.10],
            [0.8, 0.8, 0.8],
            [0.45, 0.45, 0.45],
            [0.06, 0.06, 0.07],
            [0.5, 0.42, 0.3],
            [0.85, 0.85, 0.83],
        ]
    )
    return np.clip(palette[rng.integers(len(palette))] * rng.uniform(0.7, 1.25) + rng.normal(0, 0.02, 3), 0.02, 0.95)


def _grid(
    canvas: Canvas,
    rng: Rng,
    frame: Frame,
    length_m: float,
    width_m: float,
    size: tuple[float, float, float],
    gap: tuple[float, float],
    colour: Callable[[], np.ndarray],
    fill: float = 0.8,
    jitter_m: float = 0.2,
    turn_deg: float = 1.0,
) -> None:
    """Boxes of (length, width, height) on a loose grid."""
    unit_m, across_m, height_m = size
    for u in np.arange(-length_m / 2 + unit_m / 2, length_m / 2 - unit_m / 2 + 0.01, unit_m + gap[0]):
        for v in np.arange(-width_m / 2 + across_m / 2, width_m / 2 - across_m / 2 + 0.01, across_m + gap[1]):
            if rng.random() < fill:
                at = frame.at(
                    u + rng.normal(0, jitter_m), v + rng.normal(0, jitter_m / 2), float(rng.normal(0, turn_deg))
                )
                canvas.box(at, unit_m, across_m, colour(), height_m)


def containers(canvas: Canvas, rng: Rng, frame: Frame, length_m: float, width_m: float) -> None:
    """Shipping containers, 20 or 40 ft, tight or loose, corrugated roofs too fine to see."""
    unit_m = float(rng.choice([6.06, 12.19]))
    mono = _vivid(rng) if rng.random() < 0.35 else None
    _grid(
        canvas,
        rng,
        frame,
        length_m,
        width_m,
        (unit_m, 2.44, 2.6 * int(rng.integers(1, 3))),
        (rng.uniform(0.2, 3), rng.uniform(0.1, 3)),
        lambda: _vivid(rng) if mono is None else mono * rng.uniform(0.93, 1.07),
        rng.uniform(0.4, 0.95),
    )


def trailers(canvas: Canvas, rng: Rng, frame: Frame, length_m: float, width_m: float) -> None:
    """Semi-trailers parked side by side, some with a tractor."""
    count = int(width_m / rng.uniform(3.4, 4.4))
    pitch_m = width_m / max(count, 1)
    for row in np.arange(-length_m / 2 + 9, length_m / 2 - 8.9, 30.0):
        for i in range(count):
            if rng.random() < 0.7:
                at = frame.at(row, -width_m / 2 + (i + 0.5) * pitch_m, float(rng.normal(0, 1)))
                canvas.box(at, 15.5, 2.6, _bright(rng, 0.6, 0.9), 4.0)
                if rng.random() < 0.3:
                    canvas.box(at.at(10.5, 0), 4.5, 2.5, _vivid(rng), 3.2)


def cars(canvas: Canvas, rng: Rng, frame: Frame, length_m: float, width_m: float) -> None:
    """A car park: painted bays, cars in most."""
    pave(canvas, rng, frame, length_m, width_m, "asphalt", canvas.base_m(frame))
    occupied = rng.uniform(0.2, 0.95)
    for v in np.arange(-width_m / 2 + 3, width_m / 2 - 2.9, rng.uniform(7.5, 9.0)):
        with canvas.patch(frame.at(0, v), length_m, 5.2) as patch:
            if patch is not None:
                lines = patch.rectangle(length_m, 5.0) & (np.mod(patch.u_m + 500, 2.7) < 0.14)
                patch.paint(lines, np.full(3, 0.6))
        for u in np.arange(-length_m / 2 + 1.35, length_m / 2 - 1.3, 2.7):
            if rng.random() < occupied:
                at = frame.at(u, v + rng.normal(0, 0.2), 90 + float(rng.normal(0, 1.5)))
                colour = _vivid(rng)
                canvas.box(at, rng.uniform(4.2, 5.4), 1.85, colour, 1.2)
                canvas.box(at.at(-0.2, 0), 2.2, 1.6, colour * rng.uniform(0.5, 1.0), 0.3)


def rooftop_units(canvas: Canvas, rng: Rng, frame: Frame, length_m: float, width_m: float) -> None:
    """Small packaged units scattered on a roof; those that show fans are ignored, the rest are background."""
    for _ in range(int(rng.integers(2, 12))):
        at = frame.at(
            float(rng.uniform(-0.45, 0.45) * length_m),
            float(rng.uniform(-0.45, 0.45) * width_m),
            float(rng.choice([0, 90])),
        )
        unit_m, across_m = float(rng.uniform(1.5, 5.0)), float(rng.uniform(1.2, 2.6))
        unit_m = max(unit_m, across_m)
        top_m = canvas.base_m(at) + 1.5
        canvas.box(at, unit_m, across_m, _bright(rng, 0.35, 0.85), 1.5)
        if rng.random() < 0.6:
            radius_m = across_m * rng.uniform(0.22, 0.36)
            with canvas.patch(at, unit_m, across_m) as patch:
                if patch is not None:
                    for i in range(int(rng.integers(1, 3))):
                        u_m = unit_m / 2 - (i + 0.5) * 2.3 * radius_m
                        patch.paint(patch.disc(radius_m, u_m), np.full(3, rng.uniform(0.08, 0.3)))
            canvas.truth.append(Truth("air_cooled_chiller", at, unit_m, across_m, top_m, ignored=True))


def skylights(canvas: Canvas, rng: Rng, frame: Frame, length_m: float, width_m: float) -> None:
    """Skylights or smoke vents on a regular grid, flush with the roof."""
    colour = _bright(rng, 0.5, 0.97, 0.05)
    _grid(
        canvas,
        rng,
        frame,
        length_m,
        width_m,
        (rng.uniform(1.2, 3.0), 1.2, 0.2),
        (rng.uniform(5, 14), rng.uniform(5, 14)),
        lambda: colour,
        0.95,
        0.05,
    )


def roof_monitors(canvas: Canvas, rng: Rng, frame: Frame, length_m: float, width_m: float) -> None:
    """Saw-tooth monitors and louvred boxes: long bodies with stripes across, like a chiller without fans."""
    for v in np.arange(-width_m / 2 + 3, width_m / 2 - 2.9, rng.uniform(6, 12)):
        at = frame.at(float(rng.uniform(-0.3, 0.3) * length_m), v)
        unit_m, across_m = float(rng.uniform(4, 14)), float(rng.uniform(1.8, 3.5))
        top_m = canvas.base_m(at) + 1.8
        with canvas.patch(at, unit_m, across_m) as patch:
            if patch is not None:
                body = patch.rectangle(unit_m, across_m)
                patch.paint(body, _bright(rng, 0.4, 0.85), top_m)
                patch.shade(float(rng.uniform(0.3, 0.8)), body & (np.mod(patch.u_m + 100, rng.uniform(0.6, 2.4)) < 0.4))


def solar(canvas: Canvas, rng: Rng, frame: Frame, length_m: float, width_m: float) -> None:
    """Rows of photovoltaic panels."""
    panel = np.array([0.05, 0.07, 0.14]) * rng.uniform(0.7, 1.8)
    depth_m = float(rng.uniform(1.7, 4.2))
    for v in np.arange(-width_m / 2 + depth_m, width_m / 2 - depth_m, depth_m + rng.uniform(0.8, 4)):
        canvas.box(frame.at(0, v), length_m * 0.95, depth_m, panel, 1.0)


def generators(canvas: Canvas, rng: Rng, frame: Frame, length_m: float, width_m: float) -> None:
    """Diesel generator enclosures: kin of turbines in outline, with a radiator at one end and a thin exhaust."""
    unit_m, across_m = float(rng.uniform(6, 13)), float(rng.uniform(2.4, 3.4))
    colour = _bright(rng, 0.35, 0.85)
    for v in np.arange(-width_m / 2 + across_m, width_m / 2 - across_m / 2, across_m + rng.uniform(2, 5)):
        for u in np.arange(-length_m / 2 + unit_m / 2, length_m / 2 - unit_m / 2 + 0.01, unit_m + 6):
            at = frame.at(u, v)
            canvas.box(at, unit_m, across_m, colour * rng.uniform(0.95, 1.05), 3.2)
            canvas.box(at.at(unit_m * 0.36, 0), unit_m * 0.2, across_m * 0.85, np.full(3, rng.uniform(0.1, 0.3)), 0.1)
            canvas.box(at.at(-unit_m * 0.3, across_m * 0.2), 0.6, 0.6, np.full(3, 0.25), 1.5)


def generator_sets(canvas: Canvas, rng: Rng, frame: Frame, length_m: float, width_m: float) -> None:
    """Diesel generators in rows, with radiators of every look at one end: what a packaged unit's fan array is at 0.5 m.

    A radiator is a dark opening, a louvre, a grating or a hood, as wide as the enclosure or less, never round fans.
    """
    unit_m, across_m = float(rng.uniform(4.5, 14)), float(rng.uniform(1.8, 3.6))
    high_m = float(rng.uniform(2.2, 4.5))
    colour = _vivid(rng) if rng.random() < 0.15 else _bright(rng, 0.2, 0.95)
    radiator_m = unit_m * float(rng.uniform(0.08, 0.35))
    wide_m = across_m * float(rng.uniform(0.55, 0.98))
    level = float(rng.uniform(0.02, 0.35))
    slat_m, along = float(rng.uniform(0.3, 1.2)), rng.random() < 0.5
    louvred, grated = rng.random() < 0.45, rng.random() < 0.25
    tank_m = float(rng.uniform(0.0, 0.8)) if rng.random() < 0.4 else 0.0
    gap_u, gap_v = float(rng.uniform(0.8, 8)), float(rng.uniform(0.8, 6))
    flip = rng.random() < 0.5
    for row, v in enumerate(
        np.arange(-width_m / 2 + across_m / 2, width_m / 2 - across_m / 2 + 0.01, across_m + gap_v)
    ):
        for u in np.arange(-length_m / 2 + unit_m / 2, length_m / 2 - unit_m / 2 + 0.01, unit_m + gap_u):
            if rng.random() < 0.1:
                continue
            at = frame.at(u, v, 180.0 * (flip and row % 2))
            if tank_m:
                canvas.box(at, unit_m + tank_m, across_m + tank_m, _bright(rng, 0.1, 0.5), 0.8)
            top_m = canvas.base_m(at) + high_m
            with canvas.patch(at, unit_m, across_m) as patch:
                if patch is None:
                    continue
                patch.paint(patch.rectangle(unit_m, across_m), colour * rng.uniform(0.95, 1.05), top_m)
                end = patch.rectangle(radiator_m, wide_m, unit_m / 2 - radiator_m / 2 - 0.1)
                patch.paint(end, np.full(3, level), top_m - float(rng.uniform(0.0, 0.8)))
                across = np.mod((patch.u_m if along else patch.v_m) + 100, slat_m) < 0.5 * slat_m
                if grated:
                    across |= np.mod((patch.v_m if along else patch.u_m) + 100, slat_m) < 0.4 * slat_m
                if louvred or grated:
                    patch.paint(end & across, colour * 0.7)
            pipe_m = float(rng.uniform(0.2, 0.5))
            stack = at.at(unit_m * float(rng.uniform(-0.4, 0.2)), across_m * float(rng.uniform(-0.3, 0.3)))
            if rng.random() < 0.8:
                canvas.box(stack, 2 * pipe_m, 2 * pipe_m, _bright(rng, 0.08, 0.5), float(rng.uniform(0.5, 3.0)))
            if rng.random() < 0.4:
                canvas.box(stack, float(rng.uniform(1.0, 3.0)), 3 * pipe_m, _bright(rng, 0.15, 0.6), 0.7)


def tanks(canvas: Canvas, rng: Rng, frame: Frame, length_m: float, width_m: float) -> None:
    """Round tanks, from water tanks to oil storage, with a rim and sometimes a floating roof."""
    radius_m = float(rng.uniform(1.5, min(14.0, width_m / 2)))
    for u in np.arange(-length_m / 2 + radius_m, length_m / 2 - radius_m + 0.01, 2 * radius_m + rng.uniform(1, 8)):
        at = frame.at(u, 0)
        top_m = canvas.base_m(at) + float(rng.uniform(3, 12))
        with canvas.patch(at, 2 * radius_m + 1, 2 * radius_m + 1) as patch:
            if patch is not None:
                patch.paint(patch.disc(radius_m), _bright(rng, 0.5, 0.9), top_m)
                if rng.random() < 0.5:
                    inner = patch.disc(radius_m * 0.93)
                    patch.paint(inner, _bright(rng, 0.25, 0.8), top_m - rng.uniform(0, 3))


def switchyard(canvas: Canvas, rng: Rng, frame: Frame, length_m: float, width_m: float) -> None:
    """Transformers with radiators between thin steel frames on gravel."""
    pave(canvas, rng, frame, length_m, width_m, "gravel", canvas.base_m(frame))
    for v in np.arange(-width_m / 2 + 3, width_m / 2 - 3, rng.uniform(6, 11)):
        with canvas.patch(frame.at(0, v), length_m, 1.2) as patch:
            if patch is not None:
                beam = patch.rectangle(length_m * 0.95, 0.3)
                posts = patch.rectangle(length_m * 0.95, 1.1) & (np.mod(patch.u_m + 500, 4.0) < 0.5)
                patch.paint(beam | posts, _bright(rng, 0.4, 0.7), 6.0)
    for u in np.arange(-length_m / 2 + 6, length_m / 2 - 5, rng.uniform(12, 20)):
        at = frame.at(u, float(rng.uniform(-0.3, 0.3) * width_m))
        canvas.box(at, rng.uniform(4, 8), rng.uniform(2.5, 4), _bright(rng, 0.3, 0.6), 4.0)
        for side in (-1, 1):
            for k in range(4):
                canvas.box(at.at((k - 1.5) * 1.1, side * 2.6), 0.6, 1.8, _bright(rng, 0.3, 0.6), 3.0)
        for k in range(3):
            canvas.box(at.at((k - 1) * 1.4, 0.6), 0.5, 0.5, np.array([0.3, 0.15, 0.1]), 1.5)


def court(canvas: Canvas, rng: Rng, frame: Frame, length_m: float, width_m: float) -> None:
    """A tennis court or painted sports ground with white lines."""
    base_m = canvas.base_m(frame)
    with canvas.patch(frame, min(36, length_m), min(18, width_m)) as patch:
        if patch is not None:
            patch.paint(patch.rectangle(36, 18), np.array([0.12, 0.28, 0.18]) * rng.uniform(0.6, 1.6), base_m)
            for long_m, wide_m in ((23.8, 11.0), (23.8, 8.2), (12.8, 8.2), (23.8, 0.12)):
                line = patch.rectangle(long_m, wide_m) & ~patch.rectangle(long_m - 0.3, wide_m - 0.3)
                patch.paint(line, np.full(3, 0.75))


def trees(canvas: Canvas, rng: Rng, frame: Frame, length_m: float, width_m: float) -> None:
    """Trees and shrubs: lobed crowns with height and uneven green."""
    crown = np.array([0.07, 0.12, 0.05]) * rng.uniform(0.6, 1.9) + np.array([rng.uniform(0, 0.10), 0, 0])
    for _ in range(int(rng.integers(3, int(4 + length_m * width_m / 60)))):
        at = frame.at(float(rng.uniform(-0.5, 0.5) * length_m), float(rng.uniform(-0.5, 0.5) * width_m))
        radius_m = float(rng.uniform(1.2, 5.0))
        base_m = canvas.base_m(at)
        with canvas.patch(at, 2.6 * radius_m, 2.6 * radius_m) as patch:
            if patch is not None:
                shape = (patch.u_m.shape[0], patch.u_m.shape[1])
                lobes = 1 + 0.25 * noise(rng, shape, radius_m / 2 / canvas.cell_m)
                r = np.hypot(patch.u_m, patch.v_m) * lobes
                mask = r < radius_m
                dome = base_m + np.sqrt(np.clip(radius_m**2 - r**2, 0, None)) * 1.3
                value = np.clip(1 + 0.35 * noise(rng, shape, 0.8 / canvas.cell_m), 0.3, 2)[..., None]
                patch.paint(mask, value * crown, np.maximum(dome, patch.height_m).astype(np.float32))


def pallets(canvas: Canvas, rng: Rng, frame: Frame, length_m: float, width_m: float) -> None:
    """Construction mess: pallets, crates, pipe stacks, spoil heaps, machines."""
    for _ in range(int(rng.integers(5, 40))):
        at = frame.at(
            float(rng.uniform(-0.5, 0.5) * length_m),
            float(rng.uniform(-0.5, 0.5) * width_m),
            float(rng.uniform(0, 180)),
        )
        canvas.box(at, rng.uniform(0.8, 4.5), rng.uniform(0.6, 2.2), _vivid(rng), rng.uniform(0.3, 2))
    for _ in range(int(rng.integers(0, 4))):
        at = frame.at(
            float(rng.uniform(-0.4, 0.4) * length_m), float(rng.uniform(-0.4, 0.4) * width_m), rng.uniform(0, 180)
        )
        with canvas.patch(at, 12, 4) as patch:
            if patch is not None:
                stack = patch.rectangle(rng.uniform(5, 12), rng.uniform(1, 3.5))
                base_m = canvas.base_m(at)
                colour = _bright(rng, 0.3, 0.7, 0.06)
                patch.paint(stack, colour, base_m + 1)
                patch.shade(0.6, stack & (np.mod(patch.v_m + 50, rng.uniform(0.35, 0.9)) < 0.15))


def wagons(canvas: Canvas, rng: Rng, frame: Frame, length_m: float, width_m: float) -> None:
    """A railway siding with wagons."""
    for v in np.arange(-width_m / 2 + 3, width_m / 2 - 2.9, 5.0):
        with canvas.patch(frame.at(0, v), length_m, 3.5) as patch:
            if patch is not None:
                patch.paint(patch.rectangle(length_m, 3.0), np.full(3, 0.3))
                patch.paint((np.abs(np.abs(patch.v_m) - 0.72) < 0.1) & patch.rectangle(length_m, 3), np.full(3, 0.5))
        if rng.random() < 0.7:
            colour = _vivid(rng)
            for u in np.arange(-length_m / 2 + 8, length_m / 2 - 7, 16.5):
                if rng.random() < 0.85:
                    canvas.box(frame.at(u, v), 15, 2.9, colour * rng.uniform(0.8, 1.2), 4.0)


def greenhouse(canvas: Canvas, rng: Rng, frame: Frame, length_m: float, width_m: float) -> None:
    """A roof of many narrow bays: regular stripes."""
    bay_m = float(rng.uniform(1.5, 8.0))
    base_m = canvas.base_m(frame)
    with canvas.patch(frame, length_m, width_m) as patch:
        if patch is not None:
            roof = patch.rectangle(length_m * 0.9, width_m * 0.85)
            slope = np.abs(np.mod(patch.v_m + 500, bay_m) / bay_m - 0.5) * 2
            patch.paint(roof, (0.35 + 0.4 * slope)[..., None] * _bright(rng, 0.7, 1.0), base_m + 4.0)


def markings(canvas: Canvas, rng: Rng, frame: Frame, length_m: float, width_m: float) -> None:
    """A road or runway with lane lines, dashes, arrows, bars and piano keys: paint that is not lettering on a roof."""
    base_m = canvas.base_m(frame)
    with canvas.patch(frame, length_m, width_m) as patch:
        if patch is None:
            return
        lane_m = float(rng.uniform(3.2, 12))
        paint = np.full(3, rng.uniform(0.5, 0.85)) * np.array([1, 1, rng.choice([1.0, 0.45])])
        inside = patch.rectangle(length_m, width_m)
        across = np.mod(patch.v_m + 500, lane_m)
        dash = np.mod(patch.u_m + 500, rng.uniform(6, 18)) < rng.uniform(2, 6)
        patch.paint(inside & (across < 0.25) & (dash if rng.random() < 0.7 else True), paint, base_m)
        if rng.random() < 0.5:
            keys = patch.rectangle(rng.uniform(8, 30), width_m * 0.8, u_m=float(rng.uniform(-0.3, 0.3) * length_m))
            patch.paint(keys & (np.mod(patch.v_m + 500, 2.4) < 1.2), paint, base_m)


def piano_keys(canvas: Canvas, rng: Rng, frame: Frame, length_m: float, width_m: float) -> None:
    """The bars of a runway's threshold or a wide crossing: stripes side by side, as battery rows are, but flat."""
    base_m = canvas.base_m(frame)
    pave(canvas, rng, frame, length_m, width_m, "asphalt" if rng.random() < 0.6 else "concrete", base_m)
    bar_m = float(rng.uniform(0.9, 2.6))
    pitch_m = bar_m * float(rng.uniform(1.5, 2.4))
    long_m = min(float(rng.uniform(7, 46)), length_m * 0.95)
    at = frame.at(float(rng.uniform(-0.5, 0.5) * (length_m - long_m)), float(rng.uniform(-2, 2)))
    with canvas.patch(at, length_m, width_m) as patch:
        if patch is None:
            return
        across = np.mod(patch.v_m + 50 * pitch_m, pitch_m)
        zone = patch.rectangle(long_m + 1, width_m * 0.9) & (np.abs(patch.v_m) > rng.uniform(0, 0.1) * width_m)
        if rng.random() < 0.5:
            # Fresh paint is set off by a black border.
            patch.paint(zone, np.full(3, rng.uniform(0.02, 0.12)), base_m)
        bars = zone & patch.rectangle(long_m, width_m * 0.9) & (across < bar_m)
        shape = (bars.shape[0], bars.shape[1])
        wear = np.clip(1 - rng.uniform(0, 0.5) * np.abs(noise(rng, shape, 1.0 / canvas.cell_m)), 0, 1)
        patch.blend((wear * bars).astype(np.float32), _bright(rng, 0.5, 0.95))
        if rng.random() < 0.5:
            patch.paint(patch.rectangle(1.2, width_m, u_m=long_m / 2 + 2.5), _bright(rng, 0.5, 0.95), base_m)


def emblems(canvas: Canvas, rng: Rng, frame: Frame, length_m: float, width_m: float) -> None:
    """Round paint on a roof or on ground: helipads, emblems, targets. Flat, and as round as a fan."""
    for _ in range(int(rng.integers(1, 4))):
        at = frame.at(
            float(rng.uniform(-0.4, 0.4) * length_m),
            float(rng.uniform(-0.4, 0.4) * width_m),
            float(rng.uniform(0, 360)),
        )
        radius_m = float(np.exp(rng.uniform(np.log(1.2), np.log(9.0))))
        line_m = radius_m * float(rng.uniform(0.06, 0.22))
        colour = _vivid(rng) if rng.random() < 0.5 else np.full(3, rng.choice([0.05, 0.3, 0.6, 0.9]))
        base_m = canvas.base_m(at)
        with canvas.patch(at, 2.2 * radius_m, 2.2 * radius_m) as patch:
            if patch is None:
                continue
            r, phi = np.hypot(patch.u_m, patch.v_m), np.arctan2(patch.v_m, patch.u_m)
            if rng.random() < 0.4:
                patch.blend(
                    (r < radius_m).astype(np.float32) * np.float32(rng.uniform(0.4, 1.0)), _bright(rng, 0.05, 0.9)
                )
            ink = np.abs(r - 0.9 * radius_m) < line_m if rng.random() < 0.75 else np.zeros(r.shape, bool)
            kind = rng.integers(5)
            if kind == 0:
                sides = np.abs(np.abs(patch.v_m) - 0.35 * radius_m) < line_m
                ink |= (sides & (np.abs(patch.u_m) < 0.5 * radius_m)) | patch.rectangle(2 * line_m, 0.7 * radius_m)
            elif kind == 1:
                swing = phi + rng.uniform(1.5, 4.0) * r / radius_m
                ink |= (np.abs(np.sin(swing)) < 0.35) & (r < 0.65 * radius_m)
            elif kind == 2:
                ink |= patch.rectangle(1.1 * radius_m, 2 * line_m) | patch.rectangle(2 * line_m, 1.1 * radius_m)
            elif kind == 3:
                ink |= np.abs(r - 0.45 * radius_m) < line_m
            else:
                ink |= (np.cos(int(rng.integers(3, 7)) * phi) > rng.uniform(0, 0.8)) & (r < 0.6 * radius_m)
            on_top = np.abs(patch.height_m - base_m) < 0.3
            patch.blend((float(rng.uniform(0.4, 1.0)) * (ink & on_top)).astype(np.float32), colour)


def street(canvas: Canvas, rng: Rng, frame: Frame, length_m: float, width_m: float) -> None:
    """Vans, lorries and buses along kerbs: light boxes with a dark windscreen, one at a time."""
    for v in np.arange(-width_m / 2 + 2, width_m / 2 - 1.9, float(rng.uniform(4, 12))):
        u = -length_m / 2
        while u < length_m / 2:
            long_m, wide_m = float(rng.uniform(4.5, 13)), float(rng.uniform(1.9, 2.7))
            colour = _bright(rng, 0.55, 0.95) if rng.random() < 0.6 else _vivid(rng)
            at = frame.at(u + long_m / 2, v + float(rng.normal(0, 0.2)), 180.0 * int(rng.integers(2)))
            canvas.box(at, long_m, wide_m, colour, float(rng.uniform(1.6, 3.6)))
            canvas.box(at.at(long_m * float(rng.uniform(0.3, 0.45)), 0), 0.7, wide_m * 0.85, np.full(3, 0.06), 0.02)
            if rng.random() < 0.4:
                canvas.box(at.at(-long_m * 0.1, 0), long_m * 0.55, wide_m * 0.92, colour * rng.uniform(0.5, 1.0), 0.02)
            u += long_m + float(rng.exponential(9)) + 1.0


def chimneys(canvas: Canvas, rng: Rng, frame: Frame, length_m: float, width_m: float) -> None:
    """Square or round shafts with a light rim around a black hole, alone."""
    for _ in range(int(rng.integers(1, 4))):
        at = frame.at(float(rng.uniform(-0.4, 0.4) * length_m), float(rng.uniform(-0.4, 0.4) * width_m))
        side_m, high_m = float(rng.uniform(1.0, 5.0)), float(rng.uniform(0.5, 6.0))
        hole = float(rng.uniform(0.3, 0.75))
        if rng.random() < 0.7:
            canvas.box(at, side_m * float(rng.uniform(1.0, 1.6)), side_m, _bright(rng, 0.3, 0.95), high_m)
            canvas.box(at, side_m * hole, side_m * hole, np.full(3, rng.uniform(0.02, 0.12)), 0.0)
        else:
            vent(canvas, rng, at, side_m / 2)


def pool(canvas: Canvas, rng: Rng, frame: Frame, length_m: float, width_m: float) -> None:
    """A pond or basin with a concrete rim."""
    base_m = canvas.base_m(frame)
    with canvas.patch(frame, length_m, width_m) as patch:
        if patch is not None:
            patch.paint(patch.rectangle(length_m * 0.7, width_m * 0.6), np.full(3, 0.6), base_m)
            water = np.array([0.10, 0.45, 0.5]) if rng.random() < 0.4 else np.array([0.06, 0.10, 0.09])
            patch.paint(patch.rectangle(length_m * 0.7 - 1.5, width_m * 0.6 - 1.5), water, base_m - 0.3)


def stained_asphalt(canvas: Canvas, rng: Rng, frame: Frame, length_m: float, width_m: float) -> None:
    """Wear on paving: parallel streaks, sealed cracks, oil spots in rows of bays, manholes, patches."""
    base_m = canvas.base_m(frame)
    pave(canvas, rng, frame, length_m, width_m, "asphalt" if rng.random() < 0.7 else "concrete", base_m)
    dark = rng.random() < 0.6
    for _ in range(int(rng.integers(2, 24))):
        turn_deg = float(rng.normal(0, 3) if rng.random() < 0.8 else rng.uniform(0, 180))
        at = frame.at(float(rng.uniform(-0.5, 0.5) * length_m), float(rng.uniform(-0.5, 0.5) * width_m), turn_deg)
        long_m, wide_m = float(rng.uniform(4, 45)), float(rng.uniform(0.3, 3.0))
        with canvas.patch(at, long_m, 2 * wide_m) as patch:
            if patch is not None:
                shape = (patch.u_m.shape[0], patch.u_m.shape[1])
                across = np.exp(-((patch.v_m / (0.5 * wide_m)) ** 2))
                along = np.clip(1.2 - np.abs(patch.u_m) / (long_m / 2), 0, 1)
                uneven = np.clip(1 + 0.5 * noise(rng, shape, 1.5 / canvas.cell_m), 0, 1.5)
                alpha = rng.uniform(0.1, 0.8) * across * along * uneven * (np.abs(patch.height_m - base_m) < 0.3)
                level = rng.uniform(0.02, 0.15) if dark ^ (rng.random() < 0.2) else rng.uniform(0.35, 0.8)
                patch.blend(np.clip(alpha, 0, 1).astype(np.float32), np.full(3, level))
    for _ in range(int(rng.integers(0, 4))):
        # Oil under every parked engine: dark spots at one pitch, as regular as fans.
        pitch_m, radius_m = float(rng.uniform(1.2, 5.5)), float(rng.uniform(0.2, 1.1))
        row = frame.at(float(rng.uniform(-0.3, 0.3) * length_m), float(rng.uniform(-0.4, 0.4) * width_m))
        level = float(rng.uniform(0.02, 0.1))
        for k in range(int(rng.integers(3, 14))):
            at = row.at(k * pitch_m, float(rng.normal(0, 0.15)))
            with canvas.patch(at, 4 * radius_m, 4 * radius_m) as patch:
                if patch is not None:
                    alpha = rng.uniform(0.2, 0.95) * np.exp(-((np.hypot(patch.u_m, patch.v_m) / radius_m) ** 4))
                    patch.blend((alpha * (np.abs(patch.height_m - base_m) < 0.3)).astype(np.float32), np.full(3, level))
    for _ in range(int(rng.integers(0, 6))):
        at = frame.at(float(rng.uniform(-0.5, 0.5) * length_m), float(rng.uniform(-0.5, 0.5) * width_m))
        with canvas.patch(at, 3, 3) as patch:
            if patch is not None:
                patch.paint(patch.disc(float(rng.uniform(0.3, 0.6))), np.full(3, rng.uniform(0.03, 0.6)))


def round_vents(canvas: Canvas, rng: Rng, frame: Frame, length_m: float, width_m: float) -> None:
    """Round exhaust caps, turbine ventilators and roof drains in rows or scattered: discs without a casing."""
    radius_m, pitch_m = float(rng.uniform(0.25, 1.3)), float(rng.uniform(2.5, 12))
    for v in np.arange(-width_m / 2 + 1.5, width_m / 2 - 1.4, rng.uniform(3, 14)):
        for u in np.arange(-length_m / 2 + 1.5, length_m / 2 - 1.4, pitch_m):
            if rng.random() < 0.6:
                vent(canvas, rng, frame.at(u + rng.normal(0, 0.3), v), radius_m * float(rng.uniform(0.8, 1.2)))


def air_handlers(canvas: Canvas, rng: Rng, frame: Frame, length_m: float, width_m: float) -> None:
    """Packaged units without a fan array: long ribbed boxes, some with a hood or one dark hole."""
    look = packaged_look(rng, fans=False)
    for _ in range(int(rng.integers(1, 5))):
        at = frame.at(
            float(rng.uniform(-0.4, 0.4) * length_m),
            float(rng.uniform(-0.4, 0.4) * width_m),
            float(rng.choice([0, 90])),
        )
        packaged_unit(canvas, rng, at, look)
        if rng.random() < 0.4:
            hood = at.at(look.length_m * float(rng.uniform(-0.4, 0.4)), 0)
            canvas.box(hood, float(rng.uniform(0.6, 1.6)), look.width_m * 0.7, np.full(3, rng.uniform(0.03, 0.3)), 0.05)


def marina(canvas: Canvas, rng: Rng, frame: Frame, length_m: float, width_m: float) -> None:
    """Boats at jetties: pointed light hulls side by side with dark windows, on water."""
    pave(canvas, rng, frame, length_m, width_m, "water", canvas.base_m(frame))
    boat_m = float(rng.uniform(6, 15))
    for v in np.arange(-width_m / 2 + boat_m, width_m / 2 - boat_m / 2, 2.4 * boat_m):
        canvas.box(frame.at(0, v), length_m, 2.0, _bright(rng, 0.3, 0.8), 0.6)
        for side in (-1, 1):
            for u in np.arange(-length_m / 2 + 3, length_m / 2 - 3, boat_m * rng.uniform(0.36, 0.6)):
                if rng.random() < 0.75:
                    at = frame.at(u, v + side * (boat_m / 2 + 1.5), 90.0 * side)
                    _boat(canvas, rng, at, boat_m * float(rng.uniform(0.7, 1.05)))


def _boat(canvas: Canvas, rng: Rng, frame: Frame, boat_m: float) -> None:
    beam_m = boat_m * float(rng.uniform(0.25, 0.36))
    top_m = canvas.base_m(frame) + 1.2
    with canvas.patch(frame, boat_m, beam_m) as patch:
        if patch is not None:
            taper = np.clip((boat_m / 2 - patch.u_m) / (0.4 * boat_m), 0, 1) ** 0.6
            hull = (np.abs(patch.v_m) < beam_m / 2 * taper) & (np.abs(patch.u_m) < boat_m / 2)
            patch.paint(hull, _bright(rng, 0.6, 0.95), top_m)
            cabin = hull & patch.rectangle(boat_m * rng.uniform(0.2, 0.6), beam_m * 0.7, -boat_m * rng.uniform(0, 0.2))
            patch.paint(cabin, _bright(rng, 0.1, 0.9) if rng.random() < 0.6 else _vivid(rng), top_m + 1.0)
            patch.paint(cabin & (np.mod(patch.u_m + 50, 2.5) < 0.6), np.full(3, rng.uniform(0.03, 0.2)))


def mobile_homes(canvas: Canvas, rng: Rng, frame: Frame, length_m: float, width_m: float) -> None:
    """Long light boxes side by side with awnings, cars and trees: turbine packages in outline, without their parts."""
    pitch_m = float(rng.uniform(8, 15))
    for v in np.arange(-width_m / 2 + 4, width_m / 2 - 3.9, pitch_m):
        for u in np.arange(-length_m / 2 + 10, length_m / 2 - 9, 24.0):
            at = frame.at(u + rng.normal(0, 1.0), v, float(rng.normal(0, 2)))
            home_m, across_m = float(rng.uniform(11, 21)), float(rng.uniform(3.2, 7.5))
            colour = _bright(rng, 0.3, 0.92)
            canvas.box(at, home_m, across_m, colour, 3.2)
            if across_m > 5 and rng.random() < 0.6:
                canvas.box(at.at(0, across_m / 4), home_m, across_m / 2, colour * rng.uniform(0.75, 1.05), 0.05)
            if rng.random() < 0.6:
                side = float(rng.choice([-1, 1]))
                awning = at.at(float(rng.uniform(-3, 3)), side * (across_m / 2 + 1.3))
                canvas.box(awning, float(rng.uniform(4, 9)), 2.6, _bright(rng, 0.3, 0.9), 2.4)
            for _ in range(int(rng.integers(0, 4))):
                vent(canvas, rng, at.at(float(rng.uniform(-0.4, 0.4) * home_m), 0), float(rng.uniform(0.15, 0.35)))
            if rng.random() < 0.5:
                canvas.box(at.at(float(rng.uniform(-4, 4)), across_m / 2 + 4), 4.6, 1.8, _vivid(rng), 1.5)


def litter(canvas: Canvas, rng: Rng) -> None:
    """Small things all over the canvas: cars, poles, kerbs, cable trays, fences, manholes, stains, patched asphalt."""
    width_m, height_m = canvas.extent_m
    for _ in range(int(rng.integers(4, int(12 + width_m * height_m / 150)))):
        frame = Frame(float(rng.uniform(0, width_m)), float(rng.uniform(0, height_m)), float(rng.uniform(0, 360)))
        base_m = canvas.base_m(frame)
        kind = rng.integers(6)
        if kind == 0:
            canvas.box(frame, rng.uniform(4.2, 6.5), rng.uniform(1.7, 2.3), _vivid(rng), 1.6)
        elif kind == 1:
            canvas.box(frame, 0.35, 0.35, _bright(rng, 0.2, 0.6), rng.uniform(3, 10))
        elif kind == 2:
            canvas.box(
                frame, rng.uniform(5, 45), rng.uniform(0.15, 0.7), _bright(rng, 0.15, 0.8), rng.uniform(0.1, 1.2)
            )
        elif kind == 3:
            canvas.box(frame, rng.uniform(0.5, 3), rng.uniform(0.4, 2), _bright(rng, 0.1, 0.9), rng.uniform(0.2, 2.0))
        else:
            radius_m = float(rng.uniform(0.4, 6.0))
            with canvas.patch(frame, 3 * radius_m, 3 * radius_m) as patch:
                if patch is not None:
                    stretch = rng.uniform(0.4, 1.0)
                    alpha = np.exp(-((patch.u_m / radius_m) ** 2 + (patch.v_m / (radius_m * stretch)) ** 2))
                    alpha = alpha * rng.uniform(0.1, 0.6) * (np.abs(patch.height_m - base_m) < 0.3)
                    patch.blend(alpha.astype(np.float32), _bright(rng, 0.05, 0.7))


GROUND_CONFUSERS: tuple[Painter, ...] = (
    containers,
    containers,
    trailers,
    trailers,
    cars,
    cars,
    solar,
    generators,
    generator_sets,
    generator_sets,
    generator_sets,
    tanks,
    switchyard,
    switchyard,
    switchyard,
    court,
    trees,
    trees,
    pallets,
    pallets,
    wagons,
    greenhouse,
    markings,
    pool,
    roof_monitors,
    stained_asphalt,
    stained_asphalt,
    stained_asphalt,
    marina,
    mobile_homes,
    mobile_homes,
    piano_keys,
    piano_keys,
    piano_keys,
    street,
    street,
    emblems,
)
ROOF_CONFUSERS: tuple[Painter, ...] = (
    rooftop_units,
    rooftop_units,
    skylights,
    roof_monitors,
    solar,
    tanks,
    pallets,
    round_vents,
    air_handlers,
    air_handlers,
    emblems,
    chimneys,
)
SCATTERED_CONFUSERS: tuple[Painter, ...] = (
    generator_sets,
    generator_sets,
    containers,
    street,
    street,
    emblems,
    chimneys,
)
"""What stands beside units straight on a real photograph, apart from what roofs carry."""
