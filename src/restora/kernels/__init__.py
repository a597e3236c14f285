"""Fused kernels for a GPU, in Triton.

They compute the most expensive operations of NAFNet's and Restormer's blocks with less memory traffic.

`functions.py` has the operations with their derivatives, `programs.py` the Triton programs.
"""

import importlib.util
import os

from torch import Tensor

SWITCH = "RESTORA_KERNELS"
"""The environment variable that turns them on (1) or off (0)."""
_MOST_CHANNELS = 1024
"""Largest number of channels of a row that fits a program's registers."""


def usable(x: Tensor, channels: int) -> bool:
    """Whether the kernels compute rows of `channels` numbers for features like `x`.

    Only on CUDA with Triton installed, and only if turned on, as their speed has not been measured yet.
    """
    return (
        x.is_cuda
        and _ON
        and channels <= _MOST_CHANNELS
        and x.dtype.is_floating_point
        and x.dtype.itemsize <= 4
    )


_ON = os.environ.get(SWITCH, "0") == "1" and importlib.util.find_spec("triton") is not None
"""Read once: a constant for torch.compile."""
