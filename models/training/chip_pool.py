"""Rendered chips on disk: made once by two processes, kept as files, read whole into memory for training."""

import json
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from models.detector.labels import Labels
from models.errors import InputError
from models.rendering.chips import Split, render_chip

_WORKERS = 2
_VALIDATION_SEEDS = 500_000_000
"""Added to a validation chip's seed, so that no seed serves both splits."""
HOLD_OUT = 5
"""Every fifth background file, in order of name, is kept for evaluation and never trained on."""


@dataclass(frozen=True)
class PooledChip:
    """One chip with its labels as tables."""

    image: np.ndarray
    """uint8 (H, W, 3) at 0.30 m."""
    labels: Labels
    native_gsd_m: float
    words: tuple[str, ...] = ()
    """Text of each row of `labels.texts`; empty where the file is older than the texts are kept."""
    kin: np.ndarray | None = None
    """bool, by row of `labels.objects`, see `PlacedObject.kin`; None where the file is older than it is kept, and on
    real imagery, whose labels know no kin."""

    @property
    def scored(self) -> Labels:
        """The labels that detections are judged by: what lies on kin is neither right nor wrong, whatever its class."""
        if self.kin is None:
            return self.labels
        objects, ignored = self.labels.objects, self.labels.ignored
        return replace(self.labels, objects=objects[~self.kin], ignored=np.concatenate([ignored, objects[self.kin]]))


@dataclass(frozen=True)
class PoolRecipe:
    """What the chips of a pool depend on."""

    seed: int
    size_px: int
    backgrounds: str
    """Folder of background files, or empty."""
    native_gsd_m: tuple[float, float] | None = None
    """Range of the native GSD; None: all that imagery comes in."""
    left_out: tuple[str, ...] = ()
    """Background files, without suffix, that are not used."""
    named_roof: bool = False
    """Each chip shows a roof with a painted name, see `models.rendering.layouts.named_roof`."""

    def as_record(self) -> dict[str, Any]:
        """For JSON; what is not set is left out, so that pools of before it could be set stay what they are."""
        record = json.loads(json.dumps(asdict(self)))
        return {name: value for name, value in record.items() if value not in (None, []) and value is not False}


def split_backgrounds(folder: Path | None, leave_out: Sequence[str] = ()) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Background files for training and those held out for evaluation; both empty without a folder.

    `leave_out` names files, without suffix, that do show equipment and are in neither. Raises `InputError` for a folder
    without images and for a name that is not there.
    """
    images = () if folder is None else sorted(folder.glob("*"))
    files = [path for path in images if path.suffix.lower() in {".jpg", ".jpeg", ".png"}]
    if folder is not None and not files:
        raise InputError(f"Background folder {folder} holds no .jpg or .png file: name one that does.")
    absent = sorted(set(leave_out) - {path.stem for path in files})
    if absent:
        where = "without --backgrounds there is" if folder is None else f"{folder} holds"
        raise InputError(f"--leave-out {absent[0]}: {where} no image of that name: take it out.")
    # Which are held out does not depend on what is left out.
    used = [(number % HOLD_OUT == 0, path) for number, path in enumerate(files) if path.stem not in leave_out]
    return tuple(path for held_out, path in used if not held_out), tuple(path for held_out, path in used if held_out)


def render_pool(
    folder: Path,
    recipe: PoolRecipe,
    chips: int,
    split: Split,
    backgrounds: Sequence[Path],
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Render the chips that `folder` lacks and return the paths of all, in order.

    A chip is a function of the recipe, the split and its number, so a broken-off run goes on where it stopped. A folder
    made with another recipe is refused with `InputError`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / "recipe.json"
    if note.exists():
        if json.loads(note.read_text()) != recipe.as_record():
            raise InputError(f"Chip pool {folder} was rendered with another recipe: give another working folder.")
    else:
        note.write_text(json.dumps(recipe.as_record()))
    paths = [folder / f"{split}-{number:06d}.npz" for number in range(chips)]
    first_seed = recipe.seed * 1_000_000 + (_VALIDATION_SEEDS if split == "validation" else 0)
    jobs = [
        (path, recipe, first_seed + number, split, tuple(backgrounds))
        for number, path in enumerate(paths)
        if not path.exists()
    ]
    done = chips - len(jobs)
    if jobs:
        # Spawned, not forked: a fork of a process that has used torch's threads can hang.
        workers = min(_WORKERS, len(jobs))
        with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_single_thread) as pool:
            for _ in pool.map(_render_to_file, jobs, chunksize=4):
                done += 1
                if progress is not None:
                    progress(done, chips)
    return paths


def read_chip(path: Path) -> PooledChip:
    """A chip from its file."""
    with np.load(path) as file:
        labels = Labels(file["objects"], file["texts"], file["ignored"])
        if "unseen" in file:
            labels = replace(labels, unseen=file["unseen"])
        words = tuple(str(word) for word in file["words"]) if "words" in file else ()
        kin = file.get("kin")
        return PooledChip(file["image"], labels, float(file["native_gsd_m"]), words, kin)


def read_background(path: Path, size_px: int) -> np.ndarray:
    """A background image as uint8 (size_px, size_px, 3) RGB, mirrored at the edge where it is a pixel too small."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise InputError(f"Background {path} is not a readable image: remove it from the folder.")
    image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)[:size_px, :size_px]
    below, right = size_px - image.shape[0], size_px - image.shape[1]
    return cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_REFLECT)


def _single_thread() -> None:
    cv2.setNumThreads(1)


def _render_to_file(job: tuple[Path, PoolRecipe, int, Split, tuple[Path, ...]]) -> None:
    path, recipe, seed, split, backgrounds = job
    chip = render_chip(seed, recipe.size_px, split, backgrounds, recipe.native_gsd_m, named=recipe.named_roof)
    labels = Labels.of(chip.objects, chip.texts, chip.ignored, chip.faint)
    beside = path.with_name(f".{path.stem}.{os.getpid()}.npz")
    np.savez(
        beside,
        image=chip.image,
        objects=labels.objects,
        texts=labels.texts,
        ignored=labels.ignored,
        unseen=labels.unseen,
        kin=np.array([unit.kin for unit in chip.objects], dtype=bool),
        native_gsd_m=np.float64(chip.native_gsd_m),
        words=np.array([word.text for word in chip.texts], dtype=str),
    )
    beside.replace(path)
