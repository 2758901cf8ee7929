"""The scene before any camera: a height map and an albedo map on a fine ground grid, and painting on it.

Positions are metres in the canvas frame: x to the right, y down, origin at the canvas's top left corner.
Painting is vectorised over the pixels of a primitive; nothing loops over pixels.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Frame:
    """A local coordinate frame on the ground: u along `heading_deg` (clockwise from up), v to its right, metres."""

    x_m: float
    y_m: float
    heading_deg: float

    def to_canvas(self, u_m: float, v_m: float) -> tuple[float, float]:
        """Canvas position of the local point (u, v)."""
        s, c = np.sin(np.deg2rad(self.heading_deg)), np.cos(np.deg2rad(self.heading_deg))
        return float(self.x_m + u_m * s + v_m * c), float(self.y_m - u_m * c + v_m * s)

    def at(self, u_m: float, v_m: float, turn_deg: float = 0.0) -> "Frame":
        """The frame whose origin is the local point (u, v), turned clockwise by `turn_deg`."""
        x_m, y_m = self.to_canvas(u_m, v_m)
        return Frame(x_m, y_m, (self.heading_deg + turn_deg) % 360.0)


@dataclass(frozen=True)
class Truth:
    """A placed unit in canvas metres, with the height of its top face (which the camera's lean displaces)."""

    cls: str
    frame: Frame
    length_m: float
    width_m: float
    top_m: float
    fans: int = 0
    text: str = ""
    ignored: bool = False
    kin: bool = False
    """See `PlacedObject.kin`."""


@dataclass(frozen=True)
class Paint:
    """Lettering on a surface: the cells about it before and after."""

    window: tuple[slice, slice]
    """Rows and columns of the canvas."""
    under: Array
    over: Array
    """(h, w, 3)"""


@dataclass
class Patch:
    """The window of the canvas around one primitive: local coordinates of its pixels and views to paint on."""

    u_m: Array
    v_m: Array
    albedo: Array
    height_m: Array
    window: tuple[slice, slice]
    """Rows and columns of the canvas."""

    def paint(self, mask: Mask, colour: npt.ArrayLike, height_m: float | Array | None = None) -> None:
        """Give the masked pixels a colour (RGB 0..1, or an (h, w, 3) picture) and, if given, an absolute height."""
        rgb = np.asarray(colour, np.float32)
        self.albedo[mask] = rgb[mask] if rgb.ndim == 3 else rgb
        if height_m is not None:
            self.height_m[mask] = height_m[mask] if isinstance(height_m, np.ndarray) else height_m

    def blend(self, alpha: Array, colour: npt.ArrayLike) -> None:
        """Mix a colour over the patch with opacity `alpha` (h, w) in 0..1, leaving heights alone."""
        self.albedo += alpha[..., None] * (np.asarray(colour, np.float32) - self.albedo)

    def shade(self, factor: Array | float, mask: Mask) -> None:
        """Multiply the albedo of the masked pixels."""
        self.albedo[mask] *= factor[mask][:, None] if isinstance(factor, np.ndarray) else np.float32(factor)

    def rectangle(self, length_m: float, width_m: float, u_m: float = 0.0, v_m: float = 0.0) -> Mask:
        """Pixels inside the rectangle centred on the local point (u, v)."""
        return (np.abs(self.u_m - u_m) <= length_m / 2) & (np.abs(self.v_m - v_m) <= width_m / 2)

    def disc(self, radius_m: float, u_m: float = 0.0, v_m: float = 0.0) -> Mask:
        """Pixels inside the disc centred on the local point (u, v)."""
        return (self.u_m - u_m) ** 2 + (self.v_m - v_m) ** 2 <= radius_m**2


@dataclass
class Canvas:
    """Height and albedo maps of `height_px` x `width_px` cells of `cell_m` metres, and the truth placed so far."""

    width_px: int
    height_px: int
    cell_m: float
    albedo: Array = field(init=False)
    """(H, W, 3) diffuse reflectance, 0..1."""
    height_m: Array = field(init=False)
    """(H, W) height above the ground plane."""
    truth: list[Truth] = field(default_factory=list)
    paint: list[Paint] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.albedo = np.full((self.height_px, self.width_px, 3), 0.3, np.float32)
        self.height_m = np.zeros((self.height_px, self.width_px), np.float32)

    @property
    def extent_m(self) -> tuple[float, float]:
        """Width and height of the canvas in metres."""
        return self.width_px * self.cell_m, self.height_px * self.cell_m

    def base_m(self, frame: Frame) -> float:
        """Height of whatever lies at the frame's origin (0 outside the canvas): what a new object stands on."""
        column, row = int(frame.x_m / self.cell_m), int(frame.y_m / self.cell_m)
        if 0 <= row < self.height_px and 0 <= column < self.width_px:
            return float(self.height_m[row, column])
        return 0.0

    @contextmanager
    def patch(self, frame: Frame, length_m: float, width_m: float) -> Iterator[Patch | None]:
        """The window that holds the rectangle `length_m` x `width_m` about the frame's origin; None when outside."""
        s = abs(np.sin(np.deg2rad(frame.heading_deg)))
        c = abs(np.cos(np.deg2rad(frame.heading_deg)))
        reach_x = (length_m * s + width_m * c) / 2 + self.cell_m
        reach_y = (length_m * c + width_m * s) / 2 + self.cell_m
        x0 = max(0, int(np.floor((frame.x_m - reach_x) / self.cell_m)))
        x1 = min(self.width_px, int(np.ceil((frame.x_m + reach_x) / self.cell_m)))
        y0 = max(0, int(np.floor((frame.y_m - reach_y) / self.cell_m)))
        y1 = min(self.height_px, int(np.ceil((frame.y_m + reach_y) / self.cell_m)))
        if x0 >= x1 or y0 >= y1:
            yield None
            return
        dx = ((np.arange(x0, x1, dtype=np.float32) + 0.5) * self.cell_m - frame.x_m)[None, :]
        dy = ((np.arange(y0, y1, dtype=np.float32) + 0.5) * self.cell_m - frame.y_m)[:, None]
        sin = np.float32(np.sin(np.deg2rad(frame.heading_deg)))
        cos = np.float32(np.cos(np.deg2rad(frame.heading_deg)))
        yield Patch(
            u_m=dx * sin - dy * cos,
            v_m=dx * cos + dy * sin,
            albedo=self.albedo[y0:y1, x0:x1],
            height_m=self.height_m[y0:y1, x0:x1],
            window=np.s_[y0:y1, x0:x1],
        )

    @contextmanager
    def painting(self, frame: Frame, length_m: float, width_m: float) -> Iterator[Patch | None]:
        """`patch` for lettering, which `unpainted` takes away again."""
        with self.patch(frame, length_m, width_m) as patch:
            under = None if patch is None else patch.albedo.copy()
            yield patch
            if patch is not None and under is not None:
                self.paint.append(Paint(patch.window, under, patch.albedo.copy()))

    def unpainted(self) -> "Canvas":
        """The canvas as it would be without lettering; what was built on a word later stays."""
        bare = copy.copy(self)
        bare.albedo = self.albedo.copy()
        for paint in reversed(self.paint):
            here = bare.albedo[paint.window]
            still = (here == paint.over).all(axis=-1)
            here[still] = paint.under[still]
        return bare

    def box(self, frame: Frame, length_m: float, width_m: float, colour: npt.ArrayLike, height_m: float) -> None:
        """Paint a flat-topped box standing on what is under its centre."""
        top_m = self.base_m(frame) + height_m
        with self.patch(frame, length_m, width_m) as patch:
            if patch is not None:
                patch.paint(patch.rectangle(length_m, width_m), colour, top_m)
