import asyncio
import os
import socket

import pytest


def test_no_test_leaves_this_machine() -> None:
    # 192.0.2.0/24 is reserved for documentation: nothing answers there even without the guard.
    with socket.socket() as client, pytest.raises(RuntimeError, match="loopback only"):
        client.connect(("192.0.2.1", 80))
    with pytest.raises(RuntimeError, match="loopback only"):
        asyncio.run(asyncio.open_connection("192.0.2.1", 80))


def test_loopback_is_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        assert client.getpeername() == server.getsockname()


def test_nothing_is_reported() -> None:
    assert os.environ["DO_NOT_TRACK"] == "1"
    assert os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
