"""The model card describes the weights that lie beside it."""

from models.training.model_card import REAL, WEIGHTS, model_card
from models.weights_file import load_weights


def test_the_page_is_what_the_weights_say() -> None:
    detector, reader = (load_weights(WEIGHTS / f"{name}.safetensors")[1] for name in ("detector", "reader"))
    assert (WEIGHTS / "MODEL_CARD.md").read_text() == model_card(detector, reader, REAL)


def test_the_weights_stay_small() -> None:
    assert sum(path.stat().st_size for path in WEIGHTS.glob("*.safetensors")) < 30e6
