"""Prefect's settings as Overwatt ships them, put into the environment before anything imports Prefect.

Nothing is sent anywhere, and a flow run that stops breathing is noticed. What the user's environment says wins.
Prefect's home stays where Prefect has it, so that `overwatt run`, `overwatt serve` and `prefect` show the same runs.
"""

import os

from pipelines.errors import InputError

HEARTBEAT_S = 30
"""Seconds between two signs of life of a flow run; `flows.serving` marks a run crashed after three of them missed."""

TAG = "overwatt"
"""On every deployment of Overwatt and on what it runs; the rule for dead runs holds for these alone."""

_DEFAULTS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # A run without a server brings its own; 20 s are too few for it on a busy machine, or when it makes its database.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_S),
    # What the steps log appears beside the flow run in Prefect's pages.
    "PREFECT_LOGGING_EXTRA_LOGGERS": "models,pipelines,flows",
}


class ServerError(InputError):
    """The Prefect server that is to keep the runs cannot be reached or started."""


def apply() -> None:
    """Set what the environment leaves open."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)


def quiet_terminal() -> None:
    """Keep Prefect's log off the terminal, where a result is printed; Prefect's own pages still get it."""
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")


def require_server() -> None:
    """Check that the configured Prefect server answers; without one, Prefect starts its own for a run.

    :raises ServerError: it does not answer
    """
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL

    url = PREFECT_API_URL.value()
    if url and get_client(sync_client=True).api_healthcheck() is not None:
        raise ServerError(
            f"the Prefect server at {url} does not answer; start it, or unset PREFECT_API_URL (or its Prefect profile)"
        )
