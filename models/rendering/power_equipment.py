"""The power equipment that is counted, gas turbine packages and batteries, painted unit by unit with its truth.

Dimensions are priors with spread, because no drawing was found for most packages.
"""

from dataclasses import dataclass

import numpy as np

from models.rendering.canvas import Canvas, Frame, Patch, Truth
from models.rendering.materials import Rng


@dataclass(frozen=True)
class TurbineStyle:
    """One gas turbine package: enclosure, generator, inlet filter house and exhaust stack in one outline."""

    length_m: float
    width_m: float
    enclosure_m: tuple[float, float, float]
    """Length, width, height of turbine and generator enclosure."""
    filter_m: tuple[float, float, float]
    """Length, width, height of the filter house."""
    filter_at_m: tuple[float, float]
    """Local position (u, v) of the filter house."""
    stack_m: tuple[float, float]
    """Diameter or side, height above ground of the exhaust stack."""
    stack_at_m: tuple[float, float]
    square_stack: bool
    casing: tuple[float, float, float]
    filter_casing: tuple[float, float, float]
    soot: float
    cabin: bool


def turbine_style(rng: Rng) -> TurbineStyle:
    """Draw a package: trailer-mounted (SMT-130, TM2500) or skid-mounted (Titan 250/350) proportions.

    The Titan 250 enclosure is about 15 x 4 m (Solar TPS250GS); the other sizes are priors.
    """
    kind = rng.integers(3)
    length_m = float((rng.uniform(15, 19), rng.uniform(17, 24), rng.uniform(19, 26))[kind])
    width_m = float((rng.uniform(2.8, 3.8), rng.uniform(3.2, 5.0), rng.uniform(4.2, 6.2))[kind])
    body_m = length_m * float(rng.uniform(0.62, 0.80))
    stack = float(rng.uniform(0.55, 0.95) * width_m)
    side = float(rng.choice([-1, 1]))
    filter_length_m = float(rng.uniform(0.2, 0.34) * length_m)
    casing = _paintwork(rng)
    on_top = rng.random() < 0.7
    end_m = length_m / 2
    return TurbineStyle(
        length_m=length_m,
        width_m=width_m,
        enclosure_m=(body_m, width_m * float(rng.uniform(0.75, 1.0)), float(rng.uniform(3.0, 4.6))),
        filter_m=(
            filter_length_m,
            width_m if on_top else width_m * 0.95,
            float(rng.uniform(5.0, 8.5)),
        ),
        filter_at_m=(float(rng.uniform(-0.12, 0.08) * length_m), 0.0)
        if on_top
        else (-end_m + filter_length_m / 2, 0.0),
        stack_m=(stack, float(rng.uniform(7.0, 16.0))),
        stack_at_m=(end_m - stack / 2 - 0.1, float(side * rng.uniform(0, 0.1) * width_m)),
        square_stack=bool(rng.random() < 0.4),
        casing=casing,
        filter_casing=casing if rng.random() < 0.5 else _paintwork(rng),
        soot=float(rng.uniform(0.1, 0.8)),
        cabin=bool(rng.random() < 0.5),
    )


def _paintwork(rng: Rng) -> tuple[float, float, float]:
    tints = np.array(
        [[1, 1, 1], [1, 0.98, 0.93], [0.86, 0.93, 1.0], [0.80, 0.95, 0.85], [1.0, 0.93, 0.78], [0.7, 0.72, 0.75]]
    )
    colour = np.clip(rng.uniform(0.40, 0.88) * tints[rng.integers(len(tints))], 0.05, 0.95)
    return float(colour[0]), float(colour[1]), float(colour[2])


def turbine(canvas: Canvas, rng: Rng, frame: Frame, style: TurbineStyle) -> None:
    """Paint one turbine package, exhaust stack at the +u end."""
    base_m = canvas.base_m(frame)
    with canvas.patch(frame, style.length_m + 6, style.width_m + 8) as patch:
        if patch is not None:
            _turbine_body(patch, rng, style, base_m)
    canvas.truth.append(Truth("gas_turbine", frame, style.length_m, style.width_m, base_m + style.enclosure_m[2]))


def _turbine_body(patch: Patch, rng: Rng, style: TurbineStyle, base_m: float) -> None:
    body_m, body_width_m, body_height_m = style.enclosure_m
    body_u = -style.length_m / 2 + body_m / 2
    skid = patch.rectangle(style.length_m, style.width_m * 0.7)
    patch.paint(skid, np.full(3, rng.uniform(0.15, 0.4)), base_m + 1.2)
    body = patch.rectangle(body_m, body_width_m, body_u)
    patch.paint(body, style.casing, base_m + body_height_m)
    # roof seams and the vent fans of the enclosure
    seams = body & (np.mod(patch.u_m + 40, rng.uniform(2.0, 4.0)) < 0.18)
    patch.shade(0.82, seams)
    for u_m in rng.uniform(body_u - body_m * 0.4, body_u + body_m * 0.4, rng.integers(0, 3)):
        patch.paint(patch.disc(float(rng.uniform(0.35, 0.6)), float(u_m), 0.0), np.full(3, 0.18))
    # duct from the enclosure to the stack
    duct_m = style.stack_at_m[0] - (body_u + body_m / 2)
    if duct_m > 0:
        duct = patch.rectangle(duct_m + 0.5, style.width_m * 0.55, body_u + body_m / 2 + duct_m / 2)
        patch.paint(duct, np.array(style.casing) * rng.uniform(0.5, 0.9), base_m + body_height_m * 0.8)
    u_m, v_m = style.filter_at_m
    house = patch.rectangle(style.filter_m[0], style.filter_m[1], u_m, v_m)
    patch.paint(house, np.array(style.filter_casing) * rng.uniform(0.9, 1.08), base_m + style.filter_m[2])
    louvres = house & (np.mod(patch.v_m + 40, 0.9) < 0.25) & patch.rectangle(style.filter_m[0] * 0.9, 99, u_m)
    patch.shade(float(rng.uniform(0.7, 1.0)), louvres)
    stack_u, stack_v = style.stack_at_m
    size_m, height_m = style.stack_m
    soot = np.exp(-((np.hypot(patch.u_m - stack_u, patch.v_m - stack_v) / (1.1 * size_m)) ** 2)) * style.soot * 0.6
    patch.albedo *= (1 - soot)[..., None].astype(np.float32)
    if style.square_stack:
        outer, inner = (
            patch.rectangle(size_m, size_m, stack_u, stack_v),
            patch.rectangle(size_m * 0.72, size_m * 0.72, stack_u, stack_v),
        )
    else:
        outer, inner = patch.disc(size_m / 2, stack_u, stack_v), patch.disc(size_m * 0.37, stack_u, stack_v)
    patch.paint(outer, np.full(3, rng.uniform(0.25, 0.7)), base_m + height_m)
    patch.paint(inner, np.full(3, rng.uniform(0.02, 0.10)))
    if style.cabin:
        side = 1 if rng.random() < 0.5 else -1
        cabin = patch.rectangle(
            rng.uniform(3, 6), 2.4, u_m=-style.length_m * 0.25, v_m=side * (style.width_m / 2 + 2.0)
        )
        patch.paint(cabin, _paintwork(rng), base_m + 2.8)


@dataclass(frozen=True)
class BatteryStyle:
    """A Megapack-like enclosure; about 8.8 x 1.65 m, with spread."""

    length_m: float
    width_m: float
    height_m: float
    casing: tuple[float, float, float]
    panel: float
    """Brightness of the roof's radiator panels relative to the casing."""
    panels: int
    inset: float
    ends: float = 1.0
    """Brightness of the end frames relative to the casing: the only joint between units that stand end to end."""


def battery_style(rng: Rng) -> BatteryStyle:
    """Draw a battery enclosure."""
    white = float(rng.uniform(0.62, 0.93))
    tint = rng.normal(0, 0.015, 3)
    return BatteryStyle(
        length_m=float(rng.uniform(7.0, 9.3)),
        width_m=float(rng.uniform(1.5, 1.95)),
        height_m=float(rng.uniform(2.4, 2.9)),
        casing=(white + float(tint[0]), white + float(tint[1]), white + float(tint[2])),
        panel=float(rng.uniform(0.45, 0.97)),
        panels=int(rng.integers(1, 9)),
        inset=float(rng.uniform(0.55, 0.85)),
    )


def battery(canvas: Canvas, rng: Rng, frame: Frame, style: BatteryStyle) -> None:
    """Paint one battery enclosure, long axis along u."""
    top_m = canvas.base_m(frame) + style.height_m
    with canvas.patch(frame, style.length_m + 1, style.width_m + 1) as patch:
        if patch is not None:
            body = patch.rectangle(style.length_m, style.width_m)
            patch.paint(body, np.array(style.casing) * rng.uniform(0.96, 1.03), top_m)
            pitch_m = style.length_m * 0.92 / style.panels
            along = np.mod(patch.u_m + style.length_m * 0.46, pitch_m)
            panel = patch.rectangle(style.length_m * 0.92, style.width_m * style.inset) & (along < 0.82 * pitch_m)
            patch.shade(style.panel, panel)
            if style.ends != 1.0:
                patch.shade(style.ends, body & (np.abs(patch.u_m) > style.length_m / 2 - 0.16))
    canvas.truth.append(Truth("battery", frame, style.length_m, style.width_m, top_m))
