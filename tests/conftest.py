"""For every test: no network beyond this machine, and nothing is reported to anyone."""

import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

# Before anything imports Prefect, and inherited by the processes that tests start.
os.environ["DO_NOT_TRACK"] = "1"
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
# Tables are as wide as the terminal: tests read them whole, whatever they are started from.
os.environ["COLUMNS"] = "120"
# The suite runs in as many processes as the machine has cores: threads that spin while they wait take another's time.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture(scope="session", autouse=True)
def _loopback_only() -> Iterator[None]:
    def guard(method: Any) -> Any:
        def connect(self: socket.socket, address: Any) -> Any:
            local = self.family not in (socket.AF_INET, socket.AF_INET6) or (
                str(address[0]).startswith("127.") or address[0] in {"localhost", "::1"}
            )
            if not local:
                raise RuntimeError(f"tests may connect to loopback only, not to {address}")
            return method(self, address)

        return connect

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guard(socket.socket.connect))
        patch.setattr(socket.socket, "connect_ex", guard(socket.socket.connect_ex))
        yield
