"""The model card describes the weights that lie beside it, and what was measured of them."""

from models.training.model_card import MEASURED, PICTURE, WEIGHTS, model_card, read_measured
from models.weights_file import load_weights


def test_the_page_is_what_the_weights_and_their_measurement_say() -> None:
    measured = read_measured(WEIGHTS / MEASURED)
    detector, reader = (load_weights(WEIGHTS / f"{name}.safetensors")[1] for name in ("detector", "reader"))
    page = model_card(detector, reader, measured)
    assert (WEIGHTS / "MODEL_CARD.md").read_text() == page
    assert (WEIGHTS / PICTURE).is_file() == (measured is not None) == (f"]({PICTURE})" in page)


def test_weights_trained_for_steps_and_on_corrected_labels_have_a_page() -> None:
    detector, reader = (load_weights(WEIGHTS / f"{name}.safetensors")[1] for name in ("detector", "reader"))
    labels = {"scene": "roof.tif", "licence": None, "rendered": False, "units": {"battery": 3}}
    recipe = detector["recipe"] | {"minutes": None, "steps": 1500, "steps_made": 1500, "corrected_labels": [labels]}
    recipe["start_recipe"] = recipe | {"steps_made": 700, "start_recipe": None}
    page = model_card(detector | {"recipe": recipe}, reader, None)
    assert "1,500 steps on a CPU" in page
    assert "for 700 steps." in page
    assert page.count("corrected on the scene roof.tif (licence unknown) were trained on as well: 3 battery.") == 2


def test_the_weights_stay_small() -> None:
    assert sum(path.stat().st_size for path in WEIGHTS.glob("*.safetensors")) < 30e6
