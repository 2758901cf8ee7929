"""From an image to a label file, corrected as GIS programs do it, to weights that have learned from it."""

import contextlib
import dataclasses
import io
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pytest
import rasterio
import shapely
import torch
from rasterio.transform import from_origin
from rich.console import Console

from flows.cli import main
from flows.report import training_report
from models.classes import OBJECT_CLASSES
from models.detector.detector import Detector
from models.detector.losses import detection_losses
from models.detector.network import DetectorNet, normalise
from models.detector.targets import Targets, make_targets
from models.rendering.chips import render_chip
from models.training.chip_pool import PooledChip
from models.weights_file import load_weights
from pipelines.labels import read_corrected
from pipelines.settings import ROOT, Settings

GSD_M = 0.3
WEST_M, NORTH_M = 230_000.0, 3_883_000.0
REAL = ROOT.parent / "shared/imagery/labelled/ucmerced_buildings36.tif"
"""UC Merced Land Use (USGS National Map, public domain): two fan towers on a roof."""
REAL_TOWERS_PX = ((79.5, 161.0, 17, 16), (79.5, 179.0, 17, 16))


@dataclass(frozen=True)
class Corrected:
    """A scene, its label file as a person left it, and what `overwatt train` said."""

    folder: Path
    scene: Path
    labels: Path
    weights: Path
    written: dict
    trained: dict


def georeferenced(path: Path, pixels: np.ndarray, rendered: bool) -> None:
    height, width = pixels.shape[:2]
    profile = {"driver": "GTiff", "width": width, "height": height, "count": 3, "dtype": "uint8", "crs": "EPSG:32616"}
    with rasterio.open(path, "w", transform=from_origin(WEST_M, NORTH_M, GSD_M, GSD_M), **profile) as raster:
        raster.write(pixels.transpose(2, 0, 1))
        if rendered:
            raster.update_tags(OVERWATT_RENDERED="YES")


def outline(x: float, y: float, width: float, height: float) -> shapely.Polygon:
    west, north = WEST_M + (x - width / 2) * GSD_M, NORTH_M - (y - height / 2) * GSD_M
    return shapely.box(west, north - height * GSD_M, west + width * GSD_M, north)


def correct(path: Path, added: list[tuple[str, shapely.Polygon]]) -> None:
    """Delete the first detection, call the last a turbine, draw what was missed; saved in degrees."""
    frame = pyogrio.read_dataframe(path, layer="labels")
    frame = frame.iloc[1:].reset_index(drop=True)
    if len(frame):
        frame.loc[len(frame) - 1, "class"] = "gas_turbine"
    names, shapes = zip(*added, strict=True)
    drawn = gpd.GeoDataFrame({"class": list(names), "status": "sure"}, geometry=list(shapes), crs=frame.crs)
    frame = gpd.GeoDataFrame(pd.concat([frame, drawn.reindex(columns=frame.columns)], ignore_index=True), crs=frame.crs)
    pyogrio.write_dataframe(frame.to_crs("EPSG:4326"), path, layer="labels", driver="GPKG", append=False)


@pytest.fixture(scope="module", params=["rendered", "real"])
def corrected(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Corrected:
    folder = tmp_path_factory.mktemp(request.param)
    scene = folder / "roof.tif"
    if request.param == "real":
        if not REAL.exists():
            pytest.skip(f"{REAL} is not there")
        with rasterio.open(REAL) as raster:
            georeferenced(scene, raster.read().transpose(1, 2, 0), rendered=False)
        added = [("cooling_tower", outline(*tower)) for tower in REAL_TOWERS_PX]
    else:
        pixels = render_chip(11, 256, split="validation").image.copy()
        added = []
        # Nothing that any weights know: four purple sheds.
        for x, y in ((60, 60), (60, 120), (180, 60), (180, 120)):
            pixels[y - 10 : y + 10, x - 25 : x + 25] = (150, 40, 160)
            added.append(("gas_turbine", outline(x, y, 50, 20)))
        georeferenced(scene, pixels, rendered=True)
    labels, weights = folder / "roof.gpkg", folder / "tuned.safetensors"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("OVERWATT_CACHE", str(folder / "cache"))
        written = said(["label", str(scene), "--output", str(labels), "--licence", "public domain", "--device", "cpu"])
        correct(labels, added)
        settings = ["--chips", "1", "--validation-chips", "2", "--steps", "60", "--batch", "4", "--start-share", "0"]
        files = ["--labels", str(labels), "--scene", str(scene), "--output", str(weights), "--workdir", "work"]
        trained = said(["train", *files, *settings, "--device", "cpu"])
    return Corrected(folder, scene, labels, weights, written, trained)


def said(arguments: list[str]) -> dict:
    """What a command prints as JSON."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main([*arguments, "--json"]) == 0
    document: dict = json.loads(printed.getvalue())
    return document


def loss(weights: Path, chip: PooledChip) -> float:
    net = DetectorNet.of(load_weights(weights)[0])
    height, width = (side // 32 * 32 for side in chip.image.shape[:2])
    made = make_targets(chip.labels, height, width)
    targets = {name: torch.from_numpy(getattr(made, name)[None]) for name in Targets.__dataclass_fields__}
    with torch.inference_mode():
        maps = net.eval()(normalise(torch.from_numpy(chip.image[None, :height, :width].copy())))
        return float(sum(detection_losses(maps, targets).values()))


def test_weights_learn_from_corrected_labels(corrected: Corrected) -> None:
    read = read_corrected(corrected.labels, corrected.scene, detector_gsd_m=GSD_M, cache=corrected.folder / "cache")
    [chip] = read.chips
    assert loss(corrected.weights, chip) < loss(Settings().weights, chip)


def test_weights_say_what_they_were_trained_on_and_what_it_changed(corrected: Corrected) -> None:
    card = Detector.load(corrected.weights, "cpu").card
    [about] = card.recipe["corrected_labels"]
    assert (about["scene"], about["licence"]) == ("roof.tif", "public domain")
    assert about["rendered"] == corrected.written["rendered"]
    detected = sum(corrected.written["detections"].values())
    drawn = 4 if about["rendered"] else 2
    counts = [about["units"], about["held_out_units"]]
    used = sum(sum(part.values()) for part in counts)
    assert used + about["outside_reviewed"] == max(detected - 1, 0) + drawn
    assert "reviewed ground" in about["held_out_ground"]
    assert card.recipe["start"] == load_weights(Settings().weights)[1]["sha256"]
    change = card.metrics["corrected_held_out"]
    for name, row in change.items():
        assert name == "all" or row["units"] == about["held_out_units"].get(name, 0)
        assert row["verdict"]["recall"] in ("better", "worse", "too few to tell")
    assert corrected.trained["metrics"]["corrected_held_out"] == change
    assert set(card.calibration) >= set(OBJECT_CLASSES), "calibrated on rendered chips as ever"


def test_a_label_file_is_all_that_labelling_leaves_and_says_how_to_go_on(corrected: Corrected) -> None:
    assert {path.name for path in corrected.folder.iterdir()} <= {
        *("roof.tif", "roof.gpkg", "tuned.safetensors", "work", "cache"),
    }
    assert corrected.written["next"][-1] == f"overwatt train --labels {corrected.labels} --scene {corrected.scene}"


def test_corrections_are_not_lost_to_a_second_call(corrected: Corrected, capsys: pytest.CaptureFixture[str]) -> None:
    before = corrected.labels.read_bytes()
    assert main(["label", str(corrected.scene), "--output", str(corrected.labels)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert corrected.labels.read_bytes() == before


def test_labels_need_their_scenes_one_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, sentence in (
        (["--labels", "a.gpkg"], "give each label file with its scene"),
        (["--scene", "a.tif"], "give --labels FILE.gpkg with it"),
        (["--labels", "a.gpkg", "--scene", "a.tif"], "does not exist: make a file with `overwatt label SCENE`"),
        (["--minutes", "1", "--steps", "1"], "not both"),
        (["--start", "none.safetensors", "--steps", "1"], "none.safetensors does not exist"),
        (["--labels", "a.gpkg", "--scene", "a.tif", "--output", "a.gpkg"], "a.gpkg is no weights file"),
    ):
        assert main(["train", *arguments, "--workdir", str(tmp_path / "work")]) == 2
        assert sentence in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "work").exists()


def test_two_files_of_one_image_are_refused_because_one_may_teach_what_the_other_holds_out(
    corrected: Corrected, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = corrected.folder / "work" / "copy.gpkg"
    shutil.copy(corrected.labels, copy)
    pairs = [
        argument
        for file in (corrected.labels, copy)
        for argument in ("--labels", str(file), "--scene", str(corrected.scene))
    ]
    assert main(["train", *pairs, "--steps", "1"]) == 2
    assert "are of one image, roof.tif: copy" in " ".join(capsys.readouterr().err.split())


def test_a_training_that_goes_on_from_one_on_the_same_image_says_that_nothing_is_held_out_from_both(
    corrected: Corrected,
) -> None:
    card = Detector.load(corrected.weights, "cpu").card
    again = dataclasses.replace(card, recipe=dict(card.recipe) | {"start_recipe": card.recipe})
    for one, told in ((card, False), (again, True)):
        console = Console(record=True, width=300, file=io.StringIO())
        console.print(training_report(corrected.weights, one))
        assert ("already trained on roof.tif" in console.export_text()) == told
