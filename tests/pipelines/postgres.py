"""A PostgreSQL with PostGIS of the tests' own, made from Debian's packages and removed afterwards."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PASSWORD = "s3cret/p@ss"
"""Of the superuser; with what an address must escape."""
STARTS_WITHIN_S = 120


@dataclass(frozen=True)
class Postgres:
    """A running server on loopback."""

    port: int

    def url(self, database: str, user: str = "overwatt", password: str | None = None) -> str:
        """Address; without a password libpq looks where it always does."""
        named = f"{user}:{password}" if password else user
        return f"postgresql://{named}@127.0.0.1:{self.port}/{database}"


def reason_to_skip() -> str | None:
    """Say what is missing here, if anything is."""
    if not _programs():
        return "PostgreSQL is not installed: apt-get install postgresql-postgis"
    if not list(Path("/usr/share/postgresql").glob("*/extension/postgis.control")):
        return "PostGIS is not installed: apt-get install postgresql-postgis"
    return None


def skip_or_fail(reason: str) -> None:
    """Skip the test, unless this machine promised to have everything."""
    if os.environ.get("OVERWATT_TESTS_MUST_NOT_SKIP"):
        pytest.fail(f"OVERWATT_TESTS_MUST_NOT_SKIP is set, and {reason}")
    pytest.skip(reason)


@contextlib.contextmanager
def running_postgres() -> Iterator[Postgres]:
    """Start a cluster in a folder of its own; as another user where this one is root, which PostgreSQL refuses."""
    programs = _programs()
    assert programs is not None
    user = None
    if os.getuid() == 0:
        names = {entry.pw_name for entry in pwd.getpwall()}
        user = "postgres" if "postgres" in names else "nobody"
    # pytest's own folders let nobody else in.
    folder = Path(tempfile.mkdtemp(prefix="overwatt-postgres-"))
    try:
        (folder / "password").write_text(PASSWORD)
        if user:
            for path in (folder, folder / "password"):
                shutil.chown(path, user)

        def run(program: str, *arguments: str) -> None:
            command = [str(programs / program), *arguments]
            done = subprocess.run(
                command,
                cwd=folder,
                user=user,
                group=pwd.getpwnam(user).pw_gid if user else None,
                extra_groups=[] if user else None,
                env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": str(folder)},
                stdin=subprocess.DEVNULL,
                # Not a pipe: the server inherits it and would hold it open.
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=STARTS_WITHIN_S,
            )
            log = folder / "server.log"
            assert done.returncode == 0, (
                f"{command} ended with {done.returncode}: {log.read_text() if log.exists() else ''}"
            )

        data = str(folder / "data")
        run(
            "initdb",
            *("--pgdata", data, "--username", "overwatt", "--auth", "scram-sha-256"),
            *("--pwfile", str(folder / "password"), "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync"),
        )
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={folder} -c fsync=off"
        run("pg_ctl", "-D", data, "-w", "-t", "90", "-l", str(folder / "server.log"), "-o", options, "start")
        try:
            yield Postgres(port)
        finally:
            run("pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


def _programs() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None
