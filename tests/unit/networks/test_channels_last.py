"""Operations on (B,H,W,C) give what torch's own give on (B,C,H,W), and so do their derivatives."""

import pytest
import torch
from torch import Tensor, nn

from restora.artifact.restorer import Restorer
from restora.networks.base import Network
from restora.networks.layers.channels_last import (
    LayerNorm,
    Linear,
    bias_free_layer_norm,
    convolve,
    layer_norm,
    pointwise,
    to_channels_first,
    to_channels_last,
)


def bias_free(x: Tensor, weight: Tensor) -> Tensor:
    """Restormer's norm as the paper has it."""
    return x / torch.sqrt(x.var(-1, keepdim=True, correction=0) + 1e-5) * weight


def test_orders_are_each_others_inverse_and_views_where_they_can_be() -> None:
    x = torch.rand(2, 5, 3, 4)
    assert torch.equal(to_channels_first(to_channels_last(x)), x)
    features = torch.rand(2, 3, 4, 5)
    assert to_channels_last(to_channels_first(features)).data_ptr() == features.data_ptr()


def test_convolutions_are_torchs() -> None:
    x = torch.rand(2, 6, 5, 7)
    narrow, wide = nn.Conv2d(6, 4, 1), nn.Conv2d(6, 8, 3, padding=1, groups=2)
    torch.testing.assert_close(to_channels_first(pointwise(narrow, to_channels_last(x))), narrow(x))
    torch.testing.assert_close(to_channels_first(convolve(wide, to_channels_last(x))), wide(x))


def test_layers_are_torchs() -> None:
    x = torch.rand(3, 4, 10)
    linear, norm = Linear(10, 6), LayerNorm(10)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    torch.testing.assert_close(linear(x), nn.functional.linear(x, linear.weight, linear.bias))
    torch.testing.assert_close(norm(x), nn.functional.layer_norm(x, (10,), norm.weight, norm.bias))


def test_the_bias_free_norm_and_its_derivative_are_those_of_its_definition() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 4, 12, dtype=torch.double, generator=generator) + 3  # far from mean 0
    weight = torch.randn(12, dtype=torch.double, generator=generator)
    x.requires_grad_()
    weight.requires_grad_()
    torch.testing.assert_close(bias_free_layer_norm(x, weight), bias_free(x, weight))
    assert torch.autograd.gradcheck(bias_free_layer_norm, (x, weight))
    grad = torch.randn(x.shape, dtype=torch.double, generator=generator)
    ours = torch.autograd.grad(bias_free_layer_norm(x, weight), (x, weight), grad)
    torch.testing.assert_close(ours, torch.autograd.grad(bias_free(x, weight), (x, weight), grad))
    (slope,) = torch.autograd.grad(bias_free_layer_norm(x, weight).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):  # not a second derivative that is wrong
        slope.sum().backward()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norms_keep_the_dtype_of_their_input_under_autocast(dtype: torch.dtype) -> None:
    x = torch.rand(2, 3, 8).to(dtype).requires_grad_()
    weight, bias = torch.ones(8, requires_grad=True), torch.zeros(8, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y, z = layer_norm(x, weight, bias), bias_free_layer_norm(x, weight)
    assert y.dtype == z.dtype == dtype
    (y + z).float().sum().backward()
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32
    torch.testing.assert_close(z.float(), bias_free(x.float(), weight), atol=0.05, rtol=0.05)


def test_a_network_may_hold_tensors_of_five_dimensions() -> None:
    """The format has only those of four."""

    class Scaled(Network):
        family, tasks = "unet", ("denoise",)
        in_channels = out_channels = 3

        def __init__(self) -> None:
            super().__init__()
            self.factor = torch.nn.Parameter(torch.full((1, 3, 1, 1, 1), 0.5))

        def restore(self, x: torch.Tensor, condition: torch.Tensor | None) -> torch.Tensor:
            return x * self.factor[..., 0]

    x = torch.rand(1, 3, 8, 8)
    assert torch.equal(Restorer(network=Scaled(), device="cpu")(x), x * 0.5)
