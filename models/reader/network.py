"""The reading network: a rectified crop in, one row of symbol scores per four pixels of width out.

Convolutions only, so the context is a few letters and no vocabulary is learnt: unseen names read as well as seen ones.
Crops of different widths share a batch; everything right of a crop's own width is held at zero in every layer, so a
crop reads the same alone and in company.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

HEIGHT_PX = 32
"""Height of every crop."""
STRIDE_PX = 4
"""Crop pixels per step along the reading direction."""
ALPHABET = " ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
"""Symbols of channels 1 and up; channel 0 is the blank of connectionist temporal classification."""


def encode(text: str) -> list[int]:
    """Channel numbers of a text; lower case counts as capitals. ValueError: a symbol outside the alphabet."""
    return [ALPHABET.index(symbol) + 1 for symbol in text.upper()]


def decode(channels: Sequence[int]) -> str:
    """The text of a path of channels, one per step: repeats merged, blanks dropped, outer spaces stripped."""
    kept = [c for i, c in enumerate(channels) if c and (i == 0 or c != channels[i - 1])]
    return "".join(ALPHABET[c - 1] for c in kept).strip()


def batch(crops: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Crops uint8 (32, w, 3) as one uint8 tensor (N, 3, 32, W), zeros right of each, with int64 widths (N,)."""
    widths = [crop.shape[1] for crop in crops]
    columns = -(-max(widths) // STRIDE_PX) * STRIDE_PX
    images = np.zeros((len(crops), HEIGHT_PX, columns, 3), np.uint8)
    for image, crop in zip(images, crops, strict=True):
        image[:, : crop.shape[1]] = crop
    # A permuted view of channels-last memory: the layout in which convolutions run fastest on both CPU and GPU.
    return torch.from_numpy(images).permute(0, 3, 1, 2), torch.tensor(widths)


class _Block(nn.Module):
    """Convolution, batch normalisation, ReLU, and zeros outside each crop."""

    def __init__(self, channels_in: int, channels_out: int, kernel: tuple[int, int], stride: tuple[int, int]) -> None:
        super().__init__()
        # Rows are padded except where one kernel swallows them all.
        padding = (0 if kernel[0] == 4 else kernel[0] // 2, kernel[1] // 2)
        self.convolution = nn.Conv2d(channels_in, channels_out, kernel, stride, padding, bias=False)
        self.norm = nn.BatchNorm2d(channels_out)
        self.halves_width = stride[1] == 2

    def forward(self, x: Tensor, inside: Tensor) -> Tensor:
        y = torch.relu_(self.norm(self.convolution(x)))
        return y * inside.to(y.dtype)


class _Residual(nn.Module):
    """A convolution added to what it reads; at first it adds nothing, so that weights without it can be trained on."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor, inside: Tensor) -> Tensor:
        # The sum is rectified, not the addend: the derivative of a ReLU at the zero it starts from is zero.
        y = torch.relu_(x + self.norm(self.convolution(x)))
        return y * inside.to(y.dtype)


class _Context(nn.Module):
    """A residual convolution along the reading direction."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(
            channels, channels, (1, 5), padding=(0, 2 * dilation), dilation=(1, dilation), bias=False
        )
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor, inside: Tensor) -> Tensor:
        y = x + torch.relu_(self.norm(self.convolution(x)))
        return y * inside.to(y.dtype)


class ReaderNet(nn.Module):
    """About 1.2 million parameters; 32 rows are folded to one, the width to a quarter."""

    def __init__(self) -> None:
        super().__init__()
        self.columns = nn.ModuleList(
            [
                _Block(3, 32, (5, 5), (2, 2)),
                _Block(32, 64, (3, 3), (2, 2)),
                _Block(64, 96, (3, 3), (1, 1)),
                _Block(96, 128, (3, 3), (2, 1)),
                _Block(128, 128, (3, 3), (1, 1)),
                _Block(128, 160, (4, 1), (1, 1)),
            ]
        )
        # One after each block but the first, whose maps are large, and the last, which has a single row.
        self.residuals = nn.ModuleList([_Residual(channels) for channels in (64, 96, 128, 128)])
        self.context = nn.ModuleList([_Context(160, dilation) for dilation in (1, 2, 3)])
        self.head = nn.Conv2d(160, len(ALPHABET) + 1, 1)

    def forward(self, images: Tensor, widths: Tensor) -> tuple[Tensor, Tensor]:
        """Scores per step.

        Args:
            images: uint8 (N, 3, 32, W), W a multiple of 4, as `batch` makes it.
            widths: int64 (N,), own width of each crop in pixels.

        Returns:
            float32 (N, W / 4, 1 + symbols) log-probabilities, and int64 (N,) steps that belong to each crop.
        """
        inside = _inside(widths, images.shape[-1])
        x = _standardised(images.float(), inside)
        for number, block in enumerate(self.columns):
            if block.halves_width:
                widths = (widths + 1) // 2
                inside = _inside(widths, x.shape[-1] // 2)
            x = block(x, inside)
            if 0 < number <= len(self.residuals):
                x = self.residuals[number - 1](x, inside)
        for block in self.context:
            x = block(x, inside)
        scores = self.head(x).squeeze(2).permute(0, 2, 1)
        return scores.float().log_softmax(dim=2), widths


def _inside(widths: Tensor, columns: int) -> Tensor:
    """1 in the columns of each crop, 0 right of them: float (N, 1, 1, columns)."""
    return (torch.arange(columns, device=widths.device) < widths[:, None]).float()[:, None, None, :]


def _standardised(images: Tensor, inside: Tensor) -> Tensor:
    """Each crop to mean 0 in every channel and deviation 1 over all of them, over its own pixels.

    Exposure, haze and the colour of the roof then do not matter: red paint on a pink roof stands out as black on white.
    """
    count = inside.sum(dim=(1, 2, 3), keepdim=True) * images.shape[2]
    mean = (images * inside).sum(dim=(2, 3), keepdim=True) / count
    centred = (images - mean) * inside
    # The floor of 4 grey levels keeps sensor noise on an empty roof from being stretched into strokes.
    deviation = (centred.square().sum(dim=(1, 2, 3), keepdim=True) / (count * images.shape[1])).sqrt().clamp(min=4.0)
    return centred / deviation
