"""Compiles what `trainer=gpu` compiles, on a CPU: a check of another torch, in an environment of its own.

    python -m hatchling build -t wheel -d dist
    python -m venv other && other/bin/pip install dist/*.whl torch==2.11.0
    other/bin/python tests/preset_starts.py [auto]

Note: after the last line Python takes apart what was imported, for two seconds of processor time.
"""

import logging
import sys

import torch

from restora.config import build, compose
from restora.families.compiling import compile_in_place
from restora.families.compiling_auto import FastestPass
from restora.families.ways import ways_of

CPU = torch.device("cpu")


def main() -> None:
    small = ["network=dncnn_small", "network.depth=3", "network.channels=8"]
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config = compose("train", ["trainer=gpu", *small])
    for mode in sys.argv[1:] or (True, "reduce-overhead", config.compile):
        torch._dynamo.reset()
        network = build(config.network, "network").train()
        passes = None
        if mode == "auto":  # all that is tried on CUDA; nothing is replayed here
            passes = FastestPass(network, device=CPU, ways=ways_of(mode, torch.device("cuda")))
        else:
            assert compile_in_place(network, CPU, mode)
        for _ in range(2):
            if passes is not None:
                passes.begin_step()
            with torch.autocast("cpu", torch.bfloat16):
                network(torch.rand(1, network.in_channels, 16, 16)).float().mean().backward()
        print(f"torch {torch.__version__}: compile={mode} makes steps", flush=True)


if __name__ == "__main__":
    main()
