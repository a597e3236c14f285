"""What every network promises: restored = network(degraded, condition), at any height and width.

A subclass writes `restore`, which may assume that H and W are multiples of `size_multiple`; `forward` pads
before it and crops after it. Parameter names are those of the architecture's published checkpoints.

Legend: B samples, C channels, K condition channels, H height, W width, s scale.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

Padding = Literal["reflect", "replicate", "constant"]


class Network(nn.Module, ABC):
    """A plain module that knows nothing of training.

    `forward` takes float (B,C,H,W) on the [0,1] scale and gives (B,C',H*s,W*s) on the same scale, neither
    clamped nor rounded.
    """

    tasks: ClassVar[tuple[str, ...]]
    """What its paper restores: denoise, super_resolution, deblur, jpeg, inpaint, colourise, derain."""
    padding: Padding = "reflect"
    """How `forward` fills up to `size_multiple`: as the authors do, so that their figures come out."""

    whole_photo: ClassVar[bool] = False
    """Whether statistics of the whole photo enter every pixel, so that a tile gives something else."""
    computed_names: ClassVar[tuple[str, ...]] = ()
    """Last parts of the names of what published checkpoints hold and this network computes (indices, masks):
    dropped on loading, added by `published_state_dict`."""

    scale: int = 1
    size_multiple: int = 1
    condition_channels: int = 0
    """K that `forward` demands as `condition`; 0 when the design has none (a condition is then ignored)."""
    in_channels: int
    out_channels: int

    @abstractmethod
    def restore(self, x: Tensor, condition: Tensor | None) -> Tensor:
        """(B,C,H,W) -> (B,C',H*s,W*s) where H and W are multiples of `size_multiple`."""

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        self._check(x, condition)
        if self.condition_channels == 0:
            condition = None
        height, width = x.shape[-2:]
        below, right = -height % self.size_multiple, -width % self.size_multiple
        if below or right:
            x = pad_bottom_right(x, below, right, self.padding)
            if condition is not None:
                condition = pad_bottom_right(condition, below, right, self.condition_padding)
        y = self.restore(x, condition)
        return y[..., : height * self.scale, : width * self.scale] if below or right else y

    @property
    def condition_padding(self) -> Padding:
        """How the condition is filled up: as the photo, as it may be a mask, but not with levels of 0."""
        return "replicate" if self.padding == "constant" else self.padding

    def published_state_dict(self) -> dict[str, Tensor]:
        """The weights as the authors' code and the tools built on it want to load them.

        These are `state_dict` and whatever else their files store.
        """
        return dict(self.state_dict())

    def as_published(self, arguments: Mapping[str, Any]) -> tuple["Network", dict[str, Any]]:
        """An equal network in the authors' own parametrisation, with the arguments that make it.

        `arguments` are those that made this one. Other tools read from weights what can be read, and take the
        authors' values for the rest; a subclass that has more of a choice says how they differ.
        """
        return self, dict(arguments)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        for name in [name for name in state_dict if name.startswith(prefix)]:
            if name.rpartition(".")[2] in self.computed_names:
                del state_dict[name]
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def _check(self, x: Tensor, condition: Tensor | None) -> None:
        name = type(self).__name__
        if x.shape[1] != self.in_channels:
            raise ValueError(
                f"{name} was built for {self.in_channels} channels, the photos have {x.shape[1]}: "
                f"set network.in_channels={x.shape[1]} or convert the photos"
            )
        if self.condition_channels and (condition is None or condition.shape[1] != self.condition_channels):
            got = "none" if condition is None else f"{condition.shape[1]} channels"
            raise ValueError(
                f"{name} needs a condition of {self.condition_channels} channels (noise-level map or mask), "
                f"got {got}"
            )


def pad_bottom_right(x: Tensor, below: int, right: int, mode: str) -> Tensor:
    """(B,C,H,W) -> (B,C,H+below,W+right).

    Reflection is limited to H-1 and W-1; smaller photos are replicated instead.
    """
    if mode == "reflect" and (below >= x.shape[-2] or right >= x.shape[-1]):
        mode = "replicate"
    return F.pad(x, (0, right, 0, below), mode=mode)
