"""What the machine could do at most: convolutions, the network alone, decoding, resampling; a line of JSON."""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio
import torch
from rasterio.windows import Window
from torch.utils.flop_counter import FlopCounterMode

from models.detector.detector import Detector
from models.detector.network import normalise
from pipelines.detection import WINDOW_PX
from pipelines.gdal_env import gdal_env
from pipelines.grid import detection_grid
from pipelines.gridded_raster import GriddedRaster
from pipelines.settings import Settings
from pipelines.windows import plan_windows


def seconds_of(work: Callable[[], object], times: int = 5) -> float:
    """Median wall time of a call, after one that is not counted."""
    work()
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def convolution_flops(device: str, precision: torch.dtype) -> float:
    """Floating point operations a second of one large 3 x 3 convolution, the best of four shapes."""
    best = 0.0
    for channels, side in ((64, 1024), (128, 512), (256, 256), (512, 128)):
        layer = torch.nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        layer = layer.to(device, precision, memory_format=torch.channels_last)  # type: ignore[call-overload]
        maps = torch.randn(1, channels, side, side, device=device, dtype=precision)
        maps = maps.to(memory_format=torch.channels_last)

        def run(layer: torch.nn.Module = layer, maps: torch.Tensor = maps) -> None:
            layer(maps)
            if device != "cpu":
                torch.cuda.synchronize()

        best = max(best, 2 * 9 * channels**2 * side**2 / seconds_of(run))
    return best


def forward(detector: Detector, images: torch.Tensor) -> None:
    """The network alone, from uint8 on the device to its last layer."""
    detector.net.features(normalise(images, None, detector.precision))
    if detector.device != "cpu":
        torch.cuda.synchronize()


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("raster", type=Path)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    detector = Detector.load(Settings().weights, arguments.device)
    side = WINDOW_PX + 2 * detector.halo_px
    window = np.random.default_rng(0).integers(0, 255, (1, side, side, 3), dtype=np.uint8)
    images = torch.from_numpy(window).to(detector.device)
    with torch.inference_mode():
        with FlopCounterMode(display=False) as counter:
            detector.net.features(normalise(images, None, detector.precision))
        figures = {
            "device": detector.device,
            "precision": str(detector.precision).removeprefix("torch."),
            "flop_per_px": counter.get_total_flops() / side**2,
            "convolution_flops": convolution_flops(detector.device, detector.precision),
            "forward_mpx_per_s": side**2 / 1e6 / seconds_of(lambda: forward(detector, images)),
            "network_mpx_per_s": side**2 / 1e6 / seconds_of(lambda: detector.detect(window)),
        }
    with gdal_env(arguments.raster), rasterio.open(arguments.raster) as dataset:
        grid = detection_grid(dataset, detector.gsd_m)
        start = time.perf_counter()
        for top in range(0, dataset.height, 512):
            dataset.read(window=Window(0, top, dataset.width, min(512, dataset.height - top)))
        figures["decode_mpx_per_s_a_thread"] = dataset.width * dataset.height / 1e6 / (time.perf_counter() - start)
        # A lattice that does not fit: every pixel is warped.
        other = detection_grid(dataset, detector.gsd_m * 1.1)
    for name, lattice in (("read", grid), ("read_and_resample", other)):
        plan = plan_windows(lattice.width_px, lattice.height_px, lattice_px=detector.lattice_px, window_px=WINDOW_PX)
        with GriddedRaster(arguments.raster, lattice) as raster:
            start = time.perf_counter()
            for core in plan.cores:
                raster.read(core.grown(detector.halo_px, plan.extent))
            figures[f"{name}_mpx_per_s_a_thread"] = grid.width_px * grid.height_px / 1e6 / (time.perf_counter() - start)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
