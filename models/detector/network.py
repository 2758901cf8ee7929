"""The detector's network: an aerial image in, maps at stride 2 out, and exactly how far around a pixel it looks.

Fully convolutional with nothing that sees the whole window (no pooling over it, no normalisation by it), so that the
answer at a pixel depends only on the pixels within `DetectorNet.reach_px` of it and on its phase in a lattice of
`LATTICE_PX`. Windows that are snapped to the lattice and carry a halo therefore give the answer of the whole scene.
"""

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn import functional
from torchvision.models.resnet import BasicBlock
from torchvision.ops import Conv2dNormActivation

from models.classes import OBJECT_CLASSES

STRIDE = 2
"""Pixels an output cell covers: the tightest packing (batteries 2 m apart, 6.7 px) is then over three cells."""
LATTICE_PX = 16
"""Coarsest stride inside the network: windows whose origins differ by a multiple of it see the same phases."""

WIDTHS = (32, 64, 128, 192)
BLOCKS = (1, 2, 2, 1)
PYRAMID = 64

# Channels of the output, in order.
HEAT = slice(0, len(OBJECT_CLASSES))
"""Logits of "the centre of an object of this class lies in this cell"."""
OFFSET = slice(HEAT.stop, HEAT.stop + 2)
"""x, y of the object's centre from the cell's centre, in cells."""
SIZE = slice(OFFSET.stop, OFFSET.stop + 2)
"""Natural logarithm of length and width, in pixels."""
HEADING = slice(SIZE.stop, SIZE.stop + 2)
"""cos 2t, sin 2t of the heading t of the long axis, clockwise from up: continuous where t jumps from 180 to 0."""
FANS = slice(HEADING.stop, HEADING.stop + 1)
"""Natural logarithm of the number of fans."""
LETTERING = slice(FANS.stop, FANS.stop + 1)
"""Logit of "painted lettering covers this cell"."""
CHANNELS = LETTERING.stop

_MEAN = 0.45 * 255
_DEVIATION = 0.25 * 255
_HEAT_PRIOR = -4.6
"""Logit of 0.01, so that the first steps are not spent on unlearning that everything is an object (RetinaNet)."""


def normalise(images: torch.Tensor, valid: torch.Tensor | None = None) -> torch.Tensor:
    """Turn uint8 images (N, H, W, 3) into the network's input (N, 3, H, W), float32, laid out channels-last.

    Invalid pixels (`valid` False, shape (N, H, W)) become zero, which is mid-grey, whatever lies under them.
    """
    scaled = (images.float() - _MEAN) / _DEVIATION
    if valid is not None:
        scaled = scaled * valid.unsqueeze(-1)
    return scaled.permute(0, 3, 1, 2)


class DetectorNet(nn.Module):
    """Light residual encoder (32-64-128-192 channels at strides 2-16) and a 64-channel pyramid down to stride 2.

    Depth is chosen by reach. The halo around each window is computed and thrown away, so with 1024 px windows a halo
    of 128 px leaves 56% of the work useful and one of 160 px 47%. One block instead of two at stride 16 saves 32 px of
    reach. What is left sees all of an 80 px turbine package from its centre with 50 px around it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = Conv2dNormActivation(3, WIDTHS[0], 3, stride=2)
        stages = []
        before = WIDTHS[0]
        for level, (width, blocks) in enumerate(zip(WIDTHS, BLOCKS, strict=True)):
            stage = [_block(before, width, stride=1 if level == 0 else 2)]
            stage += [_block(width, width, stride=1) for _ in range(blocks - 1)]
            stages.append(nn.Sequential(*stage))
            before = width
        self.stages = nn.ModuleList(stages)
        self.laterals = nn.ModuleList(nn.Conv2d(width, PYRAMID, 1) for width in WIDTHS)
        self.smooth = Conv2dNormActivation(PYRAMID, PYRAMID, 3)
        self.head = Conv2dNormActivation(PYRAMID, PYRAMID, 3)
        self.maps = nn.Conv2d(PYRAMID, CHANNELS, 1)
        with torch.no_grad():
            assert self.maps.bias is not None
            self.maps.bias.zero_()
            self.maps.bias[HEAT] = _HEAT_PRIOR
            self.maps.bias[LETTERING] = _HEAT_PRIOR
            self.maps.bias[SIZE] = torch.tensor([2.7, 2.1])  # 15 x 8 px, the middle of the equipment in logarithms

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Maps (N, CHANNELS, H / 2, W / 2) of normalised images (N, 3, H, W); H and W are multiples of LATTICE_PX."""
        features = self.stem(images)
        levels = []
        for stage, lateral in zip(self.stages, self.laterals, strict=True):
            features = stage(features)
            levels.append(lateral(features))
        # torchvision's FeaturePyramidNetwork also smooths the three levels nobody reads.
        merged = levels.pop()
        while levels:
            merged = levels.pop() + functional.interpolate(merged, scale_factor=2.0, mode="nearest")
        return self.maps(self.head(self.smooth(merged)))

    @property
    def reach_px(self) -> int:
        """Distance in pixels beyond its own cell at which an input pixel can still change an output cell.

        Walks the network backwards from every phase of the lattice, so it holds for the layers as they are.
        """
        reach = 0
        for cell in range(LATTICE_PX // STRIDE):
            low, high = _walk_back(self._output_convolutions(), cell, cell)
            for level in range(len(self.stages)):
                # Nearest-neighbour doubling: a cell reads the parent it lies in.
                first, last = _walk_back(self._encoder_convolutions(level), low >> level, high >> level)
                reach = max(reach, STRIDE * cell - first, last - (STRIDE * cell + STRIDE - 1))
        return reach

    def _output_convolutions(self) -> Iterator[nn.Conv2d]:
        yield self.head[0]
        yield self.smooth[0]

    def _encoder_convolutions(self, level: int) -> Iterator[nn.Conv2d]:
        for stage in reversed(self.stages[: level + 1]):
            assert isinstance(stage, nn.Sequential)
            for block in reversed(list(stage)):
                assert isinstance(block, BasicBlock)
                yield block.conv2
                yield block.conv1
        yield self.stem[0]


def fold_normalisation(net: DetectorNet) -> DetectorNet:
    """Fold every batch normalisation into the convolution before it (in place): same maps, fewer passes over memory."""
    net.eval()
    for module in net.modules():
        if isinstance(module, BasicBlock):
            module.conv1 = nn.utils.fuse_conv_bn_eval(module.conv1, module.bn1)
            module.conv2 = nn.utils.fuse_conv_bn_eval(module.conv2, module.bn2)
            module.bn1 = module.bn2 = nn.Identity()
            if module.downsample is not None:
                convolution, norm = module.downsample
                module.downsample = nn.Sequential(nn.utils.fuse_conv_bn_eval(convolution, norm))
        elif isinstance(module, Conv2dNormActivation):
            module[0] = nn.utils.fuse_conv_bn_eval(module[0], module[1])
            module[1] = nn.Identity()
    return net


def _block(before: int, width: int, stride: int) -> BasicBlock:
    shortcut: nn.Module | None = None
    if stride != 1 or before != width:
        shortcut = nn.Sequential(nn.Conv2d(before, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width))
    return BasicBlock(before, width, stride=stride, downsample=shortcut)


def _walk_back(convolutions: Iterator[nn.Conv2d], low: int, high: int) -> tuple[int, int]:
    """First and last input index that outputs `low`..`high` of a chain (last layer first) depend on."""
    for layer in convolutions:
        stride, padding = layer.stride[0], int(layer.padding[0])
        low = low * stride - padding
        high = high * stride - padding + layer.dilation[0] * (layer.kernel_size[0] - 1)
    return low, high
