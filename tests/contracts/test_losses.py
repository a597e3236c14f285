"""Every option of loss, adversarial and perceptual makes a loss that trains something."""

from pathlib import Path
from typing import Any

import pytest
import torch

from restora.config import build as build_node
from restora.config import parts
from restora.losses.adversarial import AdversarialLoss
from restora.losses.backbones import ARCHITECTURES

Node = dict[str, Any]


def options(group: str) -> list[Any]:
    return [pytest.param(node, id=name) for name, node in parts(group).items()]


@pytest.mark.parametrize("node", options("loss"))
def test_pixel_losses(node: Node) -> None:
    loss = build_node(node, "loss")
    clean = torch.rand(2, 3, 16, 16)
    restored = (clean + 0.1 * torch.randn_like(clean)).requires_grad_()
    value = loss(restored, clean)
    value.backward()
    assert value.ndim == 0
    assert loss(clean, clean) < value
    assert (restored.grad * (clean - restored)).sum() < 0


@pytest.mark.parametrize("node", options("adversarial"))
def test_adversarial_losses(node: Node) -> None:
    loss = build_node(node, "loss")
    assert isinstance(loss, AdversarialLoss)
    real, fake = torch.randn(4, 1), torch.rand(4, 1, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss.generator(real, fake), fake)
    assert (gradient <= 0).all()
    assert gradient.sum() < 0


@pytest.mark.parametrize("node", options("perceptual"))
def test_perceptual_losses(node: Node, tmp_path: Path) -> None:
    """With zeros for weights: what is asked for exists, and nothing else is needed of the file."""
    name = "vgg16" if "net" in node else "vgg19"
    state, channels = {}, 3
    for step in ARCHITECTURES[name].steps:
        if step.index is not None:
            width = min(64 * 2 ** (int(step.name[4]) - 1), 512)
            state[f"features.{step.index}.weight"] = torch.zeros(width, channels, 3, 3)
            state[f"features.{step.index}.bias"] = torch.zeros(width)
            channels = width
    torch.save(state, tmp_path / "weights.pth")
    loss = build_node(node, "loss", weights=str(tmp_path / "weights.pth"))
    assert loss(*torch.rand(2, 1, 3, 32, 32)) == 0
