"""The cooling equipment that is counted, painted unit by unit with its truth.

Sizes and fan counts of chillers follow published data sheets (`CHILLER_MODELS`); those of dry-cooler and tower cells
are priors with spread.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from models.rendering.canvas import Array, Canvas, Frame, Patch, Truth
from models.rendering.materials import Rng

CHILLER_MODELS = (
    # length m, width m, fans; manufacturers' data sheets as listed by Epoch AI (CC BY 4.0)
    (11.90, 2.23, 24),
    (13.39, 2.36, 20),
    (9.11, 2.20, 10),
    (13.41, 2.20, 18),
    (7.11, 2.62, 16),
    (12.11, 2.26, 20),
    (8.81, 2.26, 14),
    (12.33, 2.28, 24),
    (6.93, 2.28, 12),
    (15.65, 2.24, 22),
    (9.70, 2.24, 14),
    (17.07, 3.05, 36),
    (12.14, 2.24, 18),
    (15.85, 2.24, 24),
    (15.53, 2.24, 26),
    (10.77, 2.30, 20),
    (16.15, 2.35, 24),
    (13.61, 2.35, 20),
    (11.07, 2.35, 16),
    (9.80, 2.35, 14),
    (16.21, 2.20, 28),
    (14.39, 2.20, 24),
)
PACKAGED_SHARE = 0.1
"""Share of chiller blocks that show large packaged rooftop units with a fan array at one end, kin of chillers."""
HELD_OUT_CHILLERS = frozenset({1, 5, 12, 18, 20})
"""Indices of `CHILLER_MODELS` that only validation scenes show."""


@dataclass(frozen=True)
class ChillerStyle:
    """One chiller model as painted; all units of a row share it."""

    length_m: float
    width_m: float
    fans: int
    rows: int
    height_m: float
    casing: tuple[float, float, float]
    fan_dark: float
    fan_fill: float
    """Fan diameter as a share of the fan pitch."""
    hub: float
    ring: float
    """Brightness of the fan ring relative to the casing."""
    control_m: float
    """Length of the end section without fans."""
    deck: float
    """Brightness of the top deck relative to the casing."""
    packaged: bool = False
    """A packaged rooftop unit, kin of chillers."""


def chiller_style(rng: Rng, validation: bool = False, model: int | None = None) -> ChillerStyle:
    """Draw a chiller model: a data-sheet size with 3% spread and an appearance."""
    if model is None:
        pool = [i for i in range(len(CHILLER_MODELS)) if (i in HELD_OUT_CHILLERS) == validation]
        model = int(rng.choice(pool))
    length_m, width_m, fans = CHILLER_MODELS[model]
    if rng.random() < PACKAGED_SHARE:
        return _packaged_style(rng)
    rows = 3 if width_m > 2.9 else 2
    if fans % rows:
        fans += rows - fans % rows
    length_m, width_m = length_m * rng.uniform(0.97, 1.03), width_m * rng.uniform(0.97, 1.05)
    white = rng.uniform(0.45, 0.88)
    casing = np.clip(white * np.array([1, 1, 1]) + rng.normal(0, 0.025, 3), 0.1, 0.95)
    if rng.random() < 0.15:
        casing = np.array([0.35, 0.37, 0.40]) * rng.uniform(0.6, 1.4)
    pitch_m = length_m / (fans / rows)
    control_m = float(rng.uniform(0.0, 0.12) * length_m) if rng.random() < 0.6 else 0.0
    # A data sheet's fan count fixes the pitch; a long control end would squeeze fans below 0.75 m, which none has.
    control_m = min(control_m, max(0.0, length_m - (fans / rows) * max(0.75, 0.85 * pitch_m)))
    return ChillerStyle(
        length_m=float(length_m),
        width_m=float(width_m),
        fans=int(fans),
        rows=rows,
        height_m=float(rng.uniform(2.1, 2.9)),
        casing=(float(casing[0]), float(casing[1]), float(casing[2])),
        fan_dark=float(rng.uniform(0.05, 0.30)),
        fan_fill=float(rng.uniform(0.72, 0.95)),
        hub=float(rng.uniform(0.12, 0.32)),
        ring=float(rng.uniform(0.85, 1.25)),
        control_m=control_m,
        deck=float(rng.uniform(0.55, 1.0)),
    )


def _packaged_style(rng: Rng) -> ChillerStyle:
    """A large packaged rooftop unit: fan array over part of its length only, two to four fans wide."""
    rows = int(rng.integers(2, 5))
    pitch_m = float(rng.uniform(0.95, 1.4))
    columns = int(rng.integers(2, 7))
    width_m = rows * pitch_m * float(rng.uniform(1.0, 1.15))
    fan_end_m = columns * pitch_m
    control_m = float(rng.uniform(0.2, 2.2)) * fan_end_m
    white = float(rng.uniform(0.4, 0.85))
    return ChillerStyle(
        length_m=max(fan_end_m + control_m, width_m),
        width_m=width_m,
        fans=rows * columns,
        rows=rows,
        height_m=float(rng.uniform(1.8, 2.8)),
        casing=(white, white, white * float(rng.uniform(0.9, 1.02))),
        fan_dark=float(rng.uniform(0.05, 0.35)),
        fan_fill=float(rng.uniform(0.7, 0.92)),
        hub=float(rng.uniform(0.12, 0.35)),
        ring=float(rng.uniform(0.9, 1.3)),
        control_m=max(control_m, width_m - fan_end_m),
        deck=float(rng.uniform(0.8, 1.05)),
        packaged=True,
    )


def chiller(canvas: Canvas, rng: Rng, frame: Frame, style: ChillerStyle) -> None:
    """Paint one chiller, its long axis along the frame's u."""
    base_m = canvas.base_m(frame)
    top_m = base_m + style.height_m
    columns = style.fans // style.rows
    with canvas.patch(frame, style.length_m + 1, style.width_m + 1) as patch:
        if patch is not None:
            body = patch.rectangle(style.length_m, style.width_m)
            patch.paint(body, np.array(style.casing) * rng.uniform(0.94, 1.06), top_m)
            start_m = -style.length_m / 2 + style.control_m
            pitch_m = (style.length_m - style.control_m) / columns
            fan_zone = body & (patch.u_m >= start_m)
            patch.shade(style.deck, fan_zone)
            column = np.clip(np.floor((patch.u_m - start_m) / pitch_m), 0, columns - 1).astype(np.int64)
            row_pitch_m = style.width_m / style.rows
            row = np.clip(np.floor((patch.v_m + style.width_m / 2) / row_pitch_m), 0, style.rows - 1).astype(np.int64)
            du = patch.u_m - (start_m + (column + 0.5) * pitch_m)
            dv = patch.v_m - (-style.width_m / 2 + (row + 0.5) * row_pitch_m)
            _fans(patch, rng, fan_zone, np.hypot(du, dv), np.arctan2(dv, du), column * style.rows + row, style, pitch_m)
            if style.control_m > 0.4:
                cabinet = patch.rectangle(
                    style.control_m * 0.7, style.width_m * 0.8, u_m=-style.length_m / 2 + style.control_m / 2
                )
                patch.shade(float(rng.uniform(0.75, 1.1)), cabinet)
    fans = columns * style.rows
    canvas.truth.append(
        Truth("air_cooled_chiller", frame, style.length_m, style.width_m, top_m, fans=fans, kin=style.packaged)
    )


def _fans(
    patch: Patch,
    rng: Rng,
    zone: np.ndarray,
    r: Array,
    phi: Array,
    index: np.ndarray,
    style: ChillerStyle,
    pitch_m: float,
) -> None:
    """Fan rings, dark throats with blades and hubs; each fan with its own brightness, some stopped."""
    radius_m = min(pitch_m, style.width_m / style.rows) / 2 * style.fan_fill
    ring = zone & (r <= radius_m * 1.08)
    patch.shade(style.ring, ring)
    throat = zone & (r <= radius_m)
    count = int(index.max()) + 1
    level = style.fan_dark * rng.uniform(0.75, 1.35, count)
    stopped = rng.random(count) < rng.choice([0.0, 0.05, 0.3])
    level[stopped] += 0.12
    brightness = level[index] * (1 + 0.35 * np.cos(5 * phi + 2.0 * index) * stopped[index])
    patch.paint(throat, np.repeat(brightness[..., None], 3, axis=2).astype(np.float32))
    hub = zone & (r <= radius_m * style.hub)
    patch.paint(hub, np.full(3, min(0.9, style.fan_dark + rng.uniform(0.05, 0.4))))


_GAP = 0.25
"""-1..1: how narrow the blades of a cell's fan are."""


@dataclass(frozen=True)
class CellStyle:
    """One fan cell of a dry-cooler array or a cooling tower bank."""

    length_m: float
    width_m: float
    fan_fill: float
    deck: tuple[float, float, float]
    throat: float
    shroud: float
    """Brightness of the fan ring."""
    shroud_m: float
    """Height of the ring above the deck."""
    blades: int
    blade: float
    """Brightness of blades and hub; equal to the throat when the fan spins fast."""
    height_m: float

    @property
    def stands_out(self) -> bool:
        """Whether the fan is seen on its deck."""
        level = float(np.mean(self.deck))
        return abs(opening_level(self.blade, self.throat, _GAP) - level) >= least_contrast(level)


def opening_level(blade: float, throat: float, gap: float) -> float:
    """Mean brightness of a fan's opening, whose blades cover the angles with a cosine above `gap`."""
    bladed = float(np.arccos(gap) / np.pi)
    return bladed * blade + (1 - bladed) * throat


def least_contrast(level: float) -> float:
    """What a fan's opening differs by from a deck of brightness `level`, at least.

    A prior: photographs show dark openings or light blades. Without it two arrays of 200 scenes were grey textures in
    which no eye found a fan.
    """
    return max(0.05, 0.2 * level)


def _standing_out(rng: Rng, draw: Callable[[Rng], CellStyle]) -> CellStyle:
    while not (style := draw(rng)).stands_out:
        pass
    return style


def dry_cooler_style(rng: Rng) -> CellStyle:
    """A large-fan dry-cooler cell on stilts: square, fan 70-92% of the cell."""
    return _standing_out(rng, _any_dry_cooler_style)


def _any_dry_cooler_style(rng: Rng) -> CellStyle:
    side_m = float(rng.uniform(3.2, 8.0))
    deck = rng.uniform(0.30, 0.80) * np.array([1, 1, 1.0]) + rng.normal(0, 0.03, 3)
    throat = float(rng.uniform(0.05, 0.25))
    return CellStyle(
        length_m=side_m * float(rng.uniform(1.0, 1.15)),
        width_m=side_m,
        fan_fill=float(rng.uniform(0.70, 0.92)),
        deck=(float(deck[0]), float(deck[1]), float(deck[2])),
        throat=throat,
        shroud=float(rng.uniform(0.4, 0.95)),
        shroud_m=float(rng.uniform(0.2, 0.8)),
        blades=int(rng.integers(4, 9)),
        blade=throat + (float(rng.uniform(0.1, 0.45)) if rng.random() < 0.6 else 0.0),
        height_m=float(rng.uniform(5.0, 11.0)),
    )


def cooling_tower_style(rng: Rng) -> CellStyle:
    """A wet tower cell: 2.2-14 m, a raised fan stack, louvred sides; rooftop ones are small and low."""
    return _standing_out(rng, _any_cooling_tower_style)


def _any_cooling_tower_style(rng: Rng) -> CellStyle:
    width_m = float(rng.choice([rng.uniform(2.2, 4.5), rng.uniform(4.0, 8.0), rng.uniform(7.0, 14.0)]))
    tint = np.array([[1, 1, 1], [1, 0.98, 0.92], [0.9, 1, 0.95], [0.92, 0.97, 1.05]])[rng.integers(4)]
    deck = np.clip(rng.uniform(0.3, 0.8) * tint, 0.05, 0.95)
    throat = float(rng.uniform(0.04, 0.22))
    return CellStyle(
        length_m=width_m * float(rng.uniform(0.85, 1.5)),
        width_m=width_m,
        fan_fill=float(rng.uniform(0.55, 0.85)),
        deck=(float(deck[0]), float(deck[1]), float(deck[2])),
        throat=throat,
        shroud=float(rng.uniform(0.45, 0.95)),
        shroud_m=float(rng.uniform(0.4, 2.5)),
        blades=int(rng.integers(4, 11)),
        blade=throat + (float(rng.uniform(0.15, 0.6)) if rng.random() < 0.7 else 0.0),
        height_m=float(rng.uniform(2.5, 5.0) + 0.4 * width_m),
    )


def rows_m(rows: int, pitch_m: float, street_m: float) -> np.ndarray:
    """Where the rows of a grid lie about its middle, (rows,): `pitch_m` apart, a street after every second one."""
    row = np.arange(rows)
    places_m = row * pitch_m + (row // 2) * street_m
    return np.asarray(places_m - places_m.mean())


def cell_grid(
    canvas: Canvas,
    rng: Rng,
    frame: Frame,
    cls: str,
    style: CellStyle,
    columns: int,
    rows: int,
    gap_m: float = 0.0,
    street_m: float = 0.0,
    missing: float = 0.0,
) -> None:
    """Paint a grid of fan cells, columns along u and rows along v; every cell is one unit of truth.

    `gap_m` separates neighbouring cells; `street_m` widens the gap between every second pair of rows; a share `missing`
    of cells, from the far end, is not yet built.
    """
    pitch_u = style.length_m + gap_m
    base_m = canvas.base_m(frame)
    top_m = base_m + style.height_m
    rows_v = rows_m(rows, style.width_m + gap_m, street_m)
    built = round(columns * (1 - missing))
    for r in range(rows):
        for c in range(built):
            cell = frame.at((c - (columns - 1) / 2) * pitch_u, float(rows_v[r]))
            _cell(canvas, rng, cell, style, top_m)
            longer = style.length_m >= style.width_m
            canvas.truth.append(
                Truth(
                    cls,
                    cell if longer else cell.at(0, 0, 90),
                    max(style.length_m, style.width_m),
                    min(style.length_m, style.width_m),
                    top_m,
                    fans=1,
                )
            )
    if missing > 0:
        for r in range(rows):
            for c in range(built, columns):
                cell = frame.at((c - (columns - 1) / 2) * pitch_u, float(rows_v[r]))
                _steel(canvas, cell, style, top_m - 1.0)


def _cell(canvas: Canvas, rng: Rng, frame: Frame, style: CellStyle, top_m: float) -> None:
    radius_m = min(style.length_m, style.width_m) / 2 * style.fan_fill
    with canvas.patch(frame, style.length_m + 1, style.width_m + 1) as patch:
        if patch is None:
            return
        r = np.hypot(patch.u_m, patch.v_m)
        phi = np.arctan2(patch.v_m, patch.u_m)
        deck = patch.rectangle(style.length_m, style.width_m)
        patch.paint(deck, np.array(style.deck) * rng.uniform(0.92, 1.08), top_m)
        edge = deck & ~patch.rectangle(style.length_m - 0.35, style.width_m - 0.35)
        patch.shade(0.8, edge)
        ring_m = max(0.15, 0.09 * radius_m)
        patch.paint(r <= radius_m + ring_m, np.full(3, style.shroud * rng.uniform(0.95, 1.05)), top_m + style.shroud_m)
        throat = r <= radius_m
        patch.paint(throat, np.full(3, style.throat * rng.uniform(0.8, 1.25)), top_m + style.shroud_m * 0.3)
        turn = rng.uniform(0, 2 * np.pi)
        blade = throat & (np.cos(style.blades * (phi + turn)) > _GAP) & (r > 0.12 * radius_m)
        patch.paint(blade, np.full(3, style.blade))
        patch.paint(r <= 0.16 * radius_m, np.full(3, max(style.blade, style.throat + 0.08)))


def _steel(canvas: Canvas, frame: Frame, style: CellStyle, top_m: float) -> None:
    """The bare frame of a cell that is not there yet."""
    with canvas.patch(frame, style.length_m + 1, style.width_m + 1) as patch:
        if patch is None:
            return
        outer = patch.rectangle(style.length_m, style.width_m)
        beams = outer & ~patch.rectangle(style.length_m - 0.6, style.width_m - 0.6)
        beams |= outer & (np.abs(patch.u_m) < 0.2)
        patch.paint(beams, np.array([0.45, 0.42, 0.40]), top_m)


def plume(canvas: Canvas, rng: Rng, frame: Frame, reach_m: float) -> None:
    """A wet plume drifting from a tower: soft white, hiding part of what lies under it."""
    length_m = reach_m * float(rng.uniform(1.5, 4.0))
    with canvas.patch(frame.at(length_m / 2, 0), length_m * 1.3, reach_m * 2.5) as patch:
        if patch is None:
            return
        t = np.clip(patch.u_m / length_m + 0.5, 0, 1)
        spread = reach_m * (0.3 + 0.5 * t)
        alpha = np.exp(-((patch.v_m / spread) ** 2)) * (1 - t) * (t > 0.01) * rng.uniform(0.3, 0.8)
        patch.blend(alpha.astype(np.float32), (0.92, 0.92, 0.93))
