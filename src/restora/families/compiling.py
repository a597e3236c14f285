"""torch.compile by region where it can run, and one clear line where it cannot.

Each block of a network is compiled for itself, so that blocks of one kind share what is compiled: NAFNet's 36
need five graphs. What lies between them stays as it is.
"""

import logging

import torch
from torch import Tensor, nn

from restora.families.checkpointing import blocks_of

log = logging.getLogger(__name__)


AUTO = "auto"
MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
_MOST_GRAPHS = 128
"""Of one class of blocks: its sizes in a network, times the patch sizes of progressive learning."""


def check_mode(mode: bool | str) -> None:
    """Raises ValueError for what torch.compile does not know."""
    if isinstance(mode, str) and mode not in (AUTO, *MODES):
        raise ValueError(
            f"compile is true, false, {AUTO} or a mode of torch.compile ({', '.join(MODES)}), got {mode}"
        )


def compile_in_place(network: nn.Module, device: torch.device, mode: bool | str = True) -> bool:
    """Compiles a network without renaming its parameters; false, with one warning, where that cannot be done.

    With `mode` true the blocks are compiled; a mode of torch.compile takes the whole network as one graph, as
    "reduce-overhead" needs to replay one CUDA graph (for networks whose kernels are shorter than their
    launches). Training patches keep one shape per stage, so shapes are static: inductor's dynamic shapes
    crashed when several layouts met in one process (torch 2.13).
    """
    reason = why_not(device)
    if reason:
        log.warning("torch.compile does not work here (%s): training goes on uncompiled", reason)
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
    """Raises the limit of graphs a function may have.

    As an argument of `compile` it is newer than torch 2.11.
    """
    settings = torch._dynamo.config
    settings.recompile_limit = max(settings.recompile_limit, _MOST_GRAPHS)


def regions(network: nn.Module) -> list[nn.Module]:
    """The blocks, where most of the weights are in them; otherwise the network itself."""
    blocks = blocks_of(network)
    within = sum(p.numel() for block in blocks for p in block.parameters())
    return blocks if 2 * within >= sum(p.numel() for p in network.parameters()) else [network]


def why_not(device: torch.device) -> str | None:
    """What keeps torch.compile from working on the device, found by compiling something small.

    A compiler may be missing, be named wrongly by CXX, or lack Python's headers. The first step of the
    network gets shorter by about as much as this takes.
    """
    try:
        torch.compile(_small, dynamic=False)(torch.ones(8, device=device))
    except Exception as error:
        return first_cause(error)
    return None


def first_cause(error: BaseException) -> str:
    """What an error began with, in one line: torch wraps whatever a compiler says."""
    while (before := error.__cause__ or error.__context__) is not None:
        error = before
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _small(x: Tensor) -> Tensor:
    return x.sin() + 1
