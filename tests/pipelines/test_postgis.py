"""PostGIS for real: a server of the tests' own, every promise of the sink, and its clients ogr2ogr and geopandas."""

import json
import shutil
import signal
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import geopandas as gpd
import pandas as pd
import psycopg
import pytest
import shapely
import sqlalchemy

from flows.cli import main
from pipelines.coregistration import DOCUMENT
from pipelines.errors import DatabaseError
from pipelines.layers.archive import read_archive
from pipelines.postgis import SCHEMA_VERSION, Sent, publish_to_postgis
from pipelines.settings import ROOT
from pipelines.sites import load_sites
from tests.pipelines.made_up_archive import add_run
from tests.pipelines.postgres import PASSWORD, Postgres, reason_to_skip, running_postgres, skip_or_fail

WITHIN_S = 60
FIRST = date(2025, 8, 22)
FIRST_RUN = "colossus-2/2025-08-22/scene-20250822"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    if reason := reason_to_skip():
        skip_or_fail(reason)
    with running_postgres() as server:
        with psycopg.connect(server.url("postgres"), password=PASSWORD, autocommit=True) as connection:
            connection.execute("CREATE DATABASE with_postgis")
        with psycopg.connect(server.url("with_postgis"), password=PASSWORD, autocommit=True) as connection:
            connection.execute("CREATE EXTENSION postgis")
        yield server


@pytest.fixture(autouse=True)
def _password(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "none"))


@pytest.fixture
def database(postgres: Postgres, request: pytest.FixtureRequest) -> str:
    """Address of a database that has PostGIS and nothing else."""
    return made(postgres, request, "with_postgis")


@pytest.fixture
def bare_database(postgres: Postgres, request: pytest.FixtureRequest) -> str:
    """Address of an empty database."""
    return made(postgres, request, "template1")


def made(postgres: Postgres, request: pytest.FixtureRequest, template: str) -> str:
    name = f"d{abs(hash(request.node.nodeid))}"
    with psycopg.connect(postgres.url("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    return postgres.url(name)


@pytest.fixture
def archive(counted: Path, tmp_path: Path) -> Path:
    """One of the test's own."""
    return Path(shutil.copytree(counted, tmp_path / "archive"))


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two dates of Colossus 2 and one of Southaven, rendered."""
    folder = tmp_path_factory.mktemp("counted")
    count(folder, FIRST, air_cooled_chiller=3)
    earliest = {"earliest": datetime(2025, 10, 15, tzinfo=UTC)}
    count(folder, date(2025, 10, 19), scene_fields=earliest, air_cooled_chiller=5, roof_lettering=1)
    coarse = {"battery": "pixels too coarse"}
    count(folder, date(2025, 10, 19), "southaven", rendered=True, not_given=coarse, gas_turbine=4)
    return folder


def count(archive: Path, day: date, site: str = "colossus-2", **fields: Any) -> None:
    """One scene a day, whose units are all probable."""
    more = {"scene_fields": {"released": date(2025, 12, 1)}} | fields
    add_run(archive, site, day, f"scene-{day:%Y%m%d}", probabilities=(0.9,), **more)


def publish(archive: Path, to: str, **options: Any) -> Sent:
    return publish_to_postgis(read_archive(archive), load_sites(ROOT / "aoi"), to, **options)


def ask(to: str, query: str, *values: Any) -> list[Any]:
    with psycopg.connect(to) as connection:
        return connection.execute(query, values or None).fetchall()


def row_versions(to: str, table: str) -> set[Any]:
    """Changes with every row that is written."""
    return {row[0] for row in ask(to, f"SELECT ctid::text || xmin::text FROM overwatt.{table}")}


# What it holds


def test_every_detection_arrives_with_its_geometry_and_properties(archive: Path, database: str) -> None:
    sent = publish(archive, database)
    assert len(sent.written) == 3
    assert sent.detections == 13
    rows = ask(
        database,
        "SELECT detection_id, encode(ST_AsBinary(geometry), 'hex'), \"class\", zone, probability, fan_count, text, "
        "acquired, released, rendered FROM overwatt.detections",
    )
    stored = {row[0]: row for row in rows}
    files = [json.loads(path.read_text())["features"] for path in archive.glob("*/*/*/detections.geojson")]
    features = [feature for one in files for feature in one]
    assert len(stored) == len(features) == 13
    for feature in features:
        row, properties = stored[feature["id"]], feature["properties"]
        assert shapely.from_wkb(row[1]) == shapely.geometry.shape(feature["geometry"])
        names = ("class", "zone", "probability", "fan_count", "text")
        assert row[2:7] == tuple(properties[name] for name in names)
        assert row[7].isoformat() == properties["acquired"].replace("Z", "+00:00")
        assert (row[8] and row[8].isoformat(), row[9]) == (properties["released"], properties["rendered"])
    units = dict(ask(database, "SELECT detection_id, unit_id FROM overwatt.detections"))
    frame = read_archive(archive).detections
    known = [None if pd.isna(unit) else unit for unit in frame["unit_id"]]
    assert units == dict(zip(frame["detection_id"], known, strict=True))
    [(srid, valid)] = ask(database, "SELECT DISTINCT ST_SRID(geometry), ST_IsValid(geometry) FROM overwatt.detections")
    assert (srid, valid) == (4326, True)


def test_views_answer_what_people_ask(archive: Path, database: str) -> None:
    publish(archive, database)
    by_date = ask(database, "SELECT site, date, detected, rendered FROM overwatt.chillers_by_date ORDER BY site, date")
    assert by_date == [
        ("colossus-2", date(2025, 8, 22), 3, False),
        ("colossus-2", date(2025, 10, 19), 5, False),
        ("southaven", date(2025, 10, 19), 0, True),
    ]
    latest = ask(database, "SELECT site, count(*) FROM overwatt.latest_detections GROUP BY site ORDER BY site")
    assert latest == [("colossus-2", 6), ("southaven", 4)]
    spans = ask(
        database,
        "SELECT DISTINCT valid_from AT TIME ZONE 'UTC', valid_until AT TIME ZONE 'UTC' "
        "FROM overwatt.dated_detections WHERE site = 'colossus-2' ORDER BY 1",
    )
    days = [tuple(moment and moment.date() for moment in span) for span in spans]
    assert days == [(date(2025, 8, 22), date(2025, 10, 18)), (date(2025, 10, 19), None)]
    [(reason, detected)] = ask(
        database,
        "SELECT not_given, detected FROM overwatt.counts_by_date WHERE site = 'southaven' AND \"class\" = 'battery'",
    )
    assert (reason, detected) == ("pixels too coarse", None)
    estimate = json.loads(next(archive.glob("colossus-2/2025-10-19/*/estimate.json")).read_text())
    [(p50,)] = ask(
        database,
        "SELECT p50 FROM overwatt.figures_by_date WHERE site = 'colossus-2' AND date = '2025-10-19' AND figure = %s",
        "cooling_mw",
    )
    assert p50 == estimate["cooling_mw"]["p50"]
    [(zones,)] = ask(database, "SELECT count(*) FROM overwatt.zones z JOIN overwatt.sites s USING (site)")
    assert zones == sum(len(site.zones) for site in load_sites(ROOT / "aoi"))


def test_what_appeared_between_two_dates_is_asked_of_units(archive: Path, database: str) -> None:
    shift = {"east_m": 0.0, "north_m": 0.0, "accuracy_m": 0.0, "reference": "2025-08-22/scene-20250822"}
    shift |= {"crs": "EPSG:32616", "patches": 9, "share": 1.0}
    runs = {f"{day}/scene-{day.replace('-', '')}": shift for day in ("2025-08-22", "2025-10-19")}
    (archive / "colossus-2" / DOCUMENT).write_text(json.dumps({"runs": runs}))
    publish(archive, database)
    query = (
        'SELECT "class", count(*) FROM overwatt.units WHERE site = %s AND first_seen > %s AND last_seen = %s '
        "AND NOT rendered GROUP BY 1 ORDER BY 1"
    )
    appeared = ask(database, query, "colossus-2", FIRST, date(2025, 10, 19))
    assert appeared == [("air_cooled_chiller", 2), ("roof_lettering", 1)]
    frame = read_archive(archive).detections.dropna(subset=["unit_id"]).drop_duplicates(["site", "unit_id"])
    wanted = set(zip(frame["site"], frame["unit_id"], frame["first_seen"], frame["last_seen"], strict=True))
    assert set(ask(database, "SELECT site, unit_id, first_seen, last_seen FROM overwatt.units")) == wanted


def test_a_spatial_query_uses_the_index(archive: Path, database: str) -> None:
    publish(archive, database)
    first = read_archive(archive).detections.geometry.iloc[0]
    query = "SELECT * FROM overwatt.detections WHERE geometry && ST_MakeEnvelope({}, {}, {}, {}, 4326)"
    query = query.format(*first.bounds)
    with psycopg.connect(database) as connection:
        connection.execute("SET enable_seqscan = off")
        plan = "\n".join(row[0] for row in connection.execute(f"EXPLAIN {query}"))
        assert "detections_geometry_idx" in plan
        assert connection.execute(query).rowcount == 2  # the same place on two dates
    indexed = {row[0] for row in ask(database, "SELECT indexdef FROM pg_indexes WHERE tablename = 'detections'")}
    for column in ("btree (site)", "btree (acquired)", "btree (class)", "gist (geometry)"):
        assert any(column in definition for definition in indexed)


# Again, and again differently


def test_publishing_again_writes_nothing(archive: Path, database: str) -> None:
    publish(archive, database)
    tables = ("runs", "detections", "census", "estimates", "sites", "zones")
    before = {table: row_versions(database, table) for table in tables}
    sent = publish(archive, database)
    assert sent.written == ()
    assert len(sent.unchanged) == 3
    assert {table: row_versions(database, table) for table in tables} == before


def test_a_run_that_was_counted_anew_replaces_its_own_rows_and_touches_no_other(archive: Path, database: str) -> None:
    publish(archive, database)
    before = row_versions(database, "detections")
    count(archive, FIRST, air_cooled_chiller=2, battery=1)
    sent = publish(archive, database)
    assert sent.written == (FIRST_RUN,)
    after = row_versions(database, "detections")
    assert (len(before - after), len(after - before)) == (1, 1)  # one has gone, one is new, two are as they were
    assert ask(database, "SELECT detected FROM overwatt.chillers_by_date WHERE date = '2025-08-22'") == [(2,)]
    ours = gpd.read_file(next(archive.glob("colossus-2/2025-08-22/*/detections.geojson")))
    [(ids,)] = ask(
        database, "SELECT array_agg(detection_id) FROM overwatt.detections WHERE run_id = %s", sent.written[0]
    )
    assert sorted(ids) == sorted(ours["id"])


def test_a_new_date_changes_until_when_the_one_before_it_stands(archive: Path, database: str) -> None:
    publish(archive, database)
    before = row_versions(database, "detections")
    count(archive, date(2026, 1, 13), air_cooled_chiller=6)
    sent = publish(archive, database)
    assert sent.written == ("colossus-2/2026-01-13/scene-20260113",)
    assert before <= row_versions(database, "detections")
    [(latest,)] = ask(database, "SELECT count(*) FROM overwatt.latest_detections WHERE site = 'colossus-2'")
    assert latest == 6


def test_a_run_that_left_the_archive_is_named_and_removed_only_when_asked(archive: Path, database: str) -> None:
    publish(archive, database)
    shutil.rmtree(archive / "southaven")
    gone = "southaven/2025-10-19/scene-20251019"
    sent = publish(archive, database)
    assert (sent.left, sent.removed) == ((gone,), ())
    assert ask(database, "SELECT count(*) FROM overwatt.detections WHERE site = 'southaven'") == [(4,)]
    sent = publish(archive, database, prune=True)
    assert (sent.left, sent.removed) == ((), (gone,))
    for table in ("runs", "detections", "census", "estimates"):
        assert ask(database, f"SELECT count(*) FROM overwatt.{table} WHERE site = 'southaven'") == [(0,)]


def test_a_run_folder_that_cannot_be_read_is_not_pruned(archive: Path, database: str) -> None:
    publish(archive, database)
    next(archive.glob("southaven/*/*/census.json")).write_text("{")
    sent = publish(archive, database, prune=True)
    assert sent.removed == ()
    assert "southaven" in sent.broken[0]
    assert ask(database, "SELECT count(*) FROM overwatt.detections WHERE site = 'southaven'") == [(4,)]


# Together, and cut off


def test_publishers_take_turns(archive: Path, database: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        sent = [one.result() for one in [pool.submit(publish, archive, database) for _ in range(4)]]
    assert sorted(run for one in sent for run in one.written) == sorted(sent[0].written + sent[0].unchanged)
    assert ask(database, "SELECT count(*) FROM overwatt.detections") == [(13,)]


@pytest.mark.parametrize("cut", ["the publisher is killed", "the connection is lost"])
def test_nothing_is_half_written(archive: Path, database: str, cut: str) -> None:
    publish(archive, database)
    before = {table: row_versions(database, table) for table in ("runs", "detections", "census", "estimates")}
    count(archive, FIRST, air_cooled_chiller=9)
    command = [sys.executable, "-m", "flows.cli", "publish", "--archive", str(archive), "--to", database]
    with psycopg.connect(database) as blocker:
        blocker.execute("LOCK TABLE overwatt.estimates IN ACCESS EXCLUSIVE MODE")
        publisher = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        waiting = (
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'overwatt' AND wait_event_type = 'Lock' "
            "AND datname = current_database()"
        )
        wait_until(lambda: bool(ask(database, waiting)))
        [(pid,)] = ask(database, waiting)
        if cut == "the publisher is killed":
            publisher.send_signal(signal.SIGKILL)
            publisher.wait(WITHIN_S)
        else:
            ask(database, "SELECT pg_terminate_backend(%s)", pid)
            _, message = publisher.communicate(timeout=WITHIN_S)
            assert publisher.returncode == 2
            assert "was lost" in message
            assert len(message.strip().splitlines()) == 1
    wait_until(lambda: not ask(database, "SELECT 1 FROM pg_stat_activity WHERE application_name = 'overwatt'"))
    assert {table: row_versions(database, table) for table in before} == before
    assert publish(archive, database).written == (FIRST_RUN,)


def wait_until(done: Callable[[], bool]) -> None:
    give_up = time.monotonic() + WITHIN_S
    while not done():
        assert time.monotonic() < give_up
        time.sleep(0.05)


# Other clients


def test_ogr2ogr_reads_it(archive: Path, database: str, tmp_path: Path) -> None:
    if shutil.which("ogr2ogr") is None:
        skip_or_fail("ogr2ogr is not installed: apt-get install gdal-bin")
    publish(archive, database)
    file = tmp_path / "chillers.geojson"
    query = "SELECT * FROM overwatt.dated_detections WHERE site = 'colossus-2' AND class = 'air_cooled_chiller'"
    subprocess.run(["ogr2ogr", str(file), f"PG:{database}", "-sql", query], check=True, timeout=WITHIN_S)
    assert gpd.read_file(file)["date"].astype(str).str[:10].value_counts().to_dict() == {
        "2025-08-22": 3,
        "2025-10-19": 5,
    }


def test_geopandas_reads_it(archive: Path, database: str) -> None:
    publish(archive, database)
    engine = sqlalchemy.create_engine(database.replace("postgresql://", "postgresql+psycopg://"))
    frame = gpd.read_postgis("SELECT * FROM overwatt.latest_detections", engine, geom_col="geometry")
    engine.dispose()
    assert len(frame) == 10
    assert frame.crs == "EPSG:4326"


# What can go wrong


def test_a_wrong_password_is_refused_and_not_repeated(postgres: Postgres, archive: Path) -> None:
    wrong = urllib.parse.quote("wr0ng/p@ss", safe="")
    with pytest.raises(DatabaseError, match="refuses the password") as refused:
        publish(archive, postgres.url("postgres", password=wrong))
    assert "wr0ng" not in str(refused.value)


def test_no_password_is_asked_for(postgres: Postgres, archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGPASSWORD")
    with pytest.raises(DatabaseError, match="asks for a password: set PGPASSWORD"):
        publish(archive, postgres.url("postgres"))


def test_the_password_may_stand_in_the_address_or_in_pgpass_or_in_a_service_file(
    postgres: Postgres, database: str, archive: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("PGPASSWORD")
    name = database.rsplit("/", 1)[-1]
    in_address = postgres.url(name, password=urllib.parse.quote(PASSWORD, safe=""))
    assert len(publish(archive, in_address).written) == 3
    pgpass = tmp_path / "pgpass"
    pgpass.write_text(f"127.0.0.1:{postgres.port}:*:overwatt:{PASSWORD}\n")
    pgpass.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(pgpass))
    assert len(publish(archive, database).unchanged) == 3
    service = tmp_path / "service.conf"
    service.write_text(f"[gis]\nhost=127.0.0.1\nport={postgres.port}\ndbname={name}\nuser=overwatt\n")
    monkeypatch.setenv("PGSERVICEFILE", str(service))
    sent = publish(archive, "postgresql:///?service=gis")
    assert len(sent.unchanged) == 3
    assert PASSWORD not in json.dumps(sent.as_record())


@pytest.mark.parametrize(
    "to",
    [
        "mysql://u@h/d",
        "postgresql://u:pa/ss@h/d",
        "postgresql://u:12/34ss@h/d",
        "postgresql://u:pa@ss@h/d",
        "postgresql://u:pa%zz@h/d",
        "postgresql://u:pa:ss/1@h/d",
    ],
)
def test_a_mistyped_address_is_not_repeated(to: str, archive: Path) -> None:
    with pytest.raises(DatabaseError, match="--to is no address") as refused:
        publish(archive, to)
    assert "ss" not in str(refused.value).replace("address", "").replace("password", "")


def test_no_server_no_database_no_user(postgres: Postgres, archive: Path) -> None:
    with pytest.raises(DatabaseError, match=r"database x on 127.0.0.1, port 1 cannot be reached \(.*refused"):
        publish(archive, "postgresql://u@127.0.0.1:1/x")
    with pytest.raises(DatabaseError, match=r"there is no database nowhere on 127.0.0.1.*createdb"):
        publish(archive, postgres.url("nowhere"))


def test_a_user_without_rights_is_told_whom_to_ask(postgres: Postgres, bare_database: str, archive: Path) -> None:
    name = bare_database.rsplit("/", 1)[-1]
    with psycopg.connect(bare_database, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name}_guest LOGIN PASSWORD 'guest'")
    guest = postgres.url(name, user=f"{name}_guest", password="guest")
    with pytest.raises(DatabaseError, match=r"has no PostGIS.*_guest may not add it.*CREATE EXTENSION postgis;"):
        publish(archive, guest)
    with psycopg.connect(bare_database, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA gis; CREATE EXTENSION postgis SCHEMA gis")
    with pytest.raises(DatabaseError, match=r"may not do this.*grant CREATE on the database"):
        publish(archive, guest)
    with psycopg.connect(bare_database, autocommit=True) as connection:
        connection.execute(
            f"GRANT USAGE ON SCHEMA gis TO {name}_guest; GRANT CREATE ON DATABASE {name} TO {name}_guest"
        )
    assert len(publish(archive, guest).written) == 3


def test_tables_of_another_version_or_of_others_are_left_alone(archive: Path, database: str) -> None:
    publish(archive, database)
    ask(database, "UPDATE overwatt.schema_version SET version = 99 RETURNING 1")
    with pytest.raises(DatabaseError, match=f"have version 99, and this Overwatt writes version {SCHEMA_VERSION}"):
        publish(archive, database)
    with psycopg.connect(database) as connection:
        connection.execute("CREATE SCHEMA theirs; CREATE TABLE theirs.sites (a int)")
    with pytest.raises(DatabaseError, match="holds a table sites that Overwatt did not make"):
        publish(archive, database, schema="theirs")
    assert len(publish(archive, database, schema='A "strange" one').written) == 3


def test_without_the_optional_part_the_user_is_told_what_to_install(archive: Path) -> None:
    code = "import sys; sys.modules['psycopg'] = None; from flows.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "publish", "--archive", str(archive), "--to", "postgresql://u@h/d"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN_S)
    assert done.returncode == 2
    assert "pip install 'overwatt[postgis]'" in done.stderr


# The command


def test_command_publishes_and_says_what_it_did(
    archive: Path, bare_database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["publish", "--archive", str(archive), "--to", bare_database]
    assert main([*command, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["written"]) == 3
    shutil.rmtree(archive / "southaven")
    assert main(command) == 0
    told = capsys.readouterr().out
    assert "2 unchanged" in told
    assert "southaven/2025-10-19/scene-20251019" in told
    assert "--prune" in told
