"""ImageNet classifiers as frozen feature extractors, for perceptual losses.

Their weights come from a file that the user names, or from torchvision's download cache; nothing is
downloaded here, and the error for a missing file gives the download address. The weights move with the loss
between devices but are neither trained nor saved in checkpoints.

Legend: B samples, C channels, H height, W width.
"""

import pickle
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from restora.files import is_safetensors

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Step:
    """One layer. `index` is its position in torchvision's `features`, None for a layer without weights."""

    name: str
    index: int | None = None
    stride: int = 1
    padding: int = 1
    pool: int = 2


@dataclass(frozen=True)
class Architecture:
    """The layers and where their weights are published."""

    steps: tuple[Step, ...]
    file_name: str

    @property
    def url(self) -> str:
        return f"https://download.pytorch.org/models/{self.file_name}"


def _vgg(counts: Sequence[int], file_name: str) -> Architecture:
    """VGG by the number of its convolutions per block (Simonyan and Zisserman, ICLR 2015)."""
    steps: list[Step] = []
    index = 0
    for block, count in enumerate(counts, start=1):
        for number in range(1, count + 1):
            steps += [Step(f"conv{block}_{number}", index), Step(f"relu{block}_{number}")]
            index += 2
        steps.append(Step(f"pool{block}"))
        index += 1
    return Architecture(tuple(steps), file_name)


def _alexnet() -> Architecture:
    """Torchvision's AlexNet (Krizhevsky, "One weird trick", 2014)."""
    steps = [Step("conv1", 0, stride=4, padding=2), Step("relu1"), Step("pool1", pool=3)]
    steps += [Step("conv2", 3, padding=2), Step("relu2"), Step("pool2", pool=3)]
    for number, index in ((3, 6), (4, 8), (5, 10)):
        steps += [Step(f"conv{number}", index), Step(f"relu{number}")]
    return Architecture(tuple(steps), "alexnet-owt-7be5be79.pth")


ARCHITECTURES = {
    "vgg16": _vgg((2, 2, 3, 3, 3), "vgg16-397923af.pth"),
    "vgg19": _vgg((2, 2, 4, 4, 4), "vgg19-dcbb9e9d.pth"),
    "alexnet": _alexnet(),
}


class Backbone(nn.Module):
    """Features of chosen layers: "conv5_4" before the activation, "relu5_4" after it.

    `weights` is a file (.pth or .safetensors) with torchvision's names (`features.0.weight`, ...; a
    classifier in it is ignored); None uses torchvision's cache.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        name: str,
        layers: Sequence[str],
        weights: str | Path | None = None,
        mean: Sequence[float] = MEAN,
        std: Sequence[float] = STD,
    ) -> None:
        super().__init__()
        if name not in ARCHITECTURES:
            raise ValueError(f"a backbone is one of {', '.join(ARCHITECTURES)}; got {name!r}")
        architecture = ARCHITECTURES[name]
        names = [step.name for step in architecture.steps]
        unknown = [layer for layer in layers if layer not in names]
        if unknown or not layers:
            raise ValueError(f"{name} has the layers {', '.join(names)}; got {', '.join(unknown) or 'none'}")
        self.layers = tuple(layers)
        self.steps = architecture.steps[: max(names.index(layer) for layer in layers) + 1]
        state = _load(_find(name, architecture, weights))
        for step in self.steps:
            if step.index is not None:
                for kind in ("weight", "bias"):
                    self._adopt(f"{step.name}_{kind}", f"features.{step.index}.{kind}", state, name)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def _adopt(self, ours: str, theirs: str, state: dict[str, Tensor], name: str) -> None:
        if theirs not in state:
            raise ValueError(
                f"the weights given for {name} have no {theirs!r}: they are not torchvision's {name}"
            )
        self.register_parameter(ours, nn.Parameter(state[theirs].float(), requires_grad=False))

    @property
    def minimum_size(self) -> int:
        """The smallest H and W of photos that leave a feature in the last layer."""
        need = 1
        for step in reversed(self.steps):
            if step.index is not None:
                kernel = self.get_parameter(f"{step.name}_weight").shape[-1]
                need = (need - 1) * step.stride + kernel - 2 * step.padding
            elif not step.name.startswith("relu"):
                need = 2 * (need - 1) + step.pool
        return need

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Photos (B,1,H,W) or (B,3,H,W) on the [0,1] scale -> features (B,C,h,w) by layer, float32.

        Under autocast too.
        """
        # in bfloat16, a VGG-19 loss is off by 5% and its gradient by 44% between photos 1/255 apart
        with torch.autocast(x.device.type, enabled=False):
            return self._features((x.float().expand(-1, 3, -1, -1) - self.mean) / self.std)

    def _features(self, x: Tensor) -> dict[str, Tensor]:
        features = {}
        for step in self.steps:
            if step.index is not None:
                weight, bias = (
                    self.get_parameter(f"{step.name}_weight"),
                    self.get_parameter(f"{step.name}_bias"),
                )
                x = F.conv2d(x, weight, bias, stride=step.stride, padding=step.padding)
            else:
                x = F.relu(x) if step.name.startswith("relu") else F.max_pool2d(x, step.pool, stride=2)
            if step.name in self.layers:
                features[step.name] = x
        return features

    def _save_to_state_dict(self, *args: Any) -> None:
        """Saves nothing: the pretrained weights (80 MB) do not belong in every checkpoint."""

    def _load_from_state_dict(self, *args: Any) -> None:
        """Loads nothing, as nothing is saved."""


def _find(name: str, architecture: Architecture, weights: str | Path | None) -> Path:
    cached = Path(torch.hub.get_dir()) / "checkpoints" / architecture.file_name
    path = cached if weights is None else Path(weights).expanduser()
    if not path.is_file():
        where = "torchvision's cache has none" if weights is None else "there is no such file"
        raise ValueError(
            f"the weights of {name} were not found at {path} ({where}). Download {architecture.url} to "
            "that place or name another file as `weights`. To train without them take "
            "feature_matching, the discriminator's own features, in place of perceptual in objective=[…]"
        )
    return path


def _load(path: Path) -> dict[str, Tensor]:
    """Tensors by name; never runs code from the file."""
    try:
        if is_safetensors(path):
            from safetensors.torch import load_file

            return load_file(path)
        with path.open("rb") as file:  # a path would be read by its suffix
            state: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        raise ValueError(f"{path} is damaged, or more than a file of tensors: {error}") from error
    return {re.sub(r"^module\.", "", name): value for name, value in state.items()}
