"""Weights files: what was saved comes back, and nothing else is accepted."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from models.errors import WeightsError
from models.weights_file import load_weights, save_weights

TENSORS = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.tensor(3), "h": torch.ones(4, dtype=torch.float16)}
CARD = {"seed": 1, "metrics": {"f1": 0.5}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "weights" / "w.safetensors"


def test_round_trip(path: Path) -> None:
    checksum = save_weights(path, TENSORS, CARD)
    tensors, card = load_weights(path)
    assert card == {**CARD, "sha256": checksum}
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_checksum_depends_on_names_values_types_and_card(path: Path) -> None:
    variants = [
        (TENSORS, CARD),
        ({**TENSORS, "c": torch.tensor(3)}, CARD),
        ({**TENSORS, "a": torch.tensor(4)}, CARD),
        ({**TENSORS, "b": TENSORS["b"].reshape(3, 2)}, CARD),
        (TENSORS, {**CARD, "seed": 2}),
    ]
    assert len({save_weights(path, tensors, card) for tensors, card in variants}) == len(variants)
    assert save_weights(path, dict(reversed(TENSORS.items())), CARD) == save_weights(path, TENSORS, CARD)


def test_a_changed_tensor_is_refused(path: Path) -> None:
    save_weights(path, TENSORS, CARD)
    raw = bytearray(path.read_bytes())
    raw[-3] ^= 1
    path.write_bytes(raw)
    with pytest.raises(WeightsError, match="own checksum"):
        load_weights(path)


def test_a_changed_card_is_refused(path: Path) -> None:
    save_weights(path, TENSORS, CARD)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    metadata["card"] = json.dumps({**CARD, "seed": 7})
    save_file(TENSORS, path, metadata=metadata)
    with pytest.raises(WeightsError, match="own checksum"):
        load_weights(path)


def test_foreign_files_are_refused(path: Path) -> None:
    path.parent.mkdir()
    save_file(TENSORS, path)
    with pytest.raises(WeightsError, match="not written by Overwatt"):
        load_weights(path)
    path.write_bytes(b"GIF89a, certainly no tensors")
    with pytest.raises(WeightsError, match="not a readable safetensors file"):
        load_weights(path)
    with pytest.raises(WeightsError, match="does not exist"):
        load_weights(path.with_name("none.safetensors"))


def test_a_failed_save_leaves_the_old_file(path: Path) -> None:
    save_weights(path, TENSORS, CARD)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        save_weights(path, TENSORS, {"f1": float("nan")})
    assert path.read_bytes() == before
    assert len(list(path.parent.iterdir())) == 1
