"""The random numbers of `keyed.py` by a Triton kernel: one launch on a GPU instead of ten to thirty.

On a device's first use, `usable` draws some numbers both ways. If they differ, or if the kernel does not run,
it logs one warning and torch's operations draw instead. Words are equal bit for bit; normals up to the last
bits of log, sin and cos.

Legend: B samples.
"""

import functools
import importlib.util
import logging
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

log = logging.getLogger(__name__)

Kind = Literal["keys", "words", "halves", "normals"]
_KINDS: tuple[Kind, ...] = ("keys", "words", "halves", "normals")
_BLOCK = 512


def draw(keys: Tensor, salt: int, kind: Kind, count: int = 1) -> Tensor:
    """From int64 (B,) keys and a salt: keys (B,), or words number 1 to `count` of their stream.

    `words` are int64 (B,count); of each, `halves` takes its upper and lower 24 bits as float32 and `normals`
    makes two normal numbers: (B,2 count), the first of all words before the second.
    """
    program, cdiv = _program()
    batch = keys.shape[0]
    shapes = {"keys": (batch,), "words": (batch, count)}
    out = torch.empty(
        shapes.get(kind, (batch, 2 * count)),
        dtype=torch.int64 if kind in shapes else torch.float32,
        device=keys.device,
    )
    if out.numel():
        with torch.cuda.device_of(keys):  # Triton launches on the current device
            program[(cdiv(count, _BLOCK), batch)](
                keys.contiguous(), out, salt, count, KIND=_KINDS.index(kind), BLOCK=_BLOCK
            )
    return out


def usable(keys: Tensor, plain: Callable[[Tensor, int, Kind, int], Tensor]) -> bool:
    """Whether the kernel can draw for these keys; `plain` does the same with torch's operations."""
    return keys.is_cuda and _installed() and _works(keys.device, plain)


@functools.cache
def _installed() -> bool:
    return importlib.util.find_spec("triton") is not None


@functools.cache
def _works(device: torch.device, plain: Callable[[Tensor, int, Kind, int], Tensor]) -> bool:
    keys = torch.arange(-3, 4, device=device) * 0x9E3779B97F4A7C1
    try:
        for kind in _KINDS:
            got, wanted = draw(keys, -5, kind, 1000), plain(keys, -5, kind, 1000)
            near = torch.allclose(got, wanted, rtol=0, atol=1e-4) if kind == "normals" else False
            if not near and not torch.equal(got, wanted):
                raise ValueError(f"{kind} differ")
    except Exception as error:  # an untested compiler, driver or card
        log.warning("the kernel for random numbers is not used on %s (%s): torch draws", device, error)
        return False
    return True


@functools.cache
def _program() -> tuple[Any, Callable[[int, int], int]]:
    """The program, compiled for each kind when it is first drawn."""
    import triton

    from restora.kernels.random_program import drawn

    return drawn, triton.cdiv
