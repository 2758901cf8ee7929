"""The second stage: what it is shown of a proposal, what it makes of it, and what it is taught."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.classes import OBJECT_CLASSES
from models.detector import refinement as table
from models.detector.fans import CHILLER, ROWS
from models.detector.labels import CLASS, Labels
from models.detector.network import LATTICE_PX, STRIDE, DetectorNet
from models.detector.peaks import decode
from models.rendering.objects import PlacedObject
from models.training.proposals import NOTHING, Lesson, draw_lesson, refinement_losses

TURBINE, BATTERY = OBJECT_CLASSES.index("gas_turbine"), OBJECT_CLASSES.index("battery")


def proposal(x: float, y: float, heading_deg: float, length_px: float = 30, width_px: float = 8) -> torch.Tensor:
    row = torch.zeros(1, table.COLUMNS)
    row[0, table.COLUMN], row[0, table.ROW] = x // STRIDE, y // STRIDE
    row[0, table.CENTRE_X], row[0, table.CENTRE_Y] = x % STRIDE, y % STRIDE
    row[0, table.LENGTH], row[0, table.WIDTH] = length_px, width_px
    turn = np.deg2rad(2 * heading_deg)
    row[0, table.COS], row[0, table.SIN] = float(np.cos(turn)), float(np.sin(turn))
    return row


def addressed(height: int, width: int) -> torch.Tensor:
    """An image each of whose pixels carries its own address: column in red, row in green."""
    rows, columns = np.mgrid[0:height, 0:width].astype(np.uint8)
    return torch.from_numpy(np.dstack([columns, rows, np.full_like(rows, 200)])[None])


def levels(cutouts: torch.Tensor) -> np.ndarray:
    """Grey levels (n, H, W, 3) of normalised cut-outs."""
    return (cutouts * 0.25 * 255 + 0.45 * 255).permute(0, 2, 3, 1).numpy()


@settings(deadline=None, max_examples=60)
@given(
    x=st.floats(70, 186),
    y=st.floats(70, 186),
    heading_deg=st.floats(0, 179.9),
    along=st.integers(0, table.ALONG_PX - 1),
    across=st.integers(0, table.ACROSS_PX - 1),
    mirror=st.sampled_from([1.0, -1.0]),
)
def test_a_cut_out_has_the_heading_to_the_right(
    x: float, y: float, heading_deg: float, along: int, across: int, mirror: float
) -> None:
    row = proposal(x, y, heading_deg)
    seen = levels(table.cut_out(table.packed(addressed(256, 256), None), row, STRIDE, torch.tensor([mirror])))[
        0, across, along
    ]
    # The heading t of a proposal and t + 180 are one: the cut-out takes that in (-90, 90].
    turn = np.deg2rad(heading_deg if heading_deg <= 90 else heading_deg - 180)
    u, v = along + 0.5 - table.ALONG_PX / 2, mirror * (across + 0.5 - table.ACROSS_PX / 2)
    at = [x + u * np.sin(turn) + v * np.cos(turn) - 0.5, y - u * np.cos(turn) + v * np.sin(turn) - 0.5]
    assert seen[:2] == pytest.approx(at, abs=0.02)


def test_a_cut_out_does_not_depend_on_the_window_and_ends_in_grey() -> None:
    image = torch.randint(0, 256, (1, 320, 320, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    row = proposal(151.3, 163.9, 37.0)
    whole = table.cut_out(table.packed(image, None), row, STRIDE)
    moved = row.clone()
    for column in (table.COLUMN, table.ROW):
        moved[0, column] -= 3 * LATTICE_PX // STRIDE
    part = image[:, 3 * LATTICE_PX :, 3 * LATTICE_PX :]
    assert torch.equal(table.cut_out(table.packed(part, None), moved, STRIDE), whole)

    half = torch.ones(1, 320, 320, dtype=torch.bool)
    half[:, :, 200:] = False
    seen = table.cut_out(table.packed(image, half), row, STRIDE)
    cropped = table.cut_out(table.packed(image[:, :, :200], None), row, STRIDE)
    assert torch.equal(seen, cropped)
    assert (seen != 0).any()
    assert (seen == 0).all(dim=1).any()


class Saying(torch.nn.Module):
    """A second stage that says the same of every proposal."""

    def __init__(self, outputs: torch.Tensor) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, cutouts: torch.Tensor, length_px: torch.Tensor, width_px: torch.Tensor) -> torch.Tensor:
        return self.outputs.expand(len(cutouts), -1)


def lesson_of(row: torch.Tensor, unit: PlacedObject) -> Lesson:
    """What is taught of one proposal on one unit, as it stands and not displaced."""
    units = torch.from_numpy(np.column_stack([[0.0], Labels.of([unit]).objects]).astype(np.float32))
    for seed in range(200):
        lesson = draw_lesson(row, units, units[:0], 256, 1, torch.Generator().manual_seed(seed))
        if len(lesson.kind) and lesson.mirror[0] > 0 and lesson.proposals[0, table.ROW] == row[0, table.ROW]:
            return lesson
    raise AssertionError("not drawn in 200 lessons")


def as_said(lesson: Lesson) -> torch.Tensor:
    """The outputs that the loss of a lesson of one proposal is smallest for."""
    said = torch.zeros(1, table.OUTPUTS)
    said[0, int(lesson.kind[0])] = 20.0
    said[0, table.PLACE] = torch.stack([lesson.along_px[0], lesson.across_px[0]]) / table.PLACE_PX
    sides = torch.stack([lesson.length_px[0], lesson.width_px[0]]).log()
    said[0, table.EXTENT] = sides - torch.tensor(table.MEAN_EXTENT)
    for part, times in ((table.AXIS, 2), (table.QUARTER, 4)):
        said[0, part] = torch.stack([(times * lesson.turn_rad[0]).cos(), (times * lesson.turn_rad[0]).sin()])
    said[0, table.FAN_COUNT] = lesson.fans[0].clamp(min=1).log()
    return said


@settings(deadline=None, max_examples=40)
@given(
    heading_deg=st.floats(0, 179),
    proposed_deg=st.floats(-40, 40),
    dx=st.floats(-2.5, 2.5),
    dy=st.floats(-2.5, 2.5),
    length_px=st.floats(20, 70),
)
def test_what_is_taught_is_what_is_decoded(
    heading_deg: float, proposed_deg: float, dx: float, dy: float, length_px: float
) -> None:
    unit = PlacedObject("air_cooled_chiller", 120.0, 131.0, length_px, 9.5, heading_deg, 14)
    lesson = lesson_of(proposal(120 + dx, 131 + dy, (heading_deg + proposed_deg) % 180), unit)
    said = as_said(lesson)
    assert sum(float(part) for part in refinement_losses(said, lesson).values()) < 1e-4
    image = addressed(256, 256)
    peak = decode(table.refine(Saying(said), image, None, lesson.proposals, STRIDE).numpy(), 0)  # type: ignore[arg-type]
    assert OBJECT_CLASSES[peak.cls[0]] == "air_cooled_chiller"
    assert [peak.x_px[0], peak.y_px[0]] == pytest.approx([120, 131], abs=1e-3)
    assert [peak.length_px[0], peak.width_px[0]] == pytest.approx([length_px, 9.5], rel=1e-4)
    assert abs((peak.heading_deg[0] - heading_deg + 90) % 180 - 90) < 0.05
    # Wider than two rows of fans: as regressed.
    assert peak.fans[0] == pytest.approx(14, rel=1e-4)


def test_a_unit_that_is_taught_from_its_mirror_image_is_turned_the_other_way() -> None:
    unit = PlacedObject("battery", 100.0, 90.0, 30.0, 8.0, 40.0, 0)
    units = torch.from_numpy(np.column_stack([[0.0], Labels.of([unit]).objects]).astype(np.float32))
    row = proposal(101.0, 90.0, 30.0)
    for seed in range(40):
        lesson = draw_lesson(row, units, units[:0], 256, 1, torch.Generator().manual_seed(seed))
        shown = torch.rad2deg(torch.atan2(lesson.proposals[:, table.SIN], lesson.proposals[:, table.COS]) / 2)
        turned = torch.rad2deg(lesson.turn_rad) * lesson.mirror + shown
        assert (turned - 40 + 90) % 180 - 90 == pytest.approx(0, abs=1e-3)
        if lesson.mirror[0] < 0:
            return
    raise AssertionError("no mirror image in 40 lessons")


def test_scores_of_both_stages_decide_and_the_second_may_name_another_class() -> None:
    row = proposal(100, 100, 0)
    row[0, table.CLASS] = BATTERY
    image = addressed(224, 224)

    def refined(first: dict[int, float], second: dict[int, float]) -> tuple[int, float]:
        row[0, table.HEATS] = -3.0
        for cls, logit in first.items():
            row[0, table.HEATS.start + cls] = logit
        said = torch.zeros(1, table.OUTPUTS)
        for cls, logit in second.items():
            said[0, cls] = logit
        out = table.refine(Saying(said), image, None, row, STRIDE)[0]  # type: ignore[arg-type]
        return int(out[table.CLASS]), float(out[table.SCORE])

    agreed = refined({BATTERY: 1.0}, {BATTERY: 6.0})
    doubted = refined({BATTERY: 1.0}, {NOTHING: 6.0})
    assert agreed[0] == BATTERY
    assert agreed[1] > 0.8 > 0.3 > doubted[1]
    assert refined({BATTERY: 1.0, TURBINE: 0.5}, {TURBINE: 9.0})[0] == TURBINE
    # However sure it is, the score is a number that can be calibrated.
    assert 0 < refined({BATTERY: 30.0}, {BATTERY: 1e4})[1] <= 1


def test_lessons_name_what_lies_under_a_proposal() -> None:
    units = [PlacedObject("battery", 50.0 + 30 * k, 60.0, 24.0, 8.0, 90.0, 0) for k in range(4)]
    hidden = PlacedObject("gas_turbine", 200.0, 200.0, 60.0, 20.0, 0.0, 0)
    labels = Labels.of(units, [], [hidden])
    number = np.zeros((4, 1), np.float32)
    truth = torch.from_numpy(np.hstack([number, labels.objects]))
    unjudged = torch.from_numpy(np.hstack([number[:1], labels.ignored]))
    on_unit, beside, far, on_hidden = (
        proposal(50, 60, 90),
        proposal(50, 60 + 4 * 0.9, 90),
        proposal(50, 120, 90),
        proposal(200, 190, 0),
    )
    generator = torch.Generator().manual_seed(0)

    def kinds(rows: list[torch.Tensor], units: torch.Tensor) -> list[int]:
        return draw_lesson(torch.cat(rows), units, unjudged, 256, 99, generator).kind.tolist()

    none = truth[:0]
    assert kinds([far, on_hidden], none) == [NOTHING]
    one = truth[:1]
    drawn = kinds([on_unit, beside, far], one)
    # What lies beside a unit is not judged; the unit itself may be shown from where it is as well.
    assert sorted(drawn)[:2] in ([int(one[0, 1 + CLASS]), NOTHING], [int(one[0, 1 + CLASS])] * 2)
    assert drawn.count(NOTHING) == 1
    other_image = one.clone()
    other_image[0, 0] = 3
    assert kinds([on_unit], other_image)[0] == NOTHING

    crowd = [proposal(20.0 + 2 * k, 150, 0) for k in range(60)] + [on_unit]
    lessons = [draw_lesson(torch.cat(crowd), one, unjudged, 256, 12, generator) for _ in range(30)]
    assert all(len(lesson.kind) == 12 for lesson in lessons)
    # One of 61 proposals, but drawn as the rarer kind: by chance it would be in 6 of 30.
    assert sum(bool((lesson.kind != NOTHING).any()) for lesson in lessons) > 15
    again = [draw_lesson(torch.cat(crowd), one, unjudged, 256, 12, torch.Generator().manual_seed(5)) for _ in range(2)]
    assert torch.equal(again[0].proposals, again[1].proposals)


def test_units_beyond_the_edge_are_not_shown_but_are_what_a_proposal_there_means() -> None:
    beyond = Labels.of([PlacedObject("battery", 262.0, 60.0, 40.0, 8.0, 90.0, 0)])
    units = torch.from_numpy(np.column_stack([[0.0], beyond.objects]).astype(np.float32))
    generator = torch.Generator().manual_seed(3)
    none = units[:0]
    assert all(
        len(draw_lesson(none[:, :1].expand(0, table.COLUMNS), units, none, 256, 9, generator).kind) == 0
        for _ in range(20)
    )
    lesson = draw_lesson(proposal(250, 60, 90), units, none, 256, 9, generator)
    assert lesson.kind.tolist() == [BATTERY]


def test_scores_of_the_surest_keep_their_order() -> None:
    rows = torch.cat([proposal(100, 100, 0), proposal(110, 100, 0)])
    rows[:, table.HEATS] = -5.0
    rows[0, table.HEATS.start], rows[1, table.HEATS.start] = 6.0, 7.0
    said = torch.zeros(1, table.OUTPUTS)
    said[0, 0] = 40.0
    scores = table.refine(Saying(said), addressed(224, 224), None, rows, STRIDE)[:, table.SCORE]  # type: ignore[arg-type]
    assert scores[0] < scores[1] < 1


def test_further_blocks_change_nothing_at_first_and_learn() -> None:
    torch.manual_seed(0)
    net = table.RefinerNet().eval()
    shown = torch.randn(4, 3, table.ACROSS_PX, table.ALONG_PX), torch.full((4,), 20.0), torch.full((4,), 9.0)
    with torch.no_grad():
        before = net(*shown)
        for block in net.deeper:
            block.conv1.weight.normal_()
        torch.testing.assert_close(net(*shown), before, rtol=0, atol=0)
    net.train()(*shown).square().sum().backward()
    assert all(block.bn2.weight.grad.abs().max() > 0 for block in net.deeper)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_neither_the_number_of_proposals_nor_that_of_threads_shows_in_a_bit(precision: torch.dtype) -> None:
    random = torch.Generator().manual_seed(4)
    images = torch.randint(0, 256, (1, 256, 256, 3), generator=random, dtype=torch.uint8)
    places = torch.rand(150, 3, generator=random) * torch.tensor([256, 256, 180])
    rows = torch.cat([proposal(*place) for place in places.tolist()])
    net = DetectorNet().eval().refiner
    # Chillers, whose fans are counted as well.
    net.judge[-1].bias.data[CHILLER] += 1
    net = net.to(precision)
    threads = torch.get_num_threads()
    try:
        with torch.inference_mode():
            torch.set_num_threads(1)
            expected = table.refine(net, images, None, rows, STRIDE, precision)
            chillers = expected[expected[:, table.CLASS] == CHILLER]
            assert (chillers[:, table.FANS] % ROWS == 0).sum() > 100
            for count in (2, 3, 5):
                torch.set_num_threads(count)
                for part in (slice(0, 1), slice(70, 73), slice(5, 20), slice(60, 129)):
                    found = table.refine(net, images, None, rows[part], STRIDE, precision)
                    assert torch.equal(found, expected[part])
    finally:
        torch.set_num_threads(threads)


def test_reach_of_the_second_stage_lies_within_that_of_the_detector() -> None:
    net = DetectorNet()
    farthest = np.hypot(table.ALONG_PX / 2, table.ACROSS_PX / 2)
    assert farthest < table.reach_px(STRIDE, 5.0) <= net.reach_px


def test_a_lesson_of_nothing_but_ground_has_a_finite_loss() -> None:
    rows = torch.cat([proposal(60, 60, 0), proposal(90, 90, 0)])
    lesson = draw_lesson(rows, torch.zeros(0, 8), torch.zeros(0, 8), 256, 9, torch.Generator().manual_seed(1))
    losses = refinement_losses(torch.zeros(2, table.OUTPUTS), lesson)
    assert losses["kind"] == pytest.approx(np.log(len(OBJECT_CLASSES) + 1), rel=1e-5)
    assert all(float(value) == 0 for name, value in losses.items() if name != "kind")
