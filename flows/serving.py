"""`overwatt serve`: the schedule of all sites on one machine, with a Prefect server of its own where there is none.

While it runs, every site is looked at on the schedule and `monitor` can be started by hand on Prefect's pages. When it
ends it pauses the schedule, stops the server it started, and leaves everything recorded in Prefect's home.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import httpx
import prefect
from prefect.automations import Automation
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.schedules import CronSchedule
from prefect.deployments.runner import EntrypointType, RunnerDeployment
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.flows import Flow
from prefect.schedules import Cron, Schedule
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings
from rich.console import Console

from flows.cueing import cue
from flows.monitor import monitor, monitor_all
from flows.prefect_env import HEARTBEAT_S, TAG, ServerError, require_server
from pipelines.errors import InputError

DEAD_RUNS_RULE = "overwatt: a run without sign of life has crashed"
SERVER_STARTS_WITHIN_S = 120.0
"""Ten seconds on an idle machine, and a database to migrate after an upgrade."""
SERVER_STOPS_WITHIN_S = 20.0


def serve(cron: str, port: int) -> None:
    """Serve the schedule and the ad-hoc deployment until SIGINT or SIGTERM.

    :param cron: of the look at all sites, UTC
    :param port: of the server that is started where PREFECT_API_URL names none
    :raises InputError: the cron expression is none
    :raises ServerError: the configured server does not answer, or the own one does not start or dies
    """
    try:
        CronSchedule(cron=cron)
    except ValueError:
        raise InputError(f"--cron '{cron}' is no cron expression; '0 6 * * 1' is Monday at 6:00 UTC") from None
    # A shell that is not interactive starts what it puts in the background with SIGINT ignored, and so would be its
    # children; Prefect ends flow runs with it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Prefect's own answer to SIGTERM forgets to wait for one of its steps, and says so; the others do the work.
    warnings.filterwarnings("ignore", "coroutine 'Runner.astop' was never awaited")
    logging.getLogger("asyncio").addFilter(_is_no_cancelling)
    with _server(port) as url:
        mark_dead_runs()
        served = [
            _deployment(monitor_all, "scheduled", Cron(cron, timezone="UTC")),
            _deployment(monitor, "ad-hoc", None),
            _deployment(cue, "tip-and-cue", None),
        ]
        Console().print(f"Overwatt looks for new imagery at '{cron}' UTC; runs and results: {url}; Ctrl-C ends it.")
        prefect.serve(*served, print_starting_message=False, heartbeat_seconds=HEARTBEAT_S)


def _is_no_cancelling(record: logging.LogRecord) -> bool:
    """False for what asyncio says, with a traceback, of a connection to a run that it cancels as the runner ends."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


def _deployment(flow: Flow[..., Any], name: str, schedule: Schedule | None) -> RunnerDeployment:
    """A module's name finds the flow from any folder; a path would be relative to the present one."""
    made = flow.to_deployment(name, schedule=schedule, tags=[TAG], entrypoint_type=EntrypointType.MODULE_PATH)
    return cast(RunnerDeployment, made)


def mark_dead_runs() -> None:
    """Have the server mark a run crashed that lost its process and its runner at once, such as by a power cut.

    Nobody is left to report such a run; it would stay Running for ever. Three heartbeats are waited for: with fewer, a
    busy machine's healthy runs would be marked.
    """
    try:
        cast(Automation, Automation.read(name=DEAD_RUNS_RULE))
    except ValueError:
        heartbeat = "prefect.flow-run.heartbeat"
        ended = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")}
        rule = Automation(
            name=DEAD_RUNS_RULE,
            trigger=EventTrigger(
                after={heartbeat},
                expect={heartbeat} | ended,
                match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
                match_related=ResourceSpecification({"prefect.resource.id": f"prefect.tag.{TAG}"}),
                for_each={"prefect.resource.id"},
                posture=Posture.Proactive,
                threshold=1,
                within=timedelta(seconds=3 * HEARTBEAT_S),
            ),
            actions=[
                ChangeFlowRunState(
                    state=StateType.CRASHED, name="Crashed", message="no sign of life from its process", force=False
                )
            ],
        )
        # Outside of an event loop, as here, it acts at once.
        rule.create()


@contextlib.contextmanager
def _server(port: int) -> Iterator[str]:
    """Address of the server's pages: the configured server's, or that of one that lives as long as the block."""
    if configured := PREFECT_API_URL.value():
        require_server()
        yield configured.removesuffix("/api")
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise ServerError(
                f"port {port} is taken; choose another with --port, or set PREFECT_API_URL=http://127.0.0.1:{port}/api "
                "if a Prefect server runs there"
            ) from None
    log = Path(PREFECT_HOME.value()) / "overwatt-server.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        command = [sys.executable, "-m", "prefect", "--no-prompt", "server", "start", "--analytics-off"]
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Ctrl-C goes to the whole group of a terminal; the server must outlive the runner, which talks to it.
            start_new_session=True,
        )
    ending = threading.Event()
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_healthy(process, url, log)
        threading.Thread(target=_end_with, args=(process, ending), daemon=True).start()
        with temporary_settings({PREFECT_API_URL: f"{url}/api"}):
            yield url
    finally:
        died = process.poll() is not None
        ending.set()
        _stop(process)
    if died:
        raise ServerError(f"the Prefect server ended by itself; its log is {log}")


def _wait_until_healthy(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    give_up = time.monotonic() + SERVER_STARTS_WITHIN_S
    while time.monotonic() < give_up:
        if process.poll() is not None:
            raise ServerError(f"the Prefect server did not start; its log is {log}")
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/api/health", trust_env=False).is_success:
                return
        time.sleep(0.3)
    raise ServerError(f"the Prefect server did not answer within {SERVER_STARTS_WITHIN_S:.0f} s; its log is {log}")


def _end_with(process: subprocess.Popen[bytes], ending: threading.Event) -> None:
    """End this process when the server ends without having been asked to: nothing would ever be scheduled again."""
    while process.poll() is None:
        if ending.wait(1.0):
            return
    os.kill(os.getpid(), signal.SIGTERM)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(SERVER_STOPS_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
