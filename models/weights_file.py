"""Weights on disk: one safetensors file that carries its own card and a checksum over everything that matters.

safetensors holds no code, so a file from a stranger can be refused but cannot run anything.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from models.errors import WeightsError

_FORMAT = "overwatt-weights-1"


def save_weights(path: Path, state_dict: Mapping[str, torch.Tensor], card: Mapping[str, Any]) -> str:
    """Write tensors and card (anything JSON can hold) to `path`; returns the checksum.

    Written beside and renamed in, so a reader never sees half a file.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state_dict.items()}
    text = json.dumps(card, sort_keys=True, allow_nan=False)
    checksum = _checksum(tensors, text)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(tensors, beside, metadata={"format": _FORMAT, "card": text, "sha256": checksum})
        beside.chmod(0o644)  # safetensors makes it readable by its owner alone
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return checksum


def load_weights(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and card of a file written by `save_weights`; the card has its checksum added as `sha256`.

    Raises `WeightsError` where the file is missing, foreign, damaged or changed.
    """
    if not path.is_file():
        raise WeightsError(f"Weights file {path} does not exist: give the path of a file written by `overwatt train`.")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is not a mapping
    except SafetensorError as error:
        raise WeightsError(f"Weights file {path} is not a readable safetensors file ({error}).") from error
    if metadata.get("format") != _FORMAT:
        raise WeightsError(f"Weights file {path} was not written by Overwatt: train one with `overwatt train`.")
    text = metadata.get("card", "")
    checksum = _checksum(tensors, text)
    if metadata.get("sha256") != checksum:
        raise WeightsError(f"Weights file {path} does not match its own checksum: get an unchanged copy of it.")
    return tensors, {**json.loads(text), "sha256": checksum}


def _checksum(tensors: Mapping[str, torch.Tensor], card: str) -> str:
    """sha256 over the card and over each tensor's name, type, shape and bytes, in order of name.

    The card is covered too: its calibration decides counts as much as the weights do.
    """
    digest = hashlib.sha256(card.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
