"""The cost of a network: parameters, and multiply-accumulates counted on the meta device."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from restora.networks.base import Network

_aten = torch.ops.aten
_ELEMENTWISE = {
    *(_aten.add, _aten.sub, _aten.mul, _aten.div, _aten.neg, _aten.pow, _aten.exp, _aten.sqrt, _aten.rsqrt),
    *(_aten.relu, _aten.leaky_relu, _aten.gelu, _aten.silu, _aten.sigmoid, _aten.tanh, _aten.clamp),
    *(_aten.clamp_min, _aten._softmax, _aten._safe_softmax),
}
_IN_PLACE = {_aten.relu_, _aten.leaky_relu_, _aten.add_, _aten.mul_, _aten.clamp_}


def count_parameters(network: nn.Module) -> int:
    """The number of parameters, trained or not."""
    return sum(parameter.numel() for parameter in network.parameters())


def count_macs(network: Network, *, height: int = 256, width: int = 256) -> int | None:
    """Multiply-accumulates of one forward pass on a (1,C,height,width) input.

    Convolutions and matrix products are counted, by torch's formulas. None if the network cannot run on the
    meta device.
    """
    x = torch.empty(1, network.in_channels, height, width, device="meta")
    condition = None
    if network.condition_channels:
        condition = torch.empty(1, network.condition_channels, height, width, device="meta")
    try:
        with _evaluated_on_meta(network) as ghost, torch.no_grad(), _Counter() as counter:
            ghost(x, condition)
    except Exception:  # networks of one's own fail there in any way, as where they read a value
        return None
    return counter.operations // 2


@contextmanager
def _evaluated_on_meta(network: Network) -> Iterator[Network]:
    """The network on the meta device, in evaluation mode: itself if it is there, as a copy takes as long as
    counting, and in its own modes again at the end."""
    tensors = [*network.parameters(), *network.buffers()]
    if not all(tensor.is_meta for tensor in tensors):
        yield copy.deepcopy(network).to("meta").eval()
        return
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield network
    finally:
        for module, training in modes.items():
            module.training = training


class _Counter(TorchDispatchMode):
    """Counts as torch's FlopCounterMode, but without its statistics per module.

    Outputs of element-wise operations, layer norms and linear layers are made from their known shapes, as
    torch would compute these in Python.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, packet = kwargs or {}, func._overloadpacket
        result: Any = None
        if packet in _IN_PLACE:
            result = args[0]
        elif packet in _ELEMENTWISE and not func._schema.is_mutable:
            result = _of_its_shape(args)
        elif packet is _aten.addmm:
            result = args[1].new_empty(args[1].shape[0], args[2].shape[1])
        elif packet is _aten.native_layer_norm:
            result = torch.empty_like(args[0]), *2 * [args[0].new_empty(*args[0].shape[:-1], 1)]
        if result is None:
            result = func(*args, **kwargs)
        if (count := flop_registry.get(packet)) is not None:
            self.operations += count(*args, **kwargs, out_val=result)
        return result


def _of_its_shape(arguments: tuple[Any, ...]) -> Tensor | None:
    """The output of an element-wise operation; None if no floating-point argument has its shape."""
    tensors = [each for each in arguments if isinstance(each, Tensor)]
    shape = torch.broadcast_shapes(*(tensor.shape for tensor in tensors))
    for tensor in tensors:
        if tensor.shape == shape and tensor.is_floating_point() and 0 not in tensor.stride():
            return torch.empty_strided(shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device)
    return None
