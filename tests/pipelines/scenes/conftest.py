"""Tiny real rasters around one place, and a web server with byte ranges that counts what it sends."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import rasterio
import shapely
from rasterio import Affine
from rasterio.enums import ColorInterp

from pipelines.sites import Site

UTM = "EPSG:32615"
CENTRE = (773_000.0, 3_872_000.0)
"""Easting and northing near Memphis."""
SIZE = (200, 160)
"""Width and height of the small rasters, pixels of 0.3 m."""
TRANSFORM = Affine(0.3, 0, CENTRE[0] - 30, 0, -0.3, CENTRE[1] + 24)


def lonlat(x_m: float, y_m: float) -> tuple[float, float]:
    """From metres east and north of the centre."""
    to_lonlat = pyproj.Transformer.from_crs(UTM, "OGC:CRS84", always_xy=True)
    return to_lonlat.transform(CENTRE[0] + x_m, CENTRE[1] + y_m)


def area_around(x_m: float = 0, y_m: float = 0, half_x_m: float = 15, half_y_m: float = 12) -> shapely.Polygon:
    """A rectangle in longitude and latitude."""
    corners = [(-half_x_m, -half_y_m), (half_x_m, -half_y_m), (half_x_m, half_y_m), (-half_x_m, half_y_m)]
    return shapely.Polygon([lonlat(x_m + x, y_m + y) for x, y in corners])


def make_site(perimeter: shapely.Polygon) -> Site:
    """A site that is nothing but a perimeter."""
    return Site(
        id="memphis",
        name="Memphis",
        operator="nobody",
        address="",
        campus="memphis",
        perimeter=perimeter,
        perimeter_source="test",
        perimeter_quality="proxy",
        zones=(),
        known_dates=(),
        supplies=(),
        accelerator=None,
        accelerator_source=None,
        pue=None,
        pue_source=None,
        path=Path("memphis.geojson"),
    )


@pytest.fixture
def area() -> shapely.Polygon:
    return area_around()


@pytest.fixture
def site(area: shapely.Polygon) -> Site:
    return make_site(area)


def noise(count: int, dtype: str = "uint8", low: int = 1, high: int = 250, size: tuple[int, int] = SIZE) -> np.ndarray:
    """(count, height, width) of values that no rule takes for nodata."""
    return np.random.default_rng(7).integers(low, high, (count, size[1], size[0])).astype(dtype)


MakeRaster = Callable[..., Path]


@pytest.fixture
def make_raster(tmp_path: Path) -> MakeRaster:
    """Write a raster; keywords go to rasterio, `tags`, `mask`, `colorinterp`, `colormap`, `descriptions` apart."""

    def make(name: str = "scene_20250822.tif", pixels: np.ndarray | None = None, **options: Any) -> Path:
        pixels = noise(3) if pixels is None else pixels
        extra = {
            key: options.pop(key, None)
            for key in ("tags", "imagery", "mask", "colorinterp", "colormap", "descriptions")
        }
        profile = {
            "driver": "GTiff",
            "width": pixels.shape[2],
            "height": pixels.shape[1],
            "count": pixels.shape[0],
            "dtype": pixels.dtype,
            "crs": UTM,
            "transform": TRANSFORM,
        } | options
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "w", **profile) as dataset:
            if extra["colorinterp"]:
                dataset.colorinterp = [ColorInterp[colour] for colour in extra["colorinterp"]]
            if extra["colormap"]:
                dataset.write_colormap(1, extra["colormap"])
            for band, text in enumerate(extra["descriptions"] or (), 1):
                dataset.set_band_description(band, text)
            dataset.write(pixels)
            if extra["mask"] is not None:
                dataset.write_mask(extra["mask"])
            if extra["tags"]:
                dataset.update_tags(**extra["tags"])
            if extra["imagery"]:
                dataset.update_tags(ns="IMAGERY", **extra["imagery"])
        return path

    return make


class FileServer:
    """Serves a folder on loopback, with byte ranges; `status` forces answers, `sent` counts body bytes by path."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.status: dict[str, list[int]] = {}
        self.sent: dict[str, int] = {}
        self.requests: list[str] = []
        self.ranges = True
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self._answer(with_body=False)

            def do_GET(self) -> None:
                self._answer(with_body=True)

            def log_message(self, *args: Any) -> None:
                pass

            def _answer(self, with_body: bool) -> None:
                path = self.path.partition("?")[0]
                server.requests.append(path)
                file = server.folder / path.lstrip("/")
                if forced := server.status.get(path):
                    return self._send(forced.pop(0), b"", {})
                if not file.is_file():
                    return self._send(404, b"", {})
                data = file.read_bytes()
                headers = {"ETag": f'"{file.stat().st_mtime_ns}"'}
                wanted = self.headers.get("Range")
                if not (wanted and server.ranges):
                    return self._send(200, data if with_body else b"", headers, len(data))
                first, _, last = wanted.removeprefix("bytes=").partition("-")
                part = data[int(first) : int(last) + 1 if last else None]
                headers["Content-Range"] = f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}"
                return self._send(206, part if with_body else b"", headers, len(part))

            def _send(self, status: int, body: bytes, headers: dict[str, str], length: int = 0) -> None:
                path = self.path.partition("?")[0]
                server.sent[path] = server.sent.get(path, 0) + len(body)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(length))
                self.end_headers()
                # A client that has read enough hangs up.
                with contextlib.suppress(ConnectionError):
                    self.wfile.write(body)

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FileServer]:
    server = FileServer(tmp_path)
    yield server
    server.close()
