"""Pictures: what they say can be read in them, they say when imagery was rendered, and they are the same twice."""

import io
from datetime import date

import pytest
from PIL import Image

from pipelines.capacity import estimate, estimate_from_counts
from pipelines.pictures import timeline_picture, waterfall_picture
from pipelines.tables import load_published
from pipelines.timeline import Timeline, timeline
from tests.pipelines.made_up import DRAWS, census, site


def made(rendered: bool = False, of: str = "here") -> Timeline:
    dates = ((date(2025, 8, 22), 60), (date(2025, 10, 19), 119))
    taken = [census(day=day, of=of, rendered=rendered, air_cooled_chiller=count) for day, count in dates]
    return timeline(of, [(site(id=of), taken)], draws=DRAWS)


def test_a_timeline_shows_its_bands_and_what_was_published() -> None:
    alone = timeline_picture(made(), load_published(), "svg").decode()
    assert "IT power, p50 with p5 to p95" in alone
    assert "generation in place, p50" not in alone
    assert ", published" not in alone
    beside = timeline_picture(made(of="colossus-2"), load_published(), "svg").decode()
    assert "IT power, published" in beside
    assert "Epoch AI timeline export 2026-08-07 (CC BY 4.0)" in beside


def test_a_waterfall_ends_in_the_estimate() -> None:
    result = estimate_from_counts(chillers=119, turbines=4, accelerator="GB200", draws=DRAWS)
    assert result.it_mw is not None
    picture = waterfall_picture(result, "svg")
    assert picture is not None
    text = picture.decode()
    assert f"{result.it_mw.p50:,.0f} MW" in text
    assert "allows less" in text
    assert "as GB200" in text


def test_without_it_power_there_is_no_waterfall() -> None:
    assert waterfall_picture(estimate_from_counts(turbines=7, draws=DRAWS)) is None
    assert waterfall_picture(estimate_from_counts(chillers=5, dry_cooler_cells=None, draws=DRAWS)) is None


@pytest.mark.parametrize("rendered", [True, False])
def test_rendered_imagery_is_called_rendered(rendered: bool) -> None:
    implied = estimate(census(rendered=rendered, air_cooled_chiller=50), site(), draws=DRAWS)
    waterfall = waterfall_picture(implied, "svg")
    assert waterfall is not None
    for picture in (timeline_picture(made(rendered), form="svg"), waterfall):
        assert (b"RENDERED IMAGERY" in picture) == rendered


@pytest.mark.parametrize("form", ["png", "svg"])
def test_the_same_estimate_gives_the_same_bytes(form: str) -> None:
    result = estimate_from_counts(chillers=119, draws=DRAWS)
    assert waterfall_picture(result, form) == waterfall_picture(result, form)
    assert timeline_picture(made(), form=form) == timeline_picture(made(), form=form)
    if form == "png":
        with Image.open(io.BytesIO(timeline_picture(made()))) as image:
            assert min(image.size) > 500
