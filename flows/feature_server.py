"""`overwatt serve-features`: the archive through OGC API - Features, for QGIS, ArcGIS, ogr2ogr and curl.

pygeoapi answers, uvicorn listens. The archive is looked at before each answer, at most once a second: a new run is
served as soon as it stands there.
"""

import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import uvicorn
from rich.console import Console
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from pipelines.coregistration import DOCUMENT
from pipelines.errors import ArchiveError, ExtraError, InputError
from pipelines.layers.archive import read_archive, run_folders
from pipelines.sites import load_sites

try:
    from pygeoapi import api as pages
    from pygeoapi.api import API, APIRequest, itemtypes
    from pygeoapi.openapi import get_oas
    from pygeoapi.plugin import PLUGINS

    from pipelines.features_provider import Collection, Csv, collections_of
except ImportError as missing:
    raise ExtraError("OGC API - Features needs an optional part: pip install 'overwatt[features]'") from missing

# It is looked up by this name and cannot be configured.
PLUGINS["formatter"]["CSV"] = f"{Csv.__module__}.{Csv.__qualname__}"
LOG = logging.getLogger("pipelines.features")
CRS84 = "http://www.opengis.net/def/crs/OGC/1.3/CRS84"
OFFERED_CRS = (CRS84, "http://www.opengis.net/def/crs/EPSG/0/4326", "http://www.opengis.net/def/crs/EPSG/0/3857")
PAGE, LARGEST_PAGE = 1000, 10_000
"""Features a page where nobody says, and at most."""
LOOKS_EVERY_S = 1.0
STOPS_WITHIN_S = 5
OPEN = {"begin": None, "end": None}
"""pygeoapi refuses a datetime outside of a collection's temporal extent instead of finding nothing."""


def serve_features(archive: Path, aoi: Path, host: str, port: int, url: str | None) -> None:
    """Serve until SIGINT or SIGTERM.

    :param port: 0 takes any that is free
    :param url: address that others reach it by, where that is not host and port
    :raises ArchiveError: the archive holds no run that can be read
    :raises InputError: the address cannot be listened on
    """
    # pygeoapi writes every refused question down with its traceback, but leaves a root logger with a handler alone.
    logging.getLogger().addHandler(logging.NullHandler())
    with _listening(host, port) as listener:
        port = listener.getsockname()[1]
        named = f"[{host}]" if ":" in host else host
        address = (url or f"http://{named}:{port}").rstrip("/")
        served = Served(archive, aoi, address)
        Console(soft_wrap=True).print(f"OGC API - Features of {archive}: {address}; Ctrl-C ends it.", highlight=False)
        # uvicorn raises the signal that ended it again, in order; one by SIGTERM is no failure.
        signal.signal(signal.SIGTERM, lambda *_: None)
        # A shell that is not interactive starts what it puts in the background with SIGINT ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        config = uvicorn.Config(
            application(served),
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=STOPS_WITHIN_S,
            server_header=False,
        )
        uvicorn.Server(config).run(sockets=[listener])


def _listening(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError:
        raise InputError(
            f"--host {host} is no address of this machine; 127.0.0.1 is seen from this machine alone"
        ) from None
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(128)
    except OverflowError:
        listener.close()
        raise InputError(f"--port {port}: a port is a number up to 65535") from None
    except OSError as error:
        listener.close()
        raise InputError(
            f"port {port} of {host} cannot be listened on ({error.strerror}); choose another with --port, or --host"
        ) from None
    return listener


class Served:
    """What is served at present; made anew when the archive or a site file changes."""

    def __init__(self, archive: Path, aoi: Path, address: str) -> None:
        """Read the archive for the first time."""
        self._archive, self._aoi, self._address = archive, aoi, address
        self._lock = threading.Lock()
        self._state = self._fingerprint()
        self._api = self._read()
        self._looked = time.monotonic()

    def api(self) -> "API":
        """pygeoapi over the archive as it stands; while another thread reads it, over what it was."""
        if time.monotonic() - self._looked > LOOKS_EVERY_S and self._lock.acquire(blocking=False):
            try:
                state = self._fingerprint()
                if state != self._state:
                    # Even where it cannot be read: that is said once.
                    self._state = state
                    self._api = self._read()
            except InputError as error:
                LOG.warning("%s; what was there before is still served", error)
            finally:
                self._looked = time.monotonic()
                self._lock.release()
        return self._api

    def _read(self) -> "API":
        archive = read_archive(self._archive)
        for fault in archive.faults:
            LOG.warning("%s", fault)
        config = configuration(collections_of(archive, load_sites(self._aoi)), self._address)
        return API(config, get_oas(config))

    def _fingerprint(self) -> tuple[tuple[str, int, int], ...]:
        # Shifts, and with them what a unit is called, come a moment after their run.
        shifts = sorted(self._archive.glob(f"[!.]*/{DOCUMENT}"))
        files = (*run_folders(self._archive), *shifts, *sorted(self._aoi.glob("[!.]*.geojson")))
        try:
            return tuple((str(path), path.stat().st_ino, path.stat().st_mtime_ns) for path in files)
        except OSError as error:
            raise ArchiveError(f"{error.filename} cannot be read ({error.strerror})") from None


def configuration(collections: Sequence[Collection], address: str) -> dict[str, Any]:
    """pygeoapi's configuration, which otherwise is a file."""
    title = f"Overwatt: {collections[0].title[0].lower()}{collections[0].title[1:]}"
    return {
        "server": {
            "bind": {"host": "127.0.0.1", "port": 0},
            "url": address,
            "mimetype": "application/json; charset=UTF-8",
            "encoding": "utf-8",
            "languages": ["en-US"],
            "pretty_print": False,
            "limits": {"default_items": PAGE, "max_items": LARGEST_PAGE, "on_exceed": "throttle"},
            "map": {
                "url": "https://tile.openstreetmap.org/{z}/{x}/{y}.png",
                "attribution": "&copy; OpenStreetMap contributors",
            },
        },
        "logging": {"level": "CRITICAL"},
        "metadata": {
            "identification": {
                "title": title,
                "description": collections[0].description,
                "keywords": ["datacenters", "cooling", "power", "imagery"],
                "keywords_type": "theme",
                "terms_of_service": "The licence of each scene holds for what was found in it; see 'licence'.",
                "url": address,
            },
            "license": {"name": "that of each scene, see the property 'licence'", "url": f"{address}/collections/runs"},
            "provider": {"name": "Overwatt", "url": address},
            "contact": {"name": "Overwatt"},
        },
        "resources": {one.name: _resource(one) for one in collections},
    }


def _resource(collection: Collection) -> dict[str, Any]:
    dated = {"time_field": "acquired"} if collection.times is not None else {}
    return {
        "type": "collection",
        "title": collection.title,
        "description": collection.description,
        "keywords": ["rendered imagery"] if "RENDERED" in collection.title else ["imagery"],
        "links": [],
        "extents": {
            "spatial": {"bbox": list(collection.bounds), "crs": CRS84},
            **({"temporal": dict(OPEN)} if dated else {}),
        },
        "providers": [
            {
                "type": "feature",
                "name": "pipelines.features_provider.ArchiveProvider",
                "data": collection,
                "id_field": "id",
                "crs": list(OFFERED_CRS),
                "storage_crs": CRS84,
                **dated,
            }
        ],
    }


def application(served: Served) -> Starlette:
    """The pages of OGC API - Features, and no other of pygeoapi's."""

    def route(path: str, page: Callable[..., Any], *, checks_format: bool = False) -> Route:
        async def answer(request: Request) -> Response:
            api = await run_in_threadpool(served.api)
            asked = await APIRequest.from_starlette(request, api.locales)
            if not checks_format and not asked.is_valid():
                headers, status, content = api.get_format_exception(asked)
            elif "" in request.query_params.get("sortby", "-").split(","):
                headers = asked.get_response_headers(**api.api_headers)
                wrong = (400, headers, asked.format, "InvalidParameterValue", "sortby names no property")
                headers, status, content = api.get_exception(*wrong)
            else:
                names = request.path_params.values()
                headers, status, content = await run_in_threadpool(page, api, asked, *names)
            return Response(content, int(status), headers)

        return Route(path, answer)

    one = "/collections/{collection}"
    static = Path(pages.__file__).parent.parent / "static"
    return Starlette(
        routes=[
            route("/", pages.landing_page),
            route("/openapi", pages.openapi_),
            route("/conformance", pages.conformance),
            route("/collections", pages.describe_collections),
            route(one, pages.describe_collections),
            route(f"{one}/schema", pages.get_collection_schema),
            route(f"{one}/queryables", itemtypes.get_collection_queryables),
            route(f"{one}/items", itemtypes.get_collection_items, checks_format=True),
            route(f"{one}/items/{{item:path}}", itemtypes.get_collection_item),
            Mount("/static", StaticFiles(directory=static)),
        ]
    )
