"""`overwatt label` and `overwatt train --labels`: detections to a file that a person corrects, and back to training."""

import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows import progress
from flows.instruments import instruments
from models.classes import CLASSES
from pipelines.errors import InputError, SceneError
from pipelines.scenes.georeference import is_there, open_raster
from pipelines.settings import Settings

if TYPE_CHECKING:
    from models.training.corrections import Corrected


@dataclass(frozen=True)
class LabelFile:
    """What `overwatt label` wrote."""

    path: Path
    scene: Path
    rendered: bool
    licence: str | None
    native_gsd_m: float
    detections: Mapping[str, int]
    """By class."""
    not_given: Mapping[str, str]
    model_version: str

    def as_record(self) -> dict[str, Any]:
        """What `--json` prints."""
        record = {name: getattr(self, name) for name in self.__dataclass_fields__}
        paths = {"path": str(self.path), "scene": str(self.scene)}
        return record | paths | {"next": list(self.next_steps)}

    @property
    def next_steps(self) -> tuple[str, ...]:
        """What a person does now, a line each."""
        return (
            f"open {self.scene} and {self.path} in QGIS; in the layer labels delete what is false, draw what is "
            "missing (around each unit, the box is made from it), correct class and status, and save",
            "in the layer reviewed, make the polygon as small as the ground that you have looked at",
            shlex.join(["overwatt", "train", "--labels", str(self.path), "--scene", str(self.scene)]),
        )


def label_to_file(
    scene: Path,
    *,
    output: Path | None,
    weights: Path | None,
    licence: str | None,
    min_probability: float,
    overwrite: bool,
    device: str,
) -> LabelFile:
    """Detect in one georeferenced image and write the file to correct.

    :raises InputError: the image, an option or the place to write is at fault
    """
    target = output or Path(f"{scene.stem}.labels.gpkg")
    if not is_there(scene):
        raise SceneError(f"{scene} does not exist")
    if not scene.is_file():
        raise SceneError(f"{scene} is no file: name one image")

    from pipelines.detection import detect_in_raster
    from pipelines.label_file import refuse_existing, write_label_file
    from pipelines.labels import identify, refuse_coarse
    from pipelines.single_raster import open_single

    refuse_existing(target, overwrite)
    with open_raster(scene):
        pass  # a label lies on the ground: an image without a place is refused, before the weights are loaded
    detectors, reader = instruments(device, weights)
    with open_single(scene, detector_gsd_m=detectors[0].gsd_m, cache=Settings().cache) as image:
        refuse_coarse(image.name, image.native_gsd_m)
        found = detect_in_raster(
            image.gridded,
            None,
            detectors,
            reader,
            native_gsd_m=image.native_gsd_m,
            coverage=image.coverage,
            min_probability=min_probability,
            progress=lambda done, total: progress.report(f"{image.name}: windows", done, total),
        )
        identity = identify(scene, image, licence)
        write_label_file(target, identity, image, found)
    counts = Counter(found.frame["class"])
    return LabelFile(
        path=target,
        scene=scene,
        rendered=identity.rendered,
        licence=identity.licence,
        native_gsd_m=identity.native_gsd_m,
        detections={name: counts[name] for name in CLASSES if name not in found.not_given},
        not_given=found.not_given,
        model_version=found.model_version,
    )


def read_pairs(
    labels: Sequence[Path], scenes: Sequence[Path], report: Callable[[str, int, int], None]
) -> tuple["Corrected", ...]:
    """Read label files with their scenes, paired in order.

    :raises InputError: there are not as many of one as of the other, two are of one image, or a pair is at fault
    """
    if len(labels) != len(scenes):
        raise InputError(
            f"--labels is given {len(labels)} times and --scene {len(scenes)} times: give each label file with its "
            "scene, in the same order"
        )
    from models.detector.detector import GSD_M
    from pipelines.labels import held_out_ground, read_corrected

    cache = Settings().cache
    # Of one place on several dates, none may teach what another is measured on.
    measured_on = [
        held_out_ground(file, scene, detector_gsd_m=GSD_M, cache=cache)
        for file, scene in zip(labels, scenes, strict=True)
        if len(labels) > 1
    ]
    read: list[Corrected] = []
    for number, (file, scene) in enumerate(zip(labels, scenes, strict=True)):
        report(f"reading {file.name}", number, len(labels))
        elsewhere = [ground for other, ground in enumerate(measured_on) if other != number]
        one = read_corrected(file, scene, detector_gsd_m=GSD_M, cache=cache, elsewhere=elsewhere)
        for earlier, earlier_file in zip(read, labels, strict=False):
            if earlier.about["scene_sha256"] == one.about["scene_sha256"]:
                # What one file holds out the other may train on.
                raise InputError(
                    f"--labels {earlier_file} and --labels {file} are of one image, {scene.name}: copy the labels and "
                    "the reviewed ground of both into one file"
                )
        read.append(one)
    return tuple(read)
