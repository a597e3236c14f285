"""torch.compile where it can run, and one clear line where it cannot."""

import importlib.util
import logging
import shutil

import torch
from torch import nn

log = logging.getLogger(__name__)


MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")


def check_mode(mode: bool | str) -> None:
    """Raises ValueError for what torch.compile does not know."""
    if isinstance(mode, str) and mode not in MODES:
        raise ValueError(
            f"compile is true, false or a mode of torch.compile ({', '.join(MODES)}), got {mode}"
        )


def compile_in_place(network: nn.Module, device: torch.device, mode: bool | str = True) -> bool:
    """Compiles `network.forward` without renaming its parameters; false, with one warning, where no compiler
    is found. `mode` "reduce-overhead" replays CUDA graphs, for networks whose kernels are shorter than their
    launches.

    Training patches keep one shape per stage, so shapes are static: inductor's dynamic shapes crashed when
    several layouts met in one process (torch 2.13).
    """
    missing = _missing_compiler(device)
    if missing:
        log.warning("torch.compile is switched off: %s. Training goes on uncompiled.", missing)
        return False
    network.compile(dynamic=False, mode=mode if isinstance(mode, str) else None)
    return True


def _missing_compiler(device: torch.device) -> str | None:
    if device.type == "cuda":
        return None if importlib.util.find_spec("triton") else "the triton package is not installed"
    found = any(shutil.which(name) for name in ("g++", "clang++", "c++"))
    return None if found else "no C++ compiler (g++ or clang++) is on the PATH"
