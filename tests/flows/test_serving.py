"""The schedule for real: a cron fires once, a worker runs a deployment of prefect.yaml, and everything ends cleanly.

Only this shows that the pinned versions of Prefect, fastapi and SQLAlchemy work together; see CONTRIBUTING.md.
"""

import asyncio
import logging
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from flows.serving import DEAD_RUNS_RULE, _is_no_cancelling
from tests.flows.conftest import ROOT, STARTS_WITHIN_S, Overwatt, Place, free_port, is_healthy, wait_until

RUNS_WITHIN_S = 400
"""A minute until the cron fires, then the run itself; the limit is only there so that a dead one is noticed."""
pytestmark = pytest.mark.timeout(900)


@dataclass(frozen=True)
class Served:
    """A running `overwatt serve`."""

    process: subprocess.Popen[bytes]
    port: int
    env: dict[str, str]
    log: Path

    def api(self, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        answer = httpx.post(f"http://127.0.0.1:{self.port}/api/{path}", json=body, timeout=60, trust_env=False)
        found: list[dict[str, Any]] = answer.raise_for_status().json()
        return found

    def runs(self, deployment: str, state: str) -> list[dict[str, Any]]:
        wanted = {"deployments": {"name": {"any_": [deployment]}}, "flow_runs": {"state": {"type": {"any_": [state]}}}}
        return self.api("flow_runs/filter", wanted)


@pytest.fixture(scope="module")
def served(home: dict[str, str], place: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`overwatt serve` with a cron of every minute, started as `&` of a shell script starts it: SIGINT ignored."""
    folder = tmp_path_factory.mktemp("serve")
    port = free_port()
    env = home | place.env | {"PREFECT_HOME": str(folder / "prefect"), "OVERWATT_ARCHIVE": str(folder / "archive")}
    log = folder / "serve.log"
    command = [sys.executable, "-m", "flows.cli", "serve", "--cron", "* * * * *", "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=env,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
        )
    try:
        wait_until(lambda: is_healthy(port, process), STARTS_WITHIN_S, log.read_text)
        yield Served(process, port, env, log)
    finally:
        process.terminate()
        process.wait(120)


def test_a_cron_schedule_fires_and_the_run_completes(served: Served, place: Place) -> None:
    wait_until(lambda: bool(served.runs("scheduled", "COMPLETED")), RUNS_WITHIN_S, served.log.read_text)
    assert served.runs("scheduled", "COMPLETED")[0]["auto_scheduled"]
    archive = Path(served.env["OVERWATT_ARCHIVE"])
    assert [path.parent.name for path in archive.glob(f"{place.site}/*/*/census.json")] == ["field_20250822"]


def test_dead_runs_will_be_noticed(served: Served) -> None:
    wait_until(lambda: bool(served.api("automations/filter", {})), STARTS_WITHIN_S, served.log.read_text)
    [rule] = served.api("automations/filter", {})
    assert rule["name"] == DEAD_RUNS_RULE
    assert rule["enabled"]


def test_deployments_of_prefect_yaml_run_on_a_worker(served: Served, place: Place) -> None:
    env = served.env | {"PREFECT_API_URL": f"http://127.0.0.1:{served.port}/api"}

    def prefect(*arguments: str) -> None:
        command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, done.stdout + done.stderr

    prefect("work-pool", "create", "overwatt", "--type", "process")
    prefect("deploy", "--all")
    [weekly] = served.api("deployments/filter", {"deployments": {"name": {"any_": ["weekly"]}}})
    assert [schedule["schedule"]["cron"] for schedule in weekly["schedules"]] == ["0 6 * * 1"]
    prefect("deployment", "run", "monitor/on-demand", "--param", f"site={place.site}")
    prefect("worker", "start", "--pool", "overwatt", "--run-once")
    wait_until(lambda: bool(served.runs("on-demand", "COMPLETED")), RUNS_WITHIN_S, served.log.read_text)


def test_a_taken_port_is_named(served: Served, overwatt: Overwatt) -> None:
    done = overwatt("serve", "--port", served.port)
    assert done.returncode == 2
    assert f"port {served.port} is taken" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_connection_that_is_cancelled_at_the_end_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("asyncio")
    log.addFilter(_is_no_cancelling)
    try:
        for error in (asyncio.CancelledError(), ValueError("a mistake")):
            log.error("Exception in callback", exc_info=error)
    finally:
        log.removeFilter(_is_no_cancelling)
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ValueError]


def test_it_ends_on_sigterm_and_takes_its_server_along(served: Served) -> None:
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(120) == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{served.port}/api/health", trust_env=False)
    assert "Traceback" not in served.log.read_text()
