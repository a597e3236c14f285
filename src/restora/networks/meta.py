"""Modules without memory for their weights: on torch's meta device, where nothing is computed."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def on_meta(make: Callable[[], M]) -> M:
    """The module that `make` builds, on the meta device.

    A constructor that reads a tensor's values, such as `[x.item() for x in torch.linspace(0, 0.1, 6)]`,
    cannot run there: it is then built in memory and moved.
    """
    try:
        with torch.device("meta"):
            return make()
    except Exception as error:  # a constructor of the user's own raises anything
        if isinstance(_origin(error), ValueError):  # refused arguments: in memory too
            raise
    return make().to("meta")


def _origin(error: BaseException) -> BaseException:
    """The error that an error was raised from, and so on."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
