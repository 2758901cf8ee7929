"""Training: labels follow their pixels, loss goes down, a killed run resumes, scores become probabilities."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.calibration import calibrated, calibration_error, fit_calibration, reliability
from models.classes import CLASSES, OBJECT_CLASSES
from models.detector.detector import Detector
from models.detector.labels import HEADING, LENGTH, Labels, X, Y
from models.detector.losses import detection_losses
from models.detector.network import DetectorNet, normalise
from models.detector.peaks import Peaks
from models.errors import InputError, WeightsError
from models.rendering.objects import PlacedObject, PlacedText
from models.training import fitting
from models.training.chip_pool import PooledChip, PoolRecipe, render_pool, split_backgrounds
from models.training.crops import CROP_PX, draw_crop, turn
from models.training.evaluation import evaluate, match
from models.training.fitting import FitRecipe, fit, make_batch
from models.training.train_detector import Progress, midway, train_detector
from models.weights_file import load_weights, save_weights


def drawn_chip(seed: int) -> PooledChip:
    """Grey ground with bright boxes: the simplest thing there is to learn."""
    rng = np.random.default_rng(seed)
    image = np.full((288, 288, 3), 90, dtype=np.uint8)
    objects = []
    for y in range(30, 270, 60):
        for x in range(30, 270, 40):
            cls = str(rng.choice(OBJECT_CLASSES))
            half = 4 + 2 * OBJECT_CLASSES.index(cls)
            cv2.rectangle(image, (x - 4, y - half), (x + 3, y + half - 1), (220, 220, 40 * half), -1)
            objects.append(PlacedObject(cls, x, y, max(8, 2 * half), 8, 0, 2))
    return PooledChip(image, Labels.of(objects), 0.3)


CHIPS = [drawn_chip(seed) for seed in range(3)]

coordinate = st.floats(40, 216)


@settings(deadline=None, max_examples=60)
@given(
    x=coordinate,
    y=coordinate,
    heading=st.floats(0, 359.9),
    quarters=st.integers(0, 3),
    mirror=st.booleans(),
)
def test_labels_follow_their_pixels(x: float, y: float, heading: float, quarters: int, mirror: bool) -> None:
    # Each pixel carries its own address, so that where it went can be read off the turned image.
    rows, columns = np.mgrid[0:256, 0:256].astype(np.uint8)
    image = np.dstack([columns, rows, np.zeros_like(rows)])
    text = PlacedText("A", x, y, 60.0, 10.0, heading)
    thing = PlacedObject("gas_turbine", x, y, 60.0, 10.0, heading % 180, 0)
    turned, labels = turn(image, Labels.of([thing], [text], [thing]), quarters, mirror)
    assert 0 <= labels.objects[0, HEADING] < 180
    assert labels.ignored.tolist() == labels.objects.tolist()

    def address(table: np.ndarray, along: float) -> np.ndarray:
        """Where the pixel that now lies `along` lengths from the centre, towards the heading, came from."""
        row = table[0]
        to = np.deg2rad(row[HEADING])
        at_x, at_y = row[X] + along * row[LENGTH] * np.sin(to), row[Y] - along * row[LENGTH] * np.cos(to)
        return turned[int(np.clip(at_y, 0, 255)), int(np.clip(at_x, 0, 255)), :2].astype(float) + 0.5

    assert address(labels.objects, 0) == pytest.approx([x, y], abs=1.01)
    direction = np.array([np.sin(np.deg2rad(heading)), -np.cos(np.deg2rad(heading))])
    end = np.array([x, y]) + 0.5 * 60 * direction
    assert address(labels.texts, 0.5) == pytest.approx(end, abs=1.01)
    ends = [address(labels.objects, 0.5), address(labels.objects, -0.5)]
    assert min(np.abs(one - end).max() for one in ends) <= 1.01


def test_crops_are_repeatable_and_hold_negatives() -> None:
    background = np.full((CROP_PX, CROP_PX, 3), 7, dtype=np.uint8)
    drawn = [draw_crop(np.random.default_rng([5, k]), CHIPS, [background]) for k in range(60)]
    again = [draw_crop(np.random.default_rng([5, k]), CHIPS, [background]) for k in range(60)]
    assert all(
        np.array_equal(a[0], b[0]) and np.array_equal(a[1].objects, b[1].objects)
        for a, b in zip(drawn, again, strict=True)
    )
    empty = sum(len(labels.objects) == 0 for _, labels in drawn)
    # 0.3 of them are drawn to be so: 18, give or take two standard deviations.
    assert 11 <= empty <= 25


def test_labels_of_real_imagery_follow_their_pixels_at_any_heading_and_scale() -> None:
    # A dark bar with a light end on white, of another size than a crop; red ground beyond its edge.
    image = np.full((200, 300, 3), 255, dtype=np.uint8)
    image[80:100, 100:160] = 0
    image[80:100, 150:160] = 120
    bar = PlacedObject("gas_turbine", 130, 90, 60, 20, 90, 0)
    word = PlacedText("A", 130, 90, 60, 20, 90)
    chip = PooledChip(image, Labels.of([bar], [word], [bar]), 0.3)
    ground = np.zeros((CROP_PX, CROP_PX, 3), dtype=np.uint8)
    ground[..., 0] = 200
    scales, shown = set(), 0
    for seed in range(60):
        crop, labels = draw_crop(np.random.default_rng([6, seed]), [chip_of_nothing()], [ground], [chip])
        if not len(labels.objects) or not (labels.objects[0, [X, Y]] > 60).all():
            continue
        row = labels.texts[0]
        if not (row[[X, Y]] < CROP_PX - 60).all():
            continue
        shown += 1
        scales.add(round(float(row[LENGTH]), 1))
        assert labels.ignored[0].tolist() == labels.objects[0].tolist()
        away = np.array([np.sin(np.deg2rad(row[HEADING])), -np.cos(np.deg2rad(row[HEADING]))]) * row[LENGTH]
        middle, end, beyond = (crop[tuple((row[[Y, X]] + k * away[::-1]).astype(int))].mean() for k in (0, 0.42, 0.58))
        # Tinted, so only their order is known.
        assert middle < end < beyond
    assert shown > 3
    assert min(scales) < 60 < max(scales)


def test_crops_that_end_in_black_show_no_object_there() -> None:
    cut, whole = 0, 0
    for seed in range(120):
        crop, labels = draw_crop(np.random.default_rng([8, seed]), CHIPS, [])
        black = (crop == 0).all(axis=2)
        if black.mean() < 0.05:
            whole += 1
            continue
        cut += 1
        rows = labels.objects[(labels.objects[:, [X, Y]] > 3).all(axis=1)]
        rows = rows[(rows[:, [X, Y]] < CROP_PX - 4).all(axis=1)]
        assert not any(
            black[int(row[Y]) - 2 : int(row[Y]) + 3, int(row[X]) - 2 : int(row[X]) + 3].all() for row in rows
        )
    # A tenth, less those whose edge lies outside: 12 of 120, give or take three deviations.
    assert 2 <= cut <= 24
    assert whole > 90


def chip_of_nothing() -> PooledChip:
    return PooledChip(np.full((288, 288, 3), 90, dtype=np.uint8), Labels.of(), 0.3)


class DyingChips(list[PooledChip]):
    """Chips whose storage fails after a number of reads, as a machine that goes down does."""

    def __init__(self, chips: list[PooledChip], reads: int) -> None:
        super().__init__(chips)
        self.reads = reads

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        self.reads -= 1
        if self.reads < 0:
            raise OSError("the disk is gone")
        return super().__getitem__(index)


def test_training_lowers_the_loss_and_a_broken_run_resumes_to_the_same_weights(tmp_path: Path) -> None:
    recipe = FitRecipe(seed=3, batch=1, steps=6)
    whole, made = fit(CHIPS, [], recipe, tmp_path / "whole.pt")
    assert made == 6

    torch.manual_seed(recipe.seed)
    images, targets = make_batch(CHIPS, [], recipe, step=1000)
    with torch.inference_mode():
        before, after = (
            float(sum(detection_losses(net(normalise(images)), targets).values()))
            for net in (DetectorNet(), whole.train())
        )
    assert after < 0.9 * before

    with pytest.raises(OSError, match="disk"):
        fit(DyingChips(CHIPS, reads=4), [], recipe, tmp_path / "broken.pt", checkpoint_every_s=0)
    state = torch.load(tmp_path / "broken.pt", weights_only=True)
    assert 0 < state["step"] < 6
    resumed, _ = fit(CHIPS, [], recipe, tmp_path / "broken.pt")
    for name, tensor in torch.load(tmp_path / "whole.pt", weights_only=True)["average"].items():
        assert torch.equal(resumed.state_dict()[name], tensor), name

    with pytest.raises(InputError, match="another recipe"):
        fit(CHIPS, [], replace(recipe, batch=2), tmp_path / "broken.pt")


def test_the_second_stage_can_be_taught_alone(tmp_path: Path) -> None:
    torch.manual_seed(4)
    start = DetectorNet().state_dict()
    recipe = FitRecipe(seed=3, batch=2, steps=12, second_stage_only=True)
    net, _ = fit(CHIPS, [], recipe, tmp_path / "second.pt", start=start)
    state = net.state_dict()
    same = {name: torch.equal(state[name], start[name]) for name in start if not name.startswith("refiner.")}
    assert all(same.values())
    assert not torch.equal(state["refiner.judge.2.weight"], start["refiner.judge.2.weight"])


def test_both_stages_learn_what_is_there(tmp_path: Path) -> None:
    """From nothing to boxes on grey, as far as some seconds go: the loss of every part falls."""
    seen: list[dict[str, float]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "_REPORT_EVERY_S", 0.0)
        fit(
            CHIPS,
            [],
            FitRecipe(seed=3, batch=2, steps=40),
            tmp_path / "both.pt",
            progress=lambda state: seen.append(state.losses),
        )
    first, last = (
        {name: float(np.mean([state.get(name, np.nan) for state in part])) for name in seen[-1]}
        for part in (seen[:5], seen[-5:])
    )
    for name in ("heat", "kind", "place", "extent"):
        assert last[name] < first[name], name


def test_crops_without_objects_have_a_finite_loss() -> None:
    chip = PooledChip(CHIPS[0].image, Labels.of(), 0.3)
    images, targets = make_batch([chip], [], FitRecipe(seed=1, batch=1, steps=1), 0)
    losses = detection_losses(
        DetectorNet()(normalise(images[:, :64, :64])), {k: v[..., :32, :32] for k, v in targets.items()}
    )
    assert all(torch.isfinite(value) for value in losses.values())
    assert losses["offset"] == 0


@pytest.fixture(scope="module")
def background_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("backgrounds")
    for number in range(10):
        noise = np.random.default_rng(number).integers(60, 180, (256, 255, 3)).astype(np.uint8)
        cv2.imwrite(str(folder / f"field{number:02d}.jpg"), noise)
    return folder


def test_backgrounds_are_held_out_by_name(background_folder: Path, tmp_path: Path) -> None:
    shown, held_out = split_backgrounds(background_folder)
    assert [p.name for p in held_out] == ["field00.jpg", "field05.jpg"]
    assert len(shown) == 8
    assert split_backgrounds(None) == ((), ())
    with pytest.raises(InputError, match="holds no"):
        split_backgrounds(tmp_path)


def test_train_detector_from_nothing_to_a_weights_file(background_folder: Path, tmp_path: Path) -> None:
    output, workdir = tmp_path / "detector.safetensors", tmp_path / "work"
    seen: list[Progress] = []
    # A chip of before kin of chillers was kept apart is not measured on.
    before = tmp_path / "before"
    before.mkdir()
    tables = dict.fromkeys(("objects", "texts", "ignored"), np.zeros((0, 7), np.float32))
    picture = np.zeros((448, 448, 3), np.uint8)
    np.savez(before / "validation-000000.npz", image=picture, native_gsd_m=np.float64(0.3), **tables)

    def train(**changes: int) -> None:
        arguments = {"chips": 1, "validation_chips": 2, "steps": 1, "batch": 1, "seed": 1, **changes}
        train_detector(
            output,
            workdir=workdir,
            backgrounds=background_folder,
            leave_out=["field01"],
            also=[workdir / "pool", before],
            device="cpu",
            progress=seen.append,
            **arguments,
        )  # type: ignore[arg-type]

    train()
    detector = Detector.load(output, "cpu")
    assert detector.card.recipe["steps_made"] == 1
    assert detector.card.recipe["chips_of_earlier_pools"] == 1
    # Every second one of two chips shown twice.
    assert detector.card.metrics["rendered_validation"]["chips"] == 2
    assert detector.card.recipe["backgrounds_left_out"] == ["field01"]
    assert detector.card.recipe["backgrounds"] == 7
    assert set(detector.card.calibration) == set(detector.card.recall) == set(CLASSES)
    assert detector.card.metrics["real_backgrounds"]["images"] == 1
    assert {state.stage for state in seen} >= {"rendering", "evaluating"}

    with pytest.raises(InputError, match="needs --start"):
        train_detector(output, workdir=workdir, steps=1, second_stage_only=True)

    older = {name: tensor for name, tensor in DetectorNet().state_dict().items() if not name.startswith("refiner.")}
    save_weights(tmp_path / "older.safetensors", older, load_weights(output)[1])
    with pytest.raises(WeightsError, match="name another with --start"):
        train_detector(output, workdir=workdir, steps=1, start=tmp_path / "older.safetensors")

    pool = workdir / "pool"
    times = {path.name: path.stat().st_mtime_ns for path in pool.iterdir()}
    train()
    assert {path.name: path.stat().st_mtime_ns for path in pool.iterdir()} == times, "a finished pool is rendered again"
    assert Detector.load(output, "cpu").version == detector.version
    with pytest.raises(InputError, match="another recipe"):
        render_pool(pool, PoolRecipe(seed=2, size_px=448, backgrounds=""), 1, "train", ())


@settings(deadline=None, max_examples=40)
@given(
    scores=st.lists(st.floats(0, 1, width=32), min_size=1, max_size=40),
    outcome=st.integers(0, 2**40 - 1),
)
def test_calibrated_probability_never_falls_with_the_score(scores: list[float], outcome: int) -> None:
    hits = np.array([outcome >> k & 1 for k in range(len(scores))], dtype=bool)
    parameters = fit_calibration(np.array(scores), hits)
    probability = calibrated(np.linspace(0, 1, 101), parameters)
    assert parameters[0] > 0
    assert (np.diff(probability) >= 0).all()
    assert ((probability >= 0) & (probability <= 1)).all()


def test_calibration_recovers_the_law_behind_the_hits() -> None:
    rng = np.random.default_rng(0)
    score = rng.uniform(0.02, 0.98, 20_000)
    hit = rng.random(20_000) < calibrated(score, (0.6, -1.2))
    a, b = fit_calibration(score, hit)
    assert a == pytest.approx(0.6, abs=0.05)
    assert b == pytest.approx(-1.2, abs=0.08)
    assert calibration_error(calibrated(score, (a, b)), hit) < 0.02 < calibration_error(score, hit)


def peaks_at(rows: list[tuple[float, float, float]], cls: int = 0) -> Peaks:
    """Peaks of 12 x 6 px from x, y, score."""
    x, y, score = np.array(rows, dtype=np.float32).reshape(-1, 3).T
    full = np.full(len(x), 1, dtype=np.float32)
    cells = [(v // 2).astype(int) for v in (x, y)]
    return Peaks(
        np.zeros(len(x), int), x, y, 12 * full, 6 * full, 0 * full, np.full(len(x), cls), score, 4 * full, *cells
    )


def test_matching_takes_the_best_score_once_within_half_a_width() -> None:
    units = Labels.of([PlacedObject("battery", x, 50, 12, 6, 0, 0) for x in (50.0, 60.0)]).objects
    found = match(peaks_at([(51, 50, 0.5), (50, 51, 0.9), (64, 50, 0.8), (60, 52.9, 0.4)]), units)
    assert found.tolist() == [-1, 0, -1, 1]
    assert match(peaks_at([(1, 1, 0.5)]), units[:0]).tolist() == [-1]


class Oracle:
    """Answers with what is on the chips, in their order, and with one false battery on each."""

    gsd_m = 0.30

    def __init__(self, chips: list[PooledChip], missing: int) -> None:
        self.images = {chip.image.tobytes(): chip.labels.objects[missing:] for chip in chips}

    def detect(self, windows: np.ndarray, valid: None, min_score: float) -> tuple[Peaks, np.ndarray]:
        pieces = []
        for number, image in enumerate(windows):
            rows = self.images.get(image.tobytes(), np.zeros((0, 7), dtype=np.float32))
            false = np.array([[120.0, 120.0, 20.0, 8.0, 0.0, OBJECT_CLASSES.index("battery"), 0.0]], dtype=np.float32)
            rows = np.concatenate([rows, false])
            score = np.full(len(rows), 0.95, dtype=np.float32)
            score[-1] = 0.05
            window = np.full(len(rows), number)
            pieces.append(Peaks(window, *rows.T[:5], rows[:, 5].astype(int), score, rows[:, 6], window, window))
        names = Peaks.__dataclass_fields__
        joined = Peaks(**{name: np.concatenate([getattr(p, name) for p in pieces]) for name in names})
        height, width = windows.shape[1:3]
        return joined, np.zeros((len(windows), height // 4, width // 4), dtype=np.float16)


def test_evaluation_counts_hits_misses_and_false_alarms() -> None:
    chips = [drawn_chip(seed) for seed in range(12)]
    empty = [np.full((256, 256, 3), k, dtype=np.uint8) for k in range(6)]
    result = evaluate(Oracle(chips, missing=6), chips, empty)  # type: ignore[arg-type]
    shown = result["metrics"]["rendered_validation"]["classes"]
    # Odd-numbered chips are measured, away from their edges; the oracle misses the first six units of each.
    side = chips[0].image.shape[0]
    whole = [(np.abs(chip.labels.objects[:, [X, Y]] - side / 2) < side / 2 - 40).all(axis=1) for chip in chips[1::2]]
    total = sum(shown[name]["units"] for name in OBJECT_CLASSES)
    assert total == sum(rows.sum() for rows in whole) > 60
    found = sum(point["found"] for name in OBJECT_CLASSES for point in result["recall"][name])
    assert found == sum(rows[6:].sum() for rows in whole)
    assert shown["battery"]["precision"] == 1
    assert shown["cooling_tower"]["fan_mean_absolute_error"] == 0
    assert shown["gas_turbine"]["heading_mean_absolute_error_deg"] == 0
    ground = result["metrics"]["real_backgrounds"]
    assert ground["area_km2"] == pytest.approx(3 * (176 * 0.3 / 1000) ** 2, abs=1e-4)
    assert ground["classes"]["battery"]["false_positives"] == 0
    assert 0 < ground["classes"]["battery"]["expected_count_per_km2"] < 120


def test_evaluation_leaves_kin_out() -> None:
    chips = [drawn_chip(seed) for seed in range(4)]
    kin = [np.arange(len(chip.labels.objects)) % 3 == 0 for chip in chips]
    marked = [replace(chip, kin=rows) for chip, rows in zip(chips, kin, strict=True)]
    whole, less = (
        evaluate(Oracle(chips, missing=0), shown, [])["metrics"]["rendered_validation"]["classes"]  # type: ignore[arg-type]
        for shown in (chips, marked)
    )
    for name in OBJECT_CLASSES:
        assert less[name]["units"] <= whole[name]["units"]
        # What lies on kin is no false detection either.
        assert less[name]["precision"] in (None, 1)
    side = chips[0].image.shape[0]
    inner = [(np.abs(chip.labels.objects[:, [X, Y]] - side / 2) < side / 2 - 40).all(axis=1) for chip in chips]
    left = sum((~rows & here).sum() for rows, here in zip(kin[1::2], inner[1::2], strict=True))
    assert sum(less[name]["units"] for name in OBJECT_CLASSES) == left > 0


def test_a_mean_with_the_start_lies_between_both() -> None:
    torch.manual_seed(3)
    first, last = DetectorNet(), DetectorNet()
    start = {name: tensor.clone() for name, tensor in first.state_dict().items()}
    for share in (0.0, 0.25, 1.0):
        made = midway(last, start, share).state_dict()
        name = "maps.weight"
        wanted = (1 - share) * last.state_dict()[name].half().float() + share * start[name]
        assert torch.allclose(made[name], wanted)


def test_reliability_sets_what_was_said_beside_what_was_seen() -> None:
    probability = np.array([0.1, 0.1, 0.3, 0.9, 1.0, 0.95])
    hit = np.array([False, True, False, True, True, False])
    assert reliability(probability, hit) == [
        (2, pytest.approx(0.1), 0.5),
        (1, pytest.approx(0.3), 0.0),
        (3, pytest.approx(0.95), pytest.approx(2 / 3)),
    ]
