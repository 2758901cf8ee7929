"""Measuring weights: bands, ground, and labelled real images, against a detector whose answers are known."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from models.classes import CLASSES, OBJECT_CLASSES
from models.detector.card import WeightsCard
from models.detector.labels import Labels
from models.detector.peaks import Peaks
from models.errors import InputError
from models.rendering.objects import PlacedObject
from models.training import measuring
from models.training.chip_pool import PooledChip
from models.training.measuring import (
    JudgedScenes,
    ground_scores,
    held_out_grounds,
    judge_chips,
    judge_scenes,
    kin_score,
    labelled_reliability,
    labelled_scores,
    read_labelled,
    rendered_reliability,
    rendered_scores,
)

CARD = WeightsCard({}, 0, "", {}, dict.fromkeys(CLASSES, (1.0, 0.0)), dict.fromkeys(CLASSES, ()))
HEADER = "file,gsd_m,class,cx,cy,length_px,width_px,heading_deg,fan_count,text,status,note\n"


class Marks:
    """Finds a unit wherever a pixel is pure red: green says of which class, blue how far it is turned (deg / 180)."""

    gsd_m = 0.30
    lattice_px = 16
    card = CARD
    version = "detector-marks"

    def detect(
        self, windows: np.ndarray, valid: np.ndarray | None = None, min_score: float = 0.05
    ) -> tuple[Peaks, np.ndarray]:
        window, y, x = np.nonzero(windows[..., 0] == 255)
        green, blue = windows[window, y, x, 1], windows[window, y, x, 2]
        n, full = len(window), np.ones(len(window), dtype=np.float32)
        peaks = Peaks(
            window, x + full / 2, y + full / 2, 1 * full, 1 * full, blue / 255 * 180, green.astype(int), 0.9 * full,
            4 * full, x // 2, y // 2,
        )  # fmt: skip
        assert n == len(peaks)
        return peaks, np.zeros((len(windows), windows.shape[1] // 4, windows.shape[2] // 4), np.float16)


def marked(size: int, marks: list[tuple[int, int, str, float]], gsd_m: float, units: list[PlacedObject]) -> PooledChip:
    image = np.zeros((size, size, 3), np.uint8)
    for x, y, cls, heading in marks:
        image[y, x] = (255, OBJECT_CLASSES.index(cls), round(heading / 180 * 255))
    return PooledChip(image, Labels.of(units), gsd_m)


def unit(cls: str, x: float, y: float, heading: float = 0.0) -> PlacedObject:
    return PlacedObject(cls, x, y, 20, 6, heading, 6)


def judged(chips: list[PooledChip]) -> JudgedScenes:
    return judge_chips(Marks(), chips, 0.3)  # type: ignore[arg-type]


def test_a_class_is_scored_over_its_scenes_and_a_wrong_heading_is_no_find() -> None:
    first = marked(
        256,
        [(80, 80, "battery", 0), (80, 120, "battery", 40)],
        0.30,
        [unit("battery", 80, 80), unit("battery", 80, 120), unit("battery", 80, 160)],
    )
    second = marked(256, [(80, 80, "battery", 0)], 0.31, [unit("battery", 80, 80)])
    third = marked(256, [(80, 80, "dry_cooler", 0)], 0.31, [])
    [row] = rendered_scores(judged([first, second, third]), CARD.calibration)
    assert (row.cls, row.gsd_m, row.units, row.scenes) == ("battery", 0.3, 4, 2)
    assert row.precision is not None
    assert (row.recall.value, row.precision.value) == (0.5, pytest.approx(2 / 3, abs=1e-4))
    assert row.f1.value == pytest.approx(4 / 7, abs=1e-4)
    # Resampled scenes are between the worst, that a third of units is found, and the best.
    assert row.recall.low == pytest.approx(1 / 3, abs=1e-4)
    assert row.recall.high == 1
    assert row.fans_error is None


def test_kin_of_chillers_is_neither_hit_nor_miss_and_is_told_apart() -> None:
    units = [unit("air_cooled_chiller", 80, y) for y in (80, 110, 140, 170)]
    marks = [(80, y, "air_cooled_chiller", 0.0) for y in (80, 110, 170)]
    chip = marked(256, marks, 0.3, units)
    one_kind = judged([chip])
    assert one_kind.kin.unit_score.size == 0
    assert rendered_scores(one_kind, CARD.calibration)[0].units == 4
    mixed = judged([chip, replace(chip, kin=np.array([False, True, True, True])), replace(chip, kin=np.zeros(4, bool))])
    [row] = rendered_scores(mixed, CARD.calibration)
    # Of the second scene the one that is no kin, and it is found.
    assert (row.units, row.recall.value) == (9, pytest.approx(7 / 9, abs=1e-4))
    assert row.precision is not None
    assert row.precision.value == 1
    kin = kin_score(mixed, CARD.calibration)
    assert kin.found is not None
    assert (kin.units, kin.found.value) == (3, pytest.approx(2 / 3, abs=1e-4))
    assert kin_score(one_kind, CARD.calibration).found is None


def test_recall_of_fan_cells_is_told_by_their_width() -> None:
    def cell(y: float, width_px: float) -> PlacedObject:
        return PlacedObject("cooling_tower", 80, y, width_px, width_px, 0, 1)

    marks = [(80, y, "cooling_tower", 0.0) for y in (80, 110, 140)]
    chip = marked(256, marks, 0.3, [cell(80, 8), cell(110, 13.4), cell(140, 14), cell(180, 12)])
    [row] = rendered_scores(judged([chip]), CARD.calibration)
    parts = [(part.least_m, part.most_m, part.units, part.recall.value) for part in row.by_width]
    assert parts == [(0.0, 4.0, 2, 0.5), (4.0, None, 2, 1.0)]
    [battery] = rendered_scores(judged([marked(256, [], 0.3, [unit("battery", 80, 80)])]), CARD.calibration)
    assert battery.by_width == ()


def test_scenes_of_before_kin_was_kept_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = tmp_path / "validation-000000.npz"
    tables = dict.fromkeys(("objects", "texts", "ignored"), np.zeros((0, 7), np.float32))
    np.savez(scene, image=np.zeros((96, 96, 3), np.uint8), native_gsd_m=np.float64(0.3), **tables)
    monkeypatch.setattr(measuring, "scenes_of", lambda *_, **__: (scene,))
    with pytest.raises(InputError, match="does not say what is kin"):
        judge_scenes(Marks(), tmp_path, 0.3, 1)  # type: ignore[arg-type]


def test_fans_of_found_chillers_are_held_against_the_truth() -> None:
    chip = marked(256, [(80, 80, "air_cooled_chiller", 0)], 0.3, [unit("air_cooled_chiller", 80, 80)])
    [row] = rendered_scores(judged([chip]), CARD.calibration)
    # Four are seen where six are.
    assert row.fans_error is not None
    assert row.fans_error.value == 2


def test_reliability_tells_what_was_right_of_what_was_said() -> None:
    chip = marked(
        256,
        [(80, 80, "battery", 0), (80, 120, "battery", 0), (80, 160, "battery", 0)],
        0.3,
        [unit("battery", 80, 80), unit("battery", 80, 120)],
    )
    [one] = rendered_reliability([judged([chip, chip])], CARD.calibration)
    assert (one.cls, one.real, one.detections) == ("battery", False, 6)
    assert one.stated == pytest.approx(0.9, abs=1e-3)
    assert one.right.value == pytest.approx(4 / 6, abs=1e-4)
    assert one.right.low < 0.6 < 0.7 < one.right.high


def test_held_out_grounds_that_show_equipment_are_named(tmp_path: Path) -> None:
    for number in range(11):
        cv2.imwrite(str(tmp_path / f"field{number:02d}.png"), np.zeros((8, 8, 3), np.uint8))
    held_out = held_out_grounds(tmp_path)
    assert [path.stem for path in held_out] == ["field00", "field05", "field10"]
    assert held_out_grounds(tmp_path, ["field05", "field01"]) == (held_out[0], held_out[2])
    with pytest.raises(InputError, match="field77"):
        held_out_grounds(tmp_path, ["field77"])


def test_what_is_found_on_empty_ground_is_false() -> None:
    images = [marked(256, [(100, 100, "gas_turbine", 0), (10, 10, "battery", 0)], 0.3, []).image] * 2
    scores, area_km2 = ground_scores(Marks(), images)  # type: ignore[arg-type]
    assert {score.cls: score.false_positives for score in scores if score.false_positives} == {"gas_turbine": 2}
    assert area_km2 == pytest.approx(2 * (176 * 0.3 / 1000) ** 2)
    turbines = next(score for score in scores if score.cls == "gas_turbine").per_km2
    assert turbines.value == pytest.approx(2 / area_km2, rel=1e-3)
    # Two events: Poisson's exact interval is 0.242 to 7.22.
    assert (turbines.low * area_km2, turbines.high * area_km2) == (
        pytest.approx(0.242, abs=0.001),
        pytest.approx(7.225, abs=0.01),
    )


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Two towers of which one is called a chiller, a bank of three cells with two found, one false turbine."""
    image = np.zeros((128, 128, 3), np.uint8)
    marks = ((20, 20, 0), (60, 20, 2), (60, 24, 2), (100, 100, 3), (20, 100, 2))
    for x, y, cls in marks:
        image[y, x] = (0, cls, 255)  # OpenCV writes blue first
    cv2.imwrite(str(tmp_path / "roof.png"), image)
    lines = (
        "roof.png,0.3,cooling_tower,20.5,20.5,8,8,0,1,,sure,",
        "roof.png,0.3,cooling_tower,60.5,22.5,16,8,0,3,,sure,",
        "roof.png,0.3,cooling_tower,90,40,8,8,0,1,,sure,",
        "roof.png,0.3,cooling_tower,20.5,100.5,8,8,0,1,,ignore,",
        "far.png,1.2,cooling_tower,20.5,20.5,8,8,0,1,,sure,",
    )
    (tmp_path / "labels.csv").write_text(HEADER + "\n".join(lines) + "\n")
    return tmp_path


def test_labelled_objects_are_found_as_any_cooling_class_and_ignored_ones_count_nowhere(labelled: Path) -> None:
    images = read_labelled(labelled)
    assert [image.path.name for image in images] == ["roof.png"]
    [at_native, _] = labelled_scores(Marks(), images)  # type: ignore[arg-type]
    assert at_native.gsd_m == 0.3
    assert (at_native.found, at_native.objects) == (2, 3)
    assert (at_native.fans_found, at_native.fans) == (3, 5)
    assert at_native.false_positives == 1
    assert at_native.area_km2 == pytest.approx((128 * 0.3 / 1000) ** 2)
    # One mark lies on the object that counts nowhere, and a turbine is no cooling unit.
    [said] = labelled_reliability(Marks(), images)  # type: ignore[arg-type]
    assert (said.cls, said.real, said.detections, said.right.value) == ("cooling", True, 3, 1)


def test_a_coarse_image_is_kept_for_its_lettering_alone(labelled: Path) -> None:
    with (labelled / "labels.csv").open("a") as file:
        file.write("name.png,1.2,roof_lettering,60,60,40,8,90,,Some Name,sure,\n")
    [_, name] = read_labelled(labelled)
    assert (name.gsd_m, name.objects[0].text) == (1.2, "Some Name")
    assert {row.gsd_m for row in labelled_scores(Marks(), read_labelled(labelled))} == {0.3, 0.5}  # type: ignore[arg-type]


def test_finer_images_are_averaged_and_their_labels_follow(tmp_path: Path) -> None:
    image = np.zeros((256, 256, 3), np.uint8)
    image[80:84, 40:44] = (0, 2, 255)
    cv2.imwrite(str(tmp_path / "fine.png"), image)
    (tmp_path / "labels.csv").write_text(HEADER + "fine.png,0.15,cooling_tower,42,82,8,8,0,4,,sure,\n")
    seen: list[tuple[int, int]] = []

    class Watched(Marks):
        def detect(
            self, windows: np.ndarray, valid: np.ndarray | None = None, min_score: float = 0.05
        ) -> tuple[Peaks, np.ndarray]:
            seen.append(windows.shape[1:3])
            return super().detect(windows, valid, min_score)

    rows = labelled_scores(Watched(), read_labelled(tmp_path))  # type: ignore[arg-type]
    # The mark of 4 px is 2 px at 0.3 m, where the detector works, either way.
    assert seen[0] == seen[1] == (128, 128)
    assert [(row.gsd_m, row.found, row.fans_found) for row in rows[:2]] == [(0.15, 1, 4), (0.3, 1, 4)]
    (tmp_path / "fine.png").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"fine\.png"):
        labelled_scores(Marks(), read_labelled(tmp_path))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("file,gsd_m\nroof.png,0.3\n", "class"),
        (HEADER + "roof.png,fine,none,,,,,,,,sure,\n", "line 2, gsd_m"),
        (HEADER + "roof.png,0.3,cooling_tower,here,20,8,8,0,1,,sure,\n", "line 2"),
    ],
)
def test_broken_labels_are_named(content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(content)
    with pytest.raises(InputError, match=said):
        read_labelled(tmp_path)
    with pytest.raises(InputError, match="nowhere"):
        read_labelled(tmp_path / "nowhere")
