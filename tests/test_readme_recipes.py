from pathlib import Path

import pytest

from tests.readme_recipes import README, recipes, run


def test_recipes_are_found_where_the_readme_has_them() -> None:
    found = list(recipes(README.read_text(encoding="utf-8")))
    assert [language for language, _ in found] == ["sh", "sh", "python", "python", "python"]
    assert all("archive/layers" in content for _, content in found)


def test_a_recipe_that_fails_or_says_nothing_is_a_failure() -> None:
    assert run("sh", "echo one | cat") == "one\n"
    assert run("python", "print(2)") == "2\n"
    for language, content in (("sh", "false | cat; echo two"), ("python", "raise ValueError"), ("sh", "true")):
        with pytest.raises(SystemExit, match="a recipe failed"):
            run(language, content)


def test_every_overwatt_command_of_the_readme_exists() -> None:
    from typer.main import get_command

    from flows.cli import app

    known = get_command(app)
    lines = [line.strip() for line in Path(README).read_text(encoding="utf-8").splitlines()]
    named = {line.split()[1] for line in lines if line.startswith("overwatt ")}
    assert named <= set(known.commands)  # type: ignore[attr-defined]
    assert {"run", "scenes", "ingest", "cue", "publish", "detect", "estimate", "timeline", "serve"} <= named
