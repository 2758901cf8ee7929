"""The detector's network: an aerial image in, maps at stride 2 out, and exactly how far around a pixel it looks.

Fully convolutional with nothing that sees the whole window (no pooling over it, no normalisation by it), so that the
answer at a pixel depends only on the pixels within `DetectorNet.reach_px` of it and on its phase in a lattice of
`LATTICE_PX`. Windows that are snapped to the lattice and carry a halo therefore give the answer of the whole scene.
"""

from collections.abc import Iterator, Sequence

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

STEM = 32
"""Channels at stride 2."""
WIDTHS = (48, 96, 192)
"""Channels of the stages at strides 4, 8 and 16."""
BLOCKS = (1, 2, 1)
PYRAMID = WIDTHS[0]
"""Channels of the pyramid: those of the finest stage, which then enters it as it is."""

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
_SUB_STRIDE = 2
"""Stride of the trunk over that of the maps."""
_SUB_CELLS = _SUB_STRIDE**2
_HEAT_PRIOR = -4.6
"""Logit of 0.01, so that the first steps are not spent on unlearning that everything is an object (RetinaNet)."""


def normalise(
    images: torch.Tensor, valid: torch.Tensor | None = None, precision: torch.dtype = torch.float32
) -> torch.Tensor:
    """Turn uint8 images (N, H, W, 3) into the network's input (N, 3, H, W) of `precision`, laid out channels-last.

    Invalid pixels (`valid` False, shape (N, H, W)) become zero, which is mid-grey, whatever lies under them.
    """
    # In place, and in bfloat16 from the start: 0..255 are exact in it, and a window is copied once.
    scaled = images.to(precision).sub_(_MEAN).div_(_DEVIATION)
    if valid is not None:
        scaled.mul_(valid.unsqueeze(-1))
    return scaled.permute(0, 3, 1, 2)


class DetectorNet(nn.Module):
    """Light residual encoder (32-48-96-192 channels at strides 2-16), a 48-channel pyramid, maps at stride 2.

    The trunk works at stride 4; the stem's stride 2 reaches the last layers through a 2 x 2 lateral, and the maps come
    back to stride 2 by sub-pixel convolution (Shi et al. 2016): in the network before this one, over half of the
    arithmetic was convolutions at stride 2. Depth is chosen by reach, because the halo around each window
    is computed and thrown away: a second block at stride 16 would cost 32 px more on every side. What is left sees all
    of an 80 px turbine package from its centre with 50 px around it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = Conv2dNormActivation(3, STEM, 3, stride=2)
        self.enter = Conv2dNormActivation(STEM, WIDTHS[0], 3, stride=2)
        stages = []
        before = WIDTHS[0]
        for level, (width, blocks) in enumerate(zip(WIDTHS, BLOCKS, strict=True)):
            stage = [_block(before, width, stride=1 if level == 0 else 2)]
            stage += [_block(width, width, stride=1) for _ in range(blocks - 1)]
            stages.append(nn.Sequential(*stage))
            before = width
        self.stages = nn.ModuleList(stages)
        self.fine = nn.Conv2d(STEM, PYRAMID, 2, stride=2)
        self.laterals = nn.ModuleList(nn.Conv2d(width, PYRAMID, 1) for width in WIDTHS[1:])
        self.smooth = Conv2dNormActivation(PYRAMID, PYRAMID, 3)
        self.head = Conv2dNormActivation(PYRAMID, PYRAMID, 3)
        self.maps = nn.Linear(PYRAMID, _SUB_CELLS * CHANNELS)
        with torch.no_grad():
            bias = self.maps.bias.zero_().view(_SUB_CELLS, CHANNELS)
            bias[:, HEAT] = _HEAT_PRIOR
            bias[:, LETTERING] = _HEAT_PRIOR
            bias[:, SIZE] = torch.tensor([2.7, 2.1])  # 15 x 8 px, the middle of the equipment in logarithms

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Maps (N, CHANNELS, H / 2, W / 2), float32, of normalised images (N, 3, H, W).

        H and W are multiples of LATTICE_PX.
        """
        return spread(self.cells(images), self.maps.bias)

    def cells(self, images: torch.Tensor) -> torch.Tensor:
        """Maps as the trunk gives them: (N, H / 4, W / 4, 4 * CHANNELS) of four sub-cells, without their bias.

        Who needs a few places or channels of the maps need not lay out the rest of them.
        """
        fine = self.stem(images)
        at_4 = self.stages[0](self.enter(fine))
        at_8 = self.stages[1](at_4)
        at_16 = self.stages[2](at_8)
        # torchvision's FeaturePyramidNetwork smooths each level; only the one at stride 8 is worth its reach here.
        merged = self.smooth(_plus_doubled(self.laterals[0](at_8), self.laterals[1](at_16)))
        merged = self.head(_plus_doubled(at_4 + self.fine(fine), merged))
        return functional.linear(merged.permute(0, 2, 3, 1), self.maps.weight)

    @property
    def reach_px(self) -> int:
        """Distance in pixels beyond its own cell at which an input pixel can still change an output cell.

        Walks the network backwards from every phase of the lattice, so it holds for the layers as they are.
        """
        reach = 0
        for cell in range(LATTICE_PX // STRIDE):
            for first, last in self._seen_by(cell):
                reach = max(reach, STRIDE * cell - first, last - (STRIDE * cell + STRIDE - 1))
        return reach

    def _seen_by(self, cell: int) -> Iterator[tuple[int, int]]:
        """First and last pixel that an output cell depends on, for each way through the network."""
        # Sub-pixel convolution: the two cells of a trunk cell read the same.
        at_4 = _walk_back([self.head[0]], cell // 2, cell // 2)
        stem = [self.stem[0]]
        yield _walk_back([self.fine, *stem], *at_4)
        encoder: list[nn.Conv2d] = [*stem, self.enter[0]]
        at_8 = _walk_back([self.smooth[0]], at_4[0] // 2, at_4[1] // 2)
        for level, (low, high) in enumerate((at_4, at_8, (at_8[0] // 2, at_8[1] // 2))):
            stage = self.stages[level]
            assert isinstance(stage, nn.Sequential)
            for block in stage:
                assert isinstance(block, BasicBlock)
                encoder += [block.conv1, block.conv2]
            yield _walk_back(encoder[::-1], low, high)


def spread(cells: torch.Tensor, bias: torch.Tensor, channels: slice = slice(CHANNELS)) -> torch.Tensor:
    """Some channels of `DetectorNet.cells` as maps (N, C, 2 h, 2 w), float32, channels-last.

    `pixel_shuffle` does the same and took a sixth of the whole forward pass in that layout. The bias is added in
    float32, because the 8 bits of bfloat16 are too few for a length in logarithms beside its mean.
    """
    count, height, width, _ = cells.shape
    split = cells.view(count, height, width, _SUB_CELLS, CHANNELS)[..., channels].float()
    split = (split + bias.view(_SUB_CELLS, CHANNELS)[:, channels]).unflatten(3, (_SUB_STRIDE, _SUB_STRIDE))
    laid_out = split.transpose(2, 3).reshape(count, _SUB_STRIDE * height, _SUB_STRIDE * width, -1)
    return laid_out.permute(0, 3, 1, 2)


def gather(
    cells: torch.Tensor, bias: torch.Tensor, window: torch.Tensor, row: torch.Tensor, column: torch.Tensor
) -> torch.Tensor:
    """All channels (n, CHANNELS), float32, of `DetectorNet.cells` at the given cells of the maps."""
    sub = row % _SUB_STRIDE * _SUB_STRIDE + column % _SUB_STRIDE
    split = cells.unflatten(3, (_SUB_CELLS, CHANNELS))
    return split[window, row // _SUB_STRIDE, column // _SUB_STRIDE, sub].float() + bias.view(_SUB_CELLS, CHANNELS)[sub]


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


def _plus_doubled(maps: torch.Tensor, coarser: torch.Tensor) -> torch.Tensor:
    """`maps` plus the nearest-neighbour doubling of `coarser`: a cell reads the parent it lies in.

    Broadcast over channels-last memory: `interpolate` took five times as long.
    """
    parents = coarser.permute(0, 2, 3, 1)[:, :, None, :, None]
    pixels = maps.permute(0, 2, 3, 1).contiguous()
    count, height, width, channels = pixels.shape
    merged = pixels.view(count, height // 2, 2, width // 2, 2, channels) + parents
    return merged.view(count, height, width, channels).permute(0, 3, 1, 2)


def _walk_back(convolutions: Sequence[nn.Conv2d], low: int, high: int) -> tuple[int, int]:
    """First and last input index that outputs `low`..`high` of a chain (last layer first) depend on."""
    for layer in convolutions:
        stride, padding = layer.stride[0], int(layer.padding[0])
        low = low * stride - padding
        high = high * stride - padding + layer.dilation[0] * (layer.kernel_size[0] - 1)
    return low, high
