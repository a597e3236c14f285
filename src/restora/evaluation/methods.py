"""The methods under test: a network with its options, a method fitted to each photo, or a classical one.

Methods are values that can be sent to other processes; their heavy parts are built there, at the first photo.

Legend: C channels, H height, W width, s scale.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from restora import registry
from restora.artifact.photo_pixels import restore_planes
from restora.artifact.restorer import Restorer, pick_device
from restora.evaluation.benchmarks.base import Intake, Observation
from restora.evaluation.classical import DENOISERS, METHODS, Known, jpeg_sigma
from restora.evaluation.classical.denoise import Denoiser, Photo
from restora.fitting.base import Fit, Problem
from restora.fitting.plug_and_play import PlugAndPlay
from restora.fitting.running import Progress, run
from restora.image import estimated_sigma, turned, turned_back
from restora.networks.base import Network
from restora.networks.layers.luminance import LuminanceNetwork
from restora.operators.observed import operator_of
from restora.operators.pointwise import Identity
from restora.vocabulary import Precision

Say = Callable[[str], None]
"""Called with a remark for the user on one photo."""


def unheard(remark: str) -> None:
    """A `Say` that does nothing."""


class Method(ABC):
    """Restores observations; `name` is its line in the table."""

    name: str

    @property
    @abstractmethod
    def intake(self) -> Intake:
        """The inputs that the benchmark is to prepare."""

    @abstractmethod
    def restore(self, observation: Observation, *, say: Say = unheard) -> Tensor:
        """The restored photo, float32 (1,C',H,W) on the CPU, not rounded.

        `say` is called with what ended the computation early, if anything did.
        """

    @property
    def device(self) -> torch.device:
        """The device that it computes on."""
        return torch.device("cpu")


@dataclass(frozen=True)
class Options:
    """How a network is applied.

    `tile` in input pixels, 0 is the photo in one piece; `local_converter` is the training patch (height,
    width) of the test-time local converter; with `per_channel` a grey network restores R, G and B separately.
    """

    self_ensemble: bool = False
    local_converter: tuple[int, int] | None = None
    tile: int = 0
    overlap: int | None = None
    per_channel: bool = False
    precision: Precision = "float32"
    device: str = "auto"

    @property
    def effects(self) -> list[str]:
        """The options that change a network's output, in words."""
        chosen = []
        if self.self_ensemble:
            chosen.append("self-ensemble x8")
        if self.local_converter is not None:
            chosen.append(f"local converter {self.local_converter[0]}x{self.local_converter[1]}")
        if self.tile:
            chosen.append(f"tiles of {self.tile}")
        return chosen


@dataclass
class NetworkMethod(Method):
    """A network in evaluation mode; with `luminance`, one that restores Y alone maps Y to Y.

    One of three channels restores a grey photo as `restore` does: the mean of what it makes of three copies.
    """

    name: str
    network: Network
    options: Options = field(default_factory=Options)
    luminance: bool = False
    _restorer: Restorer | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.luminance and isinstance(self.network, LuminanceNetwork) and _predicts_y(self.network):
            self.network = _Luminance(self.network)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_restorer": None}

    @property
    def intake(self) -> Intake:
        channels = self.network.frame_channels
        if self.options.per_channel:
            if channels != 1:
                raise ValueError(
                    f"per_channel=true is for networks of one channel, this one takes {channels}"
                )
            channels = 3
        return Intake(channels=channels, scale=self.network.scale, frames=self.network.frames)

    @property
    def restorer(self) -> Restorer:
        if self._restorer is None:
            options = self.options
            self._restorer = Restorer(
                network=self.network,
                device=options.device,
                precision=options.precision,
                tile=options.tile,
                overlap=options.overlap,
                local_converter=options.local_converter,
            )
        return self._restorer

    @property
    def device(self) -> torch.device:
        return pick_device(self.options.device)

    def restore(self, observation: Observation, *, say: Say = unheard) -> Tensor:  # noqa: ARG002
        x, condition = observation.degraded, observation.condition
        if not self.options.self_ensemble:
            return self._once(x, condition)
        answers = []  # of the eight turns and mirrorings (EDSR)
        for turn in (0, 4, 1, 5, 2, 6, 3, 7):
            own = None if condition is None else turned(condition, turn)
            answers.append(turned_back(self._once(turned(x, turn).contiguous(), own), turn))
        return torch.stack(answers).mean(dim=0)

    def _once(self, x: Tensor, condition: Tensor | None) -> Tensor:
        restorer = self.restorer
        takes = restorer.network.in_channels
        if self.options.per_channel or (takes == 3 and x.shape[1] == 1):
            return restore_planes(x.to(restorer.device), condition, restorer).cpu()
        return restorer(x.to(restorer.device), restorer.network.taken(condition)).cpu()


@dataclass
class ClassicalMethod(Method):
    """A classical method by its name and the task of the benchmark."""

    name: str
    task: str

    def __post_init__(self) -> None:
        known = METHODS.get(self.task, {})
        if self.name not in known:
            raise ValueError(
                f"there is no classical method {self.name} for {self.task} "
                f"(available: {', '.join(known) or 'none'})"
            )

    @property
    def intake(self) -> Intake:
        return Intake()

    def restore(self, observation: Observation, *, say: Say = unheard) -> Tensor:  # noqa: ARG002
        mask = observation.mask
        known = Known(
            sigma=observation.sigma,
            quality=observation.quality,
            kernel=observation.kernel,
            mask=None if mask is None else mask[0, 0].numpy() > 0,
            scale=observation.scale,
        )
        photo = observation.degraded[0].permute(1, 2, 0).double().numpy()
        restored = METHODS[self.task][self.name](photo, known)
        return torch.from_numpy(restored).float().permute(2, 0, 1)[None].contiguous()


@dataclass
class FittedMethod(Method):
    """A method fitted to each photo on its own, from the values of the observation.

    `max_time` is the limit for one photo, in seconds.
    """

    name: str
    fit: Fit
    seed: int = 0
    max_time: float | None = None
    device_name: str = "auto"
    on_step: Callable[[Progress], None] | None = field(default=None, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"on_step": None}

    @property
    def intake(self) -> Intake:
        return Intake()

    @property
    def device(self) -> torch.device:
        return pick_device(self.device_name)

    def restore(self, observation: Observation, *, say: Say = unheard) -> Tensor:
        outcome = run(
            self.fit,
            problem_of(observation),
            seed=self.seed,
            device=self.device,
            max_time=self.max_time,
            on_step=self.on_step,
        )
        if outcome.cut_short:
            say(outcome.cut_short)
        return outcome.picture


@dataclass(frozen=True)
class ClassicalDenoiser:
    """A classical filter as the denoiser of a plug-and-play method."""

    name: str

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        photos = [photo.permute(1, 2, 0).double().cpu().numpy() for photo in x]
        restored = [torch.from_numpy(DENOISERS[self.name](photo, sigma)) for photo in photos]
        return torch.stack(restored).permute(0, 3, 1, 2).to(x).contiguous()


def with_classical(node: Mapping[str, Any]) -> dict[str, Any]:
    """The description of a method, with the name of a classical denoiser replaced by the denoiser."""
    named = node.get("denoiser")
    found = {"denoiser": ClassicalDenoiser(named)} if isinstance(named, str) and named in DENOISERS else {}
    return dict(node) | found


def filter_of(name: str) -> Denoiser:
    """A denoiser by its name, a function of (H,W,C) in [0,1] and the noise level (8-bit scale).

    A classical filter, or a method fitted to each photo. Raises ValueError.
    """
    if name in DENOISERS:
        return DENOISERS[name]
    known = {
        key: cls
        for key, cls in registry.classes("method").items()
        if "denoise" in cls.tasks and not issubclass(cls, PlugAndPlay)
    }
    fit = registry.build({"_target_": name}, "method") if name in known else None
    if fit is None:
        raise ValueError(f"there is no denoiser {name!r}: use one of {', '.join([*DENOISERS, *known])}")

    def restore(noisy: Photo, sigma: float) -> Photo:
        photo = torch.from_numpy(np.ascontiguousarray(noisy)).float().permute(2, 0, 1)[None]
        return run(fit, Problem(photo, sigma=sigma)).picture[0].permute(1, 2, 0).double().numpy()

    return restore


def problem_of(observation: Observation) -> Problem:
    """What a classical method knows of a degraded photo, as the problem of a fitted method.

    Only the noise level is estimated if the observation does not have it, as for the classical filters.
    """
    kernel = observation.kernel
    operator = operator_of(
        mask=observation.mask,
        kernel=None if kernel is None else torch.from_numpy(kernel),
        scale=observation.scale,
    )
    sigma = observation.sigma
    if sigma is None and observation.quality is not None:
        sigma = jpeg_sigma(observation.quality)
    if sigma is None and isinstance(operator, Identity):
        sigma = estimated_sigma(observation.degraded[0].permute(1, 2, 0).double().numpy())
    return Problem(observation.degraded, operator, sigma)


class _Luminance(Network):
    """The part of a luminance network that maps Y to Y, to which its published figures refer."""

    def __init__(self, network: LuminanceNetwork) -> None:
        super().__init__()
        self.network = network
        self.scale = 1 if network.on_enlarged else network.scale
        self.size_multiple = network.size_multiple
        self.in_channels = self.out_channels = 1

    def restore(self, x: Tensor, condition: Tensor | None) -> Tensor:  # noqa: ARG002
        return self.network.predict(x)


def _predicts_y(network: LuminanceNetwork) -> bool:
    """Whether the network maps Y to Y, and enlarges (where that comes first) as the benchmark does."""
    return network.channels == 1 and (network.enlarge.round_8bit or not network.on_enlarged)
