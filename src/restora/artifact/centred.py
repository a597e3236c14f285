"""Plain stacks of 16-bit convolutions whose features are stored as differences from their usual values.

bfloat16 has 8 significant bits: a feature of 1.6 is rounded by up to 0.004 however little it varies between
pixels. On a smooth photo a channel of a denoiser is a large constant with small differences, and these are
lost. Here z = feature - c is stored, with c a constant of the channel near the mean of its positive values,
so that only the differences are rounded. The next convolution of (z + c) is that of z plus a constant, which
is added to its bias in float32; ReLU is max(z, -c). Weights are rounded so that their errors compensate each
other. Products and speed are the same; DnCNN on BSD68 at noise level 25 loses a tenth of what it loses
otherwise (benchmarks/NOTES.md).
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restora.networks.base import Network
from restora.networks.layers.blocks import without_autocast

_SAMPLE = 96  # side in pixels of the noisy grey sample whose features are the usual values
_TRIES = 49
_TOGETHER = 48  # weights per block, whose errors are passed on to later ones as one product


class CentredStack(nn.Module):
    """(B,C,H,W) float -> (B,C',H,W) float32: convolutions with ReLU between, in `dtype`.

    The first convolution runs in float32, since it reads the photo. `sample` is an input that gives the usual
    features; it affects the rounding errors alone.
    """

    def __init__(self, *, convolutions: Sequence[nn.Conv2d], sample: Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        layers = [_Layer(convolutions[0], frame=None)]
        # y holds the exact features of the sample, before ReLU, (B,C,H,W)
        y = convolutions[0](sample)
        for convolution in convolutions[1:]:
            before = layers[-1]
            # (C,): the mean of what ReLU lets through, 0 where it lets nothing through
            usual = y.relu().sum(dim=(0, 2, 3)) / (y > 0).sum(dim=(0, 2, 3)).clamp(min=1)
            # the previous convolution stores z = feature - c: c is subtracted from its bias
            before.bias, centre = _in_two(before.bias, usual, dtype, exact=len(layers) == 1)
            centre = centre.view(1, -1, 1, 1)
            layer = _Layer(convolution, frame=-centre)
            # c is added back by the exact weights, so that their rounding affects the differences alone
            layer.bias = layer.bias + (layer.weight * centre).sum(dim=(1, 2, 3))
            # (B,Ckl,N): the factors of the weights at each position of the sample
            seen = F.unfold(layer.rectified(y - centre, -centre), layer.weight.shape[2:], layer.dilation)
            layer.weight = _rounded(layer.weight, seen, dtype)
            layers.append(layer)
            y = convolution(y.relu())
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        with without_autocast(x):
            first, *inner, last = self.layers
            y = first(x, torch.float32)
            for layer in inner:
                y = layer(y, self.dtype)
            return last(y, self.dtype, bias_apart=True)


class _Layer(nn.Module):
    """A convolution, after ReLU if there is a `frame` (1,C,1,1): the value of zero in its input."""

    weight: Tensor
    bias: Tensor
    frame: Tensor | None

    def __init__(self, convolution: nn.Conv2d, *, frame: Tensor | None) -> None:
        super().__init__()
        assert not isinstance(convolution.padding, str)
        self.padding, self.dilation = convolution.padding, convolution.dilation
        bias = convolution.bias
        self.register_buffer("weight", convolution.weight.detach().clone())
        self.register_buffer(
            "bias", self.weight.new_zeros(len(self.weight)) if bias is None else bias.detach().clone()
        )
        self.register_buffer("frame", frame)

    def forward(self, y: Tensor, dtype: torch.dtype, *, bias_apart: bool = False) -> Tensor:
        """(B,C,H,W) -> (B,C',H,W) in `dtype`.

        `bias_apart` adds the bias in float32, so that it need not be exact in `dtype`.
        """
        padding = self.padding
        if self.frame is not None:
            y, padding = self.rectified(y, self.frame.to(dtype)), (0, 0)
        bias = None if bias_apart else self.bias.to(dtype)
        y = F.conv2d(y.to(dtype), self.weight.to(dtype), bias, padding=padding, dilation=self.dilation)
        return y.float().add_(self.bias.view(-1, 1, 1)) if bias_apart else y

    def rectified(self, y: Tensor, frame: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,C,H+2p,W+2q): the larger of y and `frame`, padded with `frame` instead of zeros."""
        (b, c, h, w), (p, q) = y.shape, self.padding
        z = torch.empty(
            (b, c, h + 2 * p, w + 2 * q),
            dtype=frame.dtype,
            device=y.device,
            memory_format=torch.channels_last,
        )
        # the frame first; y is then read and z written once
        for side in (z[:, :, :p], z[:, :, p + h :], z[..., :q], z[..., q + w :]):
            side.copy_(frame.expand_as(side))
        torch.maximum(y.to(frame.dtype), frame, out=z[:, :, p : p + h, q : q + w])
        return z


@torch.no_grad()
def centre_features(network: Network, dtype: torch.dtype) -> None:
    """Replaces the plain stacks of `network`, which is in evaluation mode, in place."""
    for name, convolutions in dict(_plain_stacks(network)).items():
        parent, _, child = name.rpartition(".")
        sample = _usual_input(network, network.get_submodule(name))
        stack = CentredStack(convolutions=convolutions, sample=sample, dtype=dtype)
        setattr(network.get_submodule(parent), child, stack)


def _plain_stacks(network: Network) -> Iterator[tuple[str, list[nn.Conv2d]]]:
    """Names and convolutions of sequences conv, ReLU, conv, ReLU, ..., conv of three convolutions or more."""
    for name, module in network.named_modules():
        if not isinstance(module, nn.Sequential) or len(module) < 5 or len(module) % 2 == 0:
            continue
        # one that does not fit is missing in the sum below
        layers = [layer for layer in list(module)[::2] if isinstance(layer, nn.Conv2d) and _plain(layer)]
        rectifiers = [layer for layer in list(module)[1::2] if isinstance(layer, nn.ReLU)]
        if len(layers) + len(rectifiers) == len(module):
            yield name, layers


def _plain(layer: nn.Conv2d) -> bool:
    return (
        type(layer).forward is nn.Conv2d.forward
        and layer.stride == (1, 1)
        and layer.groups == 1
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
    )


def _usual_input(network: Network, stack: nn.Module) -> Tensor:
    """The input of `stack` for a grey photo with noise of level 25, as a model of smooth photos."""
    found: list[Tensor] = []
    handle = stack.register_forward_pre_hook(lambda _, given: found.append(given[0]))
    parameter = next(network.parameters())
    shape = (1, network.in_channels, _SAMPLE, _SAMPLE)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * (25 / 255)
    condition = parameter.new_full((1, network.condition_channels, *shape[2:]), 25 / 255)
    try:
        network((0.5 + noise).to(parameter), condition if network.condition_channels else None)
    finally:
        handle.remove()
    return found[0]


def _rounded(weight: Tensor, seen: Tensor, dtype: torch.dtype) -> Tensor:
    """(C',C,k,l) and the inputs (B,Ckl,N) -> the weights as numbers of `dtype`, in float32.

    Weights are rounded one by one; after each, those not rounded yet change so that they best compensate its
    error on `seen` (E. Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
    Transformers", ICLR 2023, algorithm 1).
    """
    # (C',Ckl); column i is rounded for all C' at once
    left = weight.flatten(1).clone()
    inputs = seen.transpose(0, 1).flatten(1)
    # (Ckl,Ckl); the diagonal is raised because an input may be zero at every place
    moments = inputs @ inputs.T
    moments.diagonal().add_(0.01 * moments.diagonal().mean() + 1e-12)
    # upper factor U of the inverse: after an error e in weight i, weight j > i changes by -e U_ij / U_ii
    factor = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(moments)), upper=True)
    for start in range(0, left.shape[1], _TOGETHER):
        block, own = left[:, start : start + _TOGETHER], factor[start : start + _TOGETHER]
        # (C',_TOGETHER): e / U_ii of each column
        errors = torch.empty_like(block)
        for index in range(block.shape[1]):
            exact = block[:, index].clone()
            block[:, index] = exact.to(dtype)
            errors[:, index] = (exact - block[:, index]) / own[index, start + index]
            # at once within the block, whose columns are rounded next
            block[:, index + 1 :].addr_(
                errors[:, index], own[index, start + index + 1 : start + _TOGETHER], alpha=-1
            )
        # and those after the block for all its errors together
        left[:, start + _TOGETHER :] -= errors @ own[:, start + _TOGETHER :]
    return left.view_as(weight)


def _in_two(total: Tensor, near: Tensor, dtype: torch.dtype, *, exact: bool) -> tuple[Tensor, Tensor]:
    """(C,) float32 -> bias and centre, whose sum is `total`, the centre near `near`.

    Both are exact in `dtype` (the bias in float32 if `exact`): of the `_TRIES` numbers of `dtype` around the
    nearest bias, the one is chosen whose centre is rounded least. The error of a rounded centre would be the
    same at every pixel and add up over the layers.
    """
    if exact:
        centre = near.to(dtype).float()
        return total - centre, centre
    steps = torch.arange(_TRIES, device=total.device) - _TRIES // 2
    # (_TRIES,C): neighbours of the nearest bias, a step of `dtype` apart
    bias = ((total - near) * (1 + steps[:, None] * torch.finfo(dtype).eps)).to(dtype).float()
    centre = (total - bias).to(dtype).float()
    # the centre rounds to itself where the two add up to the total
    best = (total - bias - centre).abs().argmin(dim=0, keepdim=True)
    return bias.gather(0, best)[0], centre.gather(0, best)[0]
