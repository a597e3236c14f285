"""Blocks that several networks share, with the parameter names of the published checkpoints.

All of them take and return (B,C,H,W), in either memory format, and keep the format of their input unless a
docstring says otherwise. `channels_last.py` is for networks that keep their features as (B,H,W,C) throughout.

Legend: B samples, C channels, H height, W width, s scale.
"""

import math
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restora.networks.layers.channels_last import autocast_enabled, pointwise
from restora.networks.meta import in_memory

DIV2K_MEAN = (0.4488, 0.4371, 0.4040)
"""Mean colour of DIV2K's training photos on the [0,1] scale, subtracted by EDSR and derived networks."""

Activation = Literal["relu", "leaky_relu", "prelu", "gelu"]


def conv3x3(in_channels: int, out_channels: int, *, bias: bool = True, groups: int = 1) -> nn.Conv2d:
    """A 3x3 convolution with zero padding that keeps the size."""
    return nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=bias, groups=groups)


def conv1x1(in_channels: int, out_channels: int, *, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 1, bias=bias)


def activation(name: Activation, *, channels: int = 1, slope: float = 0.2) -> nn.Module:
    """An activation by name.

    `slope` is the negative slope (the initial one for a PReLU, which has one per channel).
    """
    if name == "relu":
        return nn.ReLU(inplace=True)
    if name == "leaky_relu":
        return nn.LeakyReLU(slope, inplace=True)
    if name == "prelu":
        return nn.PReLU(channels, init=slope)
    if name == "gelu":
        return nn.GELU()
    raise ValueError(f"activation must be relu, leaky_relu, prelu or gelu, got {name!r}")


def he_initialise(module: nn.Module, *, scale: float = 1.0) -> None:
    """Initialises convolutions by He's rule for ReLU (He et al., ICCV 2015), times `scale`; biases are 0.

    torch's own default has a third of that variance: twenty plain layers reduce the signal's power to 3^-20.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
            if scale != 1.0:
                with torch.no_grad():
                    part.weight.mul_(scale)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def initialise_as_dcgan(module: nn.Module) -> None:
    """Weights from N(0, 0.02), batch-norm weights from N(1, 0.02) (Radford et al., ICLR 2016)."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(part.weight, std=0.02)
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.weight, mean=1.0, std=0.02)


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """A context without autocast, for arithmetic that needs more precision than bf16."""
    return torch.autocast(x.device.type, enabled=False) if autocast_enabled(x) else nullcontext()


class PointwiseConv(nn.Conv2d):
    """A 1x1 convolution computed as a matrix product on channels-last rows.

    torch's own takes a slow path on a CPU.

    It has the parameters of `nn.Conv2d(..., 1)`. Exported graphs keep the convolution, which runtimes fuse
    better than a matrix product between two transpositions.
    """

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_exporting() or not x.is_contiguous(memory_format=torch.channels_last):
            return super().forward(x)
        return pointwise(self, x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class MeanShift(nn.Module):
    """Adds `sign` times the mean colour, as a fixed 1x1 convolution like that in the checkpoints.

    `weight` (C,C,1,1) and `bias` (C,) are buffers: saved and loaded, but not trained. For one channel it is
    the mean of the colours, for counts other than one and three it is 0. `value_range` is the photo's largest
    value.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, channels: int, *, sign: int, value_range: float = 1.0) -> None:
        super().__init__()
        colour: Sequence[float] = (0.0,) * channels
        if channels in (1, 3):
            colour = DIV2K_MEAN if channels == 3 else (sum(DIV2K_MEAN) / 3,)
        self.register_buffer("weight", _identity(channels))
        self.register_buffer("bias", _shift(colour, sign * value_range))

    def forward(self, x: Tensor) -> Tensor:
        # bf16 holds 8 bits: on a range of 255 it would round the photo itself
        with without_autocast(x):
            return F.conv2d(x, self.weight.to(x.dtype), self.bias.to(x.dtype))


@in_memory
def _identity(channels: int) -> Tensor:
    """(C,C,1,1), the 1x1 convolution that keeps a photo."""
    return torch.eye(channels)[:, :, None, None]


@in_memory
def _shift(colour: Sequence[float], factor: float) -> Tensor:
    return torch.tensor(colour) * factor


class PixelShuffleUpsampler(nn.Sequential):
    """(B,C,H,W) -> (B,C,sH,sW).

    A convolution to s^2 C channels and a pixel shuffle, in steps of 2 for powers of two.

    EDSR's names: `0` and `2` (x4) are the convolutions. Shi et al., "Real-Time Single Image and Video
    Super-Resolution Using an Efficient Sub-Pixel Convolutional Neural Network", CVPR 2016. Scale 1 is the
    identity.
    """

    def __init__(self, channels: int, *, scale: int) -> None:
        layers: list[nn.Module] = []
        for step in upsampling_steps(scale):
            layers += [conv3x3(channels, step * step * channels), nn.PixelShuffle(step)]
        super().__init__(*layers)


def upsampling_steps(scale: int) -> list[int]:
    """The factors of the upsampling steps of a scale: 2 and 2 for 4, 3 for 3, none for 1."""
    if scale == 3:
        return [3]
    steps = int(math.log2(scale)) if scale > 0 else -1
    if steps < 0 or 2**steps != scale:
        raise ValueError(f"network.scale must be 3 or a power of two, got {scale}")
    return [2] * steps


class ResidualBlock(nn.Module):
    """x + residual_scale * conv(relu(conv(x))), EDSR's block without batch norm: `body.0` and `body.2`.

    Lim et al., "Enhanced Deep Residual Networks for Single Image Super-Resolution", CVPRW 2017, figure 2c.
    """

    def __init__(self, channels: int, *, residual_scale: float = 1.0) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv3x3(channels, channels), nn.ReLU(inplace=True), conv3x3(channels, channels)
        )
        self.residual_scale = residual_scale

    def forward(self, x: Tensor) -> Tensor:
        return torch.add(x, self.body(x), alpha=self.residual_scale)


class ChannelAttention(nn.Module):
    """Scales each channel by a gate computed from its mean (RCAN), or mean + standard deviation (IMDN).

    Zhang et al., ECCV 2018, equations 11-13; Hui et al., ACM MM 2019, equation 4. Names: `conv_du.0`,
    `conv_du.2`.
    """

    def __init__(self, channels: int, *, reduction: int = 16, contrast: bool = False) -> None:
        super().__init__()
        hidden = max(channels // reduction, 1)
        self.conv_du = nn.Sequential(
            conv1x1(channels, hidden), nn.ReLU(inplace=True), conv1x1(hidden, channels), nn.Sigmoid()
        )
        self.contrast = contrast

    def forward(self, x: Tensor) -> Tensor:
        if self.contrast:
            with without_autocast(x):
                variance, mean = torch.var_mean(x.float(), dim=(2, 3), correction=0, keepdim=True)
            # the gradient of the square root is infinite for a constant channel
            pooled = (mean + variance.clamp_min(1e-12).sqrt()).to(x.dtype)  # (B,C,1,1)
        else:
            pooled = x.mean(dim=(2, 3), keepdim=True)  # (B,C,1,1)
        return x * self.conv_du(pooled)


def batch_norm_folded(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """The convolution that is equal to norm(convolution(x)) in evaluation mode."""
    assert norm.running_mean is not None
    assert norm.running_var is not None

    def exact(values: Tensor) -> Tensor:
        return values.cpu().double()  # not every device has float64

    with torch.no_grad():
        gain = exact(norm.weight) / torch.sqrt(exact(norm.running_var) + norm.eps)
        bias = 0.0 if convolution.bias is None else exact(convolution.bias)
        folded = nn.Conv2d(
            convolution.in_channels,
            convolution.out_channels,
            convolution.kernel_size,  # type: ignore[arg-type]
            stride=convolution.stride,  # type: ignore[arg-type]
            padding=convolution.padding,  # type: ignore[arg-type]
            dilation=convolution.dilation,  # type: ignore[arg-type]
            groups=convolution.groups,
            device=convolution.weight.device,
        )
        folded.weight.copy_(exact(convolution.weight) * gain[:, None, None, None])
        assert folded.bias is not None
        folded.bias.copy_((bias - exact(norm.running_mean)) * gain + exact(norm.bias))
    return folded


def convolution_names(state: Mapping[str, Tensor], sequence: str) -> list[str]:
    """The keys of the convolutions' weights in an `nn.Sequential` called `sequence`, in its order."""
    found = {
        int(match[1]): name
        for name, value in state.items()
        if value.ndim == 4 and (match := re.fullmatch(re.escape(sequence) + r"\.(\d+)\.weight", name))
    }
    return [found[position] for position in sorted(found)]


def count_children(state: Mapping[str, Tensor], module: str) -> int:
    """The number of numbered children of a module in a state dict: the largest number plus one."""
    pattern = re.compile(re.escape(module) + r"\.(\d+)\.")
    return max((int(match[1]) for name in state if (match := pattern.match(name))), default=-1) + 1


def upsampler_scale(state: Mapping[str, Tensor], sequence: str, width: int) -> int:
    """The scale of the convolutions and pixel shuffles in an `nn.Sequential` of a state dict.

    The features have `width` channels.
    """
    scale = 1
    for name in convolution_names(state, sequence):
        scale *= max(math.isqrt(state[name].shape[0] // width), 1)
    return scale


class InstanceNorm2d(nn.InstanceNorm2d):
    """Instance norm of (B,C,H,W), computed as a group norm with one channel per group.

    The results are the same. torch's own instance norm (2.11 to 2.15, on CPUs) has a wrong gradient for a
    batch of one if the incoming gradient is in channels_last. Its group norm on CPUs computes the variance in
    channels_last as E[x^2] - E[x]^2, which cancels where the mean is far larger than the deviation (0.5 and
    0.001: wrong by up to 0.09), so the mean is subtracted first.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu" and not x.is_contiguous():
            x = x - x.mean((2, 3), keepdim=True)
        return F.group_norm(x, self.num_features, self.weight, self.bias, self.eps)
