"""The engine: one answer for any window, order, thread and process; bounded memory; faults that are named."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
import torch
from rasterio.transform import Affine
from rasterio.windows import Window
from shapely.geometry import Polygon, box

from models.classes import CLASSES
from models.detector.card import WeightsCard
from models.detector.detector import Detector
from models.detector.network import CHANNELS, HEAT, LETTERING
from models.detector.peaks import REACH_PX, Peaks
from models.errors import DeviceMemoryError
from pipelines import engine
from pipelines.engine import Found, Layer, find
from pipelines.errors import WindowError
from pipelines.grid import Grid, detection_grid
from pipelines.gridded_raster import GriddedRaster
from pipelines.windows import Box, plan_windows
from tests.models.test_detector import lively_net

SIDE_PX = (1130, 870)
"""Not a multiple of the lattice, and larger than one window of 512 px and its halo either way."""
GSD_M = 0.3


def lively_detector(eager: float = 0.0) -> Detector:
    """Untrained, with peaks everywhere, so on every seam as well; its logits are higher by `eager`."""
    card = WeightsCard({}, 0, "", {}, dict.fromkeys(CLASSES, (1.0, 0.0)), {})
    net = lively_net(3)
    net.maps.weight.data.view(-1, CHANNELS, net.maps.weight.shape[1])[:, LETTERING] *= 30
    net.maps.bias.data.view(-1, CHANNELS)[:, HEAT] += eager
    net.maps.bias.data.view(-1, CHANNELS)[:, LETTERING] += eager
    return Detector(net, card, "detector-test")


@pytest.fixture(scope="module")
def detectors() -> list[Detector]:
    return [lively_detector()]


def picture(width: int, height: int) -> np.ndarray:
    """uint8 (3, height, width): blobs of several sizes, so that something happens at every scale."""
    rng = np.random.default_rng(5)
    total = np.zeros((3, height, width))
    for cell in (1, 4, 16, 64):
        coarse = rng.normal(0, 25, (3, height // cell + 2, width // cell + 2))
        total += coarse.repeat(cell, 1).repeat(cell, 2)[:, :height, :width]
    return np.clip(total + 115, 0, 255).astype(np.uint8)


def write(path: Path, pixels: np.ndarray, gsd_m: float = GSD_M, **options: object) -> Path:
    profile = {
        "driver": "GTiff",
        "width": pixels.shape[2],
        "height": pixels.shape[1],
        "count": 3,
        "dtype": "uint8",
        "crs": "EPSG:32615",
        "transform": Affine(gsd_m, 0, 770_000, 0, -gsd_m, 3_877_000),
        "tiled": True,
        "blockxsize": 256,
        "blockysize": 256,
        "compress": "deflate",
    }
    mask = options.pop("mask", None)
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", **(profile | options)) as raster,
    ):
        raster.write(pixels)
        if mask is not None:
            raster.write_mask(mask)
    return path


def grid_of(path: Path) -> Grid:
    with rasterio.open(path) as dataset:
        return detection_grid(dataset, GSD_M)


def look(path: Path, detectors: list[Detector], window_px: int, origin_px: tuple[int, int] = (0, 0), **how) -> Found:  # type: ignore[no-untyped-def]
    grid = grid_of(path)
    plan = plan_windows(grid.width_px, grid.height_px, lattice_px=16, window_px=window_px, origin_px=origin_px)
    with GriddedRaster(path, grid) as raster:
        return find([Layer(raster, plan)], detectors, **how)[0]


def assert_same(found: Found, expected: Found) -> None:
    """The same set: class and place one by one, scores within 1e-3, positions within 0.05 m."""
    assert len(found.peaks) == len(expected.peaks)
    assert found.peaks.cls.tolist() == expected.peaks.cls.tolist()
    assert found.peaks.cell_x.tolist() == expected.peaks.cell_x.tolist()
    assert found.peaks.cell_y.tolist() == expected.peaks.cell_y.tolist()
    assert np.abs(found.peaks.score - expected.peaks.score).max(initial=0) < 1e-3
    assert np.abs(found.peaks.x_px - expected.peaks.x_px).max(initial=0) * GSD_M < 0.05
    assert np.abs(found.peaks.y_px - expected.peaks.y_px).max(initial=0) * GSD_M < 0.05
    assert np.abs(found.peaks.length_px / expected.peaks.length_px - 1).max(initial=0) < 1e-3
    assert found.cells.row.tolist() == expected.cells.row.tolist()
    assert found.cells.column.tolist() == expected.cells.column.tolist()
    assert np.abs(found.cells.probability - expected.cells.probability).max(initial=0) < 2e-3


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("scene") / "scene.tif", picture(*SIDE_PX))


@pytest.fixture(scope="module")
def coarse_scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pixels of 0.47 m: every lattice pixel is resampled."""
    return write(tmp_path_factory.mktemp("scene") / "coarse.tif", picture(720, 560), 0.47)


@pytest.fixture(scope="module")
def whole(scene: Path, detectors: list[Detector]) -> Found:
    return look(scene, detectors, 1 << 20)


def test_the_scene_is_busy_on_every_seam(whole: Found) -> None:
    assert whole.windows_read == 1
    assert len(whole.peaks) > 1000
    assert len(whole.cells.row) > 100
    for seam in (512, 1024):
        assert (np.abs(whole.peaks.x_px - seam) < 4).sum() > 5
    assert (np.hypot(whole.peaks.x_px - 512, whole.peaks.y_px - 512) < 20).any()


@pytest.mark.parametrize("window_px", [512, 1024, 2048, 208, 16 * 33])
def test_windows_do_not_change_the_answer(window_px: int, scene: Path, detectors: list[Detector], whole: Found) -> None:
    assert_same(look(scene, detectors, window_px), whole)


@pytest.mark.parametrize("origin_px", [(16, 16), (100, 331), (-7, 500), (511, 1), (256, 240)])
def test_the_origin_of_the_windows_does_not_change_the_answer(
    origin_px: tuple[int, int], scene: Path, detectors: list[Detector], whole: Found
) -> None:
    assert_same(look(scene, detectors, 512, origin_px), whole)


def test_windows_do_not_change_the_answer_where_pixels_are_resampled(
    coarse_scene: Path, detectors: list[Detector]
) -> None:
    expected = look(coarse_scene, detectors, 1 << 20)
    assert len(expected.peaks) > 500
    assert_same(look(coarse_scene, detectors, 512), expected)
    assert_same(look(coarse_scene, detectors, 400, (123, 77)), expected)


def test_forgetting_the_improbable_changes_nothing_else(scene: Path, detectors: list[Detector], whole: Found) -> None:
    probability = detectors[0].probability(whole.peaks.cls, whole.peaks.score)
    least = float(np.quantile(probability, 0.7))
    found = look(scene, detectors, 512, min_probability=least)
    probable = whole.peaks[probability >= least]
    assert 100 < len(found.peaks) < len(whole.peaks)
    assert found.peaks.x_px.tolist() == probable.x_px.tolist()


def test_a_halo_too_small_would_be_noticed(
    scene: Path, detectors: list[Detector], whole: Found, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detectors[0], "halo_px", 32)
    with pytest.raises(AssertionError):
        assert_same(look(scene, detectors, 512), whole)


@pytest.mark.parametrize("readers", [1, 2, 7])
def test_readers_do_not_change_the_order(readers: int, scene: Path, detectors: list[Detector]) -> None:
    expected = look(scene, detectors, 256)
    seen: list[tuple[int, int]] = []
    found = look(scene, detectors, 256, readers=readers, progress=lambda *step: seen.append(step))
    assert found.peaks.x_px.tolist() == expected.peaks.x_px.tolist()
    assert found.peaks.score.tolist() == expected.peaks.score.tolist()
    assert seen == [(done, 20) for done in range(1, 21)]


def test_two_processes_share_a_raster(scene: Path, detectors: list[Detector], whole: Found) -> None:
    found = look(scene, detectors, 256, processes=2)
    assert found.windows_read == 20
    assert_same(found, whole)


def test_two_devices_share_a_raster(scene: Path, detectors: list[Detector], whole: Found) -> None:
    assert_same(look(scene, [*detectors, lively_detector()], 256), whole)


def test_a_device_short_of_memory_goes_on_with_smaller_windows(
    scene: Path, whole: Found, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    forward, shapes = Detector._forward, []

    def scarce(self: Detector, windows: np.ndarray, *rest: object):  # type: ignore[no-untyped-def]
        shapes.append(windows.shape[1:3])
        if windows.shape[1] * windows.shape[2] > 500 * 500:
            raise torch.cuda.OutOfMemoryError("no memory")
        return forward(self, windows, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Detector, "_forward", scarce)
    mine = [lively_detector()]
    with caplog.at_level(logging.WARNING):
        assert_same(look(scene, mine, 512), whole)
        assert_same(look(scene, mine, 512), whole)
    assert sum("out of memory" in record.message for record in caplog.records) == 1
    too_large = [height * width for height, width in shapes if height * width > 500 * 500]
    assert len(too_large) < 10, "what did not fit once is not tried again"


def test_a_device_without_memory_for_anything_says_so(scene: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*_: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(Detector, "_forward", nothing)
    with pytest.raises(DeviceMemoryError, match="cpu has too little memory for a window of"):
        look(scene, [lively_detector()], 512)


def test_other_errors_of_the_device_are_not_taken_for_memory(
    scene: Path, detectors: list[Detector], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a programmer's mistake")

    monkeypatch.setattr(Detector, "_forward", broken)
    with pytest.raises(RuntimeError, match="programmer"):
        look(scene, detectors, 512)


def test_windows_without_image_never_reach_the_network(
    tmp_path: Path, detectors: list[Detector], monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = np.zeros(SIDE_PX[::-1], np.uint8)
    mask[:100, :100] = 255
    path = write(tmp_path / "corner.tif", picture(*SIDE_PX), mask=mask)
    found = look(path, detectors, 256)
    assert found.windows_read == 1
    assert found.windows_blank == 19
    assert found.peaks.x_px.max() < 100
    assert_same(found, look(path, detectors, 1 << 20))


@pytest.mark.parametrize("silent", [True, False])
def test_windows_of_one_colour_are_skipped_only_if_nothing_is_found_in_it(
    silent: bool, tmp_path: Path, detectors: list[Detector]
) -> None:
    # Whole lattice cells: beside them lies what is no image, which is another colour.
    pixels = picture(1136, 880)
    pixels[:, :, 300:] = np.array([40, 90, 200], np.uint8)[:, None, None]
    path = write(tmp_path / "plain.tif", pixels)
    # Logits so low that the picture has a few peaks left and the colour none; so high that the colour has some.
    mine = lively_detector(-0.4 if silent else 0.4)
    if silent:
        mine.net.maps.bias.data.view(-1, CHANNELS)[:, LETTERING] -= 1000
    found = look(path, [mine], 256)
    # columns of 256 px: the first two see the picture, the others nothing else than the colour
    assert (found.windows_read, found.windows_blank) == ((8, 12) if silent else (20, 0))
    assert len(found.peaks) > 0
    assert_same(found, look(path, [mine], 1 << 20))


def test_only_the_area_is_read(scene: Path, detectors: list[Detector], monkeypatch: pytest.MonkeyPatch) -> None:
    grid = grid_of(scene)
    plan = plan_windows(grid.width_px, grid.height_px, lattice_px=16, window_px=512, area=box(740, 200, 800, 280))
    seen: list[Box] = []
    read = GriddedRaster.read
    monkeypatch.setattr(GriddedRaster, "read", lambda self, area: (seen.append(area), read(self, area))[1])
    with GriddedRaster(scene, grid) as raster:
        find([Layer(raster, plan)], detectors)
    halo = detectors[0].halo_px
    assert seen == [Box(512 - halo, 0, 1024 + halo, 512 + halo)]


@pytest.mark.parametrize("window_px", [256, 512, 144])
def test_windows_do_not_change_what_is_found_in_an_area(
    window_px: int, scene: Path, detectors: list[Detector], whole: Found
) -> None:
    """Edges of the area between lattice cells, so that peaks beside it thin out peaks in it."""
    grid = grid_of(scene)
    area = Polygon([(256.3, 130.7), (700.9, 200.2), (640.1, 511.8), (257.1, 480.5)])
    found = []
    for side in (window_px, 1 << 20):
        plan = plan_windows(grid.width_px, grid.height_px, lattice_px=16, window_px=side, area=area)
        with GriddedRaster(scene, grid) as raster:
            found += find([Layer(raster, plan)], detectors)
    assert_same(found[0], found[1])
    inside = [shapely.contains_xy(area, one.peaks.x_px, one.peaks.y_px) for one in (found[0], whole)]
    assert found[0].peaks[inside[0]].x_px.tolist() == whole.peaks[inside[1]].x_px.tolist()
    assert inside[0].sum() > 100


def damaged(scene: Path, path: Path) -> Path:
    """A copy of the scene in which the block at column 512, row 256 does not decode."""
    content = bytearray(scene.read_bytes())
    with rasterio.open(scene) as dataset:
        offset = int(dataset.get_tag_item("BLOCK_OFFSET_2_1", "TIFF", bidx=1))
    content[offset + 2 : offset + 500] = b"\xff" * 498
    path.write_bytes(content)
    return path


def test_a_damaged_block_is_named(scene: Path, tmp_path: Path, detectors: list[Detector]) -> None:
    path = damaged(scene, tmp_path / "damaged.tif")
    with pytest.raises(WindowError, match=r"damaged\.tif cannot be read in the window of \d+ x \d+ px at column 160"):
        look(path, detectors, 256)


@pytest.mark.parametrize("processes", [1, 2])
def test_damage_can_be_left_out_and_is_named(
    processes: int, scene: Path, tmp_path: Path, detectors: list[Detector]
) -> None:
    path = damaged(scene, tmp_path / "damaged.tif")
    found = look(path, detectors, 256, skip_damaged=True, processes=processes)
    # the core of the block and the eight whose halo sees it
    assert len(found.damaged) == 9
    assert found.windows_read == 11
    assert all("damaged.tif cannot be read in the window" in str(damage.error) for damage in found.damaged)
    # cores, without their halo
    lost = {(damage.column, damage.row, damage.width, damage.height) for damage in found.damaged}
    assert lost == {(x, y, 256, 256) for x in (256, 512, 768) for y in (0, 256, 512)}
    expected = look(scene, detectors, 256)

    def far(peaks: Peaks) -> Peaks:
        """Where no peak of the hole (columns 256 to 1024, rows 0 to 768) thins out another."""
        edge = 384 + REACH_PX
        return peaks[(np.abs(peaks.x_px - 640) > edge) | (np.abs(peaks.y_px - 384) > edge)]

    assert len(far(found.peaks)) > 50
    assert far(found.peaks).cell_x.tolist() == far(expected.peaks).cell_x.tolist()


@pytest.mark.parametrize("end", ["truncate", "remove"])
def test_a_raster_that_disappears_while_it_is_read_is_named(
    end: str, scene: Path, tmp_path: Path, detectors: list[Detector]
) -> None:
    path = tmp_path / "going.tif"
    path.write_bytes(scene.read_bytes())
    grid = grid_of(path)

    def vanish(done: int, _total: int) -> None:
        if done == 1 and end == "truncate":
            os.truncate(path, 4000)
        elif done == 1:
            path.unlink()

    plan = plan_windows(grid.width_px, grid.height_px, lattice_px=16, window_px=128)
    # What was opened before it was removed can be read to the end: then the answer is whole.
    with GriddedRaster(path, grid) as raster:
        if end == "truncate":
            with pytest.raises(WindowError, match=r"going\.tif cannot be read in the window"):
                find([Layer(raster, plan)], detectors, progress=vanish)
        else:
            assert find([Layer(raster, plan)], detectors, progress=vanish)[0].windows_read == len(plan.cores)


def test_a_raster_that_is_gone_is_named(scene: Path, tmp_path: Path, detectors: list[Detector]) -> None:
    with (
        GriddedRaster(tmp_path / "gone.tif", grid_of(scene)) as raster,
        pytest.raises(WindowError, match=r"gone\.tif cannot be read in the window"),
    ):
        raster.read(Box(0, 0, 64, 64))


MEASURED = """
import resource, sys
from pathlib import Path
from models.detector.allocator import keep_large_buffers
from tests.pipelines.test_engine import lively_detector, look
keep_large_buffers()
found = look(Path(sys.argv[1]), [lively_detector(-30)], 512)
print(found.windows_read + found.windows_blank, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_raster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine times the pixels, mostly of one colour so that the test is quick; `make bench` has the large one.

    What grows with the number of detections is left out for the same reason.
    """
    peaks_mb = []
    for name, side in (("small.tif", 2048), ("large.tif", 6144)):
        path = tmp_path / name
        profile = {
            "driver": "GTiff",
            "width": side,
            "height": side,
            "count": 3,
            "dtype": "uint8",
            "crs": "EPSG:32615",
            "transform": Affine(GSD_M, 0, 770_000, 0, -GSD_M, 3_877_000),
            "tiled": True,
            "compress": "deflate",
        }
        with rasterio.open(path, "w", **profile) as raster:
            raster.write(picture(700, 700), window=Window(512, 512, 700, 700))
        run = subprocess.run(
            [sys.executable, "-c", MEASURED, str(path)],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parents[2],
        )
        windows, rss_kb = run.stdout.split()
        assert int(windows) == (side // 512) ** 2
        peaks_mb.append(int(rss_kb) / 1024)
    assert peaks_mb[1] < 1.1 * peaks_mb[0]


def test_threads_of_a_desk_share_the_processor(scene: Path, detectors: list[Detector]) -> None:
    grid = grid_of(scene)
    plan = plan_windows(grid.width_px, grid.height_px, lattice_px=16, window_px=1 << 20)
    with GriddedRaster(scene, grid) as raster:
        alone = engine._Desk(engine._Job((raster,), tuple(detectors), 1, False, 0.0, 1), len(plan.cores))
        assert alone.workers == 1
        assert alone.threads == engine.cores()
        before = torch.get_num_threads()
        find([Layer(raster, plan)], detectors)
        assert torch.get_num_threads() == before
