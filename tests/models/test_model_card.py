"""The model card describes the weights that lie beside it, and what was measured of them."""

from models.training.model_card import MEASURED, PICTURE, WEIGHTS, model_card, read_measured
from models.weights_file import load_weights


def test_the_page_is_what_the_weights_and_their_measurement_say() -> None:
    measured = read_measured(WEIGHTS / MEASURED)
    detector, reader = (load_weights(WEIGHTS / f"{name}.safetensors")[1] for name in ("detector", "reader"))
    page = model_card(detector, reader, measured)
    assert (WEIGHTS / "MODEL_CARD.md").read_text() == page
    assert (WEIGHTS / PICTURE).is_file() == (measured is not None) == (f"]({PICTURE})" in page)


def test_the_weights_stay_small() -> None:
    assert sum(path.stat().st_size for path in WEIGHTS.glob("*.safetensors")) < 30e6
