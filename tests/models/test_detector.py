"""The detector over windows: what it sees, that windows agree with the whole, and what it refuses."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from models.classes import CLASSES, OBJECT_CLASSES
from models.detector.detector import Detector, WeightsCard, resolve_device, resolve_precision
from models.detector.network import (
    CHANNELS,
    HEAT,
    LATTICE_PX,
    OFFSET,
    SIZE,
    STRIDE,
    Area,
    DetectorNet,
    fold_normalisation,
    normalise,
)
from models.detector.peaks import Peaks
from models.detector.refinement import WIDTHS, RefinerNet
from models.errors import DeviceError, WeightsError
from models.weights_file import save_weights


def lively_net(seed: int = 0, refiner_widths: tuple[int, ...] = (4, 8, 8, 8)) -> DetectorNet:
    """An untrained network whose maps vary as much as a trained one's, statistics of normalisation included.

    It finds something everywhere, so its second stage is mostly a narrow one.
    """
    torch.manual_seed(seed)
    net = DetectorNet()
    net.refiner = RefinerNet(refiner_widths)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.8, 1.2)
            module.bias.data.normal_(0, 0.1)
    for block in net.refiner.deeper:
        torch.nn.init.zeros_(block.bn2.weight)
        torch.nn.init.zeros_(block.bn2.bias)
    kernels = net.maps.weight.data.view(-1, CHANNELS, net.maps.weight.shape[1])  # by sub-cell
    kernels[:, HEAT] *= 12
    kernels[:, SIZE] *= 0.3  # boxes of some 15 px, so that thinning has work
    kernels[:, OFFSET] *= 4
    return net.eval()


def card(**changes: object) -> dict[str, object]:
    return {
        "recipe": {"steps": 1},
        "seed": 1,
        "code_version": "0",
        "metrics": {},
        "calibration": dict.fromkeys(CLASSES, (0.8, -0.5)),
        "recall": {name: [{"gsd_m": 0.3, "found": 9, "total": 10}] for name in CLASSES},
        **changes,
    }


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector(lively_net(), WeightsCard.from_json(card()), "detector-test")


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Blobs of several sizes: something happens at every scale the network looks at."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3))
    for cell in (1, 4, 16, 64):
        coarse = rng.normal(0, 25, (height // cell + 2, width // cell + 2, 3))
        total += coarse.repeat(cell, 0).repeat(cell, 1)[:height, :width]
    return np.clip(total + 115, 0, 255).astype(np.uint8)


def within(peaks: Peaks, left: float, top: float, right: float, bottom: float) -> Peaks:
    x, y = peaks.x_px, peaks.y_px
    return peaks[(x >= left) & (x < right) & (y >= top) & (y < bottom)]


def test_reach_is_what_gradients_say() -> None:
    net = DetectorNet().eval()
    for parameter in net.parameters():
        parameter.data.fill_(0.01)  # all positive: no path is cut by a rectifier or cancelled
    side, phases = 224, LATTICE_PX // STRIDE
    cells = [side // 2 // STRIDE + phase for phase in range(phases)]
    images = torch.ones(phases, 3, side, side, requires_grad=True)
    maps = net(images)
    torch.stack([maps[phase, :, cell, cell].sum() for phase, cell in enumerate(cells)]).sum().backward()
    assert images.grad is not None
    reach = 0
    for gradient, cell in zip(images.grad, cells, strict=True):
        seen = torch.nonzero(gradient[0].abs().sum(0)).squeeze(1)
        reach = max(reach, STRIDE * cell - int(seen[0]), int(seen[-1]) - (STRIDE * cell + STRIDE - 1))
    assert reach == net.reach_px


def test_halo_covers_the_reach_and_is_on_the_lattice(detector: Detector) -> None:
    assert detector.halo_px % detector.lattice_px == 0
    assert detector.net.reach_px < detector.halo_px <= 128


def test_folding_changes_nothing() -> None:
    net = lively_net()
    images = torch.from_numpy(picture(64, 64))[None]
    with torch.inference_mode():
        before = net(normalise(images))
        after = fold_normalisation(net)(normalise(images))
    assert torch.allclose(before, after, atol=1e-4)


@pytest.mark.parametrize(("left", "top"), [(96, 112), (128, 16)])
def test_a_window_agrees_with_the_whole(detector: Detector, left: int, top: int) -> None:
    whole_image = picture(496, 512)
    side, halo = 368, detector.halo_px
    whole, whole_words = detector.detect(whole_image[None], min_score=0.02)
    window, words = detector.detect(whole_image[None, top : top + side, left : left + side], min_score=0.02)
    core = (left + halo, top + halo, left + side - halo, top + side - halo)
    expected = within(whole, *core)
    found = within(window, core[0] - left, core[1] - top, core[2] - left, core[3] - top)
    assert len(expected) > 20
    assert found.cls.tolist() == expected.cls.tolist()
    assert found.score == pytest.approx(expected.score, abs=1e-3)
    pixel_m = 0.30
    assert (found.x_px + left) * pixel_m == pytest.approx(expected.x_px * pixel_m, abs=0.05)
    assert (found.y_px + top) * pixel_m == pytest.approx(expected.y_px * pixel_m, abs=0.05)
    assert found.length_px == pytest.approx(expected.length_px, rel=1e-3)
    assert found.heading_deg == pytest.approx(expected.heading_deg, abs=0.1)
    part = np.s_[(top + halo) // 4 : (top + side - halo) // 4, (left + halo) // 4 : (left + side - halo) // 4]
    own = np.s_[halo // 4 : (side - halo) // 4, halo // 4 : (side - halo) // 4]
    assert words[0][own] == pytest.approx(whole_words[0][part], abs=2e-3)


@pytest.mark.parametrize("size", [(480, 512), (224, 208)])
def test_a_part_gives_what_all_gives_there(detector: Detector, size: tuple[int, int]) -> None:
    image = picture(*size)
    valid = np.ones((1, *image.shape[:2]), bool)
    valid[0, 100:123, 60:151] = False
    part = Area(80, 0, 208, size[1])
    whole, whole_words = detector.detect(image[None], valid, 0.02)
    found, words = detector.detect(image[None], valid, 0.02, part)
    cell = whole.cell_y * detector.stride
    expected = whole[(cell >= part.top) & (cell < part.bottom)]
    assert len(expected) > 20
    for name in ("cls", "cell_x", "cell_y"):
        assert getattr(found, name).tolist() == getattr(expected, name).tolist()
    for name in ("score", "x_px", "y_px", "length_px", "heading_deg"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), abs=1e-3)
    assert words[0] == pytest.approx(whole_words[0, 20:52], abs=2e-3)


def test_pixels_without_image_do_not_matter_and_show_nothing(detector: Detector) -> None:
    image = picture(160, 192)
    valid = np.ones((1, 160, 192), dtype=bool)
    valid[:, :, 100:] = False
    other = image.copy()
    other[:, 100:] = 255
    first, words = detector.detect(image[None], valid, 0.02)
    second, _ = detector.detect(other[None], valid, 0.02)
    assert len(first) > 0
    assert first.x_px.tolist() == second.x_px.tolist()
    assert first.x_px.max() < 100
    assert words[0, :, 25:].max() == 0


def test_sizes_off_the_lattice_are_served(detector: Detector) -> None:
    peaks, words = detector.detect(picture(101, 67)[None], min_score=0.02)
    assert words.shape == (1, 26, 17)
    assert words.dtype == np.float16
    assert (peaks.x_px < 67).all()
    assert (peaks.y_px < 101).all()


def test_order_is_window_class_row(detector: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    windows = np.stack([picture(96, 96, seed) for seed in range(3)])
    together, words = detector.detect(windows, min_score=0.02)
    keys = list(zip(together.window, together.cls, together.cell_y, together.cell_x, strict=True))
    assert keys == sorted(keys)
    monkeypatch.setattr(detector, "_batch_px", 96 * 96)
    one_by_one, words_one_by_one = detector.detect(windows, min_score=0.02)
    assert one_by_one.window.tolist() == together.window.tolist()
    assert one_by_one.score == pytest.approx(together.score, abs=1e-5)
    assert words_one_by_one.shape == words.shape


def test_out_of_memory_halves_the_batch(detector: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    windows = np.stack([picture(64, 64, seed) for seed in range(4)])
    expected, _ = detector.detect(windows, min_score=0.02)
    forward, sizes = Detector._forward, []

    def scarce(self: Detector, part: np.ndarray, *rest: object):  # type: ignore[no-untyped-def]
        sizes.append(len(part))
        if len(part) > 1:
            raise torch.cuda.OutOfMemoryError("no memory")
        return forward(self, part, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Detector, "_forward", scarce)
    monkeypatch.setattr(detector, "_batch_px", 1 << 62)
    found, _ = detector.detect(windows, min_score=0.02)
    assert sizes == [4, 2, 1, 1, 1, 1]
    assert found.window.tolist() == expected.window.tolist()


def test_bfloat16_is_finite_and_close(detector: Detector) -> None:
    rough = Detector(lively_net(), detector.card, "detector-test", precision=torch.bfloat16)
    peaks, words = rough.detect(picture(96, 96)[None], min_score=0.02)
    _, exact_words = detector.detect(picture(96, 96)[None], min_score=0.02)
    assert np.isfinite(peaks.score).all()
    assert words == pytest.approx(exact_words, abs=0.05)


def test_a_wild_network_stays_finite() -> None:
    net = lively_net()
    net.maps.weight.data *= 1e4
    wild = Detector(net, WeightsCard.from_json(card()), "detector-test")
    peaks, words = wild.detect(picture(96, 96)[None])
    assert len(peaks) > 0
    assert np.isfinite(np.stack([peaks.x_px, peaks.y_px, peaks.length_px, peaks.fans, peaks.score])).all()
    assert np.isfinite(words).all()


def test_probability_follows_the_card(detector: Detector) -> None:
    score = np.array([0.0, 0.5, 0.9, 1.0], dtype=np.float32)
    probability = detector.probability(np.zeros(4, dtype=int), score)
    assert probability[1] == pytest.approx(1 / (1 + math.exp(0.5)))
    assert (np.diff(probability) > 0).all()
    assert ((probability > 0) & (probability < 1)).all()


def test_load_gives_what_was_saved(tmp_path: Path) -> None:
    path = tmp_path / "detector.safetensors"
    net = lively_net(refiner_widths=WIDTHS)
    checksum = save_weights(path, net.state_dict(), card())
    detector = Detector(net, WeightsCard.from_json(card()), "detector-test")
    loaded = Detector.load(path, "cpu", "float32")
    assert loaded.version == f"detector-{checksum[:8]}"
    assert loaded.card.recall["battery"][0].total == 10
    assert loaded.card.calibration["gas_turbine"] == (0.8, -0.5)
    image = picture(96, 96)[None]
    assert loaded.detect(image)[0].score.tolist() == detector.detect(image)[0].score.tolist()


def test_other_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "reader.safetensors"
    save_weights(path, {"x": torch.zeros(3)}, card())
    with pytest.raises(WeightsError, match="does not hold a detector"):
        Detector.load(path, "cpu")
    save_weights(path, DetectorNet().state_dict(), card(calibration={}))
    with pytest.raises(WeightsError, match="does not hold a detector"):
        Detector.load(path, "cpu")


@pytest.mark.parametrize("device", ["tpu", "cuda:99", "mps", ""])
def test_a_device_that_is_not_here_is_refused(device: str) -> None:
    with pytest.raises(DeviceError):
        resolve_device(device)


def test_automatic_choices_exist() -> None:
    assert resolve_device("auto") in {"cpu", "cuda"}
    assert resolve_precision("auto", "cpu") in {torch.float32, torch.bfloat16}
    assert len(OBJECT_CLASSES) == HEAT.stop
