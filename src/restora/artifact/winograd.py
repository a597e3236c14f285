"""3x3 convolutions of photos on a CPU with 4 multiplications per pixel instead of 9.

Six rows of the result are a combination of eight products, each of one combination of eight rows of the
input with one of the three rows of the kernel: Winograd's F(6,3) along the height. Along the width the three
taps stay three matrix products. F(6x6,3x3), which would need 1.8 multiplications, is no faster with torch's
operations: the second pair of transformations costs what the products save (benchmarks/NOTES.md). Six rows
are computed at a time, in memory that is reused for the next six.

S. Winograd, "Arithmetic Complexity of Computations", SIAM 1980; A. Lavin, S. Gray, "Fast Algorithms for
Convolutional Neural Networks", CVPR 2016. The rounding is 1.7 times that of the direct convolution.

Legend: B photos, C channels, C' of the result, H height, W width.
"""

from collections import Counter
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restora.networks.layers.channels_last import FAST_PRODUCTS

_POINTS = (0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5)
"""Where the polynomials are evaluated, besides infinity."""
_BIASED = 1
"""The index of the point 1, all of whose powers are 1: a value added there is added to all six rows."""
_ROWS_OUT, _ROWS_IN = 6, 8
_FEWEST_CHANNELS = 48 * 48
"""C C' from which the transformations cost less than they save: they grow with C + C'."""
_SMALLEST = 64 * 64 * 128
"""C C' W from which the overhead of the calls is negligible, also with two threads."""
_LOWEST = 32
"""H from which the last strip, with up to five surplus rows, does not matter."""


def use_winograd(network: nn.Module) -> None:
    """Makes the convolutions of a network for inference use this algorithm where it is faster.

    That is: 3x3, float32, no gradients, channels_last features of sufficient size, and a CPU on which matrix
    products run at the speed of convolutions.
    """
    if not FAST_PRODUCTS:
        return
    relus = _relus(network)
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and _fits(module):
            relu = relus.get(module)
            module.forward = partial(_convolve_if_large, module, relu is not None)  # type: ignore[method-assign]
            if relu is not None:
                relu.forward = nn.Identity().forward  # type: ignore[method-assign]


def _relus(network: nn.Module) -> dict[nn.Module, nn.ReLU]:
    """The ReLU after each convolution of a sequence, unless either is in other places too.

    It is applied to rows just computed, before they leave the cache.
    """
    places = Counter(child for module in network.modules() for child in module._modules.values())
    return {
        module: following
        for sequence in network.modules()
        if isinstance(sequence, nn.Sequential)
        for module, following in pairwise(sequence)
        if type(following) is nn.ReLU and places[module] == places[following] == 1
    }


def _fits(layer: nn.Conv2d) -> bool:
    return (
        type(layer).forward is nn.Conv2d.forward
        and layer.kernel_size == (3, 3)
        and layer.stride == layer.dilation == layer.padding == (1, 1)
        and layer.groups == 1
        and layer.padding_mode == "zeros"
        and layer.in_channels * layer.out_channels >= _FEWEST_CHANNELS
    )


def _convolve_if_large(layer: nn.Conv2d, relu: bool, x: Tensor) -> Tensor:
    """(B,C,H,W) -> (B,C',H,W); with `relu`, the ReLU of the result."""
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
        y = layer._conv_forward(x, layer.weight, layer.bias)
        return F.relu(y, inplace=True) if relu else y
    return convolve(x, layer.weight, layer.bias, relu=relu)


@torch.no_grad()
def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, *, relu: bool = False) -> Tensor:
    """(B,C,H,W) in channels_last, (C',C,3,3), (C',) -> (B,C',H,W) in channels_last, zeros outside.

    Float32, without gradients.
    """
    # in channels_last a row of a photo is one vector of W C numbers, so rows combine in one product
    x_BHWC = x.permute(0, 2, 3, 1)
    count, height, width, channels = x_BHWC.shape
    taps = weight.permute(2, 3, 1, 0)  # (row, column, C, C')
    # the three rows of taps become eight, (8,C,C') for each of three columns
    left, middle, right = (_KERNEL @ taps.reshape(3, -1)).view(_ROWS_IN, *taps.shape[1:]).unbind(1)
    combined = x.new_empty((_ROWS_IN, width + 2, channels))
    # a column of zeros on each side: a tap to the left or right is then a slice moved by one
    combined[:, 0] = combined[:, -1] = 0
    products = x.new_empty((_ROWS_IN, width, len(weight)))
    y_BHWC = x.new_empty((count, height, width, len(weight)))
    for photo, restored in zip(x_BHWC, y_BHWC, strict=True):
        for top in range(0, height, _ROWS_OUT):
            # eight rows from one above the six; outside the photo are zeros, whose factors are left out
            first, last = max(top - 1, 0), min(top - 1 + _ROWS_IN, height)
            # (8, up to 8) times (up to 8, W C)
            torch.mm(
                _INPUT[:, first - top + 1 : last - top + 1],
                photo[first:last].flatten(1),
                out=combined[:, 1:-1].flatten(1),
            )
            # eight products (W,C) (C,C') for each of the three columns of taps, added up
            torch.bmm(combined[:, :-2], left, out=products)
            products.baddbmm_(combined[:, 1:-1], middle).baddbmm_(combined[:, 2:], right)
            if bias is not None:
                products[_BIASED] += bias
            # (up to 6, 8) times (8, W C'), into the result itself; the last strip has fewer rows
            rows = restored[top : top + _ROWS_OUT]
            torch.mm(_OUTPUT[: len(rows)], products.flatten(1), out=rows.flatten(1))
            if relu:
                rows.relu_()
    return y_BHWC.permute(0, 3, 1, 2)


def _matrices() -> tuple[Tensor, Tensor, Tensor]:
    """For input (8,8), kernel (8,3) and output (6,8): y = output ((kernel g) (input d)).

    Toom and Cook's multiplication of polynomials transposed: values at the points and at infinity. Each
    combination of the input is divided by its largest factor, and its kernel multiplied.
    """
    points = torch.tensor(_POINTS, dtype=torch.float64)

    # values of a polynomial of so many coefficients at the points; at infinity, its last coefficient
    def powers(number: int) -> Tensor:
        at_infinity = torch.eye(number, dtype=torch.float64)[-1:]
        return torch.cat((points[:, None] ** torch.arange(number), at_infinity))

    # a product is evaluated, multiplied, interpolated; transposed, the interpolation meets the input
    combine = torch.linalg.inv(powers(_ROWS_IN)).T
    # factors of at most 1 round least; kernels are combined only once, and take the rest
    largest = combine.abs().amax(1, keepdim=True)
    matrices = combine / largest, powers(3) * largest, powers(_ROWS_OUT).T
    return tuple(matrix.float().contiguous() for matrix in matrices)  # type: ignore[return-value]


_INPUT, _KERNEL, _OUTPUT = _matrices()
