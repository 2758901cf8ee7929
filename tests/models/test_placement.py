import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.reader.placement import Place, find_place, letters_in
from models.reader.reader import Reader
from models.reader.rectify import rectify
from models.rendering.lettering import LetteringStyle, word_mask
from models.training.train_reader import DEFAULT_OUTPUT
from tests.models.painted_roof import paint, roof, seen

WORD = "MACROHARD"
LETTER_PX = 18.0
LONGEST_PX = 600.0

places = st.builds(
    Place,
    st.floats(-50, 50),
    st.floats(-50, 50),
    length_px=st.floats(20, 200),
    width_px=st.floats(5, 20),
    heading_deg=st.floats(0, 179),
)


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader.load(DEFAULT_OUTPUT, "cpu")


def painted(heading_deg: float, logo: bool = False) -> tuple[np.ndarray, Place]:
    """A roof with a word, and where it lies."""
    image = roof(np.random.default_rng(3), 320, 320)
    mask = word_mask(WORD, LETTER_PX, LetteringStyle(face="aileron", weight=0.16))
    paint(image, mask, 161.3, 158.8, heading_deg, 40)
    place = Place(161.3, 158.8, float(mask.shape[1]), LETTER_PX, heading_deg % 180)
    if logo:
        beside = place.moved(across=1.2)
        cv2.circle(image, (round(beside.x_px), round(beside.y_px)), 7, (40.0, 40.0, 40.0), 3)
    return seen(image), place


def shared(one: Place, other: Place) -> float:
    """Area of both over area of either."""
    boxes = [((p.x_px, p.y_px), (p.length_px, p.width_px), p.heading_deg - 90) for p in (one, other)]
    _, corners = cv2.rotatedRectangleIntersection(*boxes)
    common = 0.0 if corners is None else cv2.contourArea(cv2.convexHull(corners))
    return common / (one.length_px * one.width_px + other.length_px * other.width_px - common)


@pytest.mark.parametrize("heading_deg", [63.0, 200.0])
@pytest.mark.parametrize(
    "fault",
    [
        {"start": -1.4},
        {"end": -1.4},
        {"start": -0.6, "end": -0.6},
        {"start": 1.0, "end": 0.5, "height": 1.5},
        {"across": 0.3},
        {"turn_deg": 6.0},
        {"height": 0.7, "turn_deg": -4.0},
    ],
)
def test_a_word_is_found_from_a_box_that_misses_it(reader: Reader, heading_deg: float, fault: dict[str, float]) -> None:
    image, truth = painted(heading_deg)
    first = truth.moved(**fault)
    place = find_place(reader, image, first, LONGEST_PX)
    [reading] = reader.read([rectify(image, *place, margin=0.0)])
    assert reading.text == WORD
    assert reading.flipped == (heading_deg >= 180)
    assert 0 <= place.heading_deg < 180
    # From all boxes and headings it is 0.78 in the mean; a quarter of a letter's height across costs a third.
    assert shared(letters_in(reader, image, place), truth) > 0.6


def test_a_logo_beside_the_word_is_left_out(reader: Reader) -> None:
    image, truth = painted(63.0, logo=True)
    both = truth.moved(across=0.5, height=2.2)
    assert find_place(reader, image, both, LONGEST_PX).width_px < 1.6 * truth.width_px


def test_a_whole_word_has_more_evidence_than_a_part_or_an_empty_roof(reader: Reader) -> None:
    image, truth = painted(90.0)
    aside = truth.moved(across=4.0)
    crops = [rectify(image, *place, margin=0.0) for place in (truth, truth.moved(start=-1.5), aside)]
    whole, part, nothing = (transcript.evidence for transcript in reader.transcripts(crops))
    assert whole > part > nothing
    assert nothing < 1


def test_no_box_becomes_longer_than_allowed(reader: Reader) -> None:
    image, truth = painted(63.0)
    short = truth._replace(length_px=60.0)
    assert find_place(reader, image, short, 80.0).length_px <= 80.0


@given(places, st.floats(-0.4, 1.2), st.floats(-0.4, 1.2), st.floats(-0.5, 0.5))
def test_moving_there_and_back_changes_nothing(place: Place, start: float, end: float, across: float) -> None:
    there = place.moved(start=start, across=across).moved(end=end)
    back = there.moved(end=-end).moved(start=-start, across=-across)
    if there.length_px > 1.3 * place.width_px:  # shorter boxes are kept at a least length
        assert back == pytest.approx(place, abs=1e-6)


@given(places, st.floats(0.05, 1.0))
def test_an_end_moves_and_the_other_stays(place: Place, share: float) -> None:
    heading = np.deg2rad(place.heading_deg)
    along = np.array([np.sin(heading), -np.cos(heading)])

    def ends(box: Place) -> tuple[np.ndarray, np.ndarray]:
        middle = np.array([box.x_px, box.y_px])
        return middle - along * box.length_px / 2, middle + along * box.length_px / 2

    start, end = ends(place.moved(end=share))
    was_start, was_end = ends(place)
    np.testing.assert_allclose(start, was_start, atol=1e-6)
    np.testing.assert_allclose(end - was_end, along * share * place.width_px, atol=1e-6)
