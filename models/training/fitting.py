"""The training loop: batches prepared one step ahead, weights averaged, stopped and resumed at any time.

The batch of a step is a function of the seed and the step alone, so a run that was killed and resumed from its
checkpoint ends with the weights of one that was not.
"""

import contextlib
import copy
import logging
import math
import queue
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.detector.allocator import keep_large_buffers
from models.detector.losses import detection_losses
from models.detector.network import STRIDE, DetectorNet, normalise
from models.detector.peaks import pick_peaks
from models.detector.refinement import boxes, cut_out, packed
from models.detector.targets import Targets, make_targets
from models.errors import InputError
from models.training.chip_pool import PooledChip
from models.training.crops import CROP_PX, draw_crop
from models.training.proposals import MIN_SCORE, draw_lesson, refinement_losses

log = logging.getLogger(__name__)

PEAK_RATE = 1.5e-3
_WARM_UP = 0.03
_LAST_RATE = 0.01
_AVERAGE_DECAY = 0.998
_CLIP = 5.0
_REPORT_EVERY_S = 15.0
_PROPOSALS = 8
"""That the second stage is taught on, for each crop of a batch: both stages then take about as long."""


@dataclass(frozen=True)
class FitRecipe:
    """How long and on what to train. One of `steps` and `minutes` is given."""

    seed: int
    batch: int = 8
    peak_rate: float = PEAK_RATE
    """Highest learning rate of the schedule."""
    steps: int | None = None
    start: str = ""
    """Checksum of the weights that training starts from; empty: from random ones."""
    minutes: float | None = None
    """Time for training itself, over all resumed parts; the learning rate follows the share of it that has passed."""
    corrected: str = ""
    """What corrected labels are trained on, see `models.training.corrections.digest`; empty: none."""
    second_stage_only: bool = False
    """The first stage stays as it is, and is what the second one is taught to correct."""


@dataclass(frozen=True)
class FitReport:
    """Where the loop stands."""

    step: int
    fraction: float
    """Of the steps or of the time, 0..1."""
    losses: dict[str, float]
    """Mean weighted loss by part since the last report."""
    crops_per_s: float
    left_s: float


def fit(
    chips: Sequence[PooledChip],
    backgrounds: Sequence[np.ndarray],
    recipe: FitRecipe,
    checkpoint: Path,
    device: str = "cpu",
    precision: torch.dtype = torch.float32,
    progress: Callable[[FitReport], None] | None = None,
    checkpoint_every_s: float = 120.0,
    start: Mapping[str, torch.Tensor] | None = None,
    real: Sequence[PooledChip] = (),
) -> tuple[DetectorNet, int]:
    """Train from `start` or from random weights, or go on from `checkpoint`.

    `chips`, `backgrounds` and `real` are those of `models.training.crops.draw_crop`.

    Returns the network with averaged weights and the number of steps made.

    A checkpoint of another recipe is refused with `InputError`.
    """
    if device == "cpu":
        keep_large_buffers()
    torch.manual_seed(recipe.seed)
    net = DetectorNet() if start is None else DetectorNet.of(start)
    net = net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = copy.deepcopy(net).requires_grad_(False)
    net.train()
    if recipe.second_stage_only:
        net.requires_grad_(False).eval()
        net.refiner.requires_grad_(True).train()
    optimiser = torch.optim.AdamW(_decayed(net), lr=recipe.peak_rate)
    step, spent_s = _resume(checkpoint, recipe, net, average, optimiser)

    losses_of: dict[str, list[float]] = defaultdict(list)
    reported, counted = time.monotonic(), 0
    saved = last = time.monotonic()
    with _batches(chips, backgrounds, real, recipe, first=step) as batches:
        while (fraction := _fraction(recipe, step, spent_s)) < 1:
            images, targets = next(batches)
            for group in optimiser.param_groups:
                group["lr"] = recipe.peak_rate * _rate(fraction)
            chance = torch.Generator().manual_seed(_seed(recipe.seed, step))
            losses = _losses(net, images.to(device), targets, precision, chance)
            optimiser.zero_grad(set_to_none=True)
            # From a tensor on, because a batch may teach nothing.
            sum(losses.values(), torch.zeros((), device=device, requires_grad=True)).backward()
            norm = torch.nn.utils.clip_grad_norm_(net.parameters(), _CLIP)
            if torch.isfinite(norm):
                optimiser.step()
            else:
                log.warning("step %d left out: its gradient is not finite", step)
            step += 1
            _average(average, net, step)
            for name, value in losses.items():
                losses_of[name].append(value.item())
            counted += 1
            now = time.monotonic()
            spent_s, last = spent_s + now - last, now
            if progress is not None and now - reported > _REPORT_EVERY_S:
                fraction = _fraction(recipe, step, spent_s)
                means = {name: sum(values) / len(values) for name, values in losses_of.items()}
                speed = counted * recipe.batch / (now - reported)
                left_s = spent_s / fraction * (1 - fraction)
                progress(FitReport(step, min(fraction, 1.0), means, speed, max(left_s, 0.0)))
                losses_of.clear()
                reported, counted = now, 0
            if now - saved > checkpoint_every_s:
                _save(checkpoint, recipe, net, average, optimiser, step, spent_s)
                saved = now
    _save(checkpoint, recipe, net, average, optimiser, step, spent_s)
    return average.eval(), step


def _losses(
    net: DetectorNet,
    images: torch.Tensor,
    targets: dict[str, torch.Tensor],
    precision: torch.dtype,
    chance: torch.Generator,
) -> dict[str, torch.Tensor]:
    """Of the stages that learn, the second one on what the first one proposes as it is now."""
    arithmetic = torch.autocast(images.device.type, dtype=precision, enabled=precision != torch.float32)
    parts: dict[str, torch.Tensor] = {}
    with arithmetic, torch.set_grad_enabled(net.maps.weight.requires_grad):
        features = net.features(normalise(images))
        if net.maps.weight.requires_grad:
            on_device = {name: table.to(images.device) for name, table in targets.items()}
            parts |= detection_losses(net.maps_of(features), on_device)
    with torch.no_grad():
        proposed, _ = pick_peaks(
            features._replace(maps=features.maps.detach()), net.maps.weight, net.maps.bias, None, MIN_SCORE
        )
        most = _PROPOSALS * len(images)
        lesson = draw_lesson(proposed, targets["units"], targets["unjudged"], images.shape[1], most, chance).to(
            images.device
        )
        cutouts = cut_out(packed(images, None), lesson.proposals, STRIDE, lesson.mirror)
    # Normalisation by the batch needs two of them; so few teach nothing anyway.
    if len(cutouts) > 1:
        with arithmetic:
            outputs = net.refiner(cutouts.to(precision), *boxes(lesson.proposals))
        parts |= refinement_losses(outputs, lesson)
    return parts


def _seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _fraction(recipe: FitRecipe, step: int, spent_s: float) -> float:
    if recipe.steps is not None:
        return step / recipe.steps
    assert recipe.minutes is not None, "a FitRecipe names steps or minutes"
    return spent_s / (recipe.minutes * 60)


def _rate(fraction: float) -> float:
    """Share of the peak learning rate: linear warm-up, then a cosine down to a hundredth."""
    if fraction < _WARM_UP:
        return 0.05 + 0.95 * fraction / _WARM_UP
    along = (fraction - _WARM_UP) / (1 - _WARM_UP)
    return _LAST_RATE + (1 - _LAST_RATE) * 0.5 * (1 + math.cos(math.pi * min(along, 1.0)))


def _decayed(net: DetectorNet) -> list[dict[str, Any]]:
    """Weight decay on kernels only: on biases and normalisation it pulls the outputs' offsets to zero."""
    parameters = [parameter for parameter in net.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.01},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


@torch.no_grad()
def _average(average: DetectorNet, net: DetectorNet, step: int) -> None:
    """Exponential moving average of weights and of normalisation statistics, short at first."""
    share = 1 - min(_AVERAGE_DECAY, step / (10 + step))
    for mean, value in zip(average.state_dict().values(), net.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, share)
        else:
            mean.copy_(value)


@contextlib.contextmanager
def _batches(
    chips: Sequence[PooledChip],
    backgrounds: Sequence[np.ndarray],
    real: Sequence[PooledChip],
    recipe: FitRecipe,
    first: int,
) -> Iterator[Iterator[tuple[torch.Tensor, dict[str, torch.Tensor]]]]:
    """Endless batches from step `first` on, made by a thread that stays a few steps ahead."""
    ready: queue.Queue[Any] = queue.Queue(maxsize=4)
    stopped = threading.Event()

    def produce() -> None:
        step = first
        while not stopped.is_set():
            try:
                item: Any = make_batch(chips, backgrounds, recipe, step, real)
            except BaseException as error:  # noqa: BLE001, handed over to the reader, which raises it
                item = error
            while not stopped.is_set():
                with contextlib.suppress(queue.Full):
                    ready.put(item, timeout=0.2)
                    break
            step += 1

    def consume() -> Iterator[tuple[torch.Tensor, dict[str, torch.Tensor]]]:
        while True:
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            yield item

    thread = threading.Thread(target=produce, name="batches", daemon=True)
    thread.start()
    try:
        yield consume()
    finally:
        stopped.set()
        thread.join()


def make_batch(
    chips: Sequence[PooledChip],
    backgrounds: Sequence[np.ndarray],
    recipe: FitRecipe,
    step: int,
    real: Sequence[PooledChip] = (),
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Images uint8 (batch, CROP_PX, CROP_PX, 3) and stacked targets of one step.

    Besides the maps: `units` and `unjudged`, label rows of all images, each after the number of its image.
    """
    # A run that starts from weights must not see the very crops again that those were trained on.
    rng = np.random.default_rng([recipe.seed, step, *bytes.fromhex(recipe.start)[:4]])
    images, targets, units, unjudged = [], [], [], []
    for number in range(recipe.batch):
        image, labels = draw_crop(rng, chips, backgrounds, real)
        images.append(image)
        units.append(_numbered(labels.objects, number))
        unjudged.append(_numbered(np.concatenate([labels.ignored, labels.unseen]), number))
        targets.append(make_targets(labels, CROP_PX, CROP_PX))
    stacked = {
        name: torch.from_numpy(np.stack([getattr(target, name) for target in targets]))
        for name in Targets.__dataclass_fields__
    }
    stacked["units"] = torch.from_numpy(np.concatenate(units))
    stacked["unjudged"] = torch.from_numpy(np.concatenate(unjudged))
    return torch.from_numpy(np.stack(images)), stacked


def _numbered(table: np.ndarray, number: int) -> np.ndarray:
    return np.column_stack([np.full(len(table), number, np.float32), table]).astype(np.float32)


def _save(
    path: Path,
    recipe: FitRecipe,
    net: DetectorNet,
    average: DetectorNet,
    optimiser: torch.optim.Optimizer,
    step: int,
    spent_s: float,
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}")
    state = {
        "recipe": asdict(recipe),
        "net": net.state_dict(),
        "average": average.state_dict(),
        "optimiser": optimiser.state_dict(),
        "step": step,
        "spent_s": spent_s,
    }
    torch.save(state, beside)
    beside.replace(path)


def _resume(
    path: Path, recipe: FitRecipe, net: DetectorNet, average: DetectorNet, optimiser: torch.optim.Optimizer
) -> tuple[int, float]:
    if not path.exists():
        return 0, 0.0
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state["recipe"] != asdict(recipe):
        raise InputError(
            f"Checkpoint {path} belongs to another recipe or version: give another working folder or remove it."
        )
    net.load_state_dict(state["net"])
    average.load_state_dict(state["average"])
    optimiser.load_state_dict(state["optimiser"])
    return int(state["step"]), float(state["spent_s"])
