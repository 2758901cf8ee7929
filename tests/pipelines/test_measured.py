"""A measurement as a value: kept as a file, and what a page can be made of."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from models.training.model_card import WEIGHTS, model_card
from models.weights_file import load_weights
from pipelines.errors import ArchiveError
from pipelines.measured import Measurement, keep


def empty(detector: str, reader: str) -> Measurement:
    return Measurement(detector, reader, 1, (), (), (), (), (), (), 0, 0.0, (), None, (), (), ())


def test_a_page_can_be_made_of_a_measurement_that_saw_nothing() -> None:
    detector, reader = (load_weights(WEIGHTS / f"{name}.safetensors")[1] for name in ("detector", "reader"))
    nothing = empty(f"detector-{detector['sha256'][:8]}", f"reader-{reader['sha256'][:8]}")
    page = model_card(detector, reader, asdict(nothing))
    assert "| chiller F1 | >= 0.98 | **not measured** | >= 0.95 | **not measured** |" in page


def test_a_measurement_is_kept_whole_or_not_at_all(tmp_path: Path) -> None:
    keep(empty("detector-1", "reader-2"), tmp_path / "measured.json")
    assert json.loads((tmp_path / "measured.json").read_text())["detector"] == "detector-1"
    with pytest.raises(ArchiveError, match="nowhere"):
        keep(empty("detector-1", "reader-2"), tmp_path / "nowhere" / "measured.json")
    assert [path.name for path in tmp_path.iterdir()] == ["measured.json"]
