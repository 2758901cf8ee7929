"""The detector as the rest of the program sees it: windows of uint8 pixels in, peaks and a lettering map out."""

import logging
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from models.calibration import calibrated
from models.classes import OBJECT_CLASSES
from models.detector.allocator import keep_large_buffers
from models.detector.card import WeightsCard
from models.detector.network import LATTICE_PX, STRIDE, Area, DetectorNet, fold_normalisation, normalise
from models.detector.peaks import Peaks, centre_is_seen, decode, pick_peaks
from models.detector.refinement import refine
from models.errors import DeviceError, DeviceMemoryError, WeightsError
from models.weights_file import load_weights

__all__ = ["Detector", "Peaks", "cores", "resolve_device", "resolve_precision", "threads_of_each"]

log = logging.getLogger(__name__)

GSD_M = 0.30
"""Ground sampling distance the detector is trained at."""
MIN_SCORE = 0.1
"""What the first stage scores lower is not proposed to the second: one in 80 of the units that it scores above 0.03."""
MIN_LETTERING = 0.35
"""Cells of the lettering map below it are not part of a region."""
_CPU_BATCH_PX = 1 << 20
"""Pixels of one forward pass on a CPU: larger batches leave the caches and are no faster."""


@dataclass
class Detector:
    """A trained network on a device.

    `detect` gives the same peaks for a place whichever window shows it, provided that window origins are multiples of
    `lattice_px` apart and the place is at least `halo_px` from every edge of the window that is not the scene's end.
    """

    net: DetectorNet
    card: WeightsCard
    version: str
    """For example "detector-1a2b3c4d", from the checksum of the weights."""
    device: str = "cpu"
    precision: torch.dtype = torch.float32
    gsd_m: float = GSD_M
    stride: int = STRIDE
    lattice_px: int = LATTICE_PX
    most_px: int | None = None
    """Largest window that the device had memory for, once it had not enough for one."""
    _weight: torch.Tensor = field(init=False, repr=False)
    _bias: torch.Tensor = field(init=False, repr=False)
    _batch_px: int = field(init=False)

    def __post_init__(self) -> None:
        """Halo from the layers as they are."""
        # Beyond the reach of a cell: the cells that a peak is compared with.
        self.halo_px = math.ceil((self.net.reach_px + STRIDE) / LATTICE_PX) * LATTICE_PX
        net = fold_normalisation(self.net)
        # Of the last layer little is calculated, and that in float32.
        self._weight, self._bias = (part.detach().float().to(self.device) for part in (net.maps.weight, net.maps.bias))
        self.net = net.to(self.device, self.precision, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._batch_px = 1 << 62 if self.device.startswith("cuda") else _CPU_BATCH_PX

    @classmethod
    def load(cls, path: Path, device: str = "auto", precision: str = "auto") -> "Detector":
        """Detector from a weights file.

        `device` is auto, cpu, cuda or cuda:N; `precision` is auto (bfloat16 where the processor has it), float32 or
        bfloat16. Raises `WeightsError` and `DeviceError`.
        """
        return cls.load_each(path, device, precision)[0]

    @classmethod
    def load_each(cls, path: Path, devices: str = "auto", precision: str = "auto") -> list["Detector"]:
        """The same detector on each of several devices, as they are named with commas between: `cuda:0,cuda:1`."""
        places = [resolve_device(device.strip()) for device in devices.split(",")]
        if len(set(places)) < len(places):
            raise DeviceError(f"--device {devices} names a device twice: name each once.")
        if len({resolve_precision(precision, place) for place in places}) > 1:
            raise DeviceError(
                f"--device {devices} mixes devices that calculate with different precision: name one kind."
            )
        if "cpu" in places:
            keep_large_buffers()
        tensors, card = load_weights(path)
        detectors = []
        for place in places:
            try:
                parsed = WeightsCard.from_json(card)
                net = DetectorNet.of(tensors)
            except (KeyError, TypeError, IndexError, RuntimeError) as error:
                raise WeightsError(
                    f"Weights file {path} does not hold a detector of this version: train one with `overwatt train`."
                ) from error
            version = f"detector-{card['sha256'][:8]}"
            detectors.append(cls(net, parsed, version, place, resolve_precision(precision, place)))
        return detectors

    def detect(
        self,
        windows: np.ndarray,
        valid: np.ndarray | None = None,
        min_score: float = MIN_SCORE,
        within: Area | None = None,
    ) -> tuple[Peaks, np.ndarray]:
        """Peaks, not yet thinned, and lettering probability of uint8 windows (N, H, W, 3) at `gsd_m`.

        `valid` is bool (N, H, W), False where there is no image; nothing is found there. The lettering map is float16
        (N, ceil(H / 4), ceil(W / 4)), the highest probability of each 4 x 4 px. With `within`, a part whose sides lie
        on the lattice, peaks are those of its cells, still in pixels of the window, and the map is that of the part.
        `min_score` is the first stage's; scores are those of both stages.
        Raises `DeviceMemoryError` when not even one window fits into the device's memory.
        """
        pieces, lettering = [], []
        start = 0
        while start < len(windows):
            size = max(1, self._batch_px // max(1, windows.shape[1] * windows.shape[2]))
            part = slice(start, start + size)
            try:
                table, mask = self._forward(windows[part], None if valid is None else valid[part], min_score, within)
            except RuntimeError as error:
                if not _out_of_memory(error):
                    raise
                tried = len(windows[part])
                torch.cuda.empty_cache()
                if tried == 1:
                    raise DeviceMemoryError(
                        f"Device {self.device} has too little memory for a window of {windows.shape[2]} x "
                        f"{windows.shape[1]} px: use a smaller --window or --device cpu."
                    ) from None
                self._batch_px = tried // 2 * windows.shape[1] * windows.shape[2]
                log.warning("device %s is out of memory: going on with %d windows at a time", self.device, tried // 2)
                continue
            pieces.append(decode(table, start))
            lettering.append(mask)
            start += size
        if not pieces:
            raise ValueError("detect() needs at least one window")
        return Peaks.joined(pieces), np.concatenate(lettering)

    def silent_on(self, colour: tuple[int, int, int]) -> bool:
        """Whether a window of this colour and nothing else gives neither peak nor lettering, whatever its size."""
        # One period of the lattice with all that it sees; what lies farther out cannot differ from it.
        side = LATTICE_PX + 2 * self.halo_px
        peaks, lettering = self.detect(np.full((1, side, side, 3), colour, np.uint8))
        return len(peaks) == 0 and not bool((lettering >= MIN_LETTERING).any())

    def probability(self, cls: np.ndarray, score: np.ndarray) -> np.ndarray:
        """Calibrated probability, float64, of peaks of the given classes (index in OBJECT_CLASSES) and scores."""
        table = np.array([self.card.calibration[name] for name in OBJECT_CLASSES])
        return calibrated(score, (table[cls, 0], table[cls, 1]))

    def _forward(
        self, windows: np.ndarray, valid: np.ndarray | None, min_score: float, within: Area | None
    ) -> tuple[np.ndarray, np.ndarray]:
        height, width = windows.shape[1:3]
        images = torch.from_numpy(np.ascontiguousarray(windows)).to(self.device)
        seen = None if valid is None else torch.from_numpy(np.ascontiguousarray(valid)).to(self.device)
        below, right = -height % LATTICE_PX, -width % LATTICE_PX
        if below or right:
            seen = torch.ones(images.shape[:3], dtype=torch.bool, device=self.device) if seen is None else seen
            images = functional.pad(images, (0, 0, 0, right, 0, below))
            seen = functional.pad(seen, (0, right, 0, below))
        with torch.inference_mode():
            features = self.net.features(normalise(images, seen, self.precision), within)
            table, lettering = pick_peaks(features, self._weight, self._bias, seen, min_score)
            table = refine(self.net.refiner, images, seen, table, STRIDE, self.precision)
            table = table[centre_is_seen(table, features.whole, seen)]
            if within is None:
                lettering = lettering[:, : -(-height // 4), : -(-width // 4)].contiguous()
            # One transfer: the two results travel as one run of bytes.
            whole = torch.cat([table.view(torch.uint8).reshape(-1), lettering.view(torch.uint8).reshape(-1)]).cpu()
        split = table.numel() * table.element_size()
        raw = whole.numpy()
        return (
            raw[:split].view(np.float32).reshape(table.shape),
            raw[split:].copy().view(np.float16).reshape(lettering.shape),
        )


def _out_of_memory(error: RuntimeError) -> bool:
    # The CPU's allocator has no exception of its own.
    return isinstance(error, torch.cuda.OutOfMemoryError) or "can't allocate memory" in str(error)


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def threads_of_each(count: int) -> Iterator[Callable[[], None]]:
    """What a worker thread calls first, so that its share of the arithmetic takes `count` processor cores.

    Threads that work on a window each lose nothing to waiting for one another at every layer. The number of the calling
    thread is put back at the end.
    """
    before = torch.get_num_threads()
    try:
        yield lambda: torch.set_num_threads(count)
    finally:
        torch.set_num_threads(before)


def resolve_device(device: str) -> str:
    """`cpu` or `cuda...` for a requested device; `auto` takes CUDA where there is one. Raises `DeviceError`."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        return device
    try:
        wanted = torch.device(device)
    except RuntimeError:
        raise DeviceError(f"Device {device!r} is not one of auto, cpu, cuda, cuda:N: choose one of these.") from None
    if wanted.type != "cuda" or not torch.cuda.is_available() or (wanted.index or 0) >= torch.cuda.device_count():
        raise DeviceError(f"Device {device!r} does not exist on this machine: use --device cpu or --device auto.")
    return device


def resolve_precision(precision: str, device: str) -> torch.dtype:
    """Type of the arithmetic: `auto` takes bfloat16 where the processor multiplies it natively."""
    if precision == "auto":
        native = (
            torch.cuda.is_bf16_supported(including_emulation=False)
            if device.startswith("cuda")
            else torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        )
        return torch.bfloat16 if native else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]
