"""Real STAC API servers on loopback, each a process of its own that the test ends.

`rustac serve` is the Rust implementation with its in-process store. It knows no filters, and its landing page says so.
stac-fastapi runs with the client of its geoparquet backend: routes, models, conformance, links and paging are those of
the release. That backend's store is DuckDB with an extension that is downloaded when it starts, which tests may not
do, so that `GeoparquetStore` answers in its place from the same file; its CQL2 is what our filters need.
"""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import shapely


@contextlib.contextmanager
def rustac_server(
    folder: Path, items: Sequence[dict[str, Any]], collections: Sequence[dict[str, Any]]
) -> Iterator[str]:
    """Serve items by `rustac serve`; its address."""
    files = [_put(folder / f"collection-{one['id']}.json", one) for one in collections]
    files.append(_put(folder / "items.json", {"type": "FeatureCollection", "features": list(items)}))
    address = f"127.0.0.1:{_free_port()}"
    program = Path(sys.executable).with_name("rustac")
    with _running([str(program), "serve", "--addr", address, *map(str, files)], folder, f"http://{address}/"):
        yield f"http://{address}"


@contextlib.contextmanager
def stac_fastapi_server(
    folder: Path, items: Sequence[dict[str, Any]], collections: Sequence[dict[str, Any]]
) -> Iterator[str]:
    """Serve items by stac-fastapi under uvicorn, from a stac-geoparquet file a collection; its address."""
    import rustac

    async def write() -> None:
        for one in collections:
            own = [item for item in items if item["collection"] == one["id"]]
            await rustac.write(str(folder / f"{one['id']}.parquet"), own)

    asyncio.run(write())
    parquet = "application/vnd.apache.parquet"
    served = [one | {"assets": {"data": {"href": f"./{one['id']}.parquet", "type": parquet}}} for one in collections]
    port = _free_port()
    environment = {"STAC_FASTAPI_COLLECTIONS_HREF": str(_put(folder / "collections.json", served))}
    command = [sys.executable, str(Path(__file__)), str(port)]
    with _running(command, folder, f"http://127.0.0.1:{port}/", environment):
        yield f"http://127.0.0.1:{port}"


class GeoparquetStore:
    """Stands for rustac's DuckDB client: searches a stac-geoparquet file in memory."""

    def search(self, href: str, **asked: Any) -> list[dict[str, Any]]:
        """Answer what stac-fastapi-geoparquet asks of DuckDB."""
        kept = []
        for item in _read_parquet(href):
            shape = shapely.geometry.shape(item["geometry"])
            if (area := asked.get("intersects")) and not shape.intersects(shapely.geometry.shape(area)):
                continue
            if (interval := asked.get("datetime")) and not _within(item["properties"]["datetime"], str(interval)):
                continue
            if (wish := asked.get("filter")) and not _holds(wish, item):
                continue
            kept.append(item)
        first = asked.get("offset") or 0
        return kept[first : first + asked["limit"]]


def _read_parquet(href: str) -> list[dict[str, Any]]:
    import rustac

    async def read() -> Any:
        return await rustac.read(href)

    # Called from a thread of the server that has no loop.
    return list(asyncio.run(read())["features"])


def _within(when: str, interval: str) -> bool:
    first, _, last = interval.partition("/")
    moment = _moment(when)
    return (first in ("", "..") or _moment(first) <= moment) and (last in ("", "..") or moment <= _moment(last))


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(UTC)


def _holds(wish: dict[str, Any], item: dict[str, Any]) -> bool:
    def value(argument: Any) -> Any:
        if isinstance(argument, dict) and "property" in argument:
            return item["properties"].get(argument["property"])
        return argument

    if wish["op"] in ("and", "or"):
        return {"and": all, "or": any}[wish["op"]](_holds(part, item) for part in wish["args"])
    if wish["op"] == "isNull":
        return value(wish["args"][0]) is None
    assert wish["op"] == "<=", wish
    left, right = (value(argument) for argument in wish["args"])
    return left is not None and left <= right


@contextlib.contextmanager
def _running(command: list[str], folder: Path, url: str, environment: dict[str, str] | None = None) -> Iterator[None]:
    log = folder / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, cwd=folder, env=os.environ | (environment or {})
        )
    try:
        for _ in range(300):
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(url).is_success:
                    break
            if process.poll() is not None:
                break
            time.sleep(0.1)
        else:
            raise TimeoutError(f"{command[0]} does not answer: {log.read_text()[-2000:]}")
        assert process.poll() is None, log.read_text()[-2000:]
        yield
    finally:
        process.terminate()
        process.wait(20)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _put(path: Path, document: object) -> Path:
    path.write_text(json.dumps(document))
    return path


def _application() -> Any:
    """Put together what `stac_fastapi.geoparquet.api.create` does, which newer FastAPI releases refuse."""
    from fastapi import FastAPI
    from stac_fastapi.api.app import StacApi
    from stac_fastapi.geoparquet import api, client, models, settings

    chosen = settings.Settings(
        stac_fastapi_landing_id="test", stac_fastapi_title="test", stac_fastapi_description="test"
    )
    app = FastAPI(lifespan=api.lifespan)
    app.extra = {"settings": chosen, "collections": [], "duckdb_client": GeoparquetStore()}
    return StacApi(
        settings=chosen,
        client=client.Client(),
        app=app,
        search_get_request_model=models.GetSearchRequestModel,
        search_post_request_model=models.PostSearchRequestModel,
        items_get_request_model=models.ItemsGetRequestModel,
        extensions=models.EXTENSIONS,
        # Its own for CORS does not run with this release of starlette, and no browser asks here.
        middlewares=[],
    ).app


if __name__ == "__main__":
    import uvicorn

    uvicorn.run(_application(), host="127.0.0.1", port=int(sys.argv[1]))
