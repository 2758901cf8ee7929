"""What Overwatt sets before Prefect is imported, and that the user's own settings win."""

import json
import os
import subprocess
import sys

NAMES = ("DO_NOT_TRACK", "PREFECT_SERVER_ANALYTICS_ENABLED", "PREFECT_FLOWS_HEARTBEAT_FREQUENCY")


def settings_after_import(env: dict[str, str]) -> dict[str, str]:
    program = f"import flows, json, os; print(json.dumps({{name: os.environ.get(name) for name in {NAMES}}}))"
    bare = {name: value for name, value in os.environ.items() if name not in NAMES}
    done = subprocess.run([sys.executable, "-c", program], env=bare | env, capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_nothing_is_reported_unless_the_user_says_so() -> None:
    assert settings_after_import({}) == dict(zip(NAMES, ("1", "false", "30"), strict=True))
    assert settings_after_import({"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "60"})[NAMES[2]] == "60"
