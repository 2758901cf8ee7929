"""Reference data: from a real server to a snapshot, its traps, and what is said when it cannot be had."""

import contextlib
import io
import socket
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipelines import reference
from pipelines.errors import ReferenceDataError, SiteError, SourceError
from pipelines.reference import build_speeds, compare, load_snapshot, refresh, site_from_reference
from pipelines.settings import ROOT
from pipelines.sites import load_site
from pipelines.tables import load_places
from pipelines.timeline import timeline
from tests.pipelines.made_up import DRAWS, census, site

TODAY = date(2026, 8, 7)
SHARED = ROOT.parent / "shared" / "reference" / "epoch"

SITES = """\ufeffName,Current H100 equivalents,Current power (MW),Owner,Country,Address,Selected Sources
Colossus 2,1111672.6,946,SpaceXAI #confident,United States,"5420 Tulane Rd, Memphis, TN 38109","- [one](https://a.example)
- [two](https://b.example)"
Nowhere,,,Nobody #speculative,,,
"""
TIMELINES = """\
\ufeffData center,Date,Construction status,Buildings operational,H100 equivalents,IT power (MW),Power (MW)
Colossus 2,2025-10-19,"Looks complete,
on two lines",1.0,"277,918.1",239.0,323.0
Colossus 2,2025-02-28,Land clearing,0.0,0,0.0,0.0
Colossus 2,2027-02-25,Projected,3.0,1824153.6,1531.0,2065.0
Nowhere,,no date yet,,,,
"""
CHIPS = """\ufeffHandle,Data center,Date,Chip type,Number of Units,Notes
a,Colossus 2,2025-10-19,B200,110000.0,
b,Colossus 2,2025-10-19,B200,10.0,a second row of the same type
c,Colossus 2,2027-02-25,B300,,
"""


def export(**changed: str) -> bytes:
    """The zip file as the makers pack it: in a folder, with a table nobody needs."""
    tables = {
        "data_centers": SITES,
        "data_center_timelines": TIMELINES,
        "data_center_chip_quantities": CHIPS,
        "data_center_chillers": "Model\n",
    } | changed
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, text in tables.items():
            if text:
                archive.writestr(f"data_centers/{name}.csv", text)
    return packed.getvalue()


@dataclass
class Server:
    """A web server on loopback."""

    url: str = ""
    answers: list[tuple[int, bytes]] = field(default_factory=list)
    """Given in turn, the last for ever."""
    asked: int = 0


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server(answers=[(200, export())])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = state.answers[min(state.asked, len(state.answers) - 1)]
            state.asked += 1
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # who has had enough hangs up
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        state.url = f"http://127.0.0.1:{listening.server_port}/data_centers.zip?key=secret"
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield state
        listening.shutdown()
        thread.join()


def test_an_export_becomes_a_dated_snapshot(server: Server, tmp_path: Path) -> None:
    snapshot = refresh(tmp_path, server.url, TODAY)
    assert snapshot.retrieved == TODAY
    assert "secret" not in snapshot.url + (snapshot.folder / "snapshot.json").read_text()
    colossus = snapshot.site("colossus 2")
    assert (colossus.owner, colossus.address) == ("SpaceXAI", "5420 Tulane Rd, Memphis, TN 38109")
    assert [point.date for point in colossus.points] == [date(2025, 2, 28), date(2025, 10, 19), date(2027, 2, 25)]
    point = colossus.points[1]
    # IT and facility power from their own columns, never from "Current power".
    assert (point.it_mw, point.facility_mw, point.h100_equivalents) == (239, 323, 277918.1)
    assert point.status == "Looks complete,\non two lines"
    assert point.chips == {"B200": 110010}
    assert snapshot.site("Nowhere").points == ()
    assert load_snapshot(tmp_path) == snapshot


def test_the_latest_snapshot_counts_and_one_of_today_is_replaced(server: Server, tmp_path: Path) -> None:
    refresh(tmp_path, server.url, date(2026, 1, 1))
    refresh(tmp_path, server.url, TODAY)
    changed = TIMELINES.replace("239.0", "240.0")
    server.answers = [(200, export(data_center_timelines=changed))]
    again = refresh(tmp_path, server.url, TODAY)
    assert again.site("Colossus 2").points[1].it_mw == 240
    assert load_snapshot(tmp_path) == again
    assert sorted(path.name for path in (tmp_path / "reference").iterdir()) == ["2026-01-01", "2026-08-07"]


def test_a_server_that_stumbles_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.answers = [(503, b""), (200, export())]
    assert refresh(tmp_path, server.url, TODAY).sites
    assert server.asked == 2


def test_without_network_it_says_which_snapshot_stays(server: Server, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        gone = f"http://127.0.0.1:{free.getsockname()[1]}/x.zip"
        with pytest.raises(SourceError, match=r"cannot be reached .*there is no snapshot yet"):
            refresh(tmp_path, gone, TODAY)
        refresh(tmp_path, server.url, TODAY)
        with pytest.raises(SourceError, match="the snapshot of 2026-08-07 stays in use"):
            refresh(tmp_path, gone, date(2026, 9, 1))
    assert load_snapshot(tmp_path).retrieved == TODAY


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"<html>Too many requests</html>", "is not the zip file of tables"),
        (export()[:-200], "is not the zip file of tables"),
        (export()[:60] + bytes(200) + export()[260:], "is not the zip file of tables"),
        (export(data_center_timelines=""), "lacks data_center_timelines.csv"),
        (
            export(data_center_timelines=TIMELINES.replace("IT power (MW)", "Power of IT")),
            r"data_center_timelines.csv lacks the column 'IT power \(MW\)'",
        ),
        (export(data_center_timelines=TIMELINES.replace("323.0", "about 323")), "line 3: Power .* got 'about 323'"),
        (export(data_center_timelines=TIMELINES.replace("2025-02-28", "28.2.2025")), "Date must be a date"),
        (export(data_center_chip_quantities=CHIPS.splitlines()[0] + "\n"), "has no rows"),
    ],
)
def test_what_is_not_the_export_is_refused_and_not_kept(
    answer: bytes, message: str, server: Server, tmp_path: Path
) -> None:
    server.answers = [(200, answer)]
    with pytest.raises(ReferenceDataError, match=message):
        refresh(tmp_path, server.url, TODAY)
    with pytest.raises(ReferenceDataError, match="there is no snapshot"):
        load_snapshot(tmp_path)
    assert list(tmp_path.glob("reference/*")) == []


def test_more_than_the_export_is_not_taken(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "_MOST_MB", 0)
    with pytest.raises(SourceError, match="it has over 0 MB"):
        refresh(tmp_path, server.url, TODAY)


def test_a_damaged_snapshot_is_named(server: Server, tmp_path: Path) -> None:
    snapshot = refresh(tmp_path, server.url, TODAY)
    (snapshot.folder / "data_centers.csv").unlink()
    with pytest.raises(ReferenceDataError, match=r"2026-08-07 is damaged .*run overwatt reference refresh"):
        load_snapshot(tmp_path)


def test_an_unknown_name_comes_with_those_like_it(server: Server, tmp_path: Path) -> None:
    snapshot = refresh(tmp_path, server.url, TODAY)
    with pytest.raises(ReferenceDataError, match="tracks no site 'Colosus 2'; did you mean Colossus 2"):
        snapshot.site("Colosus 2")


def test_estimates_stand_beside_what_the_reference_knew_by_then(server: Server, tmp_path: Path) -> None:
    snapshot = refresh(tmp_path, server.url, TODAY)
    dates = ((date(2024, 1, 1), 0), (date(2025, 3, 1), 5), (date(2026, 1, 1), 121), (date(2028, 1, 1), 121))
    taken = [census(day=day, air_cooled_chiller=chillers) for day, chillers in dates]
    ours = timeline("here", [(site(), taken)], draws=DRAWS)
    compared = {(one.date.year, one.figure): one for one in compare(ours, "Colossus 2", snapshot)}
    # Nothing is known of 2024; a projection is no reference.
    assert {year for year, _ in compared} == {2025, 2026, 2028}
    assert compared[2025, "it_mw"].factor is None
    for year in (2026, 2028):
        one = compared[year, "it_mw"]
        assert (one.reference, one.reference_date) == (239, date(2025, 10, 19))
        assert one.factor == pytest.approx(one.estimated.p50 / 239)
        assert one.inside
    assert compared[2026, "h100_equivalents"].factor == pytest.approx(0.9, abs=0.15)


def test_build_speed_is_known_as_well_as_the_dates_tell(server: Server, tmp_path: Path) -> None:
    snapshot = refresh(tmp_path, server.url, TODAY)
    [speed] = build_speeds(snapshot)
    assert (speed.site, speed.begun) == ("Colossus 2", date(2025, 2, 28))
    months = (date(2025, 10, 19) - speed.begun).days / 30.4375
    # Projected megawatts are not reached.
    assert speed.months == {100: (0.0, months), 200: (0.0, months), 500: None}


def test_a_tracked_site_becomes_a_site_file(server: Server, tmp_path: Path) -> None:
    snapshot = refresh(tmp_path, server.url, TODAY)
    made = site_from_reference("openai stargate abilene", tmp_path / "aoi", None)
    assert made.id == "openai-stargate-abilene"
    assert (made.reference_name, made.perimeter_quality) == ("OpenAI Stargate Abilene", "proxy")
    [place] = [place for place in load_places() if place.name == made.reference_name]
    centre = made.perimeter.centroid
    assert (centre.x, centre.y) == pytest.approx((place.longitude_deg, place.latitude_deg), abs=1e-6)
    assert load_site(made.id, tmp_path / "aoi") == made
    second = site_from_reference("Colossus 2", tmp_path / "aoi", snapshot, "second")
    assert (second.id, second.operator, second.address[:4]) == ("second", "SpaceXAI", "5420")
    with pytest.raises(SiteError, match="already exists"):
        site_from_reference("Colossus 2", tmp_path / "aoi", snapshot, "second")
    with pytest.raises(ReferenceDataError, match="no coordinates of 'Colosus 2'; did you mean Colossus 2"):
        site_from_reference("Colosus 2", tmp_path / "aoi", None)


def test_every_place_is_on_land_we_can_name() -> None:
    places = load_places()
    assert len(places) >= 70
    assert len({place.name for place in places}) == len(places)
    assert all(-60 < place.latitude_deg < 72 and -180 <= place.longitude_deg <= 180 for place in places)
    assert min(place.longitude_deg for place in places) < -100


@pytest.mark.skipif(not SHARED.is_dir(), reason="the export of 2026-08-07 is not on this machine")
def test_the_export_of_august_2026_parses(server: Server, tmp_path: Path) -> None:
    files = {path.stem: path.read_text(encoding="utf-8-sig") for path in SHARED.glob("*.csv")}
    server.answers = [(200, export(**files))]
    snapshot = refresh(tmp_path, server.url, TODAY)
    assert len(snapshot.sites) == 75
    colossus = {point.date: point for point in snapshot.site("Colossus 2").points}
    assert (colossus[date(2026, 6, 15)].it_mw, colossus[date(2026, 6, 15)].facility_mw) == (946, 1276)
    speeds = {speed.site: speed for speed in build_speeds(snapshot)}
    below, reached = speeds["Colossus 2"].months[200] or (0.0, 0.0)
    assert (round(below), round(reached)) == (6, 8)
    assert len(speeds) > 10
    named = {place.name for place in load_places()}
    assert len(named & set(snapshot.sites)) >= 70
    here = replace(load_site("colossus-2", ROOT / "aoi"))
    assert here.reference_name in snapshot.sites
