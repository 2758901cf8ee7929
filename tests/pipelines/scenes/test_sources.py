from datetime import date
from pathlib import Path

import pytest

from pipelines.errors import SourceError
from pipelines.scenes.local import LocalSource
from pipelines.scenes.sources import open_source
from pipelines.scenes.stac import StacSource
from pipelines.settings import SAMPLE_CATALOG
from tests.pipelines.scenes.conftest import MakeRaster


def test_sample_is_the_embedded_catalog(tmp_path: Path) -> None:
    source = open_source("sample", cache=tmp_path)
    assert isinstance(source, StacSource)
    assert source.name == "sample"
    assert source.href == str(SAMPLE_CATALOG)


def test_explicit_forms(make_raster: MakeRaster, tmp_path: Path) -> None:
    path = make_raster("a.tif")
    local = open_source(f"local:{path}", cache=tmp_path, acquired=date(2025, 1, 1), licence="MIT")
    assert isinstance(local, LocalSource)
    assert local.path == path
    assert isinstance(open_source(f"local:{tmp_path}", cache=tmp_path), LocalSource)
    stac = open_source("stac:https://example.org/catalog.json?key=1", cache=tmp_path)
    assert isinstance(stac, StacSource)
    assert stac.name == "stac:https://example.org/catalog.json"


def test_bare_paths_are_taken_for_what_they_are(make_raster: MakeRaster, tmp_path: Path) -> None:
    assert isinstance(open_source(str(make_raster("a b.tif")), cache=tmp_path), LocalSource)
    assert isinstance(open_source(str(tmp_path), cache=tmp_path), LocalSource)
    assert isinstance(open_source("https://example.org/a/catalog.json", cache=tmp_path), StacSource)
    catalog = tmp_path / "catalog.json"
    catalog.write_text("{}")
    for spec in (str(catalog), str(tmp_path)):
        source = open_source(spec, cache=tmp_path)
        assert isinstance(source, StacSource)
        assert source.href == str(catalog)


@pytest.mark.parametrize(
    "spec", ["", "  ", "nonsense", "local:", "stac:", "ftp://x/y.tif", "https://example.org/a.tif", "/no/such/file.tif"]
)
def test_nonsense_is_refused_with_the_forms(tmp_path: Path, spec: str) -> None:
    with pytest.raises(SourceError, match=r"sample .*local:PATH.*stac:PATH_OR_URL"):
        open_source(spec, cache=tmp_path)


def test_date_and_licence_are_for_local_images(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="for local images only"):
        open_source("sample", cache=tmp_path, acquired=date(2025, 1, 1))
    with pytest.raises(SourceError, match="for local images only"):
        open_source("stac:x.json", cache=tmp_path, licence="MIT")
