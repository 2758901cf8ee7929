"""A Prefect server on loopback, a small rendered scene of a made-up site, and the command line as a subprocess."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import rasterio
import shapely
from prefect.logging.handlers import APILogHandler
from rasterio.transform import from_origin

from models.rendering.chips import render_chip

Overwatt = Callable[..., subprocess.CompletedProcess[str]]
"""Takes arguments, and settings by their name in the environment."""
ROOT = Path(__file__).resolve().parents[2]
STARTS_WITHIN_S = 240
"""A Prefect server takes ten seconds on an idle machine; the limit is only there so that a dead one is noticed."""


@dataclass(frozen=True)
class Place:
    """A site with one rendered image, in folders of its own."""

    site: str
    image: Path
    aoi: Path
    archive: Path
    env: dict[str, str]
    """OVERWATT_* settings for it."""


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment of a subprocess that touches nothing of the user's."""
    folder = tmp_path_factory.mktemp("home")
    kept = {name: value for name, value in os.environ.items() if _keep(name)}
    return kept | {
        "PREFECT_HOME": str(folder / "prefect"),
        "OVERWATT_CACHE": str(folder / "cache"),
        "OVERWATT_ARCHIVE": str(folder / "archive"),
        "OVERWATT_LIBRARY": str(folder / "library"),
        "NO_COLOR": "1",
    }


@pytest.fixture(scope="session")
def empty_catalog(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A source that can be reached and holds nothing."""
    path = tmp_path_factory.mktemp("empty") / "catalog.json"
    path.write_text(
        json.dumps({"type": "Catalog", "stac_version": "1.1.0", "id": "empty", "description": "-", "links": []})
    )
    return f"stac:{path}"


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A rendered chip on the ground near Memphis, dated by its name, with a site file around it."""
    folder = tmp_path_factory.mktemp("place")
    image = folder / "images" / "field_20250822.tif"
    image.parent.mkdir()
    pixels = render_chip(11, split="validation").image
    side_px, gsd_m, west_m, north_m = pixels.shape[0], 0.3, 230_000.0, 3_883_000.0
    profile = {
        "driver": "GTiff",
        "width": side_px,
        "height": side_px,
        "count": 3,
        "dtype": "uint8",
        "crs": "EPSG:32616",
        "transform": from_origin(west_m, north_m, gsd_m, gsd_m),
    }
    with rasterio.open(image, "w", **profile) as raster:
        raster.write(pixels.transpose(2, 0, 1))
        raster.update_tags(OVERWATT_RENDERED="YES")
    with rasterio.open(image) as raster:
        from pipelines.scenes.georeference import footprint

        outline = footprint(raster)
    aoi = folder / "aoi"
    aoi.mkdir()
    perimeter = {"kind": "perimeter", "id": "field", "name": "Field", "operator": "none", "campus": "field"}
    feature = {
        "type": "Feature",
        "properties": perimeter | {"source": "made up for a test", "quality": "proxy"},
        "geometry": shapely.geometry.mapping(outline),
    }
    (aoi / "field.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    archive = folder / "archive"
    env = {
        "OVERWATT_AOI": str(aoi),
        "OVERWATT_ARCHIVE": str(archive),
        "OVERWATT_CACHE": str(folder / "cache"),
        "OVERWATT_SOURCE": f"local:{image.parent}",
    }
    return Place("field", image, aoi, archive, env)


@pytest.fixture(scope="session")
def prefect_server(home: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """API address of a Prefect server with a database of its own."""
    port = free_port()
    log = tmp_path_factory.mktemp("server") / "server.log"
    command = [sys.executable, "-m", "prefect", "--no-prompt", "server", "start", "--analytics-off"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            env=home,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until(lambda: is_healthy(port, process), STARTS_WITHIN_S, log.read_text)
        yield f"http://127.0.0.1:{port}/api"
        # Prefect sends logs behind a run's back; they must not look for the server when it has gone.
        APILogHandler().flush()
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(scope="session")
def overwatt(
    home: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., subprocess.CompletedProcess]:
    """Run the command line as a user does: another process, another folder."""
    folder = tmp_path_factory.mktemp("elsewhere")

    def run(*arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "flows.cli", *(str(argument) for argument in arguments)]
        return subprocess.run(command, cwd=folder, env=home | env, capture_output=True, text=True, timeout=280)

    return run


def _keep(name: str) -> bool:
    """Weights may be chosen, so that new ones can be tried before they are put in place."""
    return not name.startswith(("PREFECT_", "OVERWATT_")) or name.endswith("WEIGHTS")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_healthy(port: int, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, "the process ended"
    try:
        return httpx.get(f"http://127.0.0.1:{port}/api/health", trust_env=False).is_success
    except httpx.TransportError:
        return False


def wait_until(done: Callable[[], bool], within_s: float, evidence: Callable[[], str]) -> None:
    give_up = time.monotonic() + within_s
    while not done():
        assert time.monotonic() < give_up, f"waited {within_s:.0f} s:\n{evidence()}"
        time.sleep(0.5)
