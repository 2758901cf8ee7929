"""From nothing to detector weights: render chips, train on them, calibrate, measure, write the weights file."""

import argparse
import importlib.metadata
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from models.detector.card import WeightsCard
from models.detector.detector import Detector, resolve_device, resolve_precision
from models.detector.network import DetectorNet
from models.errors import InputError, WeightsError
from models.training.chip_pool import PoolRecipe, read_background, read_chip, render_pool, split_backgrounds
from models.training.corrections import Corrected, digest, held_out_change
from models.training.crops import CROP_PX, empty_windows
from models.training.evaluation import evaluate
from models.training.fitting import PEAK_RATE, FitRecipe, FitReport, fit
from models.weights_file import load_weights, save_weights

log = logging.getLogger(__name__)

CHIP_PX = 448
_NAMED_SEEDS = 500
"""Added to a training's seed for its named roofs, so that their ground is not that of the other chips once more."""


@dataclass(frozen=True)
class Progress:
    """Where the training stands."""

    stage: str
    """`rendering`, `training` or `evaluating`."""
    fraction: float
    """Of the stage, 0..1."""
    message: str


def train_detector(
    output: Path,
    *,
    workdir: Path,
    chips: int = 2600,
    named_chips: int = 0,
    validation_chips: int = 200,
    minutes: float | None = None,
    steps: int | None = None,
    batch: int = 8,
    seed: int = 1,
    start: Path | None = None,
    peak_rate: float = PEAK_RATE,
    backgrounds: Path | None = None,
    leave_out: Sequence[str] = (),
    also: Sequence[Path] = (),
    start_share: float = 0.5,
    second_stage_only: bool = False,
    corrected: Sequence[Corrected] = (),
    device: str = "auto",
    precision: str = "auto",
    progress: Callable[[Progress], None] | None = None,
) -> WeightsCard:
    """Train a detector and write its weights, with card, to `output`.

    `named_chips` are further chips, each with a painted name on a roof, as a third of the others have.
    `start` is a weights file to train on from, with `peak_rate` as the highest learning rate; what is written is then
    the mean of both, `start` weighing `start_share`. `backgrounds` is a folder of real images without equipment at
    0.3 m (256 px or more); a fifth of them is held out to measure false positives. `leave_out` names files of it,
    without suffix, that do show some: they are used for nothing. `also` are pools of earlier trainings whose chips are
    shown as well, and measured on where they say what is kin of chillers. With `second_stage_only` the first stage
    stays that of `start`.
    `corrected` are real scenes with labels that a person has corrected: they are trained on together with the rendered
    chips, and what that changed on the ground held out of them, from `start` to the new weights, stands in the metrics.
    `workdir` keeps chips and checkpoint: the same call goes on where an earlier one was stopped. One of `minutes` (of
    training proper) and `steps` is given. Raises `InputError` for a working folder of another recipe, `WeightsError`
    and `DeviceError`.
    """
    if (minutes is None) == (steps is None):
        raise ValueError("train_detector() needs either minutes or steps")
    if second_stage_only and start is None:
        raise InputError("--second-stage-only needs --start: a second stage learns from what a first one proposes.")
    place = resolve_device(device)
    arithmetic = resolve_precision(precision, place)
    first, first_card = (None, None) if start is None else _start(start)
    report = progress or _log
    shown, held_out = split_backgrounds(backgrounds, leave_out)

    pool = PoolRecipe(
        seed=seed,
        size_px=CHIP_PX,
        backgrounds="" if backgrounds is None else str(backgrounds),
        left_out=tuple(sorted(set(leave_out))),
    )
    rendering = _rendering(report, validation_chips + chips + named_chips)
    validation_paths = render_pool(
        workdir / "pool", pool, validation_chips, "validation", held_out, lambda done, _: rendering(done)
    )
    train_paths = render_pool(
        workdir / "pool", pool, chips, "train", shown, lambda done, _: rendering(validation_chips + done)
    )
    if named_chips:
        train_paths += render_pool(
            workdir / "pool-named",
            replace(pool, seed=seed + _NAMED_SEEDS, named_roof=True),
            named_chips,
            "train",
            shown,
            lambda done, _: rendering(validation_chips + chips + done),
        )

    labelled = [chip for one in corrected for chip in one.chips]
    recipe = FitRecipe(
        seed=seed,
        batch=batch,
        peak_rate=peak_rate,
        start="" if first_card is None else first_card["sha256"],
        steps=steps,
        minutes=minutes,
        corrected=digest(labelled),
        second_stage_only=second_stage_only,
    )
    earlier = [path for pool_folder in also for path in sorted(pool_folder.glob("train-*.npz"))]
    rendered = [read_chip(path) for path in [*train_paths, *earlier]]
    empty = empty_windows(rendered)
    if shown:
        # Real ground is what false detections are raised on: with more chips it must not be seen less often.
        empty = empty[:: math.ceil(len(empty) / len(shown)) or 1]
    grounds = [read_background(path, CROP_PX) for path in shown] + empty
    net, made = fit(
        rendered,
        grounds,
        recipe,
        workdir / (f"checkpoint-{recipe.corrected}.pt" if labelled else "checkpoint.pt"),
        place,
        arithmetic,
        lambda state: report(Progress("training", state.fraction, _describe(state))),
        start=first,
        real=labelled,
    )
    tensors = released(net if first is None else midway(net, first, start_share))
    if first is not None and second_stage_only:
        tensors |= {name: tensor for name, tensor in first.items() if not name.startswith("refiner.")}
    validation_paths += [path for pool_folder in also for path in sorted(pool_folder.glob("validation-*.npz"))]
    # Chips of pools that do not know kin of chillers would be scored another way.
    validation = [chip for chip in map(read_chip, validation_paths) if chip.kin is not None]
    report(Progress("evaluating", 0.0, f"{len(validation)} rendered chips, {len(held_out)} real backgrounds"))
    code_version = importlib.metadata.version("overwatt")
    made_of = {
        "task": "detector",
        "chips": chips,
        "named_chips": named_chips,
        "chips_of_earlier_pools": len(earlier),
        "chip_px": CHIP_PX,
        "crop_px": CROP_PX,
        "crops_seen": made * batch,
        "steps_made": made,
        "precision": str(arithmetic).removeprefix("torch."),
        "backgrounds": len(shown),
        "backgrounds_left_out": list(pool.left_out),
        "rendered_grounds": len(empty),
        "training_data": "rendered chips; real backgrounds as ground and as negatives only"
        + ("; corrected labels of scenes as listed" if corrected else ""),
        "corrected_labels": [dict(one.about) for one in corrected],
        **asdict(recipe),
        "averaged_with_start": first is not None and start_share > 0,
        "start_share": start_share if first is not None else 0.0,
        "start_recipe": None if first_card is None else first_card["recipe"],
    }
    measured = evaluate(
        _detector(tensors, place, arithmetic),
        validation,
        [read_background(path, CROP_PX) for path in held_out],
    )
    card: dict[str, Any] = {"recipe": made_of, "seed": seed, "code_version": code_version, **measured}
    if corrected and start is not None:
        report(Progress("evaluating", 0.5, "held-out ground of the corrected scenes, before and after"))
        after = _detector(tensors, place, arithmetic, WeightsCard.from_json(card))
        before = Detector.load(start, device, precision)
        card["metrics"]["corrected_held_out"] = held_out_change(before, after, corrected)
    save_weights(output, tensors, card)
    report(Progress("evaluating", 1.0, f"wrote {output}"))
    return WeightsCard.from_json(card)


def _start(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and card of weights to train on from; refused at once where they are not those of this network."""
    tensors, card = load_weights(path)
    if {name: tensor.shape for name, tensor in tensors.items()} != {
        name: tensor.shape for name, tensor in DetectorNet().state_dict().items()
    }:
        raise WeightsError(
            f"Weights file {path} does not hold a detector of this version: name another with --start, or train from "
            "nothing without it."
        )
    return tensors, card


def midway(net: DetectorNet, start: Mapping[str, torch.Tensor], share: float = 0.5) -> DetectorNet:
    """The network with the mean of its weights and of those that its training went on from, these weighing `share`.

    Means of weights along one training generalise better than its end (Wortsman et al. 2022, Model soups); measured
    here on both continued runs, see `models/training/LOG.md`.
    """
    made = {name: (1 - share) * tensor.float() + share * start[name].float() for name, tensor in released(net).items()}
    return DetectorNet.of(made).eval()


def released(net: DetectorNet) -> dict[str, torch.Tensor]:
    """The tensors that are published: kernels in half precision, which halves the file, the rest as it is."""
    return {
        name: (tensor.half() if tensor.ndim > 1 else tensor).detach().cpu().contiguous()
        for name, tensor in net.state_dict().items()
    }


def _detector(
    tensors: dict[str, torch.Tensor], device: str, precision: torch.dtype, card: WeightsCard | None = None
) -> Detector:
    """A detector of the tensors as published, to be measured; at first it has no card yet."""
    card = card or WeightsCard(recipe={}, seed=0, code_version="", metrics={}, calibration={}, recall={})
    return Detector(DetectorNet.of(tensors), card, "detector-new", device, precision)


def _rendering(report: Callable[[Progress], None], total: int) -> Callable[[int], None]:
    def rendered(done: int) -> None:
        report(Progress("rendering", done / total, f"chip {done} of {total}"))

    return rendered


def _describe(state: FitReport) -> str:
    parts = "  ".join(f"{name} {value:.3f}" for name, value in state.losses.items())
    return (
        f"step {state.step}  loss {sum(state.losses.values()):.3f} ({parts})  "
        f"{state.crops_per_s:.1f} crops/s  {state.left_s / 60:.1f} min left"
    )


def _log(progress: Progress) -> None:
    log.info("%s %3.0f%%  %s", progress.stage, 100 * progress.fraction, progress.message)


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("models/weights/detector.safetensors"))
    parser.add_argument("--workdir", type=Path, required=True, help="chips and checkpoint; kept for going on")
    parser.add_argument("--backgrounds", type=Path, help="folder of real 0.3 m images without equipment")
    parser.add_argument("--chips", type=int, default=2600)
    parser.add_argument("--named-chips", type=int, default=0, help="further chips, each with a name on a roof")
    parser.add_argument("--validation-chips", type=int, default=200)
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--minutes", type=float)
    length.add_argument("--steps", type=int)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--start", type=Path, help="weights file to train on from")
    parser.add_argument("--peak-rate", type=float, default=PEAK_RATE)
    parser.add_argument(
        "--start-share", type=float, default=0.5, help="weight of the start in the mean that is written"
    )
    parser.add_argument("--second-stage-only", action="store_true", help="leave the first stage as --start has it")
    parser.add_argument("--leave-out", nargs="*", default=(), help="backgrounds that do show equipment: not used")
    parser.add_argument("--also", nargs="*", type=Path, default=(), help="pools whose chips are shown as well")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", choices=["auto", "float32", "bfloat16"])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    train_detector(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
