"""Runs the recipes of README.md as they stand, in the current folder, which needs the archive of `make demo`."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"


def recipes(text: str) -> Iterator[tuple[str, str]]:
    """The fenced blocks of the section Recipes: language and content."""
    section = text.split("\n## Recipes\n", 1)[1].split("\n## ", 1)[0]
    yield from re.findall(r"^```(\w+)\n(.*?)^```$", section, flags=re.DOTALL | re.MULTILINE)


def run(language: str, content: str) -> str:
    """Run one recipe with the programs of this environment first, and return what it prints."""
    command = {"sh": ["bash", "-euo", "pipefail", "-c", content], "python": [sys.executable, "-c", content]}[language]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    # GDAL of the system and that of the environment each have their own PROJ data.
    env = {name: value for name, value in os.environ.items() if name not in ("PROJ_LIB", "PROJ_DATA", "GDAL_DATA")}
    done = subprocess.run(command, env=env | {"PATH": path}, capture_output=True, text=True, check=False)
    if done.returncode or not done.stdout.strip():
        raise SystemExit(f"a recipe failed ({done.returncode}):\n{content}\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    for language, content in recipes(README.read_text(encoding="utf-8")):
        print(content)  # noqa: T201
        print(run(language, content))  # noqa: T201
