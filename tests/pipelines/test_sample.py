"""The embedded sample: what its catalog promises is what its files hold, and everything says that it is rendered."""

import json
from pathlib import Path

import pytest
import rasterio
import shapely
from rio_cogeo.cogeo import cog_validate

from pipelines.sample import SAMPLES, SampleDate
from pipelines.scenes.sources import open_source
from pipelines.settings import SAMPLE_CATALOG, Settings
from pipelines.sites import load_site

ITEMS = sorted(SAMPLE_CATALOG.parent.glob("*/*.json"))


def asked_for(when: SampleDate) -> dict[str, int]:
    counts = {
        "air_cooled_chiller": when.chillers,
        "battery": when.batteries,
        "dry_cooler": 6 * when.dry_cooler_columns,
        "gas_turbine": when.turbines,
    }
    return {cls: count for cls, count in counts.items() if count}


def test_the_catalog_holds_every_scene_with_the_counts_asked_for() -> None:
    items = {path.stem: json.loads(path.read_text())["properties"] for path in ITEMS}
    assert len(items) == 6
    for site, dates in SAMPLES:
        for when in dates:
            properties = items[f"rendered-{site}-{when.day:%Y%m%d}"]
            assert properties["overwatt:rendered_counts"] == asked_for(when)
            assert properties["overwatt:rendered_texts"] == ([when.lettering] if when.lettering else [])


@pytest.mark.parametrize("path", ITEMS, ids=lambda path: path.stem)
def test_every_file_says_that_it_is_rendered(path: Path) -> None:
    item = json.loads(path.read_text())
    assert item["properties"]["overwatt:rendered"] is True
    assert "RENDERED" in item["properties"]["title"]
    raster = path.parent / item["assets"]["visual"]["href"]
    with rasterio.open(raster) as dataset:
        assert dataset.tags()["OVERWATT_RENDERED"] == "YES"
        assert "RENDERED" in dataset.tags()["TIFFTAG_IMAGEDESCRIPTION"]
    valid, errors, _ = cog_validate(raster)
    assert valid, errors
    assert raster.stat().st_size < 4_000_000


@pytest.mark.parametrize(("site_id", "dates"), SAMPLES)
def test_the_sample_source_serves_scenes_that_cover_the_site(
    site_id: str, dates: tuple[SampleDate, ...], tmp_path: Path
) -> None:
    site = load_site(site_id, Settings().aoi)
    scenes = open_source("sample", cache=tmp_path).search(site)
    assert [scene.acquired.date() for scene in scenes] == [when.day for when in dates]
    for scene in scenes:
        assert scene.rendered
        assert shapely.contains(scene.footprint.buffer(1e-5), site.perimeter)
