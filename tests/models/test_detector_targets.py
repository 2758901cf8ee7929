"""Labels to target maps and back: a network that gave the targets would give the objects."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.classes import OBJECT_CLASSES
from models.detector.labels import Labels
from models.detector.network import (
    CHANNELS,
    FANS,
    HEADING,
    HEAT,
    LETTERING,
    OFFSET,
    SIZE,
    STRIDE,
    Area,
    Features,
    spread,
)
from models.detector.peaks import Peaks, decode, pick_peaks, thinned
from models.detector.targets import Targets, make_targets
from models.rendering.objects import PlacedObject, PlacedText

SIDE = 160


def perfect_maps(targets: Targets) -> torch.Tensor:
    """Maps (1, CHANNELS, h, w) of a network that has learnt these targets exactly."""
    height, width = targets.weight.shape
    maps = torch.zeros(1, CHANNELS, height, width)
    maps[0, HEAT] = torch.logit(torch.from_numpy(targets.heat), eps=1e-5)
    maps[0, OFFSET] = torch.from_numpy(targets.boxes[0:2])
    maps[0, SIZE] = torch.from_numpy(targets.boxes[2:4])
    maps[0, HEADING] = torch.from_numpy(targets.boxes[4:6])
    maps[0, FANS] = torch.from_numpy(targets.boxes[6:7])
    maps[0, LETTERING] = torch.logit(torch.from_numpy(targets.lettering), eps=1e-5)
    return maps


def picked(
    maps: torch.Tensor, min_score: float, valid: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """What is picked from maps, laid out as the network's trunk gives them."""
    count, channels, height, width = maps.shape
    split = maps.view(count, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 3, 5, 1)
    cells = split.reshape(count, height // 2, width // 2, 4 * channels)
    bias = torch.zeros(4 * channels)
    assert torch.equal(spread(cells, bias), maps)
    whole = Area(0, 0, height * STRIDE, width * STRIDE)
    features = Features(cells.permute(0, 3, 1, 2), whole, whole, whole)
    return pick_peaks(features, torch.eye(4 * channels), bias, valid, min_score)


def decoded(objects: list[PlacedObject], min_score: float = 0.9) -> Peaks:
    table, _ = picked(perfect_maps(make_targets(Labels.of(objects), SIDE, SIDE)), min_score)
    return thinned(decode(table.numpy(), 0))


def heading_gap_deg(one: float, other: float) -> float:
    return abs((one - other + 90) % 180 - 90)


@settings(deadline=None, max_examples=60)
@given(
    cls=st.sampled_from(OBJECT_CLASSES),
    x=st.floats(1, SIDE - 1.01),
    y=st.floats(1, SIDE - 1.01),
    width=st.floats(4, 30),
    ratio=st.floats(1.0, 6),
    heading=st.floats(0, 179.99),
    fans=st.integers(1, 40),
)
def test_any_object_is_recovered(
    cls: str, x: float, y: float, width: float, ratio: float, heading: float, fans: int
) -> None:
    found = decoded([PlacedObject(cls, x, y, width * ratio, width, heading, fans)])
    assert len(found) == 1
    assert OBJECT_CLASSES[found.cls[0]] == cls
    assert (found.x_px[0], found.y_px[0]) == pytest.approx((x, y), abs=1e-3)
    assert found.length_px[0] == pytest.approx(width * ratio, rel=1e-4)
    assert found.width_px[0] == pytest.approx(width, rel=1e-4)
    assert found.fans[0] == pytest.approx(fans, rel=1e-4)
    assert heading_gap_deg(found.heading_deg[0], heading) < 0.05
    assert 0 <= found.heading_deg[0] < 180


@pytest.mark.parametrize("heading", [0, 17, 45, 90, 133])
def test_batteries_two_metres_apart_stay_apart(heading: float) -> None:
    turn = np.deg2rad(heading)
    across = np.array([np.cos(turn), np.sin(turn)]) * 2.0 / 0.30
    centres = [np.array([80.3, 79.1]) + k * across for k in range(-5, 6)]
    found = decoded([PlacedObject("battery", x, y, 24.0, 5.5, heading, 0) for x, y in centres])
    assert len(found) == len(centres)
    wanted = sorted(map(tuple, centres))
    assert sorted(zip(found.x_px, found.y_px, strict=True)) == [pytest.approx(c, abs=1e-3) for c in wanted]


def test_fan_cells_in_a_bank_stay_apart() -> None:
    objects = [
        PlacedObject("dry_cooler", 30 + 7.5 * column, 40 + 7.5 * row, 7.5, 7.5, 0, 1)
        for column in range(12)
        for row in range(4)
    ]
    assert len(decoded(objects)) == 48


def test_a_second_peak_on_one_turbine_is_dropped_and_a_neighbour_is_kept() -> None:
    turbine = PlacedObject("gas_turbine", 60, 80, 70, 12, 0, 0)
    targets = make_targets(Labels.of([turbine, PlacedObject("gas_turbine", 60 + 18, 80, 70, 12, 0, 0)]), SIDE, SIDE)
    maps = perfect_maps(targets)
    echo_row, echo_column = (80 - 14) // 2, 30
    maps[0, :, echo_row, echo_column] = maps[0, :, 40, 30]
    maps[0, OBJECT_CLASSES.index("gas_turbine"), echo_row, echo_column] = 1.0
    table, _ = picked(maps, 0.5)
    assert len(table) == 3
    assert sorted(thinned(decode(table.numpy(), 0)).x_px) == pytest.approx([60, 78], abs=1e-3)


def test_of_equal_neighbours_one_stays() -> None:
    maps = torch.full((1, CHANNELS, 16, 16), -9.0)
    maps[0, 1, 5, 5:7] = 2.0
    table, _ = picked(maps, 0.5)
    assert table[:, :4].tolist() == [[0, 1, 5, 5]]


def test_nothing_is_found_where_there_is_no_image() -> None:
    objects = [PlacedObject("battery", x, 80.0, 24.0, 5.5, 0, 0) for x in (40.0, 120.0)]
    text = PlacedText("A", 120.0, 80.0, 60.0, 30.0, 90.0)
    maps = perfect_maps(make_targets(Labels.of(objects, [text]), SIDE, SIDE))
    valid = torch.ones(1, SIDE, SIDE, dtype=torch.bool)
    valid[:, :, 80:] = False
    table, lettering = picked(maps, 0.5, valid)
    assert decode(table.numpy(), 0).x_px == pytest.approx([40.0], abs=1e-3)
    assert lettering[:, :, 20:].max() == 0
    assert picked(maps, 0.5)[1][:, :, 20:].max() > 0.99


def test_lettering_covers_the_painted_rectangle() -> None:
    text = PlacedText("MACROHARD", 80.0, 80.0, 100.0, 20.0, 30.0)
    mask = make_targets(Labels.of(texts=[text]), SIDE, SIDE).lettering
    assert mask.sum() * 4 == pytest.approx(100 * 20, rel=0.05)
    # Reading direction 30 degrees clockwise from up: the ends lie 40 px along it.
    dx, dy = 40 * np.sin(np.deg2rad(30)), -40 * np.cos(np.deg2rad(30))
    for sign in (-1, 1):
        assert mask[int(80 + sign * dy) // 2, int(80 + sign * dx) // 2] == 1
        assert mask[int(80 - sign * dy) // 2, int(80 + sign * dx) // 2] == 0


def test_ignored_objects_are_not_judged_and_others_are() -> None:
    ignored = PlacedObject("cooling_tower", 60.0, 60.0, 20.0, 20.0, 0, 1)
    targets = make_targets(Labels.of(ignored=[ignored]), SIDE, SIDE)
    assert not targets.judged[30, 30]
    assert targets.judged[60, 60]
    assert targets.heat.max() == 0
