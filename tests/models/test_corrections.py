"""Corrected labels: ground that nobody judged counts nowhere, and a change is only called one where it is."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.classes import CLASSES, OBJECT_CLASSES
from models.detector.card import WeightsCard
from models.detector.labels import HEADING, Labels, X, Y
from models.detector.losses import detection_losses
from models.detector.network import CHANNELS
from models.detector.targets import Targets, make_targets
from models.rendering.objects import PlacedObject, PlacedText
from models.training.chip_pool import PooledChip
from models.training.corrections import Corrected, digest, held_out_change
from models.training.crops import draw_crop, turn
from models.training.evaluation import judge
from tests.models.test_training import Oracle, drawn_chip

EAST = np.array([[96.0, 32.0, 64.0, 64.0, 0.0, 0.0, 0.0]], np.float32)
"""The right half of an image of 128 x 64 px."""


def losses(labels: Labels, maps: torch.Tensor) -> float:
    made = make_targets(labels, 64, 128)
    targets = {name: torch.from_numpy(getattr(made, name)[None]) for name in Targets.__dataclass_fields__}
    return float(sum(detection_losses(maps, targets).values()))


def test_what_is_found_on_unseen_ground_changes_no_loss() -> None:
    things, words = [PlacedObject("battery", 20, 30, 12, 6, 10, 0)], [PlacedText("A", 40, 40, 20, 10, 90)]
    labels = Labels.of(things, words)
    maps = torch.randn(1, CHANNELS, 32, 64, generator=torch.Generator().manual_seed(1))
    other = maps.clone()
    other[..., 32:] = 3.0
    unseen = replace(labels, unseen=EAST)
    assert losses(unseen, other) == pytest.approx(losses(unseen, maps), rel=1e-6)
    assert losses(labels, other) > 1.1 * losses(labels, maps)


def test_unseen_ground_is_turned_with_its_pixels() -> None:
    image = np.zeros((128, 128, 3), np.uint8)
    image[:64, 64:] = 255
    north_east = np.array([[96.0, 32.0, 64.0, 64.0, 0.0, 0.0, 0.0]], np.float32)
    labels = replace(Labels.of(), unseen=north_east)
    for quarters in range(4):
        for mirror in (False, True):
            turned, moved = turn(image, labels, quarters, mirror)
            [row] = moved.unseen
            assert turned[int(row[Y]), int(row[X])].all()
            assert 0 <= row[HEADING] < 180


def test_crops_of_corrected_scenes_keep_their_unseen_ground() -> None:
    chip = PooledChip(np.full((128, 128, 3), 90, np.uint8), replace(Labels.of(), unseen=EAST), 0.3)
    drawn = [draw_crop(np.random.default_rng([3, k]), [drawn_chip(1)], [], [chip])[1] for k in range(60)]
    assert any(len(labels.unseen) for labels in drawn)


def oracle(chips: list[PooledChip], missing: int) -> Oracle:
    made = Oracle(chips, missing)
    card = WeightsCard({}, 0, "", {}, dict.fromkeys(CLASSES, (1.0, 0.0)), {})
    made.card = card  # type: ignore[attr-defined]
    return made


def test_a_detection_on_unseen_ground_is_no_false_one() -> None:
    chip = drawn_chip(1)
    whole = np.array([[144.0, 144.0, 400.0, 400.0, 0.0, 0.0, 0.0]], np.float32)
    battery = OBJECT_CLASSES.index("battery")
    for unseen, false in ((whole[:0], 1), (whole, 0)):
        labels = replace(chip.labels, unseen=unseen)
        found = judge(Oracle([chip], missing=0), [chip.image], [labels])  # type: ignore[arg-type]
        assert int((~found[OBJECT_CLASSES[battery]].hit).sum()) == false


def test_a_change_is_called_one_only_where_chance_would_not_make_it() -> None:
    chips = [drawn_chip(seed) for seed in range(4)]
    corrected = [Corrected((), tuple(chips), {})]
    worse, better = oracle(chips, missing=12), oracle(chips, missing=0)
    change = held_out_change(worse, better, corrected)["all"]  # type: ignore[arg-type]
    assert change["before"]["recall"] < change["after"]["recall"] == 1
    assert change["after"]["precision"] == 1
    assert change["verdict"] == {"recall": "better", "false_positives": "too few to tell"}
    back = held_out_change(better, worse, corrected)["all"]  # type: ignore[arg-type]
    assert back["verdict"]["recall"] == "worse"
    little = held_out_change(oracle(chips, 8), oracle(chips, 6), [Corrected((), tuple(chips[:1]), {})])  # type: ignore[arg-type]
    assert little["all"]["verdict"]["recall"] == "too few to tell"
    assert held_out_change(worse, better, []) == {}  # type: ignore[arg-type]


def test_chips_are_told_apart_by_a_label_as_by_a_pixel() -> None:
    chip = drawn_chip(1)
    moved = chip.labels.objects.copy()
    moved[0, X] += 1
    other = PooledChip(chip.image, replace(chip.labels, objects=moved), 0.3)
    assert len({digest([chip]), digest([other]), digest([chip, chip]), digest([])}) == 4
    assert digest([]) == ""
