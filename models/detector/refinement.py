"""The second stage: each proposal of the first one, cut out along its axis and judged by a network of its own.

Nearly all of a scene is ground, which the first stage passes over at little cost. What it takes for equipment is few
places, so each can have a closer look: at twice the resolution, turned so that units of every heading look the same,
and with more weights than the first stage has for everything.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional
from torchvision.models.resnet import BasicBlock
from torchvision.ops import Conv2dNormActivation

from models.classes import OBJECT_CLASSES
from models.detector.fans import CHILLER, by_period

ALONG_PX, ACROSS_PX = 96, 64
"""Pixels of a cut-out along a proposal's heading and across it: the longest package (80 px), and beside a battery two
rows on either side."""
MARGIN_PX = 72
"""Around an image, so that no cut-out of a unit on it leaves what is kept: half a diagonal, and a centre beside it."""
WIDTHS = (32, 64, 128, 224)
"""Channels at strides 2, 4, 8 and 16 of the cut-out."""
_SQUEEZED = 64
_HIDDEN = 256

# Channels of the output, in order.
KIND = slice(0, len(OBJECT_CLASSES) + 1)
"""Logits of "the unit at the middle is of this class"; the last one: there is none."""
PLACE = slice(KIND.stop, KIND.stop + 2)
"""Along, across: where the unit's centre lies from the middle, in `PLACE_PX`."""
EXTENT = slice(PLACE.stop, PLACE.stop + 2)
"""Natural logarithm of length and width in pixels, less `MEAN_EXTENT`."""
AXIS = slice(EXTENT.stop, EXTENT.stop + 2)
"""cos 2d, sin 2d of the angle d by which the long axis is turned clockwise from the cut-out's."""
QUARTER = slice(AXIS.stop, AXIS.stop + 2)
"""cos 4d, sin 4d: the same without saying which side is the long one, which a nearly square unit leaves open."""
FAN_COUNT = slice(QUARTER.stop, QUARTER.stop + 1)
"""Natural logarithm of the number of fans."""
OUTPUTS = FAN_COUNT.stop

PLACE_PX = 8.0
MOST_PLACES = 2.0
"""Farthest along and across that a centre is moved, in `PLACE_PX`."""
MEAN_EXTENT = (2.7, 2.1)
"""Logarithms of 15 and 8 px, the middle of the equipment."""
FIRST_STAGE_SHARE = 2.5
"""Weight of the first stage's log-odds in the score beside the second's. The likeliest one on 8,000 proposals is 0.6,
but the order that decides F1 is best from 2 to 3.5 (`models/training/LOG.md`); the calibration does the rest."""

# Columns of a table of proposals, float32 (n, COLUMNS). CENTRE is in pixels from the corner of the cell.
WINDOW, CLASS, ROW, COLUMN, SCORE, CENTRE_X, CENTRE_Y, LENGTH, WIDTH, COS, SIN, FANS = range(12)
HEATS = slice(12, 12 + len(OBJECT_CLASSES))
"""Logits of the first stage, by class."""
COLUMNS = HEATS.stop

GREY = 0.45 * 255
DEVIATION = 0.25 * 255
"""What both stages take for the mean and the spread of grey levels; no image is `GREY`."""
_AT_ONCE = 64
"""Proposals of one pass: what is calculated of one then fits into the caches."""
_BOX_PX = (2.0, 110.0)
"""Range of the boxes that a cut-out is marked with; a wild first stage must not reach the second."""


class RefinerNet(nn.Module):
    """Residual network over cut-outs, with the proposal's box and the place in the cut-out as further channels.

    Ends in a fully connected layer over what is left of the places (4 x 6), because where things are decides here.
    """

    def __init__(self, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        # All of the resolution is kept: four pixels become channels. Fans are 3 px apart where they are smallest.
        self.stem = nn.Sequential(
            Conv2dNormActivation(4 * 3 + 4, widths[0], 3), Conv2dNormActivation(widths[0], widths[0], 3)
        )
        self.stages = nn.Sequential(*(residual_block(before, width, stride=2) for before, width in pairwise(widths)))
        self.squeeze = Conv2dNormActivation(widths[-1], _SQUEEZED, 1)
        places = (ACROSS_PX // 16) * (ALONG_PX // 16)
        self.judge = nn.Sequential(nn.Linear(_SQUEEZED * places + 2, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, OUTPUTS))
        # Each after its stage; at first they add nothing, so that weights without them can be trained on. A seed gives
        # everything else as it would without them.
        with torch.random.fork_rng(devices=[]):
            self.deeper = nn.ModuleList(residual_block(width, width, stride=1) for width in widths[1:])
        for block in self.deeper:
            assert isinstance(block, BasicBlock)
            nn.init.zeros_(block.bn2.weight)

    def forward(self, cutouts: torch.Tensor, length_px: torch.Tensor, width_px: torch.Tensor) -> torch.Tensor:
        """Outputs float32 (n, OUTPUTS) of normalised `cutouts` (n, 3, ACROSS_PX, ALONG_PX) and their boxes (n,)."""
        maps = functional.pixel_unshuffle(cutouts, 2)
        where = _channels_of_place(length_px, width_px).to(maps.dtype)
        maps = torch.cat([maps, where], dim=1).contiguous(memory_format=torch.channels_last)
        maps = self.stem(maps)
        for stage, deeper in zip(self.stages, self.deeper, strict=True):
            maps = deeper(stage(maps))
        maps = self.squeeze(maps)
        extent = torch.stack([length_px.log() - MEAN_EXTENT[0], width_px.log() - MEAN_EXTENT[1]], dim=1)
        return by_full_rows(self._judged, maps.float(), extent.float()).float()

    def _judged(self, maps: torch.Tensor, extent: torch.Tensor) -> torch.Tensor:
        first, _, last = self.judge
        assert isinstance(first, nn.Linear)
        assert isinstance(last, nn.Linear)
        # Place by place, then summed: a product over all places at once is split among threads, and their number would
        # show in the last bits.
        weight = first.weight.float()
        of_maps, of_extent = weight.split([maps[0].numel(), extent.shape[1]], dim=1)
        by_place = of_maps.view(_HIDDEN, maps.shape[1], -1).permute(2, 1, 0)
        hidden = torch.bmm(maps.flatten(2).permute(2, 0, 1), by_place).sum(dim=0)
        hidden = hidden + functional.linear(extent, of_extent, first.bias.float())
        return functional.linear(hidden.relu(), last.weight.float(), last.bias.float())


def by_full_rows(rule: Callable[..., torch.Tensor], *rows: torch.Tensor, multiple_of: int = _AT_ONCE) -> torch.Tensor:
    """`rule` of `rows` (n, ...), calculated of the next multiple of rows; it must treat each row by itself.

    Libraries multiply matrices of few rows in another order (MKL with AVX-512: of fewer than 3 or 16), and take another
    sigmoid for the numbers that do not fill a vector register. How many proposals a window has must not show in the
    last bits of one: where units tie, these decide.
    """
    count = len(rows[0])
    missing = -count % multiple_of
    return rule(*(functional.pad(part, (*(0, 0) * (part.dim() - 1), 0, missing)) for part in rows))[:count]


def residual_block(before: int, width: int, stride: int) -> BasicBlock:
    """Two convolutions beside a shortcut, which is one of 1 x 1 where the shape changes."""
    shortcut: nn.Module | None = None
    if stride != 1 or before != width:
        shortcut = nn.Sequential(nn.Conv2d(before, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width))
    return BasicBlock(before, width, stride=stride, downsample=shortcut)


def _channels_of_place(length_px: torch.Tensor, width_px: torch.Tensor) -> torch.Tensor:
    """(n, 4, ACROSS_PX / 2, ALONG_PX / 2): inside the box 1, with a soft rim, then along, across, distance squared."""
    device = length_px.device
    along, across = _steps(ALONG_PX // 2, device) * 2, _steps(ACROSS_PX // 2, device) * 2

    def inside(half_px: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
        return (half_px[:, None] - steps.abs()).clamp(-2, 2) / 4 + 0.5

    box = inside(width_px / 2, across)[:, :, None] * inside(length_px / 2, along)[:, None, :]
    u = (along / (ALONG_PX / 2))[None, None, :].expand_as(box)
    v = (across / (ACROSS_PX / 2))[None, :, None].expand_as(box)
    return torch.stack([box, u, v, u * u + v * v], dim=1)


def _steps(number: int, device: torch.device) -> torch.Tensor:
    """Places of a row of cells of side 1 about 0."""
    return torch.arange(number, device=device) + 0.5 - number / 2


def packed(images: torch.Tensor, valid: torch.Tensor | None) -> torch.Tensor:
    """What `cut_out` takes its pixels from: int32 (N, H + 2 MARGIN_PX, W + 2 MARGIN_PX), of uint8 images (N, H, W, 3).

    The bytes of a pixel are its colours and 1; where there is no image, or it is not `valid` (N, H, W), all four are 0.
    """
    count, height, width = images.shape[:3]
    rows, columns = slice(MARGIN_PX, MARGIN_PX + height), slice(MARGIN_PX, MARGIN_PX + width)
    bytes_ = torch.zeros(
        (count, height + 2 * MARGIN_PX, width + 2 * MARGIN_PX, 4), dtype=torch.uint8, device=images.device
    )
    bytes_[:, rows, columns, :3] = images if valid is None else images * valid.unsqueeze(-1)
    bytes_[:, rows, columns, 3] = 1 if valid is None else valid.to(torch.uint8)
    return bytes_.view(torch.int32).squeeze(-1)


def cut_out(
    pixels: torch.Tensor, proposals: torch.Tensor, stride: int, mirror: torch.Tensor | None = None
) -> torch.Tensor:
    """Normalised float32 (n, 3, ACROSS_PX, ALONG_PX) of `packed` images, the heading to the right.

    Bilinear. Where there is no image it is mid-grey, as in the first stage. Places are counted from the proposal's cell
    of `stride` pixels, so that they are as exact wherever that lies in the window. `mirror` (n,) of -1 turns
    a cut-out over about its long axis.
    """
    _, height, width = pixels.shape
    cosine, sine, along, across = _axes(proposals)
    if mirror is not None:
        across = across * mirror[:, None, None]
    x = proposals[:, CENTRE_X, None, None] - 0.5 + along * sine + across * cosine
    y = proposals[:, CENTRE_Y, None, None] - 0.5 - along * cosine + across * sine
    left, top = x.floor(), y.floor()
    right_share, lower_share = (x - left).unsqueeze(-1), (y - top).unsqueeze(-1)
    # The margin has room for every cut-out whose centre is near the image; others are moved there and see less.
    column = left.long() + (MARGIN_PX + stride * proposals[:, COLUMN, None, None].long())
    row = top.long() + (MARGIN_PX + stride * proposals[:, ROW, None, None].long())
    first = proposals[:, WINDOW, None, None].long() * (height * width)
    index = first + row.clamp(0, height - 2) * width + column.clamp(0, width - 2)
    flat = pixels.view(-1)

    def pixel(beyond: int) -> torch.Tensor:
        return flat[index + beyond].unsqueeze(-1).view(torch.uint8).float()

    upper = torch.lerp(pixel(0), pixel(1), right_share)
    lower = torch.lerp(pixel(width), pixel(width + 1), right_share)
    mixed = torch.lerp(upper, lower, lower_share)
    return ((mixed[..., :3] - GREY * mixed[..., 3:]) / DEVIATION).permute(0, 3, 1, 2)


def _axes(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Cosine and sine of the headings (n, 1, 1), and the steps of a cut-out along (1, 1, W) and across (1, H, 1)."""
    heading = heading_rad(rows)[:, None, None]
    along, across = _steps(ALONG_PX, rows.device)[None, None, :], _steps(ACROSS_PX, rows.device)[None, :, None]
    return heading.cos(), heading.sin(), along, across


def reach_px(stride: int, most_offset_px: float) -> int:
    """Distance in pixels beyond a proposal's cell at which a pixel can still change its cut-out."""
    # Half of the diagonal, the neighbour that a place is interpolated from, and the centre's distance from its cell.
    return math.ceil(math.hypot(ALONG_PX, ACROSS_PX) / 2 + 1 + max(0.0, most_offset_px - stride / 2))


def boxes(proposals: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Length and width (n,) that cut-outs are marked with."""
    return proposals[:, LENGTH].clamp(*_BOX_PX), proposals[:, WIDTH].clamp(*_BOX_PX)


def refine(
    net: RefinerNet,
    images: torch.Tensor,
    valid: torch.Tensor | None,
    proposals: torch.Tensor,
    stride: int,
    precision: torch.dtype = torch.float32,
) -> torch.Tensor:
    """The table of proposals with class, score, centre, size, heading and fans of the second stage.

    Of two proposals on one unit both remain: they are on one place now, and `thinned` leaves the better one.
    """
    if not len(proposals):
        return proposals
    pixels = packed(images, valid)

    def judged(part: torch.Tensor) -> torch.Tensor:
        return net(cut_out(pixels, part, stride).to(precision), *boxes(part))

    # A single cut-out is convolved in another order than one of two.
    parts = proposals.split(_AT_ONCE)
    table = torch.cat([by_full_rows(_refined, part, by_full_rows(judged, part, multiple_of=2)) for part in parts])

    def counted(part: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        seen = _within_reach(part, before)
        return by_period(cut_out(pixels, part, stride), seen, part[:, LENGTH], part[:, WIDTH], part[:, FANS])

    chillers = torch.nonzero(table[:, CLASS] == CHILLER).squeeze(1)
    for rows in chillers.split(_AT_ONCE):
        table[rows, FANS] = by_full_rows(counted, table[rows], proposals[rows])
    return table


def _within_reach(units: torch.Tensor, proposals: torch.Tensor) -> torch.Tensor:
    """(n, ACROSS_PX, ALONG_PX): pixels of the units' cut-outs that those of their proposals reach as well.

    The halo of a window is made for these: what lies farther away must not decide.
    """
    cosine, sine, along, across = _axes(units)
    moved_x, moved_y = (units[:, [CENTRE_X, CENTRE_Y]] - proposals[:, [CENTRE_X, CENTRE_Y]])[..., None, None].unbind(1)
    x, y = moved_x + along * sine + across * cosine, moved_y - along * cosine + across * sine
    return x.square() + y.square() <= (ALONG_PX**2 + ACROSS_PX**2) / 4


def _refined(proposals: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
    logs = functional.log_softmax(outputs[:, KIND], dim=1)[:, : len(OBJECT_CLASSES)]
    # log(p / (1 - p)); p can round to 1.
    odds = logs - torch.log1p(-logs.exp().clamp(max=1 - 1e-6))
    score, cls = (FIRST_STAGE_SHARE * proposals[:, HEATS] + odds).max(dim=1)
    # A mean, not a sum: from 17 on a float32 sigmoid is 1, and ties would decide which of two peaks stays.
    score = score / (1 + FIRST_STAGE_SHARE)

    heading = heading_rad(proposals)
    cosine, sine = heading.cos(), heading.sin()
    along, across = (outputs[:, PLACE].clamp(-MOST_PLACES, MOST_PLACES) * PLACE_PX).unbind(1)
    extent = (outputs[:, EXTENT] + outputs.new_tensor(MEAN_EXTENT)).clamp(0, 7).exp()
    # Of the four headings that the quarter allows the one nearest to the axis.
    axis = torch.atan2(outputs[:, AXIS.start + 1], outputs[:, AXIS.start]) / 2
    quarter = torch.atan2(outputs[:, QUARTER.start + 1], outputs[:, QUARTER.start]) / 4
    turn = quarter + torch.round((axis - quarter) / (math.pi / 2)) * (math.pi / 2)
    double = 2 * (heading + turn)

    table = proposals.clone()
    table[:, CLASS] = cls.to(table.dtype)
    table[:, SCORE] = score.sigmoid()
    table[:, CENTRE_X] += along * sine + across * cosine
    table[:, CENTRE_Y] += across * sine - along * cosine
    table[:, LENGTH], table[:, WIDTH] = extent.amax(1), extent.amin(1)
    table[:, COS], table[:, SIN] = double.cos(), double.sin()
    table[:, FANS] = outputs[:, FAN_COUNT.start].clamp(-1, 7).exp()
    return table


def heading_rad(proposals: torch.Tensor) -> torch.Tensor:
    """(n,): direction of the long axis, clockwise from up, in (-pi / 2, pi / 2]."""
    return torch.atan2(proposals[:, SIN], proposals[:, COS]) / 2
