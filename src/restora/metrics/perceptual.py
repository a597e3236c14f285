"""LPIPS and DISTS: distances between the features of a pretrained classifier, lower is better.

Enters: restored and clean, float (B,C,H,W) in [0,1], C = 1 (repeated) or 3. Leaves: (B,). Computed by
torchmetrics, which contains the weights of the metrics themselves; the classifier's weights are
torchvision's, taken from torch's cache if they are there. Nothing is downloaded.
"""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from restora.metrics.pairs import checked_pair

Distance = Callable[[Tensor, Tensor], Tensor]


def lpips(restored: Tensor, clean: Tensor) -> Tensor:
    """LPIPS with AlexNet, version 0.1, as super-resolution papers report it (Zhang et al., CVPR 2018)."""
    return _each(_lpips(restored.device), restored, clean)


def dists(restored: Tensor, clean: Tensor) -> Tensor:
    """DISTS with VGG-16 (Ding, Ma, Wang and Simoncelli, PAMI 2020), at the size of the photos."""
    return _each(_dists(restored.device), restored, clean)


def lpips_missing() -> str | None:
    """Why LPIPS cannot be computed here; None where it can."""
    return _missing("AlexNet_Weights")


def dists_missing() -> str | None:
    """Why DISTS cannot be computed here; None where it can."""
    return _missing("VGG16_Weights")


@lru_cache(maxsize=2)  # a torchvision that fails to import fails differently the second time
def _missing(weights: str) -> str | None:
    try:
        from torchvision import models
    except ImportError:
        return "needs torchvision: pip install 'restora[perceptual]'"
    except RuntimeError as error:
        return f"the installed torchvision is not compatible with torch ({error})"
    name = getattr(models, weights).DEFAULT.url.rpartition("/")[2]
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    if (folder / name).is_file():
        return None
    return f"{name} is not in {folder}: torchvision downloads it as torchvision.models.{weights}.DEFAULT"


def _each(distance: Distance, restored: Tensor, clean: Tensor) -> Tensor:
    pairs = zip(*map(_colour, checked_pair(restored, clean)), strict=True)
    return torch.stack([distance(one[None], other[None]) for one, other in pairs])


def _colour(x: Tensor) -> Tensor:
    return x.float().clamp(0, 1).expand(-1, 3, -1, -1)


@lru_cache(maxsize=2)
def _lpips(device: torch.device) -> Distance:
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    return LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=True).to(device)


@lru_cache(maxsize=2)
def _dists(device: torch.device) -> Distance:
    from torchmetrics.image.dists import DeepImageStructureAndTextureSimilarity

    return DeepImageStructureAndTextureSimilarity().to(device)
