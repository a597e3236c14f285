"""3x3 convolutions of photos on a CPU with 4 multiplications for a pixel instead of 9.

Six rows of the result are a combination of eight products, each of one combination of eight rows of the
input with one of the three rows of the kernel: Winograd's F(6,3) along the height. Along the width the three
taps stay three matrix products. F(6x6,3x3), which would need 1.8 multiplications, is no faster by torch's
operations: what the products save, the second pair of transformations takes (benchmarks/NOTES.md). A strip of
six rows and some hundred columns is computed at a time, so that all of it but the photo stays in the cache.

S. Winograd, "Arithmetic Complexity of Computations", SIAM 1980; A. Lavin, S. Gray, "Fast Algorithms for
Convolutional Neural Networks", CVPR 2016. The rounding is 1.7 times that of the direct convolution.

Legend: B photos, C channels, C' of the result, H height, W width.
"""

from functools import partial

import torch
from torch import Tensor, nn

from restora.networks.channels_last import FAST_PRODUCTS

_POINTS = (0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5)
"""Where the polynomials are evaluated, besides infinity."""
_BIASED = 1
"""The place of the point 1, all of whose powers are 1: what is added there is added to all six rows."""
_ROWS_OUT, _ROWS_IN = 6, 8
_STRIP = 1 << 21
"""Bytes of a strip's combinations and products: what a core keeps in its second cache."""
_FEWEST_CHANNELS = 48 * 48
"""C C' from which the transformations cost less than they save: they grow with C + C'."""
_SMALLEST = 64 * 64 * 128
"""C C' W from which calls are long enough not to be noticed, with two threads too."""
_LOWEST = 32
"""H from which the last strip, of up to five rows too many, does not matter."""


def use_winograd(network: nn.Module) -> None:
    """Lets the convolutions of a network that is only used for inference take this way where it is faster:
    3x3, float32, no gradients, features in channels_last of a size that pays, and a CPU on which matrix
    products run at the speed of convolutions."""
    if not FAST_PRODUCTS:
        return
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and _fits(module):
            module.forward = partial(_convolve_if_large, module)  # type: ignore[method-assign]


def _fits(layer: nn.Conv2d) -> bool:
    return (
        type(layer).forward is nn.Conv2d.forward
        and layer.kernel_size == (3, 3)
        and layer.stride == layer.dilation == layer.padding == (1, 1)
        and layer.groups == 1
        and layer.padding_mode == "zeros"
        and layer.in_channels * layer.out_channels >= _FEWEST_CHANNELS
    )


def _convolve_if_large(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """(B,C,H,W) -> (B,C',H,W)."""
    _, _, height, width = x.shape
    pays = (
        not torch.is_grad_enabled()
        and x.device.type == "cpu"
        and x.dtype == layer.weight.dtype == torch.float32
        and height >= _LOWEST
        and layer.in_channels * layer.out_channels * width >= _SMALLEST
        and x.is_contiguous(memory_format=torch.channels_last)
    )
    if not pays:
        return layer._conv_forward(x, layer.weight, layer.bias)
    return convolve(x, layer.weight, layer.bias)


@torch.no_grad()
def convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(B,C,H,W) in channels_last, (C',C,3,3), (C',) -> (B,C',H,W) in channels_last, zeros outside the photo.
    float32, no gradients.
    """
    x_BHWC = x.permute(0, 2, 3, 1)
    count, height, width, _ = x_BHWC.shape
    taps = weight.permute(2, 3, 1, 0)  # (row, column, C, C')
    kernels = (_KERNEL @ taps.reshape(3, -1)).view(_ROWS_IN, *taps.shape[1:])
    y_BHWC = x.new_empty((count, height, width, len(weight)))
    strip = _Strip(kernels, bias, width)
    for photo, restored in zip(x_BHWC, y_BHWC, strict=True):
        for top in range(0, height, _ROWS_OUT):
            for left in range(0, width, strip.columns):
                strip.convolve(photo, restored, top, left)
    return y_BHWC.permute(0, 3, 1, 2)


class _Strip:
    """Six rows of the result at a time, `columns` wide, in memory that is used again and again."""

    def __init__(self, kernels: Tensor, bias: Tensor | None, width: int) -> None:
        rows, _, inputs, outputs = kernels.shape
        pieces = -(-width * rows * (inputs + outputs) * kernels.element_size() // _STRIP)
        self.columns = -(-width // pieces)
        self.kernels = kernels.unbind(1)  # three of (8,C,C')
        self.bias = bias
        self.combined = kernels.new_empty((rows, self.columns + 2, inputs))
        self.products = kernels.new_empty((rows, self.columns, outputs))

    def convolve(self, photo: Tensor, restored: Tensor, top: int, left: int) -> None:
        """(H,W,C) -> the rows and columns of (H,W,C') that begin at `top` and `left`."""
        height, width, _ = photo.shape
        bottom, right = min(top + _ROWS_OUT, height), min(left + self.columns, width)
        first, last = max(top - 1, 0), min(top - 1 + _ROWS_IN, height)
        before, after = max(left - 1, 0), min(right + 1, width)
        columns = right - left
        combined = self.combined[:, : columns + 2]
        if left == 0:
            combined[:, 0] = 0
        if right == width:
            combined[:, -1] = 0
        torch.mm(
            _INPUT[:, first - top + 1 : last - top + 1],
            photo[first:last, before:after].flatten(1),
            out=combined[:, before - left + 1 : after - left + 1].flatten(1),
        )
        products = self.products[:, :columns]
        if columns < self.columns:
            products = torch.empty_like(products, memory_format=torch.contiguous_format)
        torch.bmm(combined[:, :-2], self.kernels[0], out=products)
        products.baddbmm_(combined[:, 1:-1], self.kernels[1])
        products.baddbmm_(combined[:, 2:], self.kernels[2])
        if self.bias is not None:
            products[_BIASED] += self.bias
        torch.mm(
            _OUTPUT[: bottom - top], products.flatten(1), out=restored[top:bottom, left:right].flatten(1)
        )


def _matrices() -> tuple[Tensor, Tensor, Tensor]:
    """For input (8,8), kernel (8,3) and output (6,8): y = output ((kernel g) (input d)).

    Toom and Cook's multiplication of polynomials transposed: values at the points and at infinity. Each
    combination of the input is divided by its largest factor, and its kernel multiplied.
    """
    points = torch.tensor(_POINTS, dtype=torch.float64)

    def powers(number: int) -> Tensor:
        at_infinity = torch.eye(number, dtype=torch.float64)[-1:]
        return torch.cat((points[:, None] ** torch.arange(number), at_infinity))

    combine = torch.linalg.inv(powers(_ROWS_IN)).T
    largest = combine.abs().amax(1, keepdim=True)
    matrices = combine / largest, powers(3) * largest, powers(_ROWS_OUT).T
    return tuple(matrix.float().contiguous() for matrix in matrices)  # type: ignore[return-value]


_INPUT, _KERNEL, _OUTPUT = _matrices()
