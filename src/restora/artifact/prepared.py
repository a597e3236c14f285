"""A network as it is used for inference.

Legend: B photos, C channels, H height, W width.
"""

import copy
from functools import partial

import torch
from torch import Tensor, nn

from restora.artifact.centred import centre_features
from restora.networks.base import Network
from restora.networks.layers.local_converter import convert


def prepare_network(network: Network, local_converter: tuple[int, int] | None) -> Network:
    """A copy of `network` for inference: converted, batch norm folded, frozen, in evaluation mode."""
    if local_converter is None:
        network = copy.deepcopy(network)
    else:
        network = convert(network, train_size=local_converter)
    network.eval()
    fold = getattr(network, "fold_batch_norm", None)
    return (network if fold is None else fold()).requires_grad_(False)


def guard_precision(network: Network, dtype: torch.dtype) -> None:
    """Makes the convolutions of a network lose less precision under autocast to `dtype`, at the same speed.

    Plain stacks keep their features centred (`artifact/centred.py`). Elsewhere the convolutions that read the
    photo run in float32: bfloat16 has 8 significant bits, so the photo itself would be rounded. The others
    add their biases in float32: autocast rounds these too, and that error is the same at every pixel and adds
    up over the layers.
    """
    centre_features(network, dtype)
    given = network.in_channels + network.condition_channels
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and type(module).forward is nn.Conv2d.forward:
            depthwise = 1 < module.groups == module.in_channels
            reads_photo = module.in_channels <= given and not depthwise
            convolve = _convolve_exactly if reads_photo else _convolve
            module.forward = partial(convolve, module)  # type: ignore[method-assign]


def _convolve_exactly(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """(B,C,H,W) -> (B,C',H',W') in the dtype of the weights."""
    with torch.autocast(x.device.type, enabled=False):
        return layer._conv_forward(x.to(layer.weight.dtype), layer.weight, layer.bias)


def _convolve(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """(B,C,H,W) -> (B,C',H',W') in autocast's dtype, the bias added in its own."""
    product = layer._conv_forward(x, layer.weight, None)
    return product if layer.bias is None else product.add_(layer.bias.view(-1, 1, 1))


def in_channels_last(network: Network) -> Network:
    """The network with its weights of convolutions in the memory format that its photos have.

    (`Module.to` also converts tensors of five dimensions, which that format does not have.)
    """
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.ndim == 4:
            tensor.data = tensor.data.to(memory_format=torch.channels_last)
    return network
