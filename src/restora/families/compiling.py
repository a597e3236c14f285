"""torch.compile by region where it can run, and one clear message where it cannot.

Each block of a network is compiled separately, so that blocks of one kind share a compiled graph: NAFNet's 36
blocks need five graphs. The code between the blocks stays uncompiled.
"""

import logging

import torch
from torch import Tensor, nn

from restora.families.checkpointing import blocks_of

log = logging.getLogger(__name__)


AUTO = "auto"
MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
_MOST_GRAPHS = 128
"""Graphs of one class of blocks: its sizes in a network, times the patch sizes of progressive learning."""


def check_mode(mode: bool | str) -> None:
    """Raises ValueError for a mode that torch.compile does not have."""
    if isinstance(mode, str) and mode not in (AUTO, *MODES):
        raise ValueError(
            f"compile must be true, false, {AUTO} or a mode of torch.compile ({', '.join(MODES)}), got {mode}"
        )


def compile_in_place(network: nn.Module, device: torch.device, mode: bool | str = True) -> bool:
    """Compiles a network without renaming its parameters; False, with one warning, where that is impossible.

    With `mode` true the blocks are compiled; a mode of torch.compile compiles the whole network as one graph,
    which "reduce-overhead" needs to replay one CUDA graph (for networks whose kernels are shorter than their
    launches). Training patches keep one shape per stage, so shapes are static: inductor's dynamic shapes
    crashed when one process used several memory layouts (torch 2.13).
    """
    reason = why_not(device)
    if reason:
        log.warning("torch.compile does not work here (%s): training continues uncompiled", reason)
        return False
    allow_graphs()
    chosen = [network] if isinstance(mode, str) else regions(network)
    kinds = len({type(module) for module in chosen})
    log.info(
        "compiled: %s", "as one graph" if chosen == [network] else f"{len(chosen)} blocks of {kinds} kinds"
    )
    for module in chosen:
        module.compile(dynamic=False, mode=mode if isinstance(mode, str) else None)
    return True


def allow_graphs() -> None:
    """Raises the limit on the number of graphs of one function.

    Torch 2.11 does not have it as an argument of `compile`.
    """
    settings = torch._dynamo.config
    settings.recompile_limit = max(settings.recompile_limit, _MOST_GRAPHS)


def regions(network: nn.Module) -> list[nn.Module]:
    """The blocks, if they hold at least half of the weights; otherwise the network itself."""
    blocks = blocks_of(network)
    within = sum(p.numel() for block in blocks for p in block.parameters())
    return blocks if 2 * within >= sum(p.numel() for p in network.parameters()) else [network]


def why_not(device: torch.device) -> str | None:
    """Why torch.compile does not work on the device, found by compiling a small function; None if it does.

    A compiler may be missing, be named wrongly by CXX, or lack Python's headers. The time this takes is
    saved again in the network's first step.
    """
    try:
        torch.compile(_small, dynamic=False)(torch.ones(8, device=device))
    except Exception as error:
        return first_cause(error)
    return None


def first_cause(error: BaseException) -> str:
    """The root cause of an error, in one line: torch wraps the messages of compilers."""
    while (before := error.__cause__ or error.__context__) is not None:
        error = before
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _small(x: Tensor) -> Tensor:
    return x.sin() + 1
