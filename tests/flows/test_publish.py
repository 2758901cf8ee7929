"""`overwatt publish`: merged layers from the command line."""

import json
from datetime import date
from pathlib import Path

import pytest

from flows.cli import main
from tests.pipelines.made_up_archive import add_run


def test_layers_are_published_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add_run(tmp_path, day=date(2025, 8, 22), battery=3, rendered=True)
    assert main(["publish", "--archive", str(tmp_path), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["runs"], said["detections"], said["rendered"], said["broken"]) == (1, 3, True, [])
    assert {"overwatt.gpkg", "overwatt.parquet", "overwatt.qgz"} <= set(said["written"])
    assert all((tmp_path / "layers" / name).is_file() for name in said["written"])
    assert main(["publish", "--archive", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "1 runs, 3 detections (RENDERED imagery among them)" in told
    assert "written" not in told


def test_layers_go_where_they_are_wanted(tmp_path: Path) -> None:
    add_run(tmp_path / "archive", battery=1)
    assert main(["publish", "--archive", str(tmp_path / "archive"), "--out", str(tmp_path / "gis")]) == 0
    assert (tmp_path / "gis" / "overwatt.gpkg").is_file()
    assert not (tmp_path / "archive" / "layers").exists()


def test_a_broken_run_is_named_and_the_exit_code_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add_run(tmp_path, day=date(2025, 8, 22), battery=1)
    (add_run(tmp_path, day=date(2025, 10, 19)) / "estimate.json").write_text("")
    assert main(["publish", "--archive", str(tmp_path)]) == 1
    assert "2025-10-19/scene is left out: " in capsys.readouterr().err


def test_nothing_to_publish_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["publish", "--archive", str(tmp_path / "none")]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "holds no run yet" in line
    assert main(["publish", "--archive", str(tmp_path), "--out", "x", "--to", "postgresql://h/d"]) == 2
    assert "not both" in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--prune"], ["--schema", "gis"]])
def test_what_is_about_a_database_is_not_passed_over_without_one(
    option: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_run(tmp_path, battery=1)
    assert main(["publish", "--archive", str(tmp_path), *option]) == 2
    assert "give --to" in capsys.readouterr().err
    assert not (tmp_path / "layers").exists()
