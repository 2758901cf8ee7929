from pathlib import Path

import pytest

from pipelines.errors import SourceError
from pipelines.scenes.presets import PRESETS, load_presets, preset


def test_every_source_states_licence_price_and_where_that_comes_from() -> None:
    for known in load_presets().values():
        assert known.licence, known.name
        assert known.price in {"free", "requester pays", "priced", "owned"}
        assert known.source
        assert known.address.startswith("https://")


def test_sources_with_restrictive_terms_ask_for_an_acknowledgement() -> None:
    assert preset("wayback").acknowledge


def test_a_slip_of_the_pen_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(SourceError, match="did you mean wayback"):
        preset("waybak")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Copernicus Sentinel data terms", "", "line 2: 'licence' is empty"),
        (",stac,", ",ftp,", "line 2: kind is 'ftp', choose from stac, tiles, wayback"),
        (",10,5 days", ",ten,5 days", "line 2: gsd_m is 'ten'"),
        (
            "earth-search-naip",
            "earth-search-sentinel-2",
            "line 3: the name 'earth-search-sentinel-2' stands there twice",
        ),
    ],
)
def test_broken_rows_are_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    table = tmp_path / "sources.csv"
    table.write_text(PRESETS.read_text().replace(old, new, 1))
    with pytest.raises(SourceError, match=message):
        load_presets(table)
