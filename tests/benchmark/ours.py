"""Overwatt over one raster: prints its figures as a line of JSON, as `peers.py` does for the others.

From opening the file to georeferenced polygons with all that belongs to them: both lattices, lettering read. Importing
and loading the weights are not timed; writing the file is timed apart, because the peers write none.
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import rasterio

from flows.instruments import instruments
from models.classes import CLASSES
from pipelines.detection import WINDOW_PX, detect_in_raster
from pipelines.documents import raster_geojson
from pipelines.settings import Settings
from pipelines.single_raster import open_single


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("raster", type=Path)
    parser.add_argument("--window", type=int, default=WINDOW_PX)
    parser.add_argument("--readers", type=int)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    settings = Settings()
    detectors, reader = instruments(arguments.device)
    with rasterio.open(arguments.raster) as raster:
        pixels = raster.width * raster.height
    start = time.perf_counter()
    with open_single(arguments.raster, detector_gsd_m=detectors[0].gsd_m, cache=settings.cache) as image:
        opened_s = time.perf_counter() - start
        found = detect_in_raster(
            image.gridded,
            None,
            detectors,
            reader,
            native_gsd_m=image.native_gsd_m,
            coverage=image.coverage,
            window_px=arguments.window,
            readers=arguments.readers,
            processes=arguments.processes,
        )
        seconds = time.perf_counter() - start
        start = time.perf_counter()
        with tempfile.NamedTemporaryFile("w", suffix=".geojson") as file:
            file.write(raster_geojson(image, found, CLASSES))
        written_s = time.perf_counter() - start
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * arguments.processes
    figures = {
        "who": "overwatt",
        "mpx_per_s": pixels / seconds / 1e6,
        "peak_rss_mb": max(own, children if arguments.processes > 1 else 0) / 1024,
        "polygons": len(found.frame),
        "seconds": {"open": opened_s, **(found.seconds or {}), "total": seconds, "write": written_s},
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
