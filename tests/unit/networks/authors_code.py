"""A network beside its authors' code, with the same random weights."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from restora.networks.base import Network


def randomise(network: nn.Module) -> None:
    """Make every parameter of a window transformer matter: norms start at one and zero, biases at zero,
    linear layers near it.
    """
    generator = torch.Generator().manual_seed(1)
    for name, parameter in network.named_parameters():
        if parameter.ndim == 1:
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
        elif parameter.ndim == 2:
            scale = 1.0 if name.endswith("table") else parameter.shape[1] ** -0.5
            parameter.data = scale * torch.randn(parameter.shape, generator=generator)


def recognised_by_spandrel(network: Network, architecture: str) -> nn.Module:
    """The network that spandrel recognises in the published form of the weights."""
    import spandrel

    descriptor = spandrel.MAIN_REGISTRY.load(network.published_state_dict())
    assert descriptor.architecture.id == architecture
    model = descriptor.model
    assert isinstance(model, nn.Module)
    return model.eval()


def check_gradients(network: nn.Module, reference: nn.Module, x: Tensor) -> None:
    """Every parameter's gradient is the one of the same name, in double precision."""
    for each in (network.double(), reference.double()):
        each(x.double()).square().mean().backward()
    expected = {name: parameter.grad for name, parameter in reference.named_parameters()}
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], msg=lambda m, n=name: n + m)


def check_inferred(cls: type[Any], arguments: Mapping[str, Any]) -> None:
    """The arguments are inferred from a state dict, as far as weights can."""
    network = cls(**arguments)
    found = cls.infer_arguments(network.published_state_dict())
    assert found is not None
    for name in found:
        value = arguments.get(name, found[name])
        assert found[name] == (list(value) if isinstance(value, tuple) else value)
    again = cls(**found).state_dict()
    assert {n: v.shape for n, v in again.items()} == {n: v.shape for n, v in network.state_dict().items()}
