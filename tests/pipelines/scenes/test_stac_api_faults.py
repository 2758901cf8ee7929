"""What STAC APIs do that they should not, or do in their own way: servers on loopback that answer as they are told."""

import contextlib
import dataclasses
import json
import threading
from collections.abc import Callable, Iterator
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import NoSceneError, SceneError, SourceError
from pipelines.scenes.presets import preset
from pipelines.scenes.selection import Limits
from pipelines.scenes.sources import open_source
from pipelines.scenes.stac import StacSource
from pipelines.sites import Site
from tests.pipelines.scenes.catalog_items import earth_search_sentinel_2, planetary_computer_naip, version_1_1
from tests.pipelines.scenes.conftest import area_around

HERE = area_around(half_x_m=60, half_y_m=60)
CLASSES = ["https://api.stacspec.org/v1.0.0/core", "https://api.stacspec.org/v1.0.0/item-search"]
CQL2 = [
    "https://api.stacspec.org/v1.0.0/item-search#filter",
    "http://www.opengis.net/spec/cql2/1.0/conf/basic-cql2",
    "http://www.opengis.net/spec/cql2/1.0/conf/cql2-json",
]


class Api:
    """Answers each path with a status, a body and headers, or what a function makes of the question's JSON."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.asked: list[tuple[str, str, dict[str, str], Any]] = []
        """Method, path with query, headers in lower case, and JSON body of each question."""
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                headers = {name.lower(): value for name, value in self.headers.items()}
                api.asked.append((self.command, self.path, headers, body))
                answer = api.answers.get(self.path.partition("?")[0], (404, ""))
                status, content, *more = answer(body) if callable(answer) else answer
                sent = (content if isinstance(content, str) else json.dumps(content)).encode()
                self.send_response_only(status)
                for name, value in (more[0] if more else {}).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(sent)))
                self.end_headers()
                with contextlib.suppress(ConnectionError):
                    self.wfile.write(sent)

            do_POST = do_GET  # noqa: N815

            def log_message(self, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self._http.server_port}"
        self.url = f"http://{self.host}"
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def land(self, search: str, classes: list[str] = CLASSES, method: str = "POST", **fields: Any) -> None:
        """Give it a landing page at `/` with a link to `search`."""
        link = {"rel": "search", "type": "application/geo+json", "href": search, "method": method}
        page = {"type": "Catalog", "stac_version": "1.0.0", "id": "api", "description": "x", "conformsTo": classes}
        self.answers["/"] = (200, page | {"links": [link]} | fields)

    def serve(self, *items: dict[str, Any], classes: list[str] = CLASSES, method: str = "POST") -> "Api":
        """Give it a landing page and one page of items."""
        self.land(f"{self.url}/search", classes, method)
        self.answers["/search"] = (200, page_of(*items))
        return self

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


def page_of(*items: dict[str, Any], **following: Any) -> dict[str, Any]:
    links = [{"rel": "next", "type": "application/geo+json"} | following] if following else []
    return {"type": "FeatureCollection", "features": list(items), "links": links}


def naip(name: str = "one", day: str = "2023-06-05", **properties: Any) -> dict[str, Any]:
    return planetary_computer_naip(name, f"https://naip.example/{name}.tif", HERE, f"{day}T16:00:00Z", **properties)


@pytest.fixture
def make_api() -> Iterator[Callable[[], Api]]:
    made: list[Api] = []

    def make() -> Api:
        made.append(Api())
        return made[-1]

    yield make
    for api in made:
        api.close()


@pytest.fixture
def api(make_api: Callable[[], Api]) -> Api:
    return make_api()


def refused(source: StacSource, site: Site) -> str:
    with pytest.raises(SourceError) as error:
        source.search(site)
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((401, ""), "the server answers 401 Unauthorized"),
        ((500, ""), "the server answers 500 Internal Server Error"),
        ((200, "<html>log in</html>"), "is not JSON (line 1, column 1"),
        ((200, "[]"), "is no STAC catalog, collection or item"),
        ((200, {"features": {"a": 1}}), "'features' are no list of STAC items"),
        ((200, {"features": ["a"]}), "'features' are no list of STAC items"),
        ((200, {"features": [], "links": [{"rel": "next"}]}), "'links' is no list of STAC links"),
    ],
)
def test_searches_that_fail(api: Api, site: Site, tmp_path: Path, answer: Any, message: str) -> None:
    api.land(f"{api.url}/search?token=secret")
    api.answers["/search"] = answer
    said = refused(StacSource(f"{api.url}/", cache=tmp_path), site)
    assert message in said
    assert f"{api.url}/search" in said
    assert "secret" not in said


def test_landing_pages_that_cannot_be_searched(api: Api, site: Site, tmp_path: Path) -> None:
    source = StacSource(f"{api.url}/", cache=tmp_path)
    api.land(f"{api.url}/search", CLASSES[:1])
    assert refused(source, site) == (f"{api.url}/ is a STAC API without item search; give another, or a static catalog")
    api.land(f"{api.url}/search", links=[])
    assert "is a STAC API without item search" in refused(source, site)
    api.land("file:///etc/passwd")
    assert "leads to file:///etc/passwd, which is not on a web server" in refused(source, site)
    for fields in ({"type": "Collection"}, {"conformsTo": {"a": 1}}, {"conformsTo": [1]}):
        api.land(f"{api.url}/search", **fields)
        assert "is not the landing page of a STAC API" in refused(source, site)
    api.land(f"{api.url}/search", stac_version="0.9.0")
    assert "'stac_version' is '0.9.0', but 1.x is needed" in refused(source, site)


def test_a_server_that_recovers_is_used(api: Api, site: Site, tmp_path: Path) -> None:
    api.serve(naip())
    faults = [(503, ""), (429, "")]
    api.answers["/search"] = lambda body: faults.pop(0) if faults else (200, page_of(naip()))
    assert [scene.id for scene in StacSource(f"{api.url}/", cache=tmp_path).search(site)] == ["one"]


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Api], None]:
    def give(api: Api) -> None:
        path = tmp_path / "keys.json"
        path.write_text(json.dumps({api.host: {"headers": {"X-Api-Key": "${THE_KEY}"}, "query": {"k": "${THE_KEY}"}}}))
        monkeypatch.setenv("OVERWATT_CREDENTIALS", str(path))
        monkeypatch.setenv("THE_KEY", "secret")

    return give


@pytest.mark.parametrize("way", ["search link", "next link", "redirect"])
def test_keys_go_to_their_host_alone(make_api, site, tmp_path, keys, way: str) -> None:
    known, other = make_api(), make_api()
    keys(known)
    other.answers["/search"] = (200, page_of(naip("two")))
    known.serve(naip("one"))
    if way == "search link":
        known.land(f"{other.url}/search")
    elif way == "next link":
        # A server may wish for headers; none of ours are among them.
        following = {"href": f"{other.url}/search", "method": "POST", "body": {}, "headers": {"X-Wish": "1"}}
        known.answers["/search"] = (200, page_of(naip("one"), **following))
    else:
        known.answers["/search"] = (307, "", {"Location": f"{other.url}/search"})
    found = {scene.id for scene in StacSource(f"{known.url}/", cache=tmp_path).search(site)}
    # Two versions of one image: the later id is taken.
    assert found == {"two"}
    assert other.asked
    assert all(headers.get("x-api-key") == "secret" and "k=secret" in path for _, path, headers, _ in known.asked)
    assert not any("secret" in f"{path} {headers} {body}" for _, path, headers, body in other.asked)


def test_a_server_without_post_is_asked_by_get(api: Api, site: Site, tmp_path: Path) -> None:
    api.serve(naip(), method="GET", classes=CLASSES + CQL2)
    assert len(StacSource(f"{api.url}/#naip", cache=tmp_path, limits=Limits(20)).search(site)) == 1
    method, path, _, body = api.asked[1]
    assert (method, body) == ("GET", None)
    assert "collections=naip" in path
    assert "intersects=" in path


def test_only_a_server_that_speaks_cql2_is_sent_a_filter(api: Api, site: Site, tmp_path: Path) -> None:
    cloudy = earth_search_sentinel_2("cloudy", "https://s2.example/a.tif", HERE, **{"eo:cloud_cover": 90})
    clear = earth_search_sentinel_2("clear", "https://s2.example/b.tif", HERE, "2025-08-27T16:52:11Z")
    source = StacSource(f"{api.url}/", cache=tmp_path, limits=Limits(max_cloud_percent=20))
    api.serve(cloudy, clear)
    assert [scene.id for scene in source.search(site)] == ["clear"]
    assert "filter" not in api.asked[-1][3]
    api.serve(cloudy, clear, classes=CLASSES + CQL2)
    assert [scene.id for scene in source.search(site)] == ["clear"]
    cloud = {"property": "eo:cloud_cover"}
    wish = {"op": "or", "args": [{"op": "<=", "args": [cloud, 20]}, {"op": "isNull", "args": [cloud]}]}
    assert (api.asked[-1][3]["filter"], api.asked[-1][3]["filter-lang"]) == (wish, "cql2-json")
    # One that knows the language but not the property says so, and is asked without.
    api.answers["/search"] = lambda body: (400, "") if "filter" in body else (200, page_of(cloudy, clear))
    assert [scene.id for scene in source.search(site)] == ["clear"]


def test_a_link_of_an_item_into_a_bucket_stops_no_search(api: Api, site: Site, tmp_path: Path) -> None:
    # As Earth Search writes it.
    item = naip()
    item["links"] = [*item["links"], {"rel": "canonical", "href": "s3://sentinel-cogs/one.json"}]
    item["links"] += [{"rel": "license", "href": "https://[bad"}]
    api.serve(item)
    assert len(StacSource(f"{api.url}/", cache=tmp_path).search(site)) == 1


@pytest.mark.parametrize(
    ("links", "said"), [(5, "holds no image of site"), ([{"rel": "item", "href": "http://[a"}], "no addr")]
)
def test_links_that_are_none_are_said(links: Any, said: str, site: Site, tmp_path: Path) -> None:
    (tmp_path / "catalog.json").write_text(json.dumps({"type": "Catalog", "stac_version": "1.0.0", "links": links}))
    with pytest.raises((NoSceneError, SourceError), match=said):
        StacSource(str(tmp_path), cache=tmp_path).search(site)


def test_limits_of_the_settings_hold_where_none_are_given(api, site, tmp_path, monkeypatch) -> None:
    cloudy = earth_search_sentinel_2("cloudy", "https://s2.example/a.tif", HERE, **{"eo:cloud_cover": 90})
    api.serve(cloudy, naip())
    monkeypatch.setenv("OVERWATT_MAX_CLOUD_PERCENT", "20")
    assert [scene.id for scene in open_source(f"stac:{api.url}/", cache=tmp_path).search(site)] == ["one"]
    given = open_source(f"stac:{api.url}/", cache=tmp_path, limits=Limits(max_cloud_percent=95))
    assert [scene.id for scene in given.search(site)] == ["one", "cloudy"]
    with pytest.raises(SourceError, match="can be limited for STAC sources only"):
        open_source(f"local:{tmp_path}", cache=tmp_path, limits=Limits(20))


def test_pages_without_end_are_given_up_and_said(api: Api, site: Site, tmp_path: Path) -> None:
    api.land(f"{api.url}/search")
    count = iter(range(1000))
    following = {"href": f"{api.url}/search", "method": "POST", "body": {}}
    api.answers["/search"] = lambda body: (
        200,
        page_of(naip(f"n{(n := next(count))}", f"{1950 + n}-06-05"), **following),
    )
    source = StacSource(f"{api.url}/", cache=tmp_path)
    assert len(source.search(site)) == 50
    assert [problem.reason for problem in source.problems] == [
        f"{api.url}/: more items match than 50 pages hold, the rest was not seen; narrow the dates"
    ]
    # The same page again and again holds no more than once.
    api.answers["/search"] = lambda body: (200, page_of(naip("same"), **following))
    asked = len(api.asked)
    assert [scene.id for scene in source.search(site)] == ["same"]
    assert len(api.asked) - asked < 5


def test_a_broken_item_is_a_problem_and_no_hole(api: Api, site: Site, tmp_path: Path) -> None:
    undated, nowhere = naip("undated"), naip("nowhere")
    undated["properties"]["datetime"] = "yesterday"
    nowhere["geometry"] = nowhere["bbox"] = None
    api.serve(undated, nowhere, {"type": "Feature"}, naip("good"))
    source = StacSource(f"{api.url}/", cache=tmp_path)
    assert [scene.id for scene in source.search(site)] == ["good"]
    assert len(source.problems) == 3
    api.serve(undated)
    with pytest.raises(SceneError, match=r"holds no usable scene: .*'datetime' is 'yesterday'"):
        source.search(site)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("roles", True, "'roles' must be a list, each a JSON string"),
        ("type", 7, "'type' must be a JSON string"),
        ("eo:bands", [None], "'eo:bands' must be a list, each a JSON object"),
        ("raster:bands", {}, "'raster:bands' must be a list, each a JSON object"),
    ],
)
def test_a_broken_asset_is_named_with_its_field(api, site, tmp_path, field: str, value: Any, message: str) -> None:
    broken = naip("broken")
    broken["assets"]["image"][field] = value
    api.serve(broken, naip("good", "2021-06-05"))
    source = StacSource(f"{api.url}/", cache=tmp_path)
    assert [scene.id for scene in source.search(site)] == ["good"]
    (problem,) = source.problems
    assert f"asset 'image': {message}" in problem.reason


def test_what_the_api_gives_beyond_the_dates_is_not_taken(api: Api, site: Site, tmp_path: Path) -> None:
    api.serve(naip("old", "2019-06-05"), naip("new", "2023-06-05"))
    source = StacSource(f"{api.url}/", cache=tmp_path)
    assert [scene.id for scene in source.search(site, date(2023, 1, 1))] == ["new"]
    with pytest.raises(
        NoSceneError, match="no scene of site memphis from 2024-01-01 on; it has 2019-06-05, 2023-06-05"
    ):
        source.search(site, date(2024, 1, 1))


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_the_image_among_the_assets_of_real_catalogs(api: Api, site: Site, tmp_path: Path, version: str) -> None:
    naip_item = naip("naip")
    sentinel = earth_search_sentinel_2("S2B_15SYU_20250822_0_L2A", "https://s2.example/TCI.tif", HERE)
    if version == "1.1":
        naip_item, sentinel = version_1_1(naip_item), version_1_1(sentinel)
    api.serve(naip_item, sentinel)
    first, second = StacSource(f"{api.url}/", cache=tmp_path).search(site)
    assert (first.href, first.gsd_m, first.declared.rgb_bands) == ("https://naip.example/naip.tif", 0.6, (1, 2, 3))
    assert (second.href, second.declared.rgb_bands) == ("https://s2.example/TCI.tif", (1, 2, 3))
    # No gsd is stated: the projection extension says how large a pixel is, without a look into the image.
    assert second.gsd_m == pytest.approx(10, rel=1e-3)
    assert (second.cloud_cover_percent, second.sun_elevation_deg) == (3.2, 60.1)


def test_a_preset_says_what_items_do_not(api: Api, site: Site, tmp_path: Path) -> None:
    known = dataclasses.replace(preset("earth-search-sentinel-2"), address=f"{api.url}/")
    sentinel = earth_search_sentinel_2("one", "https://s2.example/TCI.tif", HERE)
    api.serve(sentinel)
    source = StacSource(known.address, cache=tmp_path, name=known.name, preset=known)
    (scene,) = source.search(site)
    assert (scene.source, scene.licence, scene.price) == (known.name, "Copernicus Sentinel data terms", "free")
    assert scene.attribution == "Contains modified Copernicus Sentinel data"
    assert api.asked[-1][3]["collections"] == ["sentinel-2-l2a"]


@pytest.mark.parametrize("name", ["earth-search-sentinel-2", "earth-search-naip", "planetary-computer-naip"])
def test_sources_known_by_name_are_opened_by_it(name: str, tmp_path: Path) -> None:
    source = open_source(name, cache=tmp_path)
    assert isinstance(source, StacSource)
    assert (source.name, source.href, source.collections) == (name, preset(name).address, preset(name).collections)


def test_images_in_buckets_are_read_over_https_or_named(api: Api, site: Site, tmp_path: Path) -> None:
    def in_bucket(href: str, **fields: Any) -> dict[str, Any]:
        item = naip("one")
        item["assets"]["image"] |= {"href": href} | fields
        return item

    source = StacSource(f"{api.url}/", cache=tmp_path)
    public = "s3://sentinel-cogs/sentinel-s2-l2a-cogs/15/S/YU/TCI.tif"
    api.serve(in_bucket(public))
    assert source.search(site)[0].href == (
        "https://sentinel-cogs.s3.us-west-2.amazonaws.com/sentinel-s2-l2a-cogs/15/S/YU/TCI.tif"
    )
    alternate = {"alternate": {"s3": {"href": "s3://b/a.tif"}, "https": {"href": "https://b.example/a.tif"}}}
    api.serve(in_bucket("s3://naip-analytic/tn/a.tif", **alternate))
    assert source.search(site)[0].href == "https://b.example/a.tif"
    api.serve(in_bucket("s3://naip-analytic/tn/a.tif"))
    with pytest.raises(SceneError, match="its image lies in the bucket naip-analytic, which needs a cloud account"):
        source.search(site)
    paid = StacSource(f"{api.url}/", cache=tmp_path, preset=preset("earth-search-naip"))
    with pytest.raises(SceneError) as error:
        paid.search(site)
    assert (
        "STAC item one: its image lies in the requester-pays bucket naip-analytic, which needs a cloud account; copy "
        "it with `aws s3 cp --request-payer requester s3://naip-analytic/tn/a.tif .` and give it as local:PATH"
    ) in str(error.value)
