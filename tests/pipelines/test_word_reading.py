"""Words judged against what is painted, with regions and texts whose fate is known."""

from dataclasses import replace

import geopandas as gpd
import numpy as np
import pytest

from models.detector.labels import Labels
from models.rendering.objects import PlacedText
from models.training.chip_pool import PooledChip
from pipelines.lettering import Region
from pipelines.word_reading import judge_words

GSD_M = 0.3


def region(x: float, y: float, length: float = 100, height: float = 24, heading: float = 90) -> Region:
    return Region(x, y, length, height, heading, 0.9)


def found(*rows: tuple[Region, str | None, float]) -> gpd.GeoDataFrame:
    regions, texts, probabilities = zip(*rows, strict=True)
    columns = {"text": np.array(texts, dtype=object), "probability": probabilities}
    return gpd.GeoDataFrame(columns, geometry=[one.outline for one in regions])


def chip(*words: tuple[str, float, float, float]) -> PooledChip:
    """Words of text, centre and letter height, 100 px long, read to the right."""
    texts = [PlacedText(text, x, y, 100, height, 90) for text, x, y, height in words]
    image = np.zeros((448, 448, 3), np.uint8)
    return PooledChip(image, Labels.of(texts=texts), 0.3, tuple(text for text, *_ in words))


def test_each_word_is_exact_refused_wrong_or_missed() -> None:
    scene = chip(("ALPHA", 100, 50, 24), ("BRAVO", 100, 120, 24), ("CHARLIE", 100, 190, 24), ("DELTA", 100, 260, 24))
    frame = found(
        (region(105, 52), "ALPHA", 0.9),
        (region(105, 122), None, 0.9),
        (region(105, 192), "CHARLES", 0.9),
        # Too improbable for a census, and beside the word.
        (region(105, 260), "DELTA", 0.3),
        (region(175, 262), "DELTA", 0.9),
    )
    outcomes, nowhere = judge_words(frame, scene, GSD_M)
    assert outcomes == ["exact", "refused", "wrong", "missed"]
    assert nowhere == 0


def test_the_most_probable_region_is_what_is_read() -> None:
    frame = found((region(100, 50), "ALPHA", 0.6), (region(100, 50, 120), "ALPHAS", 0.8))
    assert judge_words(frame, chip(("ALPHA", 100, 50, 24)), GSD_M)[0] == ["wrong"]


def test_small_and_cut_words_are_not_scored_and_texts_beside_all_words_are() -> None:
    # Letters of 16 px are 4.8 m; a word of 100 px at 50 px ends at the edge.
    scene = chip(("SMALL", 200, 50, 16), ("CUT", 50, 200, 24), ("WHOLE", 200, 300, 24))
    frame = found(
        (region(50, 200), "CU", 0.9), (region(200, 50, height=16), "SMALL", 0.9), (region(300, 400), "GHOST", 0.9)
    )
    assert judge_words(frame, scene, GSD_M) == (["missed"], 1)
    assert judge_words(frame.iloc[:0], chip(), GSD_M) == ([], 0)
    faint = Labels.of(faint=[PlacedText("GHOST", 300, 400, 100, 24, 90)])
    assert judge_words(frame.iloc[2:], replace(scene, labels=faint, words=()), GSD_M) == ([], 0)


@pytest.mark.parametrize("heading", [0, 90, 200])
def test_words_are_found_whichever_way_they_run(heading: float) -> None:
    texts = Labels.of(texts=[PlacedText("ALPHA", 200, 200, 100, 24, heading)])
    scene = PooledChip(np.zeros((448, 448, 3), np.uint8), texts, 0.3, ("ALPHA",))
    seen = found((region(200, 200, heading=heading % 180), "ALPHA", 0.9))
    assert judge_words(seen, scene, GSD_M)[0] == ["exact"]
    turned = found((region(200, 200, heading=(heading + 90) % 180), "ALPHA", 0.9))
    assert judge_words(turned, scene, GSD_M)[0] == ["missed"]
