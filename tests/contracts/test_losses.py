"""Every file in conf/loss, conf/adversarial and conf/perceptual makes a loss that trains something."""

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from restora.config import build as build_node
from restora.losses.adversarial import AdversarialLoss
from restora.losses.backbones import ARCHITECTURES

CONF = Path(__file__).resolve().parents[2] / "conf"


def files(group: str) -> list[Path]:
    found = sorted((CONF / group).glob("*.yaml"))
    assert found
    return found


@pytest.mark.parametrize("path", files("loss"), ids=lambda path: path.stem)
def test_pixel_losses(path: Path) -> None:
    loss = build_node(OmegaConf.load(path), "loss")
    clean = torch.rand(2, 3, 16, 16)
    restored = (clean + 0.1 * torch.randn_like(clean)).requires_grad_()
    value = loss(restored, clean)
    value.backward()
    assert value.ndim == 0
    assert loss(clean, clean) < value
    assert (restored.grad * (clean - restored)).sum() < 0


@pytest.mark.parametrize("path", files("adversarial"), ids=lambda path: path.stem)
def test_adversarial_losses(path: Path) -> None:
    loss = build_node(OmegaConf.load(path), "loss")
    assert isinstance(loss, AdversarialLoss)
    real, fake = torch.randn(4, 1), torch.rand(4, 1, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss.generator(real, fake), fake)
    assert (gradient <= 0).all()
    assert gradient.sum() < 0


@pytest.mark.parametrize(
    "path", [p for p in files("perceptual") if p.stem != "none"], ids=lambda path: path.stem
)
def test_perceptual_losses(path: Path, tmp_path: Path) -> None:
    """With zeros for weights: what is asked for exists, and nothing else is needed of the file."""
    config = OmegaConf.load(path)
    name = "vgg16" if "net" in config else "vgg19"
    state, channels = {}, 3
    for step in ARCHITECTURES[name].steps:
        if step.index is not None:
            width = min(64 * 2 ** (int(step.name[4]) - 1), 512)
            state[f"features.{step.index}.weight"] = torch.zeros(width, channels, 3, 3)
            state[f"features.{step.index}.bias"] = torch.zeros(width)
            channels = width
    torch.save(state, tmp_path / "weights.pth")
    loss = build_node(config, "loss", weights=str(tmp_path / "weights.pth"))
    assert loss(*torch.rand(2, 1, 3, 32, 32)) == 0
