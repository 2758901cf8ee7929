"""Pools of rendered chips: what is kept of a chip, and that pools of before stay what they are."""

import json
from pathlib import Path

import numpy as np
import pytest

from models.errors import InputError
from models.rendering.chips import Chip
from models.rendering.objects import PlacedObject
from models.training import chip_pool
from models.training.chip_pool import PoolRecipe, read_chip, render_pool


def test_chips_keep_their_words_and_have_the_gsd_asked_for(tmp_path: Path) -> None:
    recipe = PoolRecipe(seed=3, size_px=96, backgrounds="", native_gsd_m=(0.48, 0.52))
    [path] = render_pool(tmp_path, recipe, 1, "validation", ())
    chip = read_chip(path)
    assert len(chip.words) == len(chip.labels.texts)
    assert 0.48 <= chip.native_gsd_m <= 0.52
    with np.load(path) as file:
        older = {name: file[name] for name in file.files if name != "words"}
    np.savez(tmp_path / "older.npz", **older | {"texts": np.ones((1, 7), np.float32)})
    assert read_chip(tmp_path / "older.npz").words == ()
    np.savez(tmp_path / "words.npz", **older, words=np.array(["NORTH 7", "X"], dtype=str))
    assert read_chip(tmp_path / "words.npz").words == ("NORTH 7", "X")
    faint = np.array([[40, 50, 30, 8, 90, 0, 0]], np.float32)
    np.savez(tmp_path / "faint.npz", **older | {"unseen": faint})
    np.testing.assert_array_equal(read_chip(tmp_path / "faint.npz").labels.unseen, faint)
    np.savez(tmp_path / "before.npz", **{name: table for name, table in older.items() if name != "unseen"})
    assert read_chip(tmp_path / "before.npz").labels.unseen.shape == (0, 7)
    two = np.array([[40, 50, 30, 8, 90, 0, 12], [60, 50, 20, 8, 90, 0, 6]], np.float32)
    np.savez(tmp_path / "kin.npz", **older | {"objects": two, "kin": np.array([False, True])})
    with_kin = read_chip(tmp_path / "kin.npz")
    np.testing.assert_array_equal(with_kin.labels.objects, two)
    np.testing.assert_array_equal(with_kin.scored.objects, two[:1])
    np.testing.assert_array_equal(with_kin.scored.ignored[-1:], two[1:])
    np.savez(tmp_path / "one kind.npz", **{name: table for name, table in older.items() if name != "kin"})
    one_kind = read_chip(tmp_path / "one kind.npz")
    assert one_kind.scored is one_kind.labels
    with pytest.raises(InputError, match="another recipe"):
        render_pool(tmp_path, PoolRecipe(seed=3, size_px=96, backgrounds=""), 1, "validation", ())


def test_a_file_keeps_which_of_its_units_are_kin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    units = tuple(PlacedObject("air_cooled_chiller", x, 40, 30, 8, 90, 12, kin=x > 50) for x in (40.0, 60.0, 80.0))
    chip = Chip(np.zeros((96, 96, 3), np.uint8), units, (), (), (), 0.3)
    monkeypatch.setattr(chip_pool, "render_chip", lambda *_, **__: chip)
    path = tmp_path / "chip.npz"
    chip_pool._render_to_file((path, PoolRecipe(seed=3, size_px=96, backgrounds=""), 1, "validation", ()))
    kept = read_chip(path)
    assert kept.kin is not None
    assert kept.kin.tolist() == [False, True, True]
    assert kept.labels.objects[:, 0].tolist() == [40, 60, 80]


def test_a_pool_of_before_gsds_could_be_chosen_is_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text(json.dumps({"seed": 1, "size_px": 448, "backgrounds": "ground"}))
    assert render_pool(tmp_path, PoolRecipe(seed=1, size_px=448, backgrounds="ground"), 0, "train", ()) == []
    left_out = PoolRecipe(seed=1, size_px=448, backgrounds="ground", left_out=("roof",))
    with pytest.raises(InputError, match="another recipe"):
        render_pool(tmp_path, left_out, 0, "train", ())
