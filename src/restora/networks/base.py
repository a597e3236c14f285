"""The interface of all networks: restored = network(degraded, condition), at any height and width.

A subclass implements `restore`, which may assume that H and W are multiples of `size_multiple`; `forward`
pads before it and crops after it. Parameter names are those of the architecture's published checkpoints.

Legend: B samples, T frames, C channels, K condition channels, H height, W width, s scale.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

Padding = Literal["reflect", "replicate", "constant"]
MULTIPLES = "if it needs sides that are multiples of N, set size_multiple = N in the class"
"""Advice for a network that does not take every size."""


class Network(nn.Module, ABC):
    """A plain module, independent of training code.

    `forward` takes float (B,C,H,W) on the [0,1] scale and returns (B,C',H*s,W*s) on the same scale,
    neither clamped nor rounded. A network for videos takes T = `frames` of them folded into channels in the
    order of time, (B,T·C',H,W), and returns the middle one.
    """

    tasks: ClassVar[tuple[str, ...]] = ()
    """The tasks of its paper: denoise, super_resolution, deblur, jpeg, inpaint, colourise, derain."""
    padding: Padding = "reflect"
    """How `forward` pads to `size_multiple`: as the authors do, to reproduce their figures."""

    whole_photo: ClassVar[bool] = False
    """Whether each pixel depends on all of the photo, by attention, pooling or normalisation over all
    positions, so that tiling changes the result."""
    computed_names: ClassVar[tuple[str, ...]] = ()
    """Last parts of the names of tensors that published checkpoints hold but this network computes (indices,
    masks): dropped on loading, added by `published_state_dict`."""

    scale: int = 1
    frames: int = 1
    """T consecutive frames of a video, folded into the channels of `x`: the middle one is restored."""
    size_multiple: int = 1
    condition_channels: int = 0
    """The channels K of `condition` that `forward` requires; if 0, a condition is ignored."""
    in_channels: int
    out_channels: int

    @property
    def frame_channels(self) -> int:
        """The channels of one frame, or of a photo."""
        return self.in_channels // self.frames

    @abstractmethod
    def restore(self, x: Tensor, condition: Tensor | None) -> Tensor:
        """(B,C,H,W) -> (B,C',H*s,W*s) where H and W are multiples of `size_multiple`."""

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        self._check(x, condition)
        condition = self.taken(condition)
        height, width = x.shape[-2:]
        below, right = -height % self.size_multiple, -width % self.size_multiple
        if below or right:
            x = pad_bottom_right(x, below, right, self.padding)
            if condition is not None:
                condition = pad_bottom_right(condition, below, right, self.condition_padding)
        y = self.restore(x, condition)
        if not (torch.compiler.is_compiling() or torch.jit.is_tracing()):  # type: ignore[attr-defined,no-untyped-call]
            self._check_output(y, x)
        return y[..., : height * self.scale, : width * self.scale] if below or right else y

    def taken(self, condition: Tensor | None) -> Tensor | None:
        """The condition, if this network takes one; for callers that do not know the network."""
        return condition if self.condition_channels else None

    @property
    def condition_padding(self) -> Padding:
        """How the condition is padded: as the photo (for masks), but never with zeros (for noise levels)."""
        return "replicate" if self.padding == "constant" else self.padding

    def published_state_dict(self) -> dict[str, Tensor]:
        """The weights in the form that the authors' code and tools built on it load.

        These are `state_dict` plus the further tensors that their files hold.
        """
        return dict(self.state_dict())

    def as_published(self, arguments: Mapping[str, Any]) -> tuple["Network", dict[str, Any]]:
        """An equivalent network in the authors' parametrisation, and its constructor's arguments.

        `arguments` are those of this network. Other tools infer arguments from weights where possible, and
        use the authors' values for the rest; a subclass with further options overrides this method.
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

    def _check_output(self, y: Any, x: Tensor) -> None:
        """Raises ValueError for an output of `restore` that is not (B,C',H*s,W*s)."""
        batch, _, height, width = x.shape
        expected = (batch, self.out_channels, height * self.scale, width * self.scale)
        if isinstance(y, Tensor) and y.shape == expected:
            return
        got = f"the shape {tuple(y.shape)}" if isinstance(y, Tensor) else f"a {type(y).__name__}"
        fix = "restore() returns one tensor"
        if isinstance(y, Tensor) and y.ndim == 4:
            fix = MULTIPLES
            if y.shape[:2] != expected[:2]:
                fix = "out_channels is the number of channels that restore() returns"
        raise ValueError(
            f"{type(self).__name__} returned {got} for an input of {tuple(x.shape)}, "
            f"expected {expected}: {fix}"
        )


def checked(network: Any, where: str = "network") -> Network:
    """The network, if it has what the contract asks for; raises ValueError naming the class and the fault."""
    name = type(network).__name__
    if not isinstance(network, Network):
        raise ValueError(
            f"{where}: {name} is not a network: make it a subclass of restora.networks.base.Network, with "
            "restore(x, condition) in place of forward"
        )
    for attribute in ("in_channels", "out_channels"):
        if not hasattr(network, attribute):
            raise ValueError(
                f"{where}: {name} has no {attribute}: set it in the constructor, such as self.{attribute} = 3"
            )
    check_weights(network, f"{where}: {name}'s ")
    return network


def check_weights(module: nn.Module, whose: str = "") -> None:
    """Raises ValueError for weights without elements, as layers of 0 channels have."""
    for name, weight in module.named_parameters():
        if not is_lazy(weight) and weight.numel() == 0:
            shape = "x".join(map(str, weight.shape))
            raise ValueError(f"{whose}{name} has no elements ({shape}): each layer needs channels, 1 or more")


def pad_bottom_right(x: Tensor, below: int, right: int, mode: str) -> Tensor:
    """(B,C,H,W) -> (B,C,H+below,W+right).

    Reflection is limited to H-1 and W-1; smaller photos are padded by replication instead.
    """
    if mode == "reflect" and (below >= x.shape[-2] or right >= x.shape[-1]):
        mode = "replicate"
    return F.pad(x, (0, right, 0, below), mode=mode)
