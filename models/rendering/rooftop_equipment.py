"""Cooling equipment as it stands on real roofs: small tower banks in wells and behind screens, packaged units.

What real overhead images of roofs show and open yards do not: one to six narrow cells in one casing, light blades over
a black throat, basins and louvres beside the fans, walls that touch the unit, floors that the sun does not reach, ducts
and pipes on all sides, and large white air handlers of which only one end carries fans. Sizes are priors with spread.
"""

from dataclasses import dataclass

import numpy as np

from models.rendering.canvas import Array, Canvas, Frame, Patch, Truth
from models.rendering.cooling_equipment import least_contrast, opening_level
from models.rendering.materials import ROOFS, Rng, noise, pave

CASINGS = (
    # white, beige, galvanised, grey-green, blue-grey, weathered brown, dark
    ((1.00, 1.00, 1.00), 0.62, 0.95),
    ((1.00, 0.95, 0.84), 0.45, 0.85),
    ((0.96, 0.99, 1.03), 0.38, 0.72),
    ((0.90, 1.00, 0.94), 0.30, 0.65),
    ((0.86, 0.95, 1.08), 0.30, 0.65),
    ((1.06, 0.94, 0.80), 0.22, 0.50),
    ((1.00, 1.00, 1.02), 0.10, 0.30),
)
"""Tint and range of brightness of casings."""


@dataclass(frozen=True)
class FanLook:
    """How one fan is seen from above; all fans of a bank share it."""

    cowl_m: float
    """Height of the ring above the deck."""
    ring: float
    """Width of the ring as a share of the fan's radius."""
    ring_level: float
    """Brightness of the ring."""
    throat: float
    """Brightness between and below the blades."""
    depth_m: float
    """How far the blades lie below the ring's rim: what lets the rim's shadow fall into the throat."""
    blades: int
    blade: float
    """Brightness of the blades; that of the throat when they turn too fast to be seen."""
    gap: float
    """-1..1: how narrow the blades are."""
    sweep: float
    """Radians by which a blade's tip trails its root."""
    hub: float
    """Radius of the hub or motor as a share of the fan's."""
    hub_level: float
    bars: int
    """Beams across the fan that carry its motor, 0 to 2."""
    grille: float
    """0..1: how much of a light guard covers the throat."""

    @property
    def mean_level(self) -> float:
        """Mean brightness of the opening, blades and guard included; hub and beams are not."""
        between = opening_level(self.blade, self.throat, self.gap)
        return self.grille * self.guard_level + (1 - self.grille) * between

    @property
    def guard_level(self) -> float:
        """Brightness of the guard."""
        return 0.55 * self.ring_level + 0.1

    def stands_out(self, level: float) -> bool:
        """Whether the fan is seen on a casing of brightness `level`: an opening as bright as it is a box like any."""
        return abs(self.mean_level - level) >= least_contrast(level)


@dataclass(frozen=True)
class BankLook:
    """One bank of fan cells in a row, as wide as a cell and as long as they are many."""

    pitch_m: float
    """Length of a cell along the bank."""
    width_m: float
    height_m: float
    radius_m: float
    """Of the fan."""
    aside_m: float
    """Distance of the fans from the bank's middle line."""
    casing: tuple[float, float, float]
    rust: float
    basin: float
    """Share of the width, on either side of the fans, that is louvres and basin; 0 without."""
    basin_level: float
    """Its brightness relative to the casing."""
    slats_m: float
    """Pitch of its slats; 0 for a smooth cover."""
    seam: float
    """Brightness of the joints between cells relative to the casing."""
    fan: FanLook


def casing_colour(rng: Rng) -> tuple[float, float, float]:
    """A sheet-metal or plastic casing between white and nearly black, mostly light."""
    tint, low, high = CASINGS[rng.choice(len(CASINGS), p=[0.30, 0.20, 0.18, 0.09, 0.09, 0.08, 0.06])]
    colour = np.clip(rng.uniform(low, high) * np.array(tint) + rng.normal(0, 0.015, 3), 0.03, 0.97)
    return float(colour[0]), float(colour[1]), float(colour[2])


def fan_look(rng: Rng, level: float) -> FanLook:
    """A fan on a casing of brightness `level`: from light blades over black to a closed guard that is not as grey."""
    while not (look := _any_fan_look(rng, level)).stands_out(level):
        pass
    return look


def _any_fan_look(rng: Rng, level: float) -> FanLook:
    throat = float(rng.uniform(0.02, 0.18) if rng.random() < 0.75 else rng.uniform(0.12, 0.5) * max(level, 0.3))
    kind = rng.choice(3, p=[0.55, 0.25, 0.20])  # blades stand, turn, lie below a guard
    blade = throat + (float(rng.uniform(0.15, 0.85)) if kind == 0 else float(rng.uniform(0.0, 0.15)))
    return FanLook(
        cowl_m=float(
            rng.choice([rng.uniform(0.05, 0.3), rng.uniform(0.3, 1.0), rng.uniform(1.0, 2.5)], p=[0.4, 0.4, 0.2])
        ),
        ring=float(rng.uniform(0.03, 0.16) if rng.random() < 0.7 else rng.uniform(0.15, 0.5)),
        ring_level=float(np.clip(level * rng.uniform(0.6, 1.6), 0.05, 0.97)),
        throat=throat,
        depth_m=float(rng.uniform(0.05, 1.4)),
        blades=int(rng.integers(3, 11)),
        blade=min(blade, 0.95),
        gap=float(rng.uniform(-0.6, 0.6)),
        sweep=float(rng.choice([-1, 1]) * rng.uniform(0.0, 1.0)),
        hub=float(rng.uniform(0.08, 0.42)),
        hub_level=float(rng.uniform(0.05, 0.9)),
        bars=int(rng.choice([0, 1, 2], p=[0.5, 0.3, 0.2])),
        grille=float(rng.uniform(0.3, 0.9)) if kind == 2 else 0.0,
    )


def bank_look(rng: Rng) -> BankLook:
    """A tower bank: fans of 1.8 to 9 m, the cell as long as the fan needs and often twice as wide."""
    across = rng.choice(3, p=[0.6, 0.27, 0.13])
    diameter_m = float((rng.uniform(1.8, 3.6), rng.uniform(3.2, 5.5), rng.uniform(5.0, 9.0))[across])
    pitch_m = max(2.3, diameter_m / float(rng.uniform(0.5, 0.97)))
    width_m = max(2.3, float(rng.uniform(0.95, 1.2) if rng.random() < 0.5 else rng.uniform(1.1, 2.3)) * pitch_m)
    radius_m = min(diameter_m, 0.97 * pitch_m, 0.97 * width_m) / 2
    casing = casing_colour(rng)
    free = 1 - 2 * radius_m / width_m
    return BankLook(
        pitch_m=pitch_m,
        width_m=width_m,
        height_m=float(rng.uniform(1.6, 4.0) + 0.25 * pitch_m),
        radius_m=radius_m,
        aside_m=float(rng.uniform(-0.5, 0.5) * free * width_m / 2) if rng.random() < 0.3 else 0.0,
        casing=casing,
        rust=float(rng.uniform(0.0, 0.35)) if rng.random() < 0.5 else 0.0,
        basin=float(rng.uniform(0.3, 1.0) * free / 2) if free > 0.2 and rng.random() < 0.7 else 0.0,
        basin_level=float(rng.uniform(0.35, 1.35)),
        slats_m=float(rng.uniform(0.4, 1.4)) if rng.random() < 0.5 else 0.0,
        seam=float(rng.uniform(0.4, 1.1)),
        fan=fan_look(rng, float(np.mean(casing))),
    )


def tower_bank(canvas: Canvas, rng: Rng, frame: Frame, look: BankLook, cells: int, cls: str = "cooling_tower") -> None:
    """Paint `cells` fan cells in one casing along u; each is one unit of truth."""
    top_m = canvas.base_m(frame) + look.height_m
    length_m = cells * look.pitch_m
    with canvas.patch(frame, length_m + 1, look.width_m + 1) as patch:
        if patch is not None:
            _bank_casing(patch, rng, look, length_m, top_m, canvas.cell_m)
    for number in range(cells):
        cell = frame.at((number - (cells - 1) / 2) * look.pitch_m, 0.0)
        with canvas.patch(cell.at(0.0, look.aside_m), 3.2 * look.radius_m, 3.2 * look.radius_m) as patch:
            if patch is not None:
                _fan(patch, rng, look.fan, look.radius_m, top_m)
        longer = look.pitch_m >= look.width_m
        canvas.truth.append(
            Truth(
                cls,
                cell if longer else cell.at(0, 0, 90),
                max(look.pitch_m, look.width_m),
                min(look.pitch_m, look.width_m),
                top_m,
                fans=1,
            )
        )


def _bank_casing(patch: Patch, rng: Rng, look: BankLook, length_m: float, top_m: float, cell_m: float) -> None:
    body = patch.rectangle(length_m, look.width_m)
    shape = (body.shape[0], body.shape[1])
    patch.paint(body, np.array(look.casing) * rng.uniform(0.94, 1.06), top_m)
    if look.rust > 0:
        stain = np.clip(look.rust * noise(rng, shape, rng.uniform(0.6, 2.5) / cell_m), 0, 0.7) * body
        patch.blend(stain.astype(np.float32), np.array([0.30, 0.19, 0.12]) * rng.uniform(0.7, 1.5))
    if look.basin > 0:
        edge_m = (0.5 - look.basin) * look.width_m
        basin = body & (np.abs(patch.v_m - look.aside_m * 0.5) > edge_m)
        patch.shade(look.basin_level, basin)
        if look.slats_m > 0:
            patch.shade(
                float(rng.uniform(0.4, 0.9)), basin & (np.mod(patch.u_m + 200, look.slats_m) < look.slats_m * 0.4)
            )
    seam = body & (np.abs(np.mod(patch.u_m + length_m / 2 + 0.1, look.pitch_m)) < 0.2)
    patch.shade(look.seam, seam)
    if rng.random() < 0.5:
        rim = body & ~patch.rectangle(length_m - 0.5, look.width_m - 0.5)
        patch.shade(float(rng.uniform(0.6, 1.25)), rim)


def _fan(patch: Patch, rng: Rng, look: FanLook, radius_m: float, top_m: float) -> None:
    """One fan about the patch's frame, on a deck at `top_m`."""
    r = np.hypot(patch.u_m, patch.v_m)
    phi = np.arctan2(patch.v_m, patch.u_m)
    rim_m = top_m + look.cowl_m
    # The ring takes its share of the radius, so that a fan never grows beyond its cell.
    inner_m = radius_m * (1 - look.ring * 0.6)
    patch.paint(r <= radius_m, np.full(3, look.ring_level * rng.uniform(0.94, 1.06)), rim_m)
    throat = r <= inner_m
    floor_m = max(rim_m - look.depth_m, top_m - 1.0)
    patch.paint(throat, np.full(3, look.throat * rng.uniform(0.8, 1.25)), floor_m)
    turned = phi + rng.uniform(0, 2 * np.pi) + look.sweep * r / radius_m
    stands = look.blade if rng.random() < 0.9 else look.throat
    patch.paint(throat & (np.cos(look.blades * turned) > look.gap), np.full(3, stands))
    if look.grille > 0:
        patch.blend((look.grille * throat).astype(np.float32), np.full(3, look.guard_level))
    if look.bars:
        across_m = max(0.12, 0.08 * radius_m)
        bars = np.abs(patch.u_m) < across_m
        if look.bars > 1:
            bars |= np.abs(patch.v_m) < across_m
        patch.paint(bars & throat, np.full(3, look.ring_level))
    patch.paint(r <= look.hub * inner_m, np.full(3, look.hub_level))


@dataclass(frozen=True)
class PackagedLook:
    """A packaged rooftop unit or air handler: a ribbed box of which one end may carry a fan array."""

    length_m: float
    width_m: float
    height_m: float
    rows: int
    """Fans across."""
    columns: int
    """Fans along; 0 for an air handler without."""
    pitch_m: float
    casing: tuple[float, float, float]
    deck: float
    """Brightness of the fan end relative to the casing."""
    throat: float
    ring: float
    fill: float
    hub: float
    hub_level: float
    ribs_m: float
    """Pitch of the joints across the casing; 0 for a smooth one."""
    rib: float


def packaged_look(rng: Rng, fans: bool = True) -> PackagedLook:
    """A unit of 4 to 18 m; its fan array takes from a seventh of its length to all of it."""
    rows = int(rng.integers(2, 5))
    pitch_m = float(rng.uniform(0.8, 1.45))
    columns = int(rng.integers(2, 7))
    if rows * columns < 6:
        columns = 3
    width_m = rows * pitch_m * float(rng.uniform(1.0, 1.25))
    share = float(rng.uniform(0.16, 0.5) if rng.random() < 0.7 else rng.uniform(0.5, 1.0))
    casing = casing_colour(rng)
    return PackagedLook(
        length_m=float(np.clip(columns * pitch_m / share, max(width_m, columns * pitch_m + 0.1), 18.0)),
        width_m=width_m,
        height_m=float(rng.uniform(1.6, 3.2)),
        rows=rows,
        columns=columns if fans else 0,
        pitch_m=pitch_m,
        casing=casing,
        deck=float(rng.uniform(0.6, 1.1)),
        throat=float(rng.uniform(0.04, 0.35)),
        ring=float(rng.uniform(0.8, 1.25)),
        fill=float(rng.uniform(0.62, 0.93)),
        hub=float(rng.uniform(0.1, 0.45)),
        hub_level=float(rng.uniform(0.05, 0.7)),
        ribs_m=float(rng.uniform(0.8, 3.5)) if rng.random() < 0.6 else 0.0,
        rib=float(rng.uniform(0.7, 1.05)),
    )


def packaged_unit(canvas: Canvas, rng: Rng, frame: Frame, look: PackagedLook) -> None:
    """Paint one unit along u, its fans at the +u end. With fans it is kin of chillers, without it is background."""
    top_m = canvas.base_m(frame) + look.height_m
    with canvas.patch(frame, look.length_m + 1, look.width_m + 1) as patch:
        if patch is not None:
            body = patch.rectangle(look.length_m, look.width_m)
            patch.paint(body, np.array(look.casing) * rng.uniform(0.95, 1.05), top_m)
            if look.ribs_m > 0:
                patch.shade(look.rib, body & (np.mod(patch.u_m + 100, look.ribs_m) < 0.2))
            if rng.random() < 0.35:
                # Outside-air hood or filter section: a darker or lighter part somewhere along the casing.
                at_m = float(rng.uniform(-0.5, 0.1) * look.length_m)
                patch.shade(float(rng.uniform(0.5, 1.2)), body & patch.rectangle(look.length_m * 0.15, 99, at_m))
            if look.columns:
                _fan_array(patch, rng, look, body)
    if look.columns:
        fans = look.rows * look.columns
        canvas.truth.append(Truth("air_cooled_chiller", frame, look.length_m, look.width_m, top_m, fans=fans, kin=True))


def _fan_array(patch: Patch, rng: Rng, look: PackagedLook, body: np.ndarray) -> None:
    array_m = look.columns * look.pitch_m
    start_m = look.length_m / 2 - array_m
    zone = body & (patch.u_m >= start_m)
    patch.shade(look.deck, zone)
    across_m = look.width_m / look.rows
    column = np.clip(np.floor((patch.u_m - start_m) / look.pitch_m), 0, look.columns - 1)
    row = np.clip(np.floor((patch.v_m + look.width_m / 2) / across_m), 0, look.rows - 1)
    du: Array = patch.u_m - (start_m + (column + 0.5) * look.pitch_m)
    dv: Array = patch.v_m - (-look.width_m / 2 + (row + 0.5) * across_m)
    r = np.hypot(du, dv)
    radius_m = min(look.pitch_m, across_m) / 2 * look.fill
    level = look.throat * rng.uniform(0.75, 1.3, look.rows * look.columns)
    brightness = level[(column * look.rows + row).astype(np.int64)]
    patch.shade(look.ring, zone & (r <= radius_m * 1.15))
    patch.paint(zone & (r <= radius_m), np.repeat(brightness[..., None], 3, axis=2).astype(np.float32))
    patch.paint(zone & (r <= radius_m * look.hub), np.full(3, look.hub_level))


def well(canvas: Canvas, rng: Rng, frame: Frame, length_m: float, width_m: float, depth_m: float, rim_m: float) -> None:
    """Sink a floor of `length_m` x `width_m` into the roof under the frame, `depth_m` deep, with a rim around it."""
    roof_m = canvas.base_m(frame)
    rim_wide_m = float(rng.uniform(0.2, 0.7))
    rim_level = rng.uniform(0.25, 0.95)
    with canvas.patch(frame, length_m + 3, width_m + 3) as patch:
        if patch is not None:
            rim = patch.rectangle(length_m + 2 * rim_wide_m, width_m + 2 * rim_wide_m)
            patch.paint(rim, np.full(3, rim_level), roof_m + rim_m)
    floor = str(rng.choice(["dark_roof", "grey_roof", "concrete", "asphalt", "tan_roof"]))
    pave(canvas, rng, frame, length_m, width_m, floor, max(roof_m - depth_m, 0.0))


def screen(canvas: Canvas, rng: Rng, frame: Frame, length_m: float, width_m: float, height_m: float) -> None:
    """A wall around `length_m` x `width_m`, smooth or louvred, often open on one side."""
    base_m = canvas.base_m(frame)
    thick_m = float(rng.uniform(0.2, 0.8))
    level = float(rng.uniform(0.12, 0.9))
    open_side = int(rng.integers(8))
    with canvas.patch(frame, length_m + 3, width_m + 3) as patch:
        if patch is None:
            return
        wall = patch.rectangle(length_m + 2 * thick_m, width_m + 2 * thick_m) & ~patch.rectangle(length_m, width_m)
        if open_side < 4:
            along, side = (patch.u_m, length_m) if open_side < 2 else (patch.v_m, width_m)
            wall &= (along if open_side % 2 else -along) < side / 2
        patch.paint(wall, np.full(3, level) * (1 + rng.normal(0, 0.02, 3)), base_m + height_m)
        if rng.random() < 0.4:
            slat_m = float(rng.uniform(0.5, 2.5))
            patch.shade(
                float(rng.uniform(0.5, 0.9)), wall & (np.mod(patch.u_m + patch.v_m + 300, slat_m) < slat_m * 0.4)
            )


def ducts(canvas: Canvas, rng: Rng, frame: Frame, length_m: float, width_m: float, number: int) -> None:
    """Ducts, pipes, walkways, cabinets, hatches and vents between the units, along both directions of the roof."""
    for _ in range(number):
        at = frame.at(
            float(rng.uniform(-0.5, 0.5) * length_m),
            float(rng.uniform(-0.5, 0.5) * width_m),
            float(rng.choice([0, 90])),
        )
        level = float(rng.choice([rng.uniform(0.08, 0.3), rng.uniform(0.3, 0.65), rng.uniform(0.65, 0.95)]))
        colour = np.clip(level + rng.normal(0, 0.02, 3), 0.03, 0.97)
        kind = rng.integers(6)
        reach_m = float(rng.uniform(1.5, 0.7 * max(length_m, 3.0)))
        if kind == 0:
            canvas.box(at, reach_m, float(rng.uniform(0.5, 1.6)), colour, float(rng.uniform(0.4, 1.3)))
        elif kind == 1:
            for k in range(int(rng.integers(1, 5))):
                canvas.box(at.at(0, 0.55 * k), reach_m, 0.25, colour, float(rng.uniform(0.2, 0.9)))
        elif kind == 2:
            with canvas.patch(at, reach_m, 1.2) as patch:
                if patch is not None:
                    walkway = patch.rectangle(reach_m, 0.9)
                    patch.blend((rng.uniform(0.3, 0.9) * walkway).astype(np.float32), colour)
        elif kind == 3:
            canvas.box(
                at, float(rng.uniform(0.6, 2.8)), float(rng.uniform(0.5, 2.0)), colour, float(rng.uniform(0.4, 2.0))
            )
        elif kind == 4:
            canvas.box(
                at, float(rng.uniform(2.5, 7.0)), float(rng.uniform(2.0, 5.0)), colour, float(rng.uniform(1.0, 4.0))
            )
        else:
            vent(canvas, rng, at, float(rng.uniform(0.25, 0.9)))


def vent(canvas: Canvas, rng: Rng, frame: Frame, radius_m: float) -> None:
    """A round vent, cap or drain: a small disc, light or dark, some with a hole. Never counted."""
    base_m = canvas.base_m(frame)
    with canvas.patch(frame, 2 * radius_m + 1, 2 * radius_m + 1) as patch:
        if patch is not None:
            patch.paint(
                patch.disc(radius_m), np.full(3, rng.uniform(0.08, 0.95)), base_m + float(rng.uniform(0.0, 1.2))
            )
            if rng.random() < 0.5:
                patch.paint(patch.disc(radius_m * float(rng.uniform(0.3, 0.7))), np.full(3, rng.uniform(0.03, 0.9)))


def enclosed_bank(canvas: Canvas, rng: Rng, frame: Frame, most_length_m: float, most_width_m: float) -> None:
    """A tower bank with what stands around it: in a well, behind a screen, against a wall or in the open.

    The bank has as many cells as `most_length_m` has room for, six at most; one that is wider than `most_width_m` is
    left out.
    """
    look = bank_look(rng)
    cells = int(rng.choice([1, 2, 3, 4, 5, 6], p=[0.34, 0.30, 0.13, 0.10, 0.07, 0.06]))
    cells = min(cells, int(most_length_m / look.pitch_m))
    if cells < 1 or look.width_m > most_width_m:
        return
    length_m = cells * look.pitch_m
    around_u, around_v = float(rng.uniform(0.2, 3.5)), float(rng.uniform(0.2, 3.5))
    aside = (float(rng.uniform(-0.8, 0.8) * around_u), float(rng.uniform(-0.8, 0.8) * around_v))
    inner_m = (length_m + 2 * around_u, look.width_m + 2 * around_v)
    kind = rng.choice(4, p=[0.35, 0.27, 0.13, 0.25])
    if kind == 0:
        well(canvas, rng, frame, *inner_m, float(rng.uniform(0.5, 6.0)), float(rng.uniform(0.0, 1.3)))
    elif kind == 1:
        if rng.random() < 0.6:
            pave(canvas, rng, frame, *inner_m, str(rng.choice(ROOFS)), canvas.base_m(frame))
        screen(canvas, rng, frame, *inner_m, look.height_m + float(rng.uniform(-1.5, 2.5)))
    elif kind == 2:
        side = float(rng.choice([-1, 1]))
        wall = frame.at(0, side * (look.width_m / 2 + float(rng.uniform(1.5, 4.0))))
        canvas.box(
            wall, length_m * 1.4, 2.5, np.full(3, rng.uniform(0.2, 0.9)), look.height_m + float(rng.uniform(0, 4))
        )
    ducts(canvas, rng, frame, inner_m[0] + 1, inner_m[1] + 1, int(rng.integers(0, 7)))
    at = frame.at(*aside)
    if kind == 0 and rng.random() < 0.3:
        # Steel that carries the bank halfway up the well.
        canvas.box(
            at, length_m + 0.6, look.width_m + 0.6, np.full(3, rng.uniform(0.1, 0.4)), float(rng.uniform(0.5, 2.5))
        )
    tower_bank(canvas, rng, at, look, cells)
    if rng.random() < 0.5:
        # A header pipe or catwalk along the bank, as high as its deck.
        side = float(rng.choice([-1, 1])) * (look.width_m / 2 + float(rng.uniform(0.1, 0.6)))
        canvas.box(at.at(0, side), length_m, float(rng.uniform(0.3, 0.8)), casing_colour(rng), look.height_m * 0.9)
