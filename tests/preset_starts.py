"""Compiles what `trainer=gpu` compiles, on a CPU: a check for another torch than the environment's.

Beside the packages of the environment, an other torch comes first:

    python -m venv other && other/bin/pip install torch==2.11.0
    echo $PWD/.venv/lib/python3.11/site-packages > other/lib/python3.11/site-packages/ours.pth
    PYTHONPATH=src other/bin/python tests/preset_starts.py
"""

import torch

from restora.config import build, compose
from restora.families.compiling import compile_in_place


def main() -> None:
    small = ["network=dncnn_small", "network.depth=3", "network.channels=8"]
    config = compose("train", ["trainer=gpu", *small])
    for mode in (config.compile, "reduce-overhead"):
        torch._dynamo.reset()
        network = build(config.network, "network")
        assert compile_in_place(network, torch.device("cpu"), mode)
        with torch.autocast("cpu", torch.bfloat16):
            network(torch.rand(1, network.in_channels, 16, 16)).float().mean().backward()
        print(f"torch {torch.__version__}: compile={mode} makes a step", flush=True)


if __name__ == "__main__":
    main()
