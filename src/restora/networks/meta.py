"""Modules without memory for their weights: on torch's meta device, where nothing is computed."""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

M = TypeVar("M", bound=nn.Module)
P = ParamSpec("P")


def on_meta(make: Callable[[], M]) -> M:
    """The module that `make` builds, on the meta device.

    A constructor that reads a tensor's values, such as `[x.item() for x in torch.linspace(0, 0.1, 6)]`,
    cannot run there: it is then built in memory and moved.
    """
    try:
        with torch.device("meta"), _WithoutValues():
            return make()
    except Exception as error:  # a constructor of the user's own raises anything
        if isinstance(_origin(error), ValueError):  # refused arguments: in memory too
            raise
    return make().to("meta")


def in_memory(make: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Decorator for a constant of a module: it is computed on the CPU, then moved to the device in use.

    Arithmetic on the meta device makes torch import its compiler, which doubles the start of a command.
    """

    @wraps(make)
    def made(*arguments: P.args, **options: P.kwargs) -> Tensor:
        device = torch.empty(0).device
        with torch.device("cpu"):
            constant = make(*arguments, **options)
        return constant.to(device)

    return made


class _WithoutValues(TorchFunctionMode):
    """Leaves out the initial values of weights on the meta device, whose shapes torch computes in Python."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _VALUES or getattr(func, "__module__", "") == "torch.nn.init":
            tensor = args[0] if args else kwargs.get("tensor")
            if isinstance(tensor, Tensor) and tensor.is_meta:
                return tensor
        return func(*args, **kwargs)


_VALUES = {Tensor.normal_, Tensor.uniform_, Tensor.zero_, Tensor.fill_}


def _origin(error: BaseException) -> BaseException:
    """The error that an error was raised from, and so on."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
