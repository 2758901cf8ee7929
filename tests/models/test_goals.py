"""Targets beside a measurement that was made up, and the picture of how far its probabilities can be believed."""

import io
import json
from typing import Any

import pytest
from PIL import Image

from models.classes import CLASSES
from models.errors import InputError
from models.training.goals import reached_on_real_images, reached_on_rendered_scenes
from models.training.model_card import WEIGHTS, model_card
from models.training.reliability_picture import HEIGHT_PX, WIDTH_PX, panels, reliability_picture
from models.weights_file import load_weights


def figure(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": value, "low": low, "high": high}


def bin_of(cls: str, stated: float, right: float, n: int, real: bool = False) -> dict[str, Any]:
    return {
        "cls": cls,
        "real": real,
        "low": stated - 0.05,
        "high": stated + 0.05,
        "detections": n,
        "stated": stated,
        "right": figure(right, right - 0.1, right + 0.1),
    }


def record() -> dict[str, Any]:
    def score(cls: str, gsd_m: float, f1: dict[str, float]) -> dict[str, Any]:
        fans = figure(0.8, 0.7, 0.9) if cls == "air_cooled_chiller" else None
        widths = [
            {"least_m": 0.0, "most_m": 4.0, "units": 300, "recall": figure(0.8, 0.75, 0.85)},
            {"least_m": 4.0, "most_m": None, "units": 112, "recall": figure(0.96, 0.9, 0.98)},
        ]
        return {
            "cls": cls,
            "gsd_m": gsd_m,
            "units": 412,
            "scenes": 40,
            "f1": f1,
            "fans_error": fans,
            "by_width": widths if cls == "cooling_tower" else [],
        }

    coverage = {
        "scenes": 50,
        "covered": 41,
        "share": figure(0.82, 0.69, 0.9),
        "below": 8,
        "above": 1,
        "empty": 70,
        "empty_counted": 3,
        "empty_excluded": 2,
        "not_given": 0,
    }
    return {
        "detector": "detector-0a1b2c3d",
        "reader": "reader-4e5f6071",
        "scenes": 200,
        "rendered": [
            score("air_cooled_chiller", 0.3, figure(0.981, 0.97, 0.99)),
            score("air_cooled_chiller", 0.5, figure(0.94, 0.92, 0.96)),
            score("battery", 0.3, figure(0.80, 0.75, 0.85)),
            score("cooling_tower", 0.3, figure(0.92, 0.9, 0.94)),
        ],
        "kin": [
            {"gsd_m": 0.3, "units": 600, "found": figure(0.7, 0.66, 0.74)},
            {"gsd_m": 0.5, "units": 0, "found": None},
        ],
        "counts": [
            {
                "cls": "air_cooled_chiller",
                "gsd_m": 0.3,
                "error": figure(0.15, 0.10, 0.2),
                "site_scenes": 45,
                "site_error": figure(0.012, 0.008, 0.02),
                "total": figure(-0.004, -0.01, 0.01),
                "coverage": coverage,
            }
        ],
        "coverage": [{"gsd_m": 0.3, "coverage": coverage}, {"gsd_m": None, "coverage": coverage}],
        "words": [
            {
                "gsd_m": 0.3,
                "words": 40,
                "found": 38,
                "exact": 30,
                "refused": 5,
                "wrong": 3,
                "read_nowhere": 1,
                "exact_share": figure(0.75, 0.6, 0.86),
            }
        ],
        "reliability": [
            *(bin_of(cls, stated, stated, 120) for cls in CLASSES if cls != "gas_turbine" for stated in (0.35, 0.95)),
            bin_of("cooling", 0.5, 0.4, 12, real=True),
        ],
        "ground_images": 170,
        "ground_km2": 0.474,
        "ground_per_km2": figure(2.1, 0.3, 7.6),
        "labelled": [
            {
                "gsd_m": 0.3,
                "found": 16,
                "objects": 19,
                "found_share": figure(0.842, 0.62, 0.94),
                "fans_found": 20,
                "fans": 25,
                "false_positives": 2,
                "area_km2": 0.09,
            }
        ],
        "roof_names": [
            {
                "file": "roof.png",
                "gsd_m": 1.2,
                "text": "Some Name",
                "found": True,
                "read": "SOMENAME",
                "exact": True,
                "given": False,
            }
        ],
    }


def test_each_figure_stands_beside_its_target() -> None:
    rows = {(row.what, row.gsd_m): row for row in reached_on_rendered_scenes(record())}
    said = {at: (row.target, row.written, row.verdict) for at, row in rows.items()}
    assert said["chiller F1", 0.3] == (">= 0.98", "0.981 (0.970-0.990)", "reached")
    assert said["chiller F1", 0.5] == (">= 0.95", "0.940 (0.920-0.960)", "missed, within its interval")
    of_sites, of_any = ("chiller count error, 20 and more", 0.3), ("chiller count error, any number", 0.3)
    assert said[of_sites] == ("<= 1%", "1.2% (0.8%-2.0%)", "missed, within its interval")
    assert (rows[of_sites].of, rows[of_any].of) == ("45 scenes", "50 scenes")
    assert said[of_any] == ("<= 1%", "15.0% (10.0%-20.0%)", "MISSED")
    assert said["chiller count error, 20 and more", 0.5][2] == "not measured"
    assert said["battery F1", 0.3] == (">= 0.96", "0.800 (0.750-0.850)", "MISSED")
    assert said["gas turbine F1", 0.3][1:] == ("", "not measured")
    assert said["fans per chiller, off by", 0.3][2] == "reached"
    assert ("fans per chiller, off by", 0.5) not in said
    assert said["lettering read exactly", 0.3] == (">= 0.95", "0.750 (0.600-0.860)", "MISSED")
    assert said["count intervals that hold the truth", None][::2] == ("85%-95%", "missed, within its interval")
    ground, found = reached_on_real_images(record())
    assert (ground.target, ground.verdict) == ("<= 2", "missed, within its interval")
    assert (found.gsd_m, found.verdict, found.of) == (0.3, "reached", "19 objects")


def test_the_page_tells_kin_and_widths_apart() -> None:
    detector, reader = (load_weights(WEIGHTS / f"{name}.safetensors")[1] for name in ("detector", "reader"))
    versions = {name: f"{name}-{card['sha256'][:8]}" for name, card in (("detector", detector), ("reader", reader))}
    page = model_card(detector, reader, record() | versions)
    assert "It finds 70% (66%-74%) of 600 at 0.3 m." in page
    cells = "cooling-tower cells below 4 m 80% (75%-85%) of 300 and from 4 m 96% (90%-98%) of 112 at 0.3 m."
    assert f"by width: {cells}" in page


def test_intervals_that_are_too_wide_miss_their_target_as_well() -> None:
    wide = record()
    wide["coverage"][0]["coverage"]["share"] = figure(0.99, 0.97, 1.0)
    [first, *_] = [row for row in reached_on_rendered_scenes(wide) if row.what.startswith("count intervals")]
    assert first.verdict == "MISSED"


def test_the_picture_has_a_panel_for_each_class_with_detections_and_real_images_apart() -> None:
    shown = panels(record())
    assert list(shown) == [*(cls for cls in CLASSES if cls != "gas_turbine"), "cooling"]
    assert [one["detections"] for one in shown["battery"]] == [120, 120]
    content = reliability_picture(record())
    picture = Image.open(io.BytesIO(content))
    assert (picture.format, picture.size) == ("PNG", (WIDTH_PX, HEIGHT_PX))
    assert len(content) < 100_000
    # The colours of rendered and of real panels are both there.
    colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 24) or []}
    assert any(blue > 200 > 100 > red for red, _, blue in colours)
    assert any(red > 150 > 50 > blue for red, _, blue in colours)
    assert content == reliability_picture(json.loads(json.dumps(record())))


def test_a_page_of_other_weights_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"measured\.json is of detector-0a1b2c3d and the weights are detector-99999999"
    ):
        model_card({"sha256": "9" * 64}, {"sha256": "4e5f6071" + "0" * 56}, record())
    with pytest.raises(InputError, match="reader-4e5f6071"):
        model_card({"sha256": "0a1b2c3d" + "0" * 56}, {"sha256": "9" * 64}, record())
