"""What merging does to a count: a detector without error in every tile, and what a program makes of its tiles.

In comes the name of a program, run in the environment that has it (the project's for `overwatt`, else the peers'); out
comes a line of JSON for each angle that the rows of units are turned by. A tile's detector gives each unit of which at
least half lies in the tile, as the bounds of the part that does, scored by the part's share of the unit: the merge is
told which of two boxes is the whole one. Cutting into tiles, moving boxes and merging them is the program's own code
with its own defaults. Of the peers' images each pixel says where it is, which is how their detector knows its tile.
"""

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
import shapely
from rows import Units, units

ANGLES_DEG = (0, 15, 30, 45)
WINDOWS_PX = (512, 1024)
_VISIBLE = 0.5


@dataclass(frozen=True)
class Merged:
    """What became of the units."""

    who: str
    counted: int
    more: dict[str, float]
    """Further figures."""


class Tiles:
    """The detector of a peer's tiles: boxes as (left, top, right, bottom) in the tile, and their scores."""

    def __init__(self, true: Units) -> None:
        self._outlines = shapely.polygons(true.corners())
        self._areas = shapely.area(self._outlines)
        self._tree = shapely.STRtree(self._outlines)

    def seen(self, tile: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Of a tile (h, w, 3) of an image by `where`."""
        high, low_x, low_y = (int(value) for value in tile[0, 0])
        left, top = high // 16 * 256 + low_x, high % 16 * 256 + low_y
        return self.seen_in(left, top, tile.shape[1], tile.shape[0])

    def seen_in(
        self, left: int, top: int, width: int, height: int
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Of the tile at a place."""
        frame = shapely.box(left, top, left + width, top + height)
        near = np.sort(self._tree.query(frame, predicate="intersects"))
        parts = shapely.intersection(self._outlines[near], frame)
        share = shapely.area(parts) / self._areas[near]
        enough = share >= _VISIBLE
        boxes = shapely.bounds(parts[enough]) - (left, top, left, top)
        return boxes.astype(np.float32), share[enough].astype(np.float32).clip(0, 1)


def where(side_px: int) -> npt.NDArray[np.uint8]:
    """A square image whose pixels hold their own column and row, 12 bits each."""
    y, x = np.mgrid[:side_px, :side_px]
    return np.stack([x // 256 * 16 + y // 256, x % 256, y % 256], axis=-1).astype(np.uint8)


def sahi(true: Units) -> Iterator[Merged]:
    """Slices of 512 px with 20% overlap, merged by default (greedily, over half the smaller box) and by NMS.

    The further pass over the whole image at once is left out: shrunk to a tile, it shows no unit.
    """
    from sahi.models.base import DetectionModel
    from sahi.predict import get_sliced_prediction
    from sahi.prediction import ObjectPrediction

    tiles = Tiles(true)

    class Perfect(DetectionModel):
        def load_model(self) -> None:
            self.model = tiles

        def perform_inference(self, image: npt.NDArray[np.uint8]) -> None:
            self._original_predictions = tiles.seen(image)

        def _create_object_prediction_list_from_original_predictions(
            self, shift_amount_list: list[list[int]], full_shape_list: list[list[int]]
        ) -> None:
            boxes, scores = self._original_predictions
            self._object_prediction_list_per_image = [
                [
                    ObjectPrediction(
                        bbox=box,
                        score=score,
                        category_id=0,
                        category_name="unit",
                        shift_amount=shift_amount_list[0],
                        full_shape=full_shape_list[0],
                    )
                    for box, score in zip(boxes.tolist(), scores.tolist(), strict=True)
                ]
            ]

    image, model = where(true.side_px), Perfect(device="cpu")
    for name, merge in (
        ("", {}),
        (", NMS", {"postprocess_type": "NMS", "postprocess_match_metric": "IOU"}),
    ):
        found = get_sliced_prediction(
            image, model, slice_height=512, slice_width=512, perform_standard_pred=False, verbose=0, **merge
        )
        yield Merged(f"sahi {version('sahi')}{name}", len(found.object_prediction_list), {})


def deepforest(true: Units) -> Iterator[Merged]:
    """`predict_tile` as it comes: patches of 400 px with 5% overlap, NMS at an IoU of 0.15."""
    import torch
    from deepforest import main

    tiles = Tiles(true)

    class Perfect(torch.nn.Module):
        def forward(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
            found = []
            for image in images:
                boxes, scores = tiles.seen((image * 255).round().byte().permute(1, 2, 0).numpy())
                labels = torch.zeros(len(boxes), dtype=torch.int64)
                found.append({"boxes": torch.from_numpy(boxes), "scores": torch.from_numpy(scores), "labels": labels})
            return found

    model = main.deepforest(
        model=Perfect(), config_args={"num_classes": 1, "workers": 0, "accelerator": "cpu", "batch_size": 1}
    )
    model.set_labels({"Tree": 0})
    model.create_trainer(logger=False, enable_progress_bar=False, enable_model_summary=False)
    found = model.predict_tile(image=where(true.side_px))
    yield Merged(f"deepforest {version('deepforest')}", len(found), {})


def rastervision(true: Units) -> Iterator[Merged]:
    """`ObjectDetectionLabels` of chips as its options have them by default: 300 px, half a chip apart, NMS at 0.5."""
    from rastervision.core.box import Box
    from rastervision.core.data import ObjectDetectionLabels
    from rastervision.core.rv_pipeline import ObjectDetectionPredictOptions

    tiles, options = Tiles(true), ObjectDetectionPredictOptions()
    chips = Box(0, 0, true.side_px, true.side_px).get_windows(options.chip_sz, options.stride)

    def predictions() -> Iterator[dict[str, npt.NDArray]]:
        for chip in chips:
            boxes, scores = tiles.seen_in(chip.xmin, chip.ymin, chip.width, chip.height)
            yield {"boxes": boxes[:, [1, 0, 3, 2]], "class_ids": np.zeros(len(boxes), int), "scores": scores}

    labels = ObjectDetectionLabels.from_predictions(chips, predictions())
    labels = ObjectDetectionLabels.prune_duplicates(labels, options.score_thresh, options.merge_thresh)
    yield Merged(f"rastervision {version('rastervision-core')}", len(labels), {})


def overwatt(true: Units) -> Iterator[Merged]:
    """The engine over a GeoTIFF, with windows of two sizes; also how far a unit is from where it stands, at most."""
    from perfect import PerfectDetector, found_in, paint
    from scipy.spatial import cKDTree

    detector = PerfectDetector(true.length_px, true.width_px, true.heading_deg)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.tif"
        paint(path, true.centres, true.side_px)
        for window_px in WINDOWS_PX:
            peaks = found_in(path, detector, window_px)[0].peaks
            distance_px, _ = cKDTree(np.column_stack([peaks.x_px, peaks.y_px])).query(true.centres)
            more = {"windows_px": window_px, "max_position_error_px": round(float(distance_px.max()), 4)}
            yield Merged("overwatt", len(peaks), more)


PROGRAMS: dict[str, Callable[[Units], Iterator[Merged]]] = {
    "sahi": sahi,
    "deepforest": deepforest,
    "rastervision": rastervision,
    "overwatt": overwatt,
}


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program", choices=PROGRAMS)
    parser.add_argument("--angles", type=float, nargs="+", default=ANGLES_DEG, help="degrees clockwise")
    arguments = parser.parse_args()
    for angle_deg in arguments.angles:
        true = units(angle_deg)
        # The libraries print what they are doing; standard output is for the figures alone.
        with contextlib.redirect_stdout(sys.stderr):
            results = list(PROGRAMS[arguments.program](true))
        for merged in results:
            count = len(true.centres)
            figures = {
                "who": merged.who,
                "angle_deg": angle_deg,
                "true": count,
                "counted": merged.counted,
                "error_percent": round(100 * (merged.counted - count) / count, 2),
                **merged.more,
            }
            print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
