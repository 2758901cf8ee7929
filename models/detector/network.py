"""The detector's network: an aerial image in, maps at stride 2 out, and exactly how far around a pixel it looks.

Fully convolutional with nothing that sees the whole window (no pooling over it, no normalisation by it), so that the
answer at a pixel depends only on the pixels within `DetectorNet.reach_px` of it and on its phase in a lattice of
`LATTICE_PX`. Windows that are snapped to the lattice and carry a halo therefore give the answer of the whole scene.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional
from torchvision.models.resnet import BasicBlock
from torchvision.ops import Conv2dNormActivation

from models.classes import OBJECT_CLASSES
from models.detector.refinement import DEVIATION, GREY, RefinerNet, residual_block
from models.detector.refinement import reach_px as refiner_reach_px

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

SUB_STRIDE = 2
"""Stride of the trunk over that of the maps."""
SUB_CELLS = SUB_STRIDE**2
TRUNK_STRIDE = STRIDE * SUB_STRIDE
_SMALLEST_CUT_PX = 1 << 16
"""Smaller parts are not cut out: oneDNN convolves maps of under some 420 places in another order, and in a field of one
colour, where neighbours tie, the last bits decide which of them is the peak."""
MAX_OFFSET_CELLS = 2.0
"""Farthest a centre is decoded from the cell of its peak."""
_HEAT_PRIOR = -4.6
"""Logit of 0.01, so that the first steps are not spent on unlearning that everything is an object (RetinaNet)."""


def normalise(
    images: torch.Tensor, valid: torch.Tensor | None = None, precision: torch.dtype = torch.float32
) -> torch.Tensor:
    """Turn uint8 images (N, H, W, 3) into the network's input (N, 3, H, W) of `precision`, laid out channels-last.

    Invalid pixels (`valid` False, shape (N, H, W)) become zero, which is mid-grey, whatever lies under them.
    """
    # In place, and in bfloat16 from the start: 0..255 are exact in it, and a window is copied once.
    scaled = images.to(precision).sub_(GREY).div_(DEVIATION)
    if valid is not None:
        scaled.mul_(valid.unsqueeze(-1))
    return scaled.permute(0, 3, 1, 2)


class Area(NamedTuple):
    """Part of an image, in pixels; `bottom` and `right` are outside."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        """Rows."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Columns."""
        return self.right - self.left

    def grown(self, by_px: int, within: "Area") -> "Area":
        """With `by_px` more on every side, as far as `within` reaches."""
        return Area(
            max(within.top, self.top - by_px),
            max(within.left, self.left - by_px),
            min(within.bottom, self.bottom + by_px),
            min(within.right, self.right + by_px),
        )

    def moved(self, down_px: int, right_px: int) -> "Area":
        """The same place seen from another corner."""
        return Area(self.top + down_px, self.left + right_px, self.bottom + down_px, self.right + right_px)

    def of(self, maps: torch.Tensor, stride: int) -> torch.Tensor:
        """What of maps (N, C, H / stride, W / stride) lies in it."""
        return maps[..., self.top // stride : self.bottom // stride, self.left // stride : self.right // stride]


class Features(NamedTuple):
    """What the maps are made of, on the device."""

    maps: torch.Tensor
    """(N, PYRAMID, h, w), each place for `SUB_CELLS` cells of the maps."""
    shown: Area
    """What of the images they cover: `own` and, inside the images, the cells around it."""
    own: Area
    """The part that was asked for."""
    whole: Area
    """The images."""


class DetectorNet(nn.Module):
    """Light residual encoder (32-48-96-192 channels at strides 2-16), a 48-channel pyramid, maps at stride 2.

    It proposes; `refiner`, trained together with it, judges what it proposes.

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
            stage = [residual_block(before, width, stride=1 if level == 0 else 2)]
            stage += [residual_block(width, width, stride=1) for _ in range(blocks - 1)]
            stages.append(nn.Sequential(*stage))
            before = width
        self.stages = nn.ModuleList(stages)
        self.fine = nn.Conv2d(STEM, PYRAMID, 2, stride=2)
        self.laterals = nn.ModuleList(nn.Conv2d(width, PYRAMID, 1) for width in WIDTHS[1:])
        self.smooth = Conv2dNormActivation(PYRAMID, PYRAMID, 3)
        self.head = Conv2dNormActivation(PYRAMID, PYRAMID, 3)
        self.maps = nn.Linear(PYRAMID, SUB_CELLS * CHANNELS)
        self.refiner = RefinerNet()
        with torch.no_grad():
            bias = self.maps.bias.zero_().view(SUB_CELLS, CHANNELS)
            bias[:, HEAT] = _HEAT_PRIOR
            bias[:, LETTERING] = _HEAT_PRIOR
            bias[:, SIZE] = torch.tensor([2.7, 2.1])  # 15 x 8 px, the middle of the equipment in logarithms

    @classmethod
    def of(cls, tensors: Mapping[str, torch.Tensor]) -> "DetectorNet":
        """The network of a weights file's tensors, float32. RuntimeError: they are those of another network."""
        net = cls()
        net.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
        return net

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Maps (N, CHANNELS, H / 2, W / 2), float32, of normalised images (N, 3, H, W).

        H and W are multiples of LATTICE_PX.
        """
        return self.maps_of(self.features(images))

    def maps_of(self, features: Features) -> torch.Tensor:
        """Maps (N, CHANNELS, h, w), float32, of features."""
        return spread(functional.linear(features.maps.permute(0, 2, 3, 1), self.maps.weight), self.maps.bias)

    def features(self, images: torch.Tensor, within: Area | None = None) -> Features:
        """What the last layer makes the maps of, for all of the images or for a part of them that lies on the lattice.

        What lies beside the part, in the halo, is calculated only as far into the network as the part needs it.
        """
        fine = self.stem(images)
        at_4 = self.stages[0](self.enter(fine))
        at_8 = self.stages[1](at_4)
        at_16 = self.stages[2](at_8)
        at_4 = at_4 + self.fine(fine)
        whole = Area(0, 0, *images.shape[2:])
        own = whole if within is None else within
        # Each of the two convolutions that are left spoils a cell along a cut: 8 px, then 4 px; then 4 px are wanted.
        rim = own.grown(LATTICE_PX, whole)
        if rim.height * rim.width < _SMALLEST_CUT_PX:
            rim = whole
        at_4, at_8, at_16 = rim.of(at_4, 4), rim.of(at_8, 8), rim.of(at_16, 16)
        # torchvision's FeaturePyramidNetwork smooths each level; only the one at stride 8 is worth its reach here.
        merged = self.smooth(_plus_doubled(self.laterals[0](at_8), self.laterals[1](at_16)))
        merged = self.head(_plus_doubled(at_4, merged))
        shown = own.grown(TRUNK_STRIDE, whole)
        return Features(shown.moved(-rim.top, -rim.left).of(merged, TRUNK_STRIDE), shown, own, whole)

    @property
    def reach_px(self) -> int:
        """Distance in pixels beyond its own cell at which an input pixel can still change an output cell.

        Walks the network backwards from every phase of the lattice, so it holds for the layers as they are.
        """
        reach = 0
        for cell in range(LATTICE_PX // STRIDE):
            for first, last in self._seen_by(cell):
                reach = max(reach, STRIDE * cell - first, last - (STRIDE * cell + STRIDE - 1))
        return max(reach, refiner_reach_px(STRIDE, (MAX_OFFSET_CELLS + 0.5) * STRIDE))

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


def spread(cells: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Maps (N, CHANNELS, 2 h, 2 w), float32, channels-last, of (N, h, w, SUB_CELLS * CHANNELS) without their bias.

    `pixel_shuffle` does the same and took a sixth of the whole forward pass in that layout. The bias is added in
    float32, because the 8 bits of bfloat16 are too few for a length in logarithms beside its mean.
    """
    count, height, width, _ = cells.shape
    split = (cells.float() + bias).view(count, height, width, SUB_STRIDE, SUB_STRIDE, CHANNELS)
    laid_out = split.transpose(2, 3).reshape(count, SUB_STRIDE * height, SUB_STRIDE * width, CHANNELS)
    return laid_out.permute(0, 3, 1, 2)


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


def _plus_doubled(maps: torch.Tensor, coarser: torch.Tensor) -> torch.Tensor:
    """`maps` plus the nearest-neighbour doubling of `coarser`: a cell reads the parent it lies in."""
    return maps + functional.interpolate(coarser, scale_factor=2, mode="nearest")


def _walk_back(convolutions: Sequence[nn.Conv2d], low: int, high: int) -> tuple[int, int]:
    """First and last input index that outputs `low`..`high` of a chain (last layer first) depend on."""
    for layer in convolutions:
        stride, padding = layer.stride[0], int(layer.padding[0])
        low = low * stride - padding
        high = high * stride - padding + layer.dilation[0] * (layer.kernel_size[0] - 1)
    return low, high
