"""Trains the lettering reader on rendered words alone: `python -m models.training.train_reader --minutes 12`.

Samples are made while training, by one worker process, and each is shown twice. The learning rate follows the share of
the time budget that has passed, so any budget ends with a finished schedule; the same seed gives the same samples in
the same order, the weights also depend on how many of them the machine managed. Metrics on held-out words go into the
card.
A checkpoint whose budget is used up is only calibrated, evaluated and saved again; a larger budget trains it on.
"""

import argparse
import hashlib
import logging
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.nn.functional import ctc_loss
from torch.utils.data import DataLoader, IterableDataset

from models.reader.network import ReaderNet, batch, encode
from models.reader.reader import KIND
from models.training.evaluate_reader import calibrate, evaluate
from models.training.painted_words import PaintedCrop, painted_crop
from models.weights_file import load_weights, save_weights

logger = logging.getLogger(__name__)

DEFAULT_OUTPUT = Path(__file__).resolve().parent.parent / "weights" / "reader.safetensors"


_SHOWN = 2
"""Times that each sample is learnt from, both within a few steps of each other."""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights, apart from the speed of the machine."""

    minutes: float
    seed: int = 0
    pool: int = 256
    """Samples that are made together, sorted by width and cut into batches, so that little of a batch is padding."""
    batch: int = 32
    peak_rate: float = 2e-3
    weight_decay: float = 1e-2
    warmup: float = 0.03
    """Share of the budget in which the rate rises."""


class _Batches(IterableDataset):
    """Endless batches of painted crops, from pool number `first_pool` on."""

    def __init__(self, recipe: Recipe, first_pool: int) -> None:
        self.recipe, self.first_pool = recipe, first_pool

    def __iter__(self) -> Iterator[tuple[torch.Tensor, ...]]:
        cv2.setNumThreads(1)
        pool = self.first_pool
        while True:
            rng = np.random.default_rng([self.recipe.seed, pool])
            samples = sorted(
                (painted_crop(rng) for _ in range(self.recipe.pool)), key=lambda sample: sample.image.shape[1]
            )
            starts = np.arange(0, self.recipe.pool, self.recipe.batch)
            # Making a sample takes as long as learning from it.
            for start in np.concatenate([rng.permutation(starts) for _ in range(_SHOWN)]):
                yield _tensors(samples[start : start + self.recipe.batch])
            pool += 1


def _tensors(samples: list[PaintedCrop]) -> tuple[torch.Tensor, ...]:
    """Images, widths, all targets in one row, and target lengths."""
    images, widths = batch([sample.image for sample in samples])
    targets = [encode(sample.text) for sample in samples]
    flat = torch.tensor([channel for target in targets for channel in target], dtype=torch.long)
    return images, widths, flat, torch.tensor([len(target) for target in targets])


def train(
    recipe: Recipe,
    checkpoint: Path | None = None,
    workers: int = 1,
    begin_with: Mapping[str, torch.Tensor] | None = None,
) -> tuple[ReaderNet, dict[str, float]]:
    """Train for the recipe's minutes, from random weights or from `begin_with`.

    A checkpoint that exists is continued, and rewritten every minute and at the end.

    Returns:
        The network in evaluation mode, and what training saw: samples, seconds, last mean loss.
    """
    torch.manual_seed(recipe.seed)
    net = ReaderNet().to(memory_format=torch.channels_last)
    if begin_with is not None:
        net.load_state_dict(begin_with)
    optimizer = torch.optim.AdamW(net.parameters(), lr=recipe.peak_rate, weight_decay=recipe.weight_decay)
    seconds_before, steps, mean_loss = 0.0, 0, float("nan")
    if checkpoint and checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        net.load_state_dict(state["net"])
        optimizer.load_state_dict(state["optimizer"])
        seconds_before, steps, mean_loss = state["seconds"], state["steps"], state["loss"]
        logger.info("continuing %s after %d steps", checkpoint, steps)
    steps_per_pool = -(-recipe.pool // recipe.batch) * _SHOWN
    batches = DataLoader(
        _Batches(recipe, steps // steps_per_pool),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=8 if workers else None,
    )

    def save() -> None:
        if checkpoint:
            tensors = {"net": net.state_dict(), "optimizer": optimizer.state_dict()}
            _save_checkpoint(checkpoint, {**tensors, "seconds": seconds, "steps": steps, "loss": mean_loss})

    start = time.monotonic()
    last_saved = last_logged = start
    seconds = seconds_before
    net.train()
    for images, widths, targets, lengths in batches:
        now = time.monotonic()
        seconds = seconds_before + now - start
        share = seconds / (60 * recipe.minutes)
        if share >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = recipe.peak_rate * _rate(share, recipe.warmup)
        loss = training_step(net, optimizer, images, widths, targets, lengths)
        steps += 1
        mean_loss = loss if np.isnan(mean_loss) else 0.98 * mean_loss + 0.02 * loss
        if now - last_logged > 15:
            last_logged = now
            logger.info("%5.1f%% %6d steps, loss per symbol %.3f", 100 * share, steps, mean_loss)
        if now - last_saved > 60:
            last_saved = now
            save()
    save()
    return net.eval(), {"samples": steps * recipe.batch, "loss_per_symbol": mean_loss}


def training_step(
    net: ReaderNet,
    optimizer: torch.optim.Optimizer,
    images: torch.Tensor,
    widths: torch.Tensor,
    targets: torch.Tensor,
    lengths: torch.Tensor,
) -> float:
    """One step on one batch; returns its loss per symbol."""
    with torch.autocast("cpu", torch.bfloat16):
        scores, steps = net(images, widths)
    losses = ctc_loss(scores.transpose(0, 1), targets, steps, lengths, reduction="none", zero_infinity=True)
    # Over all symbols of the batch: long and short words weigh by what they hold.
    loss = losses.sum() / lengths.sum().clamp(min=1)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(net.parameters(), 2.0)
    optimizer.step()
    return loss.item()


def _rate(share: float, warmup: float) -> float:
    """Learning rate over its peak: a linear rise, then a half cosine to a hundredth."""
    if share < warmup:
        return share / warmup
    return 0.01 + 0.99 * 0.5 * (1 + float(np.cos(np.pi * (share - warmup) / (1 - warmup))))


def _save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Written beside and renamed in: a killed run leaves the last whole one."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    torch.save(state, beside)
    beside.replace(path)


def _code_version() -> str:
    """Version of the package and a digest of the sources that make samples and network."""
    digest = hashlib.sha256()
    models = Path(__file__).resolve().parent.parent
    for name in ("reader/network.py", "reader/rectify.py", "rendering/letter_faces.py", "rendering/lettering.py"):
        digest.update((models / name).read_bytes())
    digest.update(Path(__file__).with_name("painted_words.py").read_bytes())
    return f"{version('overwatt')}+{digest.hexdigest()[:12]}"


def main() -> None:
    """Train, calibrate, evaluate, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--minutes", type=float, default=12.0, help="time budget of training (evaluation adds about one)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="torch threads; one more process makes the samples")
    parser.add_argument("--checkpoint", type=Path, help="file to continue from and to write every minute")
    parser.add_argument("--start", type=Path, help="reader weights to train on from; give another seed than theirs")
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(arguments.threads)
    recipe = Recipe(minutes=arguments.minutes, seed=arguments.seed)
    code = _code_version()
    first, before = (None, None) if arguments.start is None else load_weights(arguments.start)
    net, seen = train(recipe, arguments.checkpoint, begin_with=first)
    card: dict[str, Any] = {
        "kind": KIND,
        "trained_on": "rendered words only",
        "recipe": asdict(recipe),
        "seed": recipe.seed,
        "code_version": code,
        "training": seen,
        "start": None if before is None else {key: before[key] for key in ("sha256", "recipe", "training")},
    }
    card.update(calibrate(net))
    card["metrics"] = evaluate(net, card)
    checksum = save_weights(arguments.output, net.state_dict(), card)
    for name, value in card["metrics"].items():
        logger.info("%s: %s", name, value)
    logger.info("saved %s, checksum %s", arguments.output, checksum[:8])


if __name__ == "__main__":
    main()
