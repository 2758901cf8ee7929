"""The renderer: geometry that must hold exactly, and chips that are what their labels say."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.classes import OBJECT_CLASSES
from models.rendering import chips, confusers
from models.rendering.canvas import Canvas, Frame
from models.rendering.chips import CHIP_GSD_M, placed, render_chip, shows
from models.rendering.cooling_equipment import (
    CHILLER_MODELS,
    cell_grid,
    chiller,
    chiller_style,
    cooling_tower_style,
    dry_cooler_style,
    least_contrast,
)
from models.rendering.layouts import (
    Block,
    battery_rows,
    block_dry_coolers,
    block_towers,
    chiller_rows,
    paint_text,
    scatter,
)
from models.rendering.lettering import LetteringStyle
from models.rendering.objects import PlacedText
from models.rendering.power_equipment import battery_style
from models.rendering.rooftop_equipment import (
    bank_look,
    enclosed_bank,
    packaged_look,
    packaged_unit,
    tower_bank,
    well,
)
from models.rendering.sensor import Sensor, lean_m, leaning, lit, photograph, resampled, shadow_mask, shift


def plain_sensor(**changes: float) -> Sensor:
    values = {
        "native_gsd_m": 0.3,
        "sun_azimuth_deg": 180.0,
        "sun_elevation_deg": 45.0,
        "off_nadir_deg": 0.0,
        "lean_azimuth_deg": 0.0,
        "ambient": 0.3,
        "haze": 0.0,
        "exposure": 1.0,
        "gamma": 1.0,
        "cast": (1.0, 1.0, 1.0),
        "blur_px": 0.5,
        "sharpen": 0.0,
        "chroma_blur_px": 0.0,
        "noise": 0.0,
        "jpeg_quality": 95,
    }
    return Sensor(**{**values, **changes})


def test_a_chip_is_a_function_of_its_seed() -> None:
    first, again, other = render_chip(5, 128), render_chip(5, 128), render_chip(6, 128)
    assert np.array_equal(first.image, again.image)
    assert first.objects == again.objects
    assert not np.array_equal(first.image, other.image)


def test_splits_never_share_a_chip() -> None:
    assert not np.array_equal(render_chip(5, 128, "train").image, render_chip(5, 128, "validation").image)


def test_chips_show_every_class_and_keep_the_label_contract() -> None:
    seen = set()
    for seed in range(18):
        chip = render_chip(seed, 256)
        assert chip.image.shape == (256, 256, 3)
        for unit in chip.objects:
            seen.add(unit.cls)
            assert 0 <= unit.x_px < 256
            assert 0 <= unit.y_px < 256
            assert unit.length_px >= unit.width_px > 0
            assert 0 <= unit.heading_deg < 180
        for text in chip.texts:
            seen.add("roof_lettering")
            assert text.text
    assert seen == {*OBJECT_CLASSES, "roof_lettering"}


def test_a_chiller_is_where_its_label_says() -> None:
    canvas = Canvas(400, 400, 0.15)
    canvas.albedo[:] = 0.1
    rng = np.random.default_rng(1)
    chiller(canvas, rng, Frame(30.0, 24.0, 60.0), chiller_style(rng, model=0))
    changed = np.argwhere(canvas.height_m > 0)
    y_m, x_m = (changed.mean(axis=0) + 0.5) * 0.15
    assert (x_m, y_m) == pytest.approx((30.0, 24.0), abs=0.1)
    area_m2 = len(changed) * 0.15**2
    unit = canvas.truth[0]
    assert area_m2 == pytest.approx(unit.length_m * unit.width_m, rel=0.02)
    # the long axis points 60 degrees clockwise from up
    direction = np.array([np.sin(np.deg2rad(60)), -np.cos(np.deg2rad(60))])
    spread = np.linalg.eigh(np.cov((changed[:, ::-1] - changed[:, ::-1].mean(axis=0)).T))[1][:, 1]
    assert abs(spread @ direction) > 0.999


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 1000),
    azimuth=st.sampled_from([0.0, 90.0, 180.0, 270.0]),
    elevation=st.floats(20, 70),
)
def test_doubling_finds_the_shadows_that_marching_finds(seed: int, azimuth: float, elevation: float) -> None:
    rng = np.random.default_rng(seed)
    height = np.zeros((60, 60), np.float32)
    for _ in range(4):
        y, x = rng.integers(5, 50, 2)
        height[y : y + rng.integers(2, 8), x : x + rng.integers(2, 8)] = rng.uniform(1, 6)
    dx, dy = round(-np.sin(np.deg2rad(azimuth))), round(np.cos(np.deg2rad(azimuth)))
    drop = 0.3 * np.tan(np.deg2rad(elevation))
    ceiling = height.copy()
    for k in range(1, 60):
        ceiling = np.maximum(ceiling, shift(height, dx * k, dy * k, fill=-1e3) - np.float32(k * drop))
    assert np.mean((ceiling > height + 0.12) != shadow_mask(height, 0.3, azimuth, elevation)) < 0.002


def test_shadows_fall_away_from_the_sun() -> None:
    height = np.zeros((100, 100), np.float32)
    height[45:55, 45:55] = 5.0
    # the sun in the south: shadows fall to the north, which is up
    shadow = shadow_mask(height, 0.5, 180.0, 45.0)
    assert shadow[36:45, 45:55].all()
    assert not shadow[56:].any()
    assert not shadow[:34].any()


def test_tall_things_lean_by_their_height() -> None:
    canvas = Canvas(200, 200, 0.15)
    canvas.albedo[:] = 0.2
    canvas.box(Frame(15.0, 15.0, 0.0), 6.0, 6.0, (0.9, 0.1, 0.1), 10.0)
    sensor = plain_sensor(off_nadir_deg=20.0, lean_azimuth_deg=90.0)
    radiance = leaning(lit(canvas, sensor), canvas, sensor)
    red = np.argwhere(radiance[..., 0] > 3 * radiance[..., 1])
    top = red[radiance[red[:, 0], red[:, 1], 0] > 0.8]
    dx_m, dy_m = lean_m(sensor, 10.0)
    assert (dx_m, dy_m) == pytest.approx((10 * np.tan(np.deg2rad(20)), 0), abs=1e-6)
    y_m, x_m = (top.mean(axis=0) + 0.5) * 0.15
    assert (x_m, y_m) == pytest.approx((15 + dx_m, 15 + dy_m), abs=0.3)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), off_nadir_deg=st.floats(2, 40), azimuth_deg=st.floats(0, 360))
def test_the_highest_layer_at_a_place_is_seen_and_walls_are_darker(
    seed: int, off_nadir_deg: float, azimuth_deg: float
) -> None:
    rng = np.random.default_rng(seed)
    canvas = Canvas(50, 40, 0.15)
    for _ in range(5):
        y, x = rng.integers(0, 40, 2)
        canvas.height_m[y : y + rng.integers(2, 9), x : x + rng.integers(2, 9)] = rng.uniform(0.2, 12)
    radiance = rng.random((40, 50, 3), np.float32)
    sensor = plain_sensor(off_nadir_deg=off_nadir_deg, lean_azimuth_deg=azimuth_deg)
    wall = np.float32(0.45 - 0.2 * np.cos(np.deg2rad(azimuth_deg - sensor.sun_azimuth_deg)))
    step_m = canvas.cell_m / np.tan(np.deg2rad(off_nadir_deg))
    # Layer by layer from the ground up, each drawn over those below it.
    drawn = radiance.copy()
    for layer in range(1, int(canvas.height_m.max() / step_m) + 1):
        dx, dy = (round(move_m / canvas.cell_m) for move_m in lean_m(sensor, layer * step_m))
        height, colour = shift(canvas.height_m, dx, dy), shift(radiance, dx, dy)
        colour[height >= (layer + 1) * step_m] *= wall
        drawn[height >= layer * step_m] = colour[height >= layer * step_m]
    np.testing.assert_array_equal(leaning(radiance, canvas, sensor), drawn)


def test_labels_follow_the_lean() -> None:
    canvas = Canvas(400, 400, 0.15)
    rng = np.random.default_rng(0)
    canvas.box(Frame(30, 30, 0), 40, 40, (0.4, 0.4, 0.4), 12.0)
    chiller(canvas, rng, Frame(30.0, 30.0, 90.0), chiller_style(rng, model=0))
    sensor = plain_sensor(off_nadir_deg=15.0, lean_azimuth_deg=180.0)
    objects, _, _ = placed(canvas.truth, sensor, CHIP_GSD_M, 0.0, 200)
    top_m = canvas.truth[0].top_m
    assert top_m > 12
    assert objects[0].y_px * CHIP_GSD_M == pytest.approx(30 + top_m * np.tan(np.deg2rad(15)))


def test_packaged_units_are_kin_of_chillers_and_data_sheet_models_are_chillers() -> None:
    canvas = Canvas(400, 400, 0.15)
    rng = np.random.default_rng(4)
    styles = [chiller_style(rng) for _ in range(60)]
    assert 0 < sum(style.packaged for style in styles) < 20
    sheets = np.array([model[:2] for model in CHILLER_MODELS])
    for style in styles:
        canvas.truth.clear()
        chiller(canvas, rng, Frame(30, 30, 90), style)
        [unit] = canvas.truth
        assert unit.kin is style.packaged
        of_a_sheet = (np.abs(np.array([unit.length_m, unit.width_m]) / sheets - 1) <= 0.051).all(axis=1).any()
        assert of_a_sheet or unit.kin
    canvas.truth.clear()
    packaged_unit(canvas, rng, Frame(30, 30, 90), packaged_look(rng))
    [unit] = canvas.truth
    assert unit.kin
    [shown], _, _ = placed(canvas.truth, plain_sensor(), CHIP_GSD_M, 0.0, 200)
    assert shown.kin


def test_real_ground_is_made_of_whole_pictures_of_one_kind_that_are_turned_and_never_mirrored(tmp_path: Path) -> None:
    # Four quarters, brighter clockwise by 10: a turn keeps their order, a mirror reverses it.
    levels = {"field1": (70, 60), "field2": (110, 90), "field10": (150, 24), "harbour1": (200, 70)}
    for name, (level, size) in levels.items():
        picture = np.full((size, size, 3), level, np.uint8)
        picture[: size // 2, size // 2 :] += 10
        picture[size // 2 :, size // 2 :] += 20
        picture[size // 2 :, : size // 2] += 30
        cv2.imwrite(str(tmp_path / f"{name}.png"), picture)
    files = sorted(tmp_path.iterdir())
    kinds, clockwise, mirrored = set(), 0, 0
    for seed in range(12):
        ground = chips._real_ground(np.random.default_rng(seed), files, 500)
        grey = np.round((ground[..., 0] / 0.85) ** (1 / 1.3) * 255)
        assert grey.shape == (500, 500)
        shown = {name for name, (level, _) in levels.items() if all((grey == level + 10 * k).any() for k in range(4))}
        [kind] = {name.rstrip("0123456789") for name in shown}
        kinds.add(kind)
        assert kind == "harbour" or len(shown) == 3
        # No gap anywhere: nothing is darker than the pictures, but for what the cubic undershoots at an edge.
        assert grey.min() >= (65 if kind == "field" else 195)
        for level, _ in levels.values():
            # A corner where four quarters meet, the darkest at the upper left of a picture that is not turned.
            for quarters in range(4):
                turned = np.rot90([[0, 1], [3, 2]], quarters) * 10 + level
                clockwise += _meets(grey, turned)
                mirrored += _meets(grey, turned[:, ::-1])
    assert kinds == {"field", "harbour"}
    # Where pictures go over into one another, grey levels meet by chance.
    assert clockwise > 1_000
    assert mirrored < clockwise / 20


def _meets(grey: np.ndarray, corners: np.ndarray) -> int:
    """How often four cells at the corners of a square, beyond what the cubic blurs, have these values."""
    step = 12
    return int(
        (
            (grey[:-step, :-step] == corners[0, 0])
            & (grey[:-step, step:] == corners[0, 1])
            & (grey[step:, :-step] == corners[1, 0])
            & (grey[step:, step:] == corners[1, 1])
        ).sum()
    )


def test_rows_hold_the_number_asked_for() -> None:
    canvas = Canvas(1200, 800, 0.15)
    rng = np.random.default_rng(3)
    at = Frame(90.0, 60.0, 90.0)
    assert chiller_rows(canvas, rng, at, 60, 80, chiller_style(rng, model=1), 23) == 23
    assert battery_rows(canvas, rng, at, 60, 40, battery_style(rng), 17) == 17
    assert sum(t.cls == "air_cooled_chiller" for t in canvas.truth) == 23


def test_a_sensor_keeps_the_mean_and_the_size() -> None:
    canvas = Canvas(300, 240, 0.15)
    canvas.albedo[:] = 0.5
    product = photograph(canvas, plain_sensor(native_gsd_m=0.5), np.random.default_rng(0))
    assert product.shape == (72, 90, 3)
    assert resampled(product, (150, 120)).shape == (120, 150, 3)
    # sunlit flat ground shows its albedo, the sky's blue apart
    assert product[..., 1].mean() / 255 == pytest.approx(0.5, abs=0.01)
    assert product[..., 2].mean() > product[..., 0].mean()


def test_every_cell_of_a_bank_is_labelled_where_its_fan_is() -> None:
    for seed in range(12):
        rng = np.random.default_rng(seed)
        look = replace(bank_look(rng), casing=(0.9, 0.9, 0.9), rust=0.0, basin=0.0, aside_m=0.0)
        look = replace(
            look, fan=replace(look.fan, throat=0.02, blade=0.02, hub_level=0.02, grille=0.0, bars=0, ring=0.0)
        )
        canvas = Canvas(600, 600, 0.15)
        canvas.albedo[:] = 0.9
        tower_bank(canvas, rng, Frame(45.0, 45.0, 30.0), look, 3)
        assert [unit.cls for unit in canvas.truth] == ["cooling_tower"] * 3
        assert all(unit.fans == 1 and unit.length_m >= unit.width_m for unit in canvas.truth)
        dark = np.argwhere(canvas.albedo[..., 0] < 0.1)[:, ::-1] * 0.15 + 0.075
        centres = np.array([(unit.frame.x_m, unit.frame.y_m) for unit in canvas.truth])
        nearest = np.hypot(*(dark[:, None] - centres[None]).transpose(2, 0, 1)).argmin(axis=1)
        for number, centre in enumerate(centres):
            assert dark[nearest == number].mean(axis=0) == pytest.approx(centre, abs=0.12)


@pytest.mark.parametrize("block", [block_dry_coolers, block_towers])
def test_dry_coolers_touch_in_rows_and_towers_stand_in_single_ones(block: Block) -> None:
    blocks = 0
    for seed in range(25):
        canvas, rng = Canvas(700, 700, 0.15), np.random.default_rng(seed)
        block(canvas, rng, Frame(52.0, 52.0, float(rng.uniform(0, 180))), 60.0, 45.0, False)
        kind = "dry_cooler" if block is block_dry_coolers else "cooling_tower"
        cells = [unit for unit in canvas.truth if unit.cls == kind]
        blocks += len(cells) > 0
        places = np.array([(unit.frame.x_m, unit.frame.y_m) for unit in cells])
        for unit, place in zip(cells, places, strict=True):
            along_m, across_m = np.abs(to_frame(places - place, unit.frame)).T
            ahead = (across_m < 0.1) & (along_m > 0.1) & (along_m < unit.length_m + 1.0)
            beside = (along_m < 0.1) & (across_m > 0.1) & (across_m < unit.width_m + 1.0)
            assert (ahead.any() and beside.any()) == (kind == "dry_cooler")
    assert blocks > 15


def to_frame(moves: np.ndarray, frame: Frame) -> np.ndarray:
    """Moves (n, 2) on the canvas as moves along a frame's u and v."""
    sine, cosine = np.sin(np.deg2rad(frame.heading_deg)), np.cos(np.deg2rad(frame.heading_deg))
    return moves @ np.array([[sine, cosine], [-cosine, sine]])


def test_every_fan_is_darker_or_lighter_than_its_deck() -> None:
    for seed in range(30):
        rng = np.random.default_rng(seed)
        looks = replace(bank_look(rng), rust=0.0, basin=0.0, aside_m=0.0, height_m=2.0)
        looks = replace(looks, fan=replace(looks.fan, hub=0.0, bars=0, ring=0.0))
        cells = (dry_cooler_style(rng), cooling_tower_style(rng))
        banks = Canvas(300, 300, 0.05), Canvas(300, 300, 0.05), Canvas(300, 300, 0.05)
        middle = Frame(7.5, 7.5, 0.0)
        tower_bank(banks[0], rng, middle, looks, 1)
        for canvas, style, kind in zip(banks[1:], cells, ("dry_cooler", "cooling_tower"), strict=True):
            cell_grid(canvas, rng, middle, kind, style, 1, 1)
        decks = float(np.mean(looks.casing)), *(float(np.mean(style.deck)) for style in cells)
        radii = looks.radius_m, *(min(style.length_m, style.width_m) / 2 * style.fan_fill for style in cells)
        y_m, x_m = (np.mgrid[:300, :300] + 0.5) * 0.05 - 7.5
        for canvas, deck, radius_m in zip(banks, decks, radii, strict=True):
            opening = canvas.albedo[(np.hypot(x_m, y_m) < radius_m) & (np.hypot(x_m, y_m) > 0.3 * radius_m)]
            # Each fan has a brightness of its own, by a quarter.
            assert abs(float(opening.mean()) - deck) > 0.4 * least_contrast(deck)


def test_a_bank_in_a_well_stands_below_the_roof_it_is_sunk_into() -> None:
    canvas = Canvas(400, 400, 0.15)
    canvas.height_m[:] = 12.0
    rng = np.random.default_rng(1)
    at = Frame(30.0, 30.0, 0.0)
    well(canvas, rng, at, 10.0, 8.0, depth_m=4.0, rim_m=0.5)
    assert canvas.base_m(at) == pytest.approx(8.0)
    assert canvas.height_m.max() == pytest.approx(12.5)
    # A low sun leaves the floor of the well dark.
    shadow = shadow_mask(canvas.height_m, canvas.cell_m, 180.0, 25.0)
    assert shadow[168:232, 175:225].mean() > 0.8 > shadow[:60].mean()
    tower_bank(canvas, rng, at, replace(bank_look(rng), height_m=2.0), 1)
    assert canvas.truth[0].top_m == pytest.approx(10.0)


def test_only_packaged_units_with_fans_are_labelled() -> None:
    for seed in range(8):
        canvas, rng = Canvas(300, 300, 0.15), np.random.default_rng(seed)
        look = packaged_look(rng)
        assert look.columns * look.pitch_m <= look.length_m
        packaged_unit(canvas, rng, Frame(22.0, 22.0, 0.0), replace(look, columns=0))
        assert canvas.truth == []
        packaged_unit(canvas, rng, Frame(22.0, 22.0, 0.0), look)
        [unit] = canvas.truth
        assert (unit.cls, unit.fans) == ("air_cooled_chiller", look.rows * look.columns)
        assert unit.length_m >= unit.width_m


def test_banks_fit_the_room_they_are_given() -> None:
    for seed in range(30):
        canvas, rng = Canvas(300, 300, 0.15), np.random.default_rng(seed)
        enclosed_bank(canvas, rng, Frame(22.0, 22.0, 0.0), 14.0, 6.0)
        for unit in canvas.truth:
            assert abs(unit.frame.y_m - 22.0) <= 7.0 + 3.5


def test_batteries_can_stand_end_to_end() -> None:
    canvas = Canvas(800, 800, 0.15)
    style = battery_style(np.random.default_rng(3))
    battery_rows(canvas, np.random.default_rng(3), Frame(60.0, 60.0, 90.0), 60, 4, style, count=4, end_m=0.1)
    x_m = sorted(unit.frame.x_m for unit in canvas.truth)
    assert np.diff(x_m)[0] == pytest.approx(style.length_m + 0.1)


def test_bands_that_do_not_register_leave_colour_at_edges_alone() -> None:
    canvas = Canvas(300, 300, 0.15)
    canvas.albedo[:] = 0.4
    canvas.albedo[:, 150:] = 0.8
    image = photograph(canvas, plain_sensor(fringe_px=(1.0, 0.0)), np.random.default_rng(0)).astype(int)
    coloured = np.abs(image[..., 0] - image[..., 2]).mean(axis=0)
    assert coloured[70:80].max() > 20
    assert coloured[:60].max() < 8


def test_a_contrast_stretch_burns_out_roofs_and_drowns_shadows() -> None:
    canvas = Canvas(300, 300, 0.15)
    canvas.albedo[:, :150], canvas.albedo[:, 150:] = 0.1, 0.9
    image = photograph(canvas, plain_sensor(contrast=1.6), np.random.default_rng(0))
    assert image[:, :60].max() <= 4
    assert image[:, 90:].min() >= 251


@pytest.mark.parametrize(
    "painter",
    sorted({*confusers.GROUND_CONFUSERS, *confusers.ROOF_CONFUSERS, *confusers.SCATTERED_CONFUSERS}, key=str),
    ids=lambda painter: painter.__name__,
)
def test_what_is_not_counted_is_painted_and_leaves_no_label(painter: confusers.Painter) -> None:
    changed = 0
    for seed in range(4):
        canvas = Canvas(400, 400, 0.15)
        before = canvas.albedo.copy()
        painter(canvas, np.random.default_rng(seed), Frame(30, 30, 20), 40, 30)
        changed += int((canvas.albedo != before).any(axis=2).sum())
        assert all(unit.ignored for unit in canvas.truth)
        assert np.isfinite(canvas.albedo).all()
    assert changed > 100


def test_units_are_scattered_apart_and_leave_the_photograph_between_them() -> None:
    seen = set()
    for seed in range(6):
        canvas = Canvas(800, 800, 0.15)
        canvas.albedo[:] = 0.41
        scatter(canvas, np.random.default_rng(seed), validation=False)
        untouched = (canvas.albedo == np.float32(0.41)).all(axis=2)
        assert untouched.mean() > 0.4
        units = [unit for unit in canvas.truth if not unit.ignored]
        seen |= {unit.cls for unit in units}
        for first in units:
            for second in units:
                apart_m = np.hypot(first.frame.x_m - second.frame.x_m, first.frame.y_m - second.frame.y_m)
                assert first is second or apart_m > 0.45 * (first.width_m + second.width_m)
    assert seen == {"air_cooled_chiller", "dry_cooler", "cooling_tower"}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_named_roof_shows_one_word(seed: int) -> None:
    chip = render_chip(seed, 448, "validation", native_gsd_m=(0.3, 0.3), named=True)
    assert len(chip.texts) == 1
    assert not chip.objects


def test_a_word_that_no_eye_finds_is_neither_there_nor_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = render_chip(1, 448, "validation", native_gsd_m=(0.3, 0.3), named=True)
    monkeypatch.setattr(chips, "_LEAST_CONTRAST", 256)
    chip = render_chip(1, 448, "validation", native_gsd_m=(0.3, 0.3), named=True)
    assert (seen.faint, chip.texts, chip.faint) == ((), (), seen.texts)
    np.testing.assert_array_equal(chip.image, seen.image)


def test_a_word_counts_where_its_paint_can_be_seen() -> None:
    bare = np.full((100, 100, 3), 255, np.uint8)
    bare[60:] = 0  # whatever else the word's box shows is not the word
    word = PlacedText("MACROHARD", 50.0, 50.0, 60.0, 40.0, 90.0)
    assert not shows(bare, bare, word)
    painted = bare.copy()
    painted[45:55, 30:70] = 235
    assert shows(painted, bare, word)
    # Beside the word nothing counts, and of a word outside the picture nothing is known.
    assert not shows(np.roll(painted, -40, axis=0), np.roll(bare, -40, axis=0), word)
    assert shows(painted, bare, PlacedText("X", 150.0, 50.0, 20.0, 20.0, 90.0))


def test_the_canvas_without_lettering_keeps_what_was_built_on_it() -> None:
    canvas = Canvas(200, 120, 0.15)
    before = canvas.albedo.copy()
    rng = np.random.default_rng(2)
    paint_text(canvas, rng, Frame(15.0, 9.0, 90.0), "OVERWATT", 3.0, LetteringStyle(), (0.9, 0.9, 0.9), wear=0.2)
    canvas.box(Frame(12.0, 9.0, 0.0), 2.0, 2.0, (0.7, 0.1, 0.1), 2.0)
    bare = canvas.unpainted()
    built = canvas.height_m > 0
    assert (canvas.albedo != before).any(axis=-1)[~built].sum() > 300
    np.testing.assert_array_equal(bare.albedo[~built], before[~built])
    np.testing.assert_array_equal(bare.albedo[built], canvas.albedo[built])
    np.testing.assert_array_equal(bare.height_m, canvas.height_m)
