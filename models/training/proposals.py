"""What the second stage is taught on: proposals of the first one on a training batch, and what is really there."""

from dataclasses import dataclass, fields

import torch
from torch.nn import functional

from models.classes import OBJECT_CLASSES
from models.detector import refinement as table
from models.detector.labels import CLASS, COUNT, HEADING, LENGTH, WIDTH, X, Y
from models.detector.losses import elongation
from models.detector.network import STRIDE

MIN_SCORE = 0.08
"""A little under what is proposed to the second stage in use, so that it knows what comes at the edge."""
NOTHING = len(OBJECT_CLASSES)
"""Kind of a proposal on which there is no unit."""
_INSIDE, _BESIDE = 0.75, 1.1
"""Half sides of a unit within which a proposal means that unit; between the two it is not judged."""
WEIGHTS = {"kind": 1.0, "place": 0.5, "extent": 1.0, "axis": 0.4, "quarter": 0.3, "fan count": 0.7}
"""Of the parts of the loss; the kind weighs most, because it decides what is counted."""
_TRUE_SHARE = 0.5
"""Share of the units that are shown from where they truly are as well: an untrained first stage proposes nothing."""
_AT_MOST = 32
"""Times the proposals that are drawn: of a wild first stage no more are compared with the units."""


@dataclass(frozen=True)
class Lesson:
    """Proposals, as they are shown, and what the second stage should say of each."""

    proposals: torch.Tensor
    """float32 (n, COLUMNS), see `models.detector.refinement`."""
    mirror: torch.Tensor
    """float32 (n,): -1 where the cut-out is turned over about its long axis."""
    kind: torch.Tensor
    """int64 (n,): index in OBJECT_CLASSES, or `NOTHING`."""
    along_px: torch.Tensor
    across_px: torch.Tensor
    """float32 (n,): the unit's centre from the middle of the cut-out; like all below without meaning for `NOTHING`."""
    length_px: torch.Tensor
    width_px: torch.Tensor
    turn_rad: torch.Tensor
    """float32 (n,): by how much its long axis is turned clockwise from the cut-out's."""
    fans: torch.Tensor

    def to(self, device: torch.device) -> "Lesson":
        """The same on a device."""
        return Lesson(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


def draw_lesson(
    proposed: torch.Tensor,
    units: torch.Tensor,
    unjudged: torch.Tensor,
    side_px: int,
    most: int,
    generator: torch.Generator,
) -> Lesson:
    """Up to `most` of the proposals and of the true units of a batch, rare kinds more often, each a little displaced.

    :param proposed: table of proposals
    :param units: float32 (m, 8), the number of the image before the columns of a label table; those beyond an image's
        edge are what a proposal at the edge may mean, and are not shown
    :param unjudged: the same for ground that is not judged
    :param side_px: of the images
    :param generator: on the CPU; the outcome is a function of its state and of the tables
    """
    proposed = proposed.cpu()
    if len(proposed) > _AT_MOST * most:
        proposed = proposed[torch.randperm(len(proposed), generator=generator)[: _AT_MOST * most]]
    there = ((units[:, [1 + X, 1 + Y]] >= 0) & (units[:, [1 + X, 1 + Y]] < side_px)).all(dim=1)
    shown = units[there & (torch.rand(len(units), generator=generator) < _TRUE_SHARE)]
    rows = torch.cat([proposed, _as_proposals(shown)])
    nearest, far = _nearest(rows, units)
    kind = torch.where(far <= _INSIDE, units[nearest, 1 + CLASS].long(), NOTHING) if len(units) else nearest + NOTHING
    judged = (far <= _INSIDE) | (far > _BESIDE)
    if len(unjudged):
        judged &= _nearest(rows, unjudged)[1] > 1
    rows, kind, nearest = rows[judged], kind[judged], nearest[judged]
    if len(rows) > most:
        often = torch.bincount(kind, minlength=NOTHING + 1).float()[kind]
        chosen = torch.multinomial(often.rsqrt(), most, generator=generator)
        rows, kind, nearest = rows[chosen], kind[chosen], nearest[chosen]
    rows = _displaced(rows, generator)
    mirror = torch.where(torch.rand(len(rows), generator=generator) < 0.5, -1.0, 1.0)
    unit = units[nearest, 1:] if len(units) else torch.zeros(len(rows), 7)
    heading = table.heading_rad(rows)
    x, y = _centres(rows)
    dx, dy = unit[:, X] - x, unit[:, Y] - y
    return Lesson(
        proposals=rows,
        mirror=mirror,
        kind=kind,
        along_px=dx * heading.sin() - dy * heading.cos(),
        across_px=(dx * heading.cos() + dy * heading.sin()) * mirror,
        length_px=unit[:, LENGTH].clamp(min=1),
        width_px=unit[:, WIDTH].clamp(min=1),
        turn_rad=(torch.deg2rad(unit[:, HEADING]) - heading) * mirror,
        fans=unit[:, COUNT],
    )


def _as_proposals(units: torch.Tensor) -> torch.Tensor:
    rows = torch.zeros(len(units), table.COLUMNS)
    x, y, turn = units[:, 1 + X], units[:, 1 + Y], 2 * torch.deg2rad(units[:, 1 + HEADING])
    rows[:, table.WINDOW], rows[:, table.CLASS] = units[:, 0], units[:, 1 + CLASS]
    rows[:, table.COLUMN], rows[:, table.ROW] = (x / STRIDE).floor(), (y / STRIDE).floor()
    rows[:, table.CENTRE_X], rows[:, table.CENTRE_Y] = x % STRIDE, y % STRIDE
    rows[:, table.LENGTH], rows[:, table.WIDTH] = units[:, 1 + LENGTH], units[:, 1 + WIDTH]
    rows[:, table.COS], rows[:, table.SIN] = turn.cos(), turn.sin()
    return rows


def _nearest(rows: torch.Tensor, units: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """For each proposal the rectangle (row of `units`) whose middle is nearest, and how far it is in its half sides."""
    if not len(units):
        return torch.zeros(len(rows), dtype=torch.long), torch.full((len(rows),), torch.inf)
    x, y = _centres(rows)
    dx, dy = x[:, None] - units[None, :, 1 + X], y[:, None] - units[None, :, 1 + Y]
    turn = torch.deg2rad(units[:, 1 + HEADING])
    along = (dx * turn.sin() - dy * turn.cos()).abs() / (units[:, 1 + LENGTH] / 2)
    across = (dx * turn.cos() + dy * turn.sin()).abs() / (units[:, 1 + WIDTH] / 2)
    far = torch.maximum(along, across)
    far[rows[:, table.WINDOW, None] != units[None, :, 0]] = torch.inf
    far, nearest = far.min(dim=1)
    return nearest, far


def _centres(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """x and y (n,) in pixels of the image."""
    return (
        rows[:, table.COLUMN] * STRIDE + rows[:, table.CENTRE_X],
        rows[:, table.ROW] * STRIDE + rows[:, table.CENTRE_Y],
    )


def _displaced(rows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Proposals as a first stage that errs otherwise would make them, at times turned by a quarter."""
    count = len(rows)

    def normal() -> torch.Tensor:
        return torch.randn(count, generator=generator)

    def happens(share: float) -> torch.Tensor:
        return torch.rand(count, generator=generator) < share

    rows = rows.clone()
    sides = torch.stack([rows[:, side] * torch.exp(0.12 * normal()) for side in (table.LENGTH, table.WIDTH)])
    rows[:, table.LENGTH], rows[:, table.WIDTH] = sides.amax(0).clamp(max=200), sides.amin(0).clamp(min=1)
    for centre in (table.CENTRE_X, table.CENTRE_Y):
        rows[:, centre] += 0.08 * rows[:, table.WIDTH] * normal()
    square = rows[:, table.WIDTH] > 0.55 * rows[:, table.LENGTH]
    turn_deg = torch.where(happens(0.5), 3.0, 12.0) * normal() + torch.where(happens(0.1) & square, 90.0, 0.0)
    double = 2 * (table.heading_rad(rows) + torch.deg2rad(turn_deg))
    rows[:, table.COS], rows[:, table.SIN] = double.cos(), double.sin()
    return rows


def refinement_losses(outputs: torch.Tensor, lesson: Lesson) -> dict[str, torch.Tensor]:
    """Weighted losses by part, as scalars to be summed, of the second stage's `outputs` (n, OUTPUTS) on a lesson."""
    unit = (lesson.kind != NOTHING).float()
    units = unit.sum().clamp(min=1)

    def mean(part: slice, wanted: list[torch.Tensor], share: torch.Tensor) -> torch.Tensor:
        return ((outputs[:, part] - torch.stack(wanted, dim=1)).abs().sum(dim=1) * share).sum() / units

    elongated = elongation(lesson.width_px / lesson.length_px) * unit
    log_length, log_width = lesson.length_px.log() - table.MEAN_EXTENT[0], lesson.width_px.log() - table.MEAN_EXTENT[1]
    place = [lesson.along_px / table.PLACE_PX, lesson.across_px / table.PLACE_PX]
    double, fourfold = 2 * lesson.turn_rad, 4 * lesson.turn_rad
    kinds = functional.cross_entropy(outputs[:, table.KIND], lesson.kind, reduction="sum") / max(1, len(outputs))
    parts = {
        "kind": kinds,
        "place": mean(table.PLACE, place, unit),
        "extent": mean(table.EXTENT, [log_length, log_width], unit),
        "axis": mean(table.AXIS, [double.cos(), double.sin()], elongated),
        "quarter": mean(table.QUARTER, [fourfold.cos(), fourfold.sin()], unit),
        "fan count": mean(table.FAN_COUNT, [lesson.fans.clamp(min=1).log()], unit * (lesson.fans >= 1)),
    }
    return {name: WEIGHTS[name] * value for name, value in parts.items()}
