import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
import rasterio.shutil
from rasterio import Affine

from pipelines.errors import NoSceneError, SceneError, SourceError
from pipelines.scenes.dates import Days, parse_days
from pipelines.scenes.library import Ingested, LibrarySource, Statement, ingest
from pipelines.scenes.local import LocalSource
from pipelines.scenes.stac import StacSource
from pipelines.sites import Site, new_site
from tests.pipelines.scenes.conftest import CENTRE, TRANSFORM, MakeRaster, area_around, make_site, noise

NEO = Statement(source="Airbus Pleiades Neo", acquired=parse_days("2025-08-22"), licence="bought, no redistribution")


SCHEMAS = Path(pystac.__file__).parent / "validation" / "jsonschemas"


def check_core(path: Path) -> None:
    """The STAC validator takes the file for STAC; it is given pystac's copies of the schemas it would fetch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from stac_validator.validate import StacValidate
    version = pystac.get_stac_version()
    schemas = {
        f"https://schemas.stacspec.org/v{version}/{kind}-spec/json-schema/{file.name}": str(file)
        for file in (SCHEMAS / "stac-spec" / f"v{version}").glob("*.json")
        for kind in ("item", "catalog", "collection")
    }
    schemas |= {f"https://geojson.org/schema/{file.name}": str(file) for file in (SCHEMAS / "geojson").glob("*.json")}
    validator = StacValidate(str(path), core=True, schema_map=schemas)
    assert validator.run(), validator.message


def check_catalog(root: Path, scenes: int) -> None:
    """The catalog and every item of it are STAC, and its links lead to images that match their checksums."""
    catalog = pystac.Catalog.from_file(str(root / "catalog.json"))
    items = list(catalog.get_items(recursive=True))
    assert len(items) == scenes
    for path in (root / "catalog.json", *(Path(item.get_self_href()) for item in items)):
        check_core(path)
    for item in items:
        asset = item.assets["image"]
        content = Path(asset.get_absolute_href()).read_bytes()
        assert len(content) == asset.extra_fields["file:size"]


def make_vrt(tmp_path: Path, left: Path, right: Path) -> Path:
    """A mosaic of two tiles side by side, as gdalbuildvrt writes it."""
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{band}">'
        + "".join(
            f'<SimpleSource><SourceFilename relativeToVRT="1">{os.path.relpath(tile, tmp_path)}</SourceFilename>'
            f'<SourceBand>{band}</SourceBand><SrcRect xOff="0" yOff="0" xSize="100" ySize="160"/>'
            f'<DstRect xOff="{x}" yOff="0" xSize="100" ySize="160"/></SimpleSource>'
            for x, tile in ((0, left), (100, right))
        )
        + "</VRTRasterBand>"
        for band in (1, 2, 3)
    )
    path = tmp_path / "strip.vrt"
    transform = ", ".join(f"{value:.3f}" for value in TRANSFORM.to_gdal())
    path.write_text(
        f'<VRTDataset rasterXSize="200" rasterYSize="160"><SRS>EPSG:32615</SRS>'
        f"<GeoTransform>{transform}</GeoTransform>{bands}</VRTDataset>"
    )
    return path


@pytest.fixture
def vrt(make_raster: MakeRaster, tmp_path: Path) -> Path:
    pixels = noise(3)
    left = make_raster("tiles/r1c1.tif", pixels[:, :, :100])
    right = make_raster("tiles/r1c2.tif", pixels[:, :, 100:], transform=TRANSFORM @ Affine.translation(100, 0))
    return make_vrt(tmp_path, left, right)


def take_in(tmp_path: Path, file: Path, site: Site, said: Statement = NEO, **options: Any) -> Ingested:
    return ingest(tmp_path / "library", file, site, said, **options)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("image.tif", {}),
        ("image.tif", {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "lzw"}),
        ("image.jp2", {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES"}),
        ("image.ntf", {"driver": "NITF", "crs": "EPSG:32615"}),
    ],
)
def test_an_image_of_any_format_is_kept_and_found_again(
    make_raster: MakeRaster, site: Site, tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    if name.endswith(".ntf"):
        # NITF of this build places in degrees.
        options = {"driver": "NITF", "ICORDS": "N"}
    path = make_raster(name, **options)
    taken = take_in(tmp_path, path, site)
    assert taken.new
    assert Path(taken.scene.href).read_bytes() == path.read_bytes()
    path.unlink()
    source = LibrarySource(tmp_path / "library", cache=tmp_path / "cache")
    [scene] = source.search(site)
    assert scene == taken.scene
    assert scene.source == "library:Airbus Pleiades Neo"
    assert (scene.acquired, scene.earliest) == (datetime(2025, 8, 22, tzinfo=UTC), None)
    assert (scene.acquired_from, scene.licence, scene.price) == ("command line", "bought, no redistribution", "owned")
    fetched = source.fetch(scene, site.perimeter)
    assert fetched.coverage.area == pytest.approx(site.perimeter.area, rel=1e-6)
    check_catalog(tmp_path / "library", 1)


def test_a_cog_stays_a_cog_with_its_companions(make_raster: MakeRaster, site: Site, tmp_path: Path) -> None:
    cog = tmp_path / "cog.tif"
    rasterio.shutil.copy(make_raster("plain.tif"), cog, driver="COG")
    Path(f"{cog}.aux.xml").write_text("<PAMDataset><Metadata><MDI key='ORDER'>7</MDI></Metadata></PAMDataset>")
    taken = take_in(tmp_path, cog, site)
    with rasterio.open(taken.scene.href) as dataset:
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert dataset.tags()["ORDER"] == "7"


def test_a_vrt_brings_the_pixels_of_its_parts_along(vrt: Path, site: Site, tmp_path: Path) -> None:
    with rasterio.open(vrt) as dataset:
        pixels = dataset.read()
    assert (pixels == noise(3)).all()
    taken = take_in(tmp_path, vrt, site)
    shutil.rmtree(tmp_path / "tiles")
    vrt.unlink()
    with rasterio.open(taken.scene.href) as dataset:
        assert np.array_equal(dataset.read(), pixels)
        assert dataset.transform.almost_equals(TRANSFORM, precision=1e-3)
    check_catalog(tmp_path / "library", 1)


def test_a_vrt_in_place_is_the_same_image_only_with_the_same_parts(
    vrt: Path, make_raster: MakeRaster, site: Site, tmp_path: Path
) -> None:
    first = take_in(tmp_path, vrt, site, in_place=True)
    assert first.scene.href == str(vrt)
    assert not take_in(tmp_path, vrt, site, in_place=True).new
    make_raster("tiles/r1c1.tif", noise(3)[:, :, 50:150])
    again = take_in(tmp_path, vrt, site, in_place=True)
    assert again.new
    assert again.scene.id != first.scene.id


def test_in_place_the_file_stays_and_its_loss_is_said(make_raster: MakeRaster, site: Site, tmp_path: Path) -> None:
    path = make_raster("image.tif")
    taken = take_in(tmp_path, path, site, in_place=True)
    assert taken.scene.href == str(path)
    assert sorted(p.name for p in taken.item_path.parent.iterdir()) == ["image.json"]
    check_catalog(tmp_path / "library", 1)
    source = LibrarySource(tmp_path / "library", cache=tmp_path / "cache")
    content = path.read_bytes()
    path.write_bytes(content + b"more")
    with pytest.raises(SceneError, match=r"image.tif has changed since it was taken in"):
        source.search(site)
    path.unlink()
    with pytest.raises(SceneError, match=r"image.tif, which the library refers to in place, cannot be read"):
        source.search(site)


def test_the_same_image_is_one_scene_whatever_its_name(make_raster: MakeRaster, site: Site, tmp_path: Path) -> None:
    path = make_raster("image.tif")
    first = take_in(tmp_path, path, site)
    copy = tmp_path / "copy_of_image.tif"
    shutil.copy(path, copy)
    again = take_in(tmp_path, copy, site)
    assert (again.new, again.scene) == (False, first.scene)
    other = make_raster("other/image.tif", 255 - noise(3))
    assert take_in(tmp_path, other, site).scene.id.startswith("image-")
    check_catalog(tmp_path / "library", 2)


def test_a_conflicting_date_is_refused(make_raster: MakeRaster, site: Site, tmp_path: Path) -> None:
    path = make_raster("image.tif")
    take_in(tmp_path, path, site)
    other = Statement(source="Airbus", acquired=parse_days("2025-08-23"))
    with pytest.raises(
        SceneError, match=r"image.tif is in the library as image, acquired 2025-08-22, not 2025-08-23; .*delete"
    ):
        take_in(tmp_path, path, site, other)
    dated = make_raster("m_20250801.tif", 255 - noise(3))
    with pytest.raises(SceneError, match=r"2025-08-01 \(file name\) by its own account, not on the 2025-08-22"):
        take_in(tmp_path, dated, site)
    check_catalog(tmp_path / "library", 1)


def test_the_day_of_a_later_edit_contradicts_nobody(make_raster: MakeRaster, site: Site, tmp_path: Path) -> None:
    edited = make_raster("image.tif", tags={"TIFFTAG_DATETIME": "2026:01:05 10:00:00"})
    assert take_in(tmp_path, edited, site).scene.acquired == datetime(2025, 8, 22, tzinfo=UTC)


def test_what_the_file_says_itself_need_not_be_said(make_raster: MakeRaster, site: Site, tmp_path: Path) -> None:
    said = Statement(source="Airbus")
    path = make_raster("image.tif", imagery={"ACQUISITIONDATETIME": "2025-08-22 16:31:05"})
    taken = take_in(tmp_path, path, site, said)
    assert taken.scene.acquired == datetime(2025, 8, 22, 16, 31, 5, tzinfo=UTC)
    assert taken.scene.acquired_from == "image metadata"
    assert taken.scene.licence == "unknown (not stated when it was taken in)"
    with pytest.raises(SceneError, match=r"plain.tif does not say when it was acquired; give its date: --acquired"):
        take_in(tmp_path, make_raster("plain.tif", 255 - noise(3)), site, said)


def test_an_approximate_date_is_kept_as_a_range(make_raster: MakeRaster, site: Site, tmp_path: Path) -> None:
    said = Statement(source="Airbus", acquired=parse_days("2025-08"))
    taken = take_in(tmp_path, make_raster("image.tif"), site, said)
    assert (taken.scene.earliest, taken.scene.acquired) == (
        datetime(2025, 8, 1, tzinfo=UTC),
        datetime(2025, 8, 31, tzinfo=UTC),
    )
    properties = json.loads(taken.item_path.read_text())["properties"]
    assert properties["datetime"] is None
    assert properties["start_datetime"] == properties["overwatt:earliest"] == "2025-08-01T00:00:00Z"
    assert properties["end_datetime"] == "2025-08-31T23:59:59Z"
    check_catalog(tmp_path / "library", 1)
    source = LibrarySource(tmp_path / "library", cache=tmp_path / "cache")
    assert source.search(site, date(2025, 8, 10), date(2025, 8, 10)) == [taken.scene]
    with pytest.raises(NoSceneError, match="it has 2025-08-01 to 2025-08-31"):
        source.search(site, date(2025, 9, 1))
    # As a catalog for others, and as what was cached from it, it is the same range.
    [foreign] = StacSource(str(tmp_path / "library"), cache=tmp_path / "cache").search(site)
    assert (foreign.earliest, foreign.acquired) == (taken.scene.earliest, taken.scene.acquired)
    fetched = source.fetch(taken.scene, site.perimeter)
    [cached] = LocalSource(fetched.path, cache=tmp_path / "again").search(site)
    assert (cached.earliest, cached.acquired) == (taken.scene.earliest, taken.scene.acquired)
    fetched.item_path.unlink()
    with pytest.raises(SceneError, match="does not say when"):
        LocalSource(fetched.path, cache=tmp_path / "again").search(site)


def test_a_mosaic_of_somebody_else_is_still_none(make_raster: MakeRaster, site: Site, tmp_path: Path) -> None:
    said = Statement(source="Airbus", acquired=parse_days("2025-08"))
    taken = take_in(tmp_path, make_raster("image.tif"), site, said)
    document = json.loads(taken.item_path.read_text())
    for wrong in (None, "2025-08-02T00:00:00Z"):
        document["properties"]["overwatt:earliest"] = wrong
        taken.item_path.write_text(json.dumps(document))
        with pytest.raises(SceneError, match="which is no single acquisition"):
            StacSource(str(tmp_path / "library"), cache=tmp_path / "cache").search(site)


def test_what_is_said_of_the_scene_is_kept(make_raster: MakeRaster, site: Site, tmp_path: Path) -> None:
    said = Statement(
        source="Airbus Pleiades Neo",
        acquired=parse_days("2025-08-22"),
        released=date(2025, 9, 1),
        price="priced",
        gsd_m=0.32,
        off_nadir_deg=12.5,
        sun_azimuth_deg=160,
        sun_elevation_deg=55,
        cloud_cover_percent=3,
    )
    scene = take_in(tmp_path, make_raster("image.tif"), site, said).scene
    assert (scene.released, scene.price, scene.gsd_m) == (date(2025, 9, 1), "priced", 0.32)
    assert (scene.off_nadir_deg, scene.sun_azimuth_deg, scene.sun_elevation_deg) == (12.5, 160, 55)
    assert (scene.cloud_cover_percent, scene.attribution) == (3, "Airbus Pleiades Neo")
    check_catalog(tmp_path / "library", 1)


TOMORROW = datetime.now(UTC).date() + timedelta(days=2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"acquired": Days(TOMORROW, TOMORROW)}, "That is in the future"),
        ({"released": TOMORROW}, "That is in the future"),
        ({"released": date(2025, 8, 21)}, "cannot have been released on 2025-08-21, before it was acquired"),
        ({"price": "cheap"}, "'cheap' is no price class; choose from free"),
        ({"source": " "}, "say where the imagery comes from"),
        ({"gsd_m": -1.0}, "a GSD of -1 is not possible"),
        ({"cloud_cover_percent": 101.0}, "a cloud cover of 101 is not possible"),
        ({"gsd_m": float("nan")}, "a GSD of nan is not possible"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(
    make_raster: MakeRaster, site: Site, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    said = {"source": "Airbus", "acquired": parse_days("2025-08-22")} | change
    with pytest.raises(SceneError, match=message):
        take_in(tmp_path, make_raster("image.tif"), site, Statement(**said))
    assert not (tmp_path / "library").exists()


def test_images_that_cannot_be_used_are_refused(make_raster: MakeRaster, site: Site, tmp_path: Path) -> None:
    broken = tmp_path / "broken.tif"
    broken.write_bytes(b"II*\0nonsense")
    far = make_raster("far.tif", transform=Affine(0.3, 0, CENTRE[0] + 9000, 0, -0.3, CENTRE[1]))
    for path, message in (
        (broken, "is damaged or is no image"),
        (tmp_path / "missing.tif", "does not exist"),
        (make_raster("plain.tif", crs=None), "does not say its CRS"),
        (make_raster("photo.png", driver="PNG", crs=None, transform=None), "has no georeference"),
        (far, r"does not show site memphis: .*, 9.\d km away"),
    ):
        with pytest.raises(SceneError, match=message):
            take_in(tmp_path, path, site)
    assert not (tmp_path / "library").exists()


def test_a_library_that_cannot_be_written_is_named(make_raster: MakeRaster, site: Site, tmp_path: Path) -> None:
    (tmp_path / "library").write_text("a file")
    with pytest.raises(SourceError, match=r"the library .*/library cannot be written .*OVERWATT_LIBRARY"):
        take_in(tmp_path, make_raster("image.tif"), site)


def test_a_damaged_item_hides_no_other_scene(make_raster: MakeRaster, site: Site, tmp_path: Path) -> None:
    first = take_in(tmp_path, make_raster("a.tif"), site)
    second = take_in(tmp_path, make_raster("b.tif", 255 - noise(3)), site)
    first.item_path.write_text("{")
    source = LibrarySource(tmp_path / "library", cache=tmp_path / "cache")
    assert source.search(site) == [second.scene]
    assert "is not JSON" in source.problems[0].reason


def test_an_empty_library_is_no_fault(site: Site, tmp_path: Path) -> None:
    with pytest.raises(NoSceneError, match="library holds 0 scenes"):
        LibrarySource(tmp_path / "none", cache=tmp_path / "cache").search(site)


PROGRAM = """
import sys
from flows.cli import main

for name in sys.argv[1:]:
    code = main(["ingest", name, "--site", "memphis", "--acquired", "2025-08-22", "--source", "Airbus", "--json"])
    assert code == 0, code
    print("taken in", flush=True)
"""


def start(root: Path, files: list[Path]) -> subprocess.Popen[str]:
    aoi = root.parent / "aoi"
    aoi.mkdir(exist_ok=True)
    if not (aoi / "memphis.geojson").exists():
        new_site("memphis", area_around(), aoi, source="made up for a test")
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, files)],
        env=os.environ | {"OVERWATT_AOI": str(aoi), "OVERWATT_LIBRARY": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_ingests_at_once_lose_nothing(make_raster: MakeRaster, tmp_path: Path) -> None:
    files = [make_raster(f"image_{i}.tif", (noise(3) + i).astype("uint8")) for i in range(8)]
    root = tmp_path / "library"
    # Some images are taken in by both.
    running = [start(root, files[:6]), start(root, files[3:])]
    for process in running:
        _, said = process.communicate(timeout=200)
        assert process.returncode == 0, said
    check_catalog(root, 8)
    assert not list(root.glob(".ingest-*"))


def test_an_ingest_killed_midway_leaves_a_valid_catalog(make_raster: MakeRaster, site: Site, tmp_path: Path) -> None:
    files = [make_raster(f"image_{i}.tif", (noise(3) + i).astype("uint8")) for i in range(20)]
    root = tmp_path / "library"
    for pause_s in (0.0, 0.013, 0.029, 0.051):
        process = start(root, files)
        assert process.stdout is not None
        while process.stdout.readline() not in ("taken in\n", ""):
            pass
        time.sleep(pause_s)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "it was done before it could be killed"
        catalog = pystac.Catalog.from_file(str(root / "catalog.json"))
        check_catalog(root, len(list(catalog.get_items())))
        assert len(LibrarySource(root, cache=tmp_path / "cache").search(site)) >= 1
    taken = [ingest(root, file, site, Statement(source="Airbus", acquired=parse_days("2025-08-22"))) for file in files]
    assert len({one.scene.id for one in taken}) == 20
    check_catalog(root, 20)


def test_what_a_killed_ingest_left_is_swept_a_day_later(make_raster: MakeRaster, site: Site, tmp_path: Path) -> None:
    root = tmp_path / "library"
    for name, age_s in ((".ingest-old", 100_000), (".ingest-new", 10)):
        (root / name).mkdir(parents=True)
        os.utime(root / name, (time.time() - age_s,) * 2)
    take_in(tmp_path, make_raster("image.tif"), site)
    assert [path.name for path in root.glob(".ingest-*")] == [".ingest-new"]


def test_a_far_site_gets_no_scene(make_raster: MakeRaster, site: Site, tmp_path: Path) -> None:
    take_in(tmp_path, make_raster("image.tif"), site)
    with pytest.raises(NoSceneError, match="the nearest is"):
        LibrarySource(tmp_path / "library", cache=tmp_path).search(make_site(area_around(x_m=5000)))
