"""PostGIS: the archive as tables of a database, for programs that ask with SQL.

One transaction a run, under a lock of the schema: whoever reads sees a run as it was or as it is, and two publishers
take turns. A run whose content did not change is not written again; of one that was counted anew, only the detections
that differ are. Everything can be made again from the run folders.
"""

import hashlib
import json
import os
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pandas as pd
import shapely

from pipelines.census import DETECTED
from pipelines.errors import DatabaseError, ExtraError
from pipelines.layers.archive import Archive, Run
from pipelines.sites import Site

try:
    import psycopg
    from psycopg import sql
    from psycopg.conninfo import conninfo_to_dict
except ImportError as missing:
    raise ExtraError("a PostGIS database needs an optional part: pip install 'overwatt[postgis]'") from missing

__all__ = ["SCHEMA", "SCHEMA_VERSION", "Sent", "publish_to_postgis"]

SCHEMA = "overwatt"
SCHEMA_VERSION = 2
"""Raised with every change of the tables below, so that no version writes into the tables of another."""
CONNECT_TIMEOUT_S = 10
LOCK_TIMEOUT_S = 60
"""A run takes seconds; whoever holds the lock for longer hangs."""

DETECTION_COLUMNS: Mapping[str, str] = {
    "detection_id": "text NOT NULL",
    "site": "text NOT NULL",
    "campus": "text NOT NULL",
    "scene_id": "text NOT NULL",
    "acquired": "timestamptz NOT NULL",
    "acquired_earliest": "timestamptz",
    "released": "date",
    "class": "text NOT NULL",
    "probability": "double precision NOT NULL",
    "score": "double precision",
    "length_m": "double precision",
    "width_m": "double precision",
    "heading_deg": "double precision",
    "fan_count": "integer",
    "text": "text",
    "zone": "text",
    "licence": "text",
    "attribution": "text",
    "source": "text",
    "rendered": "boolean NOT NULL",
    "model_version": "text",
    "native_gsd_m": "double precision",
    "unit_id": "text",
}
"""Columns of a detection, as in `pipelines.layers.archive.COLUMNS`, with their SQL types; `run_id` stands before them
and `geometry` after them."""

TABLES = f"""
CREATE TABLE schema_version (version integer NOT NULL);
CREATE TABLE runs (
    run_id text PRIMARY KEY,
    site text NOT NULL,
    campus text NOT NULL,
    scene_id text NOT NULL,
    title text NOT NULL,
    date date NOT NULL,
    acquired timestamptz NOT NULL,
    acquired_earliest timestamptz,
    acquired_from text,
    released date,
    source text,
    licence text,
    attribution text,
    rendered boolean NOT NULL,
    native_gsd_m double precision,
    model_version text,
    covered_fraction double precision,
    scene_sha256 text,
    accelerator text,
    texts text[] NOT NULL,
    notes text[] NOT NULL,
    footprint geometry(MultiPolygon, 4326),
    valid_from timestamptz NOT NULL,
    valid_until timestamptz,
    chosen boolean NOT NULL,
    content_sha256 text NOT NULL
);
COMMENT ON COLUMN runs.valid_until IS 'last second before the next day of the site with a scene; NULL for the last one';
COMMENT ON COLUMN runs.chosen IS 'false where another scene of the same site and day counts instead';
COMMENT ON COLUMN runs.rendered IS 'true: rendered imagery, not a photograph of the place';
CREATE INDEX ON runs USING gist (footprint);
CREATE INDEX ON runs (site, date);
CREATE TABLE detections (
    run_id text NOT NULL REFERENCES runs ON DELETE CASCADE,
    {", ".join(f'"{name}" {kind}' for name, kind in DETECTION_COLUMNS.items())},
    geometry geometry(Polygon, 4326) NOT NULL,
    PRIMARY KEY (run_id, detection_id)
);
COMMENT ON COLUMN detections.rendered IS 'true: found in rendered imagery, not in a photograph of the place';
CREATE INDEX ON detections USING gist (geometry);
CREATE INDEX ON detections (site);
CREATE INDEX ON detections (acquired);
CREATE INDEX ON detections ("class");
CREATE INDEX ON detections (unit_id);
COMMENT ON COLUMN detections.unit_id IS 'the same for one unit on all dates; NULL where it could not be told';
CREATE TABLE census (
    run_id text NOT NULL REFERENCES runs ON DELETE CASCADE,
    site text NOT NULL,
    date date NOT NULL,
    rendered boolean NOT NULL,
    scope text NOT NULL CHECK (scope IN ('site', 'zone', 'outside zones')),
    zone text,
    "class" text NOT NULL,
    detected integer,
    p5 double precision,
    p50 double precision,
    p95 double precision,
    fans integer,
    fans_per_unit double precision,
    median_length_m double precision,
    median_width_m double precision,
    not_given text
);
COMMENT ON COLUMN census.not_given IS 'why this scene cannot show the class; its figures are then NULL, not zero';
CREATE UNIQUE INDEX ON census (run_id, "class", scope, coalesce(zone, ''));
CREATE INDEX ON census (site, date);
CREATE TABLE estimates (
    run_id text NOT NULL REFERENCES runs ON DELETE CASCADE,
    site text NOT NULL,
    date date NOT NULL,
    rendered boolean NOT NULL,
    figure text NOT NULL,
    p5 double precision NOT NULL,
    p50 double precision NOT NULL,
    p95 double precision NOT NULL,
    PRIMARY KEY (run_id, figure)
);
CREATE INDEX ON estimates (site, date);
CREATE TABLE sites (
    site text PRIMARY KEY,
    name text NOT NULL,
    operator text NOT NULL,
    address text NOT NULL,
    campus text NOT NULL,
    accelerator text,
    pue double precision,
    source text NOT NULL,
    quality text NOT NULL,
    geometry geometry(Polygon, 4326) NOT NULL
);
CREATE INDEX ON sites USING gist (geometry);
CREATE TABLE zones (
    site text NOT NULL REFERENCES sites ON DELETE CASCADE,
    zone text NOT NULL,
    kind text NOT NULL,
    source text NOT NULL,
    quality text NOT NULL,
    geometry geometry(MultiPolygon, 4326) NOT NULL,
    PRIMARY KEY (site, zone)
);
CREATE INDEX ON zones USING gist (geometry);
CREATE VIEW dated_detections AS
    SELECT d.*, r.date, r.valid_from, r.valid_until FROM detections d JOIN runs r USING (run_id) WHERE r.chosen;
COMMENT ON VIEW dated_detections IS 'what stood on each date: valid_from and valid_until are for a time slider';
CREATE VIEW latest_detections AS SELECT * FROM dated_detections WHERE valid_until IS NULL;
COMMENT ON VIEW latest_detections IS 'what the latest scene of each site shows';
CREATE VIEW units AS
    SELECT d.site, d.unit_id, d."class", bool_or(d.rendered) AS rendered,
           min(r.date) FILTER (WHERE d.probability >= {DETECTED}) AS first_seen,
           max(r.date) FILTER (WHERE d.probability >= {DETECTED}) AS last_seen
    FROM detections d JOIN runs r USING (run_id) WHERE d.unit_id IS NOT NULL GROUP BY d.site, d.unit_id, d."class";
COMMENT ON VIEW units IS 'each unit that was followed over the dates; seen: with a probability of {DETECTED} or more';
CREATE VIEW counts_by_date AS
    SELECT c.site, c.date, c."class", c.detected, c.p5, c.p50, c.p95, c.fans, c.not_given, c.rendered,
           r.covered_fraction, r.scene_id, r.licence
    FROM census c JOIN runs r USING (run_id) WHERE c.scope = 'site' AND r.chosen;
CREATE VIEW chillers_by_date AS SELECT * FROM counts_by_date WHERE "class" = 'air_cooled_chiller';
CREATE VIEW figures_by_date AS
    SELECT e.site, e.date, e.figure, e.p5, e.p50, e.p95, e.rendered, r.accelerator, r.covered_fraction, r.scene_id
    FROM estimates e JOIN runs r USING (run_id) WHERE r.chosen;
"""
OURS = ("runs", "detections", "census", "estimates", "sites", "zones")


@dataclass(frozen=True)
class Sent:
    """What a database was told."""

    database: str
    """Name, host and user, never a password."""
    schema: str
    written: tuple[str, ...]
    """Ids of runs that were new or counted anew: `<site>/<date>/<scene id>`."""
    unchanged: tuple[str, ...]
    removed: tuple[str, ...]
    """Runs that the archive no longer holds, if they were to be removed."""
    left: tuple[str, ...]
    """The same, if they were not."""
    detections: int
    """Of all runs of the archive."""
    broken: tuple[str, ...]
    """Run folders that cannot be read, whose rows stay as they are, and sites whose units cannot be followed."""

    def as_record(self) -> dict[str, Any]:
        """For JSON."""
        lists = ("written", "unchanged", "removed", "left", "broken")
        about = {"database": self.database, "schema": self.schema, "detections": self.detections}
        return about | {name: list(getattr(self, name)) for name in lists}


@dataclass(frozen=True)
class _Rows:
    """One run as rows, in the order of the tables' columns."""

    run_id: str
    run: Mapping[str, Any]
    detections: Sequence[tuple[Any, ...]]
    census: Sequence[tuple[Any, ...]]
    estimates: Sequence[tuple[Any, ...]]

    @property
    def content_sha256(self) -> str:
        """Of all that is written, but not of what other runs decide (`valid_until`, `chosen`)."""
        own = {name: value for name, value in self.run.items() if name not in BY_OTHERS}
        return hashlib.sha256(repr((own, self.detections, self.census, self.estimates)).encode()).hexdigest()


BY_OTHERS = ("valid_from", "valid_until", "chosen")


def publish_to_postgis(
    archive: Archive, sites: Sequence[Site], to: str, *, schema: str = SCHEMA, prune: bool = False
) -> Sent:
    """Make a schema of a database hold what the archive holds.

    :param sites: for the tables `sites` and `zones`; sites of the database that are not among them stay
    :param to: `postgresql://user@host:port/database`; what it leaves out comes from the usual places (PGPASSWORD,
        ~/.pgpass, PGSERVICEFILE, ...)
    :param schema: made where it is missing
    :param prune: remove runs that the archive no longer holds, instead of naming them
    :raises DatabaseError: there is no such database, it lets nobody in, lacks PostGIS or rights, holds tables of
        another version, or was lost on the way; what was written by then is whole runs
    """
    parameters = _parameters(to)
    where = _where(parameters)
    with _told(where, parameters), psycopg.connect(**parameters, autocommit=True) as connection:
        where = f"database {connection.info.dbname} on {connection.info.host or 'this machine'}"
        with _told(where, parameters, user=connection.info.user, schema=schema):
            with connection.transaction():
                _begin(connection, schema)
                _prepare(connection, schema, where)
                _write_sites(connection, sites)
            written: list[str] = []
            unchanged: list[str] = []
            for run in archive.runs:
                rows = _rows(run)
                with connection.transaction():
                    _begin(connection, schema)
                    changed = _write_run(connection, rows)
                (written if changed else unchanged).append(rows.run_id)
            left = _forgotten(connection, schema, archive)
            if prune:
                for run_id in left:
                    with connection.transaction():
                        _begin(connection, schema)
                        connection.execute("DELETE FROM runs WHERE run_id = %s", [run_id])
    return Sent(
        database=where,
        schema=schema,
        written=tuple(written),
        unchanged=tuple(unchanged),
        removed=left if prune else (),
        left=() if prune else left,
        detections=sum(len(run.detections) for run in archive.runs),
        broken=archive.faults,
    )


# Connecting


def _parameters(to: str) -> dict[str, Any]:
    """What libpq is told. A wrong address is not repeated: parts of a password may stand anywhere in it."""
    wrong = DatabaseError(
        "--to is no address of a PostgreSQL database: write postgresql://USER@HOST/DATABASE, and in a password "
        "%40 for @, %3A for :, %2F for /, %25 for %"
    )
    if not to.startswith(("postgresql://", "postgres://")):
        raise wrong
    try:
        parameters = dict(conninfo_to_dict(to))
    except psycopg.Error:
        raise wrong from None
    # An unescaped character of a password moves the rest of it to where libpq's messages would show it.
    moved = any("@" in str(parameters.get(name) or "") for name in ("host", "dbname"))
    if moved or not str(parameters.get("port") or "0").replace(",", "").isdigit():
        raise wrong
    parameters.setdefault("application_name", "overwatt")
    if "PGCONNECT_TIMEOUT" not in os.environ:
        parameters.setdefault("connect_timeout", CONNECT_TIMEOUT_S)
    return parameters


def _where(parameters: Mapping[str, Any]) -> str:
    if parameters.get("service"):
        return f"the database of service {parameters['service']}"
    host = parameters.get("host") or os.environ.get("PGHOST") or "this machine"
    name = parameters.get("dbname") or os.environ.get("PGDATABASE")
    port = parameters.get("port") or os.environ.get("PGPORT")
    return f"{f'database {name}' if name else 'the database'} on {host}" + (f", port {port}" if port else "")


@contextmanager
def _told(where: str, parameters: Mapping[str, Any], user: str | None = None, schema: str = "") -> Iterator[None]:
    """Say in one sentence what went wrong between here and the database."""
    try:
        yield
    except psycopg.Error as error:
        message = _without_secrets(str(error), parameters)
        # The original would stand in a traceback with all that it knows.
        raise DatabaseError(_sentence(error, message, where, user, schema)) from None


def _sentence(error: "psycopg.Error", message: str, where: str, user: str | None, schema: str) -> str:
    reason = message.strip().splitlines()[0] if message.strip() else type(error).__name__
    name = user or "the user"
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return (
            f"{name} may not do this in {where} ({reason}): have its administrator grant CREATE on the database for "
            f"the first time, and the rights to schema {schema} and its tables after that"
        )
    if isinstance(error, psycopg.errors.LockNotAvailable):
        return f"another process has been publishing to {where} for {LOCK_TIMEOUT_S} s; end it or wait"
    if isinstance(error, psycopg.OperationalError) and error.sqlstate is None and user is None:
        return _not_let_in(message, where)
    if isinstance(error, psycopg.OperationalError):
        return (
            f"the connection to {where} was lost ({reason}): the runs written so far are whole and nothing of another "
            "is there; publish again"
        )
    return f"{where} cannot be written ({reason})"


def _not_let_in(message: str, where: str) -> str:
    if "password authentication failed" in message:
        return f"{where} refuses the password: set PGPASSWORD or write it into ~/.pgpass"
    if "no password supplied" in message:
        return f"{where} asks for a password: set PGPASSWORD or write it into ~/.pgpass"
    if "does not exist" in message and "database" in message.split("FATAL:")[-1]:
        return f"there is no {where}: create it with createdb, or name another"
    if "does not exist" in message and "role" in message.split("FATAL:")[-1]:
        return f"{where} knows no such user: write postgresql://USER@HOST/DATABASE"
    if "pg_hba.conf" in message:
        return f"{where} lets no such user in from this machine: have its administrator add a line to pg_hba.conf"
    reason = message.strip().splitlines()[0].rsplit("failed: ", 1)[-1]
    return f"{where} cannot be reached ({reason}): check host, port and that the server runs"


def _without_secrets(message: str, parameters: Mapping[str, Any]) -> str:
    secrets = [parameters.get("password"), parameters.get("sslpassword"), os.environ.get("PGPASSWORD")]
    for secret in (str(one) for one in secrets if one):
        for form in (secret, urllib.parse.quote(secret, safe=""), urllib.parse.quote(secret)):
            message = message.replace(form, "...")
    return message


# Tables


def _begin(connection: "psycopg.Connection[Any]", schema: str) -> None:
    """Take the schema's lock until the end of the transaction, and let names mean the schema's tables."""
    connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_S}s'")
    connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"overwatt {schema}"])
    found = connection.execute(
        "SELECT nspname FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace WHERE extname = 'postgis'"
    ).fetchone()
    # PostGIS may have been put into a schema of its own.
    path = [schema, found[0] if found else "public"]
    names = sql.SQL(", ").join(map(sql.Identifier, path))
    connection.execute(sql.SQL("SET LOCAL search_path TO {}").format(names))


def _prepare(connection: "psycopg.Connection[Any]", schema: str, where: str) -> None:
    """Make extension, schema and tables where they are missing; what is there must be of this version."""
    if not connection.execute("SELECT 1 FROM pg_extension WHERE extname = 'postgis'").fetchone():
        _add_postgis(connection, where)
        _begin(connection, schema)
    if not connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", [schema]).fetchone():
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
    query = "SELECT relname FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = %s"
    present = {row[0] for row in connection.execute(query, [schema])}
    if "schema_version" in present:
        found = connection.execute("SELECT version FROM schema_version").fetchone()
        version = found[0] if found else None
        if version != SCHEMA_VERSION:
            raise DatabaseError(
                f"the tables in schema {schema} of {where} have version {version}, and this Overwatt writes version "
                f"{SCHEMA_VERSION}: they are made from the archive, so drop the schema, or give another --schema"
            )
        return
    if theirs := sorted(present.intersection(OURS)):
        raise DatabaseError(
            f"schema {schema} of {where} holds a table {theirs[0]} that Overwatt did not make: give another --schema"
        )
    connection.execute(TABLES)
    connection.execute("INSERT INTO schema_version VALUES (%s)", [SCHEMA_VERSION])


def _add_postgis(connection: "psycopg.Connection[Any]", where: str) -> None:
    try:
        # PostGIS goes to where everybody looks, not into the schema that can be dropped.
        connection.execute("CREATE EXTENSION IF NOT EXISTS postgis SCHEMA public")
    except psycopg.errors.InsufficientPrivilege:
        raise DatabaseError(
            f"{where} has no PostGIS, and {connection.info.user} may not add it: have its administrator run "
            "CREATE EXTENSION postgis; there"
        ) from None
    except (psycopg.errors.FeatureNotSupported, psycopg.errors.UndefinedFile):
        raise DatabaseError(
            f"the server of {where} has no PostGIS: have its administrator install it (postgresql-postgis on Debian) "
            "and run CREATE EXTENSION postgis; there"
        ) from None


# Writing


def _write_sites(connection: "psycopg.Connection[Any]", sites: Sequence[Site]) -> None:
    columns = ("site", "name", "operator", "address", "campus", "accelerator", "pue", "source", "quality", "geometry")
    rows = [
        (
            *(site.id, site.name, site.operator, site.address, site.campus, site.accelerator, site.pue),
            *(site.perimeter_source, site.perimeter_quality, _ewkb(site.perimeter)),
        )
        for site in sites
    ]
    zones = [
        (site.id, zone.id, zone.kind, zone.source, zone.quality, _ewkb(_multi(zone.geometry)))
        for site in sites
        for zone in site.zones
    ]
    _merge(connection, "sites", columns, ("site",), rows, of=None)
    zone_columns = ("site", "zone", "kind", "source", "quality", "geometry")
    _merge(connection, "zones", zone_columns, ("site", "zone"), zones, of=("site", [site.id for site in sites]))


def _write_run(connection: "psycopg.Connection[Any]", rows: _Rows) -> bool:
    """Write a run if it is new or changed, and say whether it was."""
    digest = rows.content_sha256
    found = connection.execute("SELECT content_sha256 FROM runs WHERE run_id = %s", [rows.run_id]).fetchone()
    record = {**rows.run, "content_sha256": digest}
    _merge(connection, "runs", tuple(record), ("run_id",), [tuple(record.values())], of=None)
    if found and found[0] == digest:
        return False
    columns = ("run_id", *DETECTION_COLUMNS, "geometry")
    only = ("run_id", [rows.run_id])
    _merge(connection, "detections", columns, ("run_id", "detection_id"), rows.detections, of=only)
    for table, lines in (("census", rows.census), ("estimates", rows.estimates)):
        connection.execute(sql.SQL("DELETE FROM {} WHERE run_id = %s").format(sql.Identifier(table)), [rows.run_id])
        _copy(connection, table, None, lines)
    return True


def _merge(
    connection: "psycopg.Connection[Any]",
    table: str,
    columns: Sequence[str],
    key: Sequence[str],
    rows: Sequence[tuple[Any, ...]],
    *,
    of: tuple[str, list[str]] | None,
) -> None:
    """Insert rows, update those that differ, and touch no other.

    :param of: column and its values: rows of the table with one of these that are not among `rows` are deleted
    """
    others = [name for name in columns if name not in key]
    names = {
        "table": sql.Identifier(table),
        "key": sql.SQL(", ").join(map(sql.Identifier, key)),
        "columns": sql.SQL(", ").join(map(sql.Identifier, columns)),
        "changes": sql.SQL(", ").join(sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name)) for name in others),
        "old": sql.SQL(", ").join(sql.SQL("t.{}").format(sql.Identifier(name)) for name in others),
        "new": sql.SQL(", ").join(sql.SQL("excluded.{}").format(sql.Identifier(name)) for name in others),
        "same": sql.SQL(" AND ").join(sql.SQL("t.{0} = i.{0}").format(sql.Identifier(name)) for name in key),
    }
    connection.execute(
        sql.SQL("CREATE TEMPORARY TABLE incoming (LIKE {table}) ON COMMIT DROP").format(table=names["table"])
    )
    _copy(connection, "incoming", columns, rows)
    if of is not None:
        query = sql.SQL(
            "DELETE FROM {table} t WHERE t.{of} = ANY(%s) AND NOT EXISTS (SELECT 1 FROM incoming i WHERE {same})"
        )
        connection.execute(query.format(of=sql.Identifier(of[0]), **names), [of[1]])
    query = sql.SQL(
        "INSERT INTO {table} AS t ({columns}) SELECT {columns} FROM incoming "
        "ON CONFLICT ({key}) DO UPDATE SET {changes} WHERE ROW({old}) IS DISTINCT FROM ROW({new})"
    )
    connection.execute(query.format(**names))
    connection.execute("DROP TABLE incoming")


def _copy(
    connection: "psycopg.Connection[Any]",
    table: str,
    columns: Sequence[str] | None,
    rows: Sequence[tuple[Any, ...]],
) -> None:
    named = sql.SQL("({})").format(sql.SQL(", ").join(map(sql.Identifier, columns))) if columns else sql.SQL("")
    query = sql.SQL("COPY {} {} FROM STDIN").format(sql.Identifier(table), named)
    with connection.cursor() as cursor, cursor.copy(query) as copy:
        for row in rows:
            copy.write_row(row)


def _forgotten(connection: "psycopg.Connection[Any]", schema: str, archive: Archive) -> tuple[str, ...]:
    """Runs of the database that the archive no longer holds; one that cannot be read is still there."""
    held = {run.run_id for run in archive.runs} | {broken.run_id for broken in archive.broken}
    query = sql.SQL("SELECT run_id FROM {}.runs ORDER BY run_id").format(sql.Identifier(schema))
    return tuple(row[0] for row in connection.execute(query) if row[0] not in held)


# Rows


def _rows(run: Run) -> _Rows:
    properties = run.item["properties"]
    footprint = shapely.from_geojson(json.dumps(run.item["geometry"])) if run.item.get("geometry") else None
    identity = run.run_id
    frame = run.detections
    record = {
        "run_id": identity,
        "site": run.site,
        "campus": run.campus,
        "scene_id": run.scene_id,
        "title": properties["title"],
        "date": run.date,
        "acquired": run.acquired,
        "acquired_earliest": properties.get("overwatt:acquired_earliest"),
        "acquired_from": properties.get("overwatt:acquired_from"),
        "released": properties.get("overwatt:released"),
        "source": properties.get("overwatt:source"),
        "licence": properties.get("overwatt:licence"),
        "attribution": properties.get("overwatt:attribution"),
        "rendered": run.rendered,
        "native_gsd_m": run.census.native_gsd_m,
        "model_version": run.census.model_version,
        "covered_fraction": run.census.covered_fraction,
        "scene_sha256": properties.get("overwatt:scene_sha256"),
        "accelerator": run.estimate.get("accelerator"),
        "texts": list(run.census.texts),
        "notes": list(run.estimate.get("notes", ())),
        "footprint": None if footprint is None else _ewkb(_multi(footprint)),
        "valid_from": run.valid_from,
        "valid_until": run.valid_until,
        "chosen": run.chosen,
    }
    columns = [_values(frame[name]) for name in DETECTION_COLUMNS]
    shapes = shapely.to_wkb(shapely.set_srid(frame.geometry.to_numpy(), 4326), hex=True, include_srid=True)
    return _Rows(
        run_id=identity,
        run=record,
        detections=[(identity, *row) for row in zip(*columns, shapes.tolist(), strict=True)],
        census=_census_rows(run, identity),
        estimates=[
            (identity, run.site, run.date, run.rendered, name, *(figure[p] for p in ("p5", "p50", "p95")))
            for name, figure in run.figures.items()
        ],
    )


def _census_rows(run: Run, identity: str) -> list[tuple[Any, ...]]:
    common = (identity, run.site, run.date, run.rendered)
    rows: list[tuple[Any, ...]] = []
    for scope, count in run.scoped_counts:
        expected = (count.expected.p5, count.expected.p50, count.expected.p95)
        sizes = (count.fans, count.fans_per_unit, count.median_length_m, count.median_width_m)
        rows.append((*common, scope, count.zone, count.cls, count.detected, *expected, *sizes, None))
    for cls, reason in run.census.not_given.items():
        rows.append((*common, "site", None, cls, *(None,) * 8, reason))
    return rows


def _values(column: pd.Series) -> list[Any]:
    """Python's own values, None for what is missing."""
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        return [None if pd.isna(value) else value.to_pydatetime() for value in column]
    return [None if pd.isna(value) else value for value in column.astype(object)]


def _multi(geometry: shapely.Geometry) -> shapely.Geometry:
    parts = [part for part in shapely.get_parts(geometry) if part.geom_type == "Polygon" and not part.is_empty]
    return shapely.MultiPolygon(parts)


def _ewkb(geometry: shapely.Geometry) -> str:
    text: str = shapely.to_wkb(shapely.set_srid(geometry, 4326), hex=True, include_srid=True)
    return text
