"""Real georeferenced images, where a working copy has them beside the repository."""

from datetime import date
from pathlib import Path

import numpy as np
import pytest
import rasterio

from pipelines.errors import SceneError
from pipelines.scenes.georeference import footprint, open_raster
from pipelines.scenes.local import LocalSource
from pipelines.settings import ROOT
from tests.pipelines.scenes.conftest import make_site

FOLDER = ROOT.parent / "shared" / "imagery" / "georeferenced"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no real imagery at {FOLDER}")

IMAGES = {
    "naip_fields_AZ": ("EPSG:4326", None, 1.0),
    "naip_solar_farm_AZ": ("EPSG:4326", None, 1.0),
    "naip_switchyard_AZ": ("EPSG:4326", None, 1.0),
    "naip_m_3211605_20200415": ("EPSG:26911", date(2020, 4, 15), 0.6),
    "naip_m_4208701_20200902_airport": ("EPSG:26916", date(2020, 9, 2), 0.6),
    "oam_warehouses_highway": ("EPSG:3395", None, 0.066),
    "usgs_hro_colorado_201404": ("EPSG:26913", None, 0.15),
}


@pytest.mark.parametrize("name", IMAGES)
def test_real_image_becomes_the_one_form(name: str, tmp_path: Path) -> None:
    crs, stated, expected_gsd_m = IMAGES[name]
    path = FOLDER / f"{name}.tif"
    with open_raster(path) as dataset:
        site = make_site(footprint(dataset))
        pixels = dataset.read((1, 2, 3))
    if stated is None:
        with pytest.raises(SceneError, match="does not say when"):
            LocalSource(path, cache=tmp_path).search(site)
    source = LocalSource(path, cache=tmp_path, acquired=stated or date(2014, 4, 1))
    (scene,) = source.search(site)
    assert scene.acquired.date() == (stated or date(2014, 4, 1))
    assert scene.gsd_m == pytest.approx(expected_gsd_m, rel=0.02)
    fetched = source.fetch(scene, site.perimeter)
    share = fetched.coverage.area / site.perimeter.area
    with rasterio.open(fetched.path) as cog:
        assert cog.crs.to_string() == crs
        valid = cog.dataset_mask() > 0
        assert (cog.read()[:, valid] == pixels[:, valid]).all()
    if name.startswith("oam"):
        # White where the mosaic ends, and nobody declared it.
        assert share == pytest.approx(0.27, abs=0.02)
        assert (pixels[:, ~valid] > 245).all()
        assert np.mean(valid) == pytest.approx(share, abs=0.02)
    else:
        # Infrared tagged alpha hides nothing.
        assert valid.all()
        assert share == pytest.approx(1, abs=1e-6)
