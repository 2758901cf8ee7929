"""The STAC catalog: valid, connected, and true to the files it points at."""

import hashlib
import json
from datetime import date
from pathlib import Path

import pystac
import pytest
from pystac.extensions.mlm import MLMExtension
from pystac.extensions.projection import ProjectionExtension
from pystac.extensions.view import ViewExtension

from pipelines.layers.publish import publish_layers
from pipelines.settings import ROOT
from tests.pipelines.made_up_archive import add_run
from tests.pipelines.stac_rules import check_stac

FIRST, SECOND = date(2025, 8, 22), date(2025, 10, 19)
REMOTE = "https://images.example/scene.tif?sig=secret"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    add_run(folder, day=FIRST, scene="first", air_cooled_chiller=4, rendered=True)
    add_run(folder, day=SECOND, scene="second", battery=2, scene_fields={"released": date(2025, 11, 1)})
    add_run(folder, "southaven", FIRST, scene="first", gas_turbine=5, scene_fields={"href": REMOTE})
    publish_layers(folder, ROOT / "aoi")
    return folder


@pytest.fixture
def catalog(archive: Path) -> pystac.Catalog:
    return pystac.Catalog.from_file(str(archive / "layers" / "catalog.json"))


def documents(archive: Path) -> list[Path]:
    layers = archive / "layers"
    return [layers / "catalog.json", *layers.glob("sites/*/*.json"), *layers.glob("models/*.json")]


def test_every_document_is_valid_stac(archive: Path) -> None:
    paths = documents(archive)
    assert len(paths) == 1 + (2 + 6) + (1 + 2)
    for path in [*paths, *archive.glob("*/*/*/item.json")]:
        check_stac(json.loads(path.read_text()))


def test_every_link_and_asset_leads_somewhere(catalog: pystac.Catalog, archive: Path) -> None:
    items = list(catalog.get_items(recursive=True))
    assert sorted(item.id for item in items if item.collection_id == "colossus-2") == [
        "colossus-2-first",
        "colossus-2-second",
        "scene-first",
        "scene-second",
    ]
    for item in items:
        for link in item.links:
            if link.rel in ("derived_from", "canonical", "parent", "collection", "root"):
                assert Path(str(link.get_absolute_href())).is_file(), link
        for asset in item.assets.values():
            if not asset.href.startswith("urn:"):
                content = Path(str(asset.get_absolute_href())).read_bytes()
                assert asset.extra_fields["file:checksum"] == f"1220{hashlib.sha256(content).hexdigest()}"
                assert asset.extra_fields["file:size"] == len(content)
    text = "".join(path.read_text() for path in documents(archive))
    assert str(archive) not in text
    assert "secret" not in text


def test_results_come_from_their_scene_and_weights(catalog: pystac.Catalog) -> None:
    [result] = [item for item in catalog.get_items(recursive=True) if item.id == "colossus-2-second"]
    targets = [Path(str(link.get_absolute_href())).name for link in result.get_links("derived_from")]
    assert targets == ["scene-second.json", "detector-1.json", "reader-2.json"]
    expression = result.assets["detections"].extra_fields["processing:expression"]
    assert expression == {"format": "stac-mlm", "expression": "../../models/detector-1.json"}
    assert result.properties["processing:level"] == "L4"


def test_scenes_say_how_and_when_they_were_seen(catalog: pystac.Catalog) -> None:
    scenes = {(item.collection_id, item.id): item for item in catalog.get_items(recursive=True)}
    second = scenes["colossus-2", "scene-second"]
    assert ViewExtension.ext(second).off_nadir == 12.5
    assert ProjectionExtension.ext(second).code == "EPSG:32616"
    assert second.properties["published"] == "2025-11-01T00:00:00Z"
    assert second.datetime is not None
    assert second.datetime.date() == SECOND
    assert "published" not in scenes["colossus-2", "scene-first"].properties
    assert "rendered" in scenes["colossus-2", "scene-first"].properties["title"]
    [via] = scenes["southaven", "scene-first"].get_links("via")
    assert via.href == "https://images.example/scene.tif"


def test_weights_are_machine_learning_models(catalog: pystac.Catalog) -> None:
    models = catalog.get_child("models")
    assert models is not None
    by_id = {item.id: MLMExtension.ext(item) for item in models.get_items()}
    detector, reader = by_id["detector-1"], by_id["reader-2"]
    assert (detector.mlm_name, detector.framework) == ("overwatt-detector-1", "PyTorch")
    assert [str(task) for task in detector.tasks] == ["object-detection"]
    assert detector.input[0].bands == ["red", "green", "blue"]
    assert reader.output[0].name == "text"


def test_a_scene_under_two_dates_is_two_items(tmp_path: Path) -> None:
    add_run(tmp_path, day=FIRST, scene="same", battery=1)
    add_run(tmp_path, day=SECOND, scene="same", battery=2)
    publish_layers(tmp_path, ROOT / "aoi")
    names = sorted(path.stem for path in (tmp_path / "layers/sites/colossus-2").glob("*same*"))
    assert names == [
        "colossus-2-same-2025-08-22",
        "colossus-2-same-2025-10-19",
        "scene-same-2025-08-22",
        "scene-same-2025-10-19",
    ]
