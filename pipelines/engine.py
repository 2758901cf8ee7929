"""The engine: a raster of any size through the network in windows, with one answer whatever the windows are.

Threads read ahead while others compute, each on a window of its own; what comes back is joined in the windows' order.
Memory is bounded by the windows in flight, not by the raster.
"""

import dataclasses
import logging
import math
import multiprocessing
import pickle
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass, field
from queue import SimpleQueue
from threading import Lock

import numpy as np
import shapely

from models.detector.allocator import keep_large_buffers
from models.detector.detector import Detector, cores, threads_of_each
from models.detector.network import Area
from models.detector.peaks import Peaks, agreed, thinned
from models.errors import DeviceMemoryError
from pipelines.errors import Damage, WindowError
from pipelines.gridded_raster import GriddedRaster, Pixels
from pipelines.lettering import LetteringCells
from pipelines.windows import Box, WindowPlan

__all__ = ["Found", "Layer", "find"]

log = logging.getLogger(__name__)

READ_AHEAD = 2
"""Windows read, or being read, beyond those that are computed."""
_MOST_CPU_WORKERS = 8
"""Windows computed at once on a CPU; with more cores each window gets several, so that memory stays bounded."""
_WORKERS_PER_GPU = 2
"""While one waits for its window's result, the other's is on the way."""
_RUNS_OF_EACH = 4
"""Runs of windows a process takes, at least: enough to even out the windows in which there is nothing to see."""
_LONGEST_RUN = 8
"""Windows: what is begun is finished before an error or Ctrl-C ends a process."""


@dataclass(frozen=True)
class Found:
    """What the network saw in a scene."""

    peaks: Peaks
    """In lattice pixels of the scene, thinned, ordered by class, row and column; `window` is 0."""
    cells: LetteringCells
    windows_read: int
    """Windows that reached the network."""
    windows_blank: int
    """Windows that were read and hold no image, or one colour in which there is nothing to find."""
    damaged: tuple[Damage, ...]
    """Windows that could not be read, in order; empty unless they were to be skipped."""
    seconds: Mapping[str, float]
    """Thread time by step: `read` (decode and resample), `network` (to the device, forward, peaks, and back)."""


@dataclass(frozen=True)
class _Part:
    """What came of one window."""

    peaks: Peaks | None = None
    cells: LetteringCells | None = None
    damage: Damage | None = None
    read_s: float = 0.0
    network_s: float = 0.0


@dataclass(frozen=True)
class Layer:
    """A raster and the windows of it that are looked at."""

    raster: GriddedRaster
    plan: WindowPlan


def find(
    layers: Sequence[Layer],
    detectors: Sequence[Detector],
    *,
    readers: int | None = None,
    processes: int = 1,
    skip_damaged: bool = False,
    min_probability: float = 0.0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Found]:
    """Peaks and lettering cells of all cores of each layer; one after the other, with no pause between.

    :param detectors: the same weights on each device that takes part
    :param readers: threads that read ahead, each with the file open for itself; on a CPU one is enough, a GPU gets
        all of the processor's cores but two unless a number is given
    :param processes: that share the windows, each with its own threads
    :param skip_damaged: go on without windows that cannot be read, and name them in the result
    :param min_probability: peaks that are less probable are forgotten at once; they could thin out none that are not
    :param progress: called with windows done and windows in all
    :raises WindowError: a window cannot be read
    :raises DeviceMemoryError: a device has too little memory for the smallest window
    """
    if readers is None:
        readers = 1 if all(detector.device == "cpu" for detector in detectors) else max(1, cores() - 2)
    windows = tuple(
        _Window(number, core, core.grown(detectors[0].halo_px, layer.plan.extent))
        for number, layer in enumerate(layers)
        for core in layer.plan.cores
    )
    share = max(1, min(processes, len(windows)))
    rasters = tuple(layer.raster for layer in layers)
    job = _Job(rasters, tuple(detectors), readers, skip_damaged, min_probability, share)
    parts: list[_Part] = []
    for part in _computed(job, windows) if share == 1 else _shared(job, windows):
        parts.append(part)
        if progress is not None:
            progress(len(parts), len(windows))
    return [
        _joined([part for window, part in zip(windows, parts, strict=True) if window.layer == number], layer.plan)
        for number, layer in enumerate(layers)
    ]


@dataclass(frozen=True)
class _Window:
    """What a worker takes up."""

    layer: int
    core: Box
    seen: Box
    """The core with its halo."""


@dataclass(frozen=True)
class _Job:
    """What all windows of a call have in common; it can be sent to another process."""

    rasters: tuple[GriddedRaster, ...]
    detectors: tuple[Detector, ...]
    readers: int
    skip_damaged: bool
    min_probability: float
    share: int
    """Processes that the processor's cores are divided among."""


def _computed(job: _Job, windows: Sequence[_Window]) -> Iterator[_Part]:
    """What came of each window, in order."""
    desk = _Desk(job, len(windows))
    pending: deque[Future[_Part]] = deque()
    with (
        ExitStack() as rasters,
        threads_of_each(desk.threads) as settle,
        ThreadPoolExecutor(job.readers, "read") as reading,
        ThreadPoolExecutor(desk.workers, "compute", initializer=settle) as computing,
    ):
        for raster in job.rasters:
            rasters.enter_context(raster)
        try:
            for window in windows:
                pixels = reading.submit(desk.read, window)
                pending.append(computing.submit(desk.compute, window, pixels))
                if len(pending) >= desk.workers + max(READ_AHEAD, job.readers):
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        except BaseException:
            reading.shutdown(wait=False, cancel_futures=True)
            computing.shutdown(wait=False, cancel_futures=True)
            raise


def _shared(job: _Job, windows: Sequence[_Window]) -> Iterator[_Part]:
    """The same from several processes, which take runs of neighbouring windows in turn."""
    run = min(_LONGEST_RUN, math.ceil(len(windows) / (job.share * _RUNS_OF_EACH)))
    runs = [windows[start : start + run] for start in range(0, len(windows), run)]
    # Pickled here: what torch would do of itself is to share the weights by file descriptors. Spawned, not forked: a
    # fork of a process that has used torch's threads can hang.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(job.share, spawn, initializer=_learn, initargs=(pickle.dumps(job),)) as pool:
        try:
            for parts in pool.map(_compute_run, runs):
                yield from parts
        except BrokenProcessPool:
            raise DeviceMemoryError(
                "A process that shared the image was killed, as happens when memory runs out: use fewer --processes "
                "or a smaller --window."
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


_jobs: list[_Job] = []
"""In a process of `_shared`: its job."""


def _learn(job: bytes) -> None:
    keep_large_buffers()
    _jobs[:] = [pickle.loads(job)]


def _compute_run(run: Sequence[_Window]) -> list[_Part]:
    return list(_computed(_jobs[0], run))


@dataclass
class _Desk:
    """What the threads of one call share."""

    job: _Job
    windows: int
    workers: int = field(init=False)
    threads: int = field(init=False)
    """Processor cores of each worker."""
    _free: SimpleQueue[Detector] = field(default_factory=SimpleQueue)
    _silent: dict[tuple[int, int, int], bool] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def __post_init__(self) -> None:
        mine = max(1, cores() // self.job.share)
        on_cpu = max(1, min(mine, _MOST_CPU_WORKERS, self.windows))
        for detector in self.job.detectors:
            for _ in range(on_cpu if detector.device == "cpu" else _WORKERS_PER_GPU):
                self._free.put(detector)
        self.workers = self._free.qsize()
        self.threads = mine // on_cpu

    def read(self, window: _Window) -> tuple[Pixels | Damage, float]:
        start = time.perf_counter()
        raster = self.job.rasters[window.layer]
        try:
            pixels = raster.read(window.seen)
        except WindowError as error:
            if not self.job.skip_damaged:
                raise
            return Damage(*raster.in_source(window.core), error), 0.0
        except MemoryError:
            raise DeviceMemoryError(
                f"This machine has too little memory to read {window.seen.width} x {window.seen.height} px at once: "
                "use a smaller --window."
            ) from None
        return pixels, time.perf_counter() - start

    def compute(self, window: _Window, reading: "Future[tuple[Pixels | Damage, float]]") -> _Part:
        pixels, read_s = reading.result()
        if isinstance(pixels, Damage):
            return _Part(damage=pixels)
        detector = self._free.get()
        try:
            start = time.perf_counter()
            if pixels.empty or self._is_silent(pixels, detector):
                return _Part(read_s=read_s)
            peaks, cells = self._detect(detector, window.core, window.seen, pixels)
            return _Part(peaks, cells, None, read_s, time.perf_counter() - start)
        finally:
            self._free.put(detector)

    def _is_silent(self, pixels: Pixels, detector: Detector) -> bool:
        colour = pixels.colour
        if colour is None:
            return False
        with self._lock:
            if colour not in self._silent:
                self._silent[colour] = detector.silent_on(colour)
            return self._silent[colour]

    def _detect(self, detector: Detector, core: Box, window: Box, pixels: Pixels) -> tuple[Peaks, LetteringCells]:
        area_px = window.width * window.height
        halves = core.halves(detector.lattice_px)
        if halves is None:
            return self._see(detector, core, window, pixels)
        if detector.most_px is None or area_px <= detector.most_px:
            try:
                return self._see(detector, core, window, pixels)
            except DeviceMemoryError:
                self._note_limit(detector, window)
        found = []
        for half in halves:
            inner = half.grown(detector.halo_px, window)
            rows = slice(inner.y0 - window.y0, inner.y1 - window.y0)
            columns = slice(inner.x0 - window.x0, inner.x1 - window.x0)
            valid = None if pixels.valid is None else pixels.valid[rows, columns]
            found.append(self._detect(detector, half, inner, Pixels(pixels.rgb[rows, columns], valid)))
        return Peaks.joined([peaks for peaks, _ in found]), LetteringCells.joined([cells for _, cells in found])

    def _note_limit(self, detector: Detector, window: Box) -> None:
        with self._lock:
            if detector.most_px is None:
                log.warning(
                    "device %s is out of memory with windows of %d x %d px: going on with smaller ones",
                    detector.device,
                    window.width,
                    window.height,
                )
            detector.most_px = min(detector.most_px or 1 << 62, window.width * window.height - 1)

    def _see(self, detector: Detector, core: Box, window: Box, pixels: Pixels) -> tuple[Peaks, LetteringCells]:
        valid = None if pixels.valid is None else pixels.valid[None]
        own = Area(core.y0 - window.y0, core.x0 - window.x0, core.y1 - window.y0, core.x1 - window.x0)
        peaks, lettering = detector.detect(pixels.rgb[None], valid, within=own)
        if self.job.min_probability > 0:
            peaks = peaks[detector.probability(peaks.cls, peaks.score) >= self.job.min_probability]
        placed = dataclasses.replace(
            peaks,
            x_px=peaks.x_px + window.x0,
            y_px=peaks.y_px + window.y0,
            cell_x=peaks.cell_x + window.x0 // detector.stride,
            cell_y=peaks.cell_y + window.y0 // detector.stride,
        )
        return placed, LetteringCells.of_core(lettering[0], core)


def _joined(parts: Sequence[_Part], plan: WindowPlan) -> Found:
    seen = [(part.peaks, part.cells) for part in parts if part.peaks is not None and part.cells is not None]
    peaks = Peaks.joined([peaks for peaks, _ in seen]) if seen else Peaks.none()
    peaks = peaks[np.lexsort((peaks.cell_x, peaks.cell_y, peaks.cls))]
    cells = LetteringCells.joined([cells for _, cells in seen])
    if plan.kept is not None:
        # How far beyond the area the cores reach depends on the windows: what may thin or lengthen must not.
        peaks = peaks[shapely.contains_xy(plan.kept, peaks.x_px, peaks.y_px)]
        cells = cells.within(plan.kept)
    damaged = tuple(part.damage for part in parts if part.damage is not None)
    return Found(
        peaks=agreed(thinned(peaks)),
        cells=cells,
        windows_read=len(seen),
        windows_blank=len(parts) - len(seen) - len(damaged),
        damaged=damaged,
        seconds={"read": sum(part.read_s for part in parts), "network": sum(part.network_s for part in parts)},
    )
