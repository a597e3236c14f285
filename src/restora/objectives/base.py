"""What is learnt from a batch: the contract of an objective, and the training step as an objective sees it.

An objective is a function of a `Step` that gives named scalars; a family adds them up and logs them. What
several objectives need, such as the restored photos, is computed once per step. An `Opponent` is an objective
with parameters of its own (a discriminator), which it steps after the network's half-step.

Legend: B samples, C channels, H height, W width, s scale.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from restora.keyed import KeyedGenerator
from restora.networks.base import Network
from restora.types import Batch

Terms = dict[str, Tensor]
Centre = Literal["mean", "median", "mode"]
CENTRES: tuple[Centre, ...] = get_args(Centre)


@dataclass
class Step:
    """One training step.

    `progress` is the share of the training that is done, `number` the steps before this one, `record`
    logs a scalar under a name. `scales` is how many sizes the network is asked for.
    """

    network: Network
    batch: Batch
    progress: float
    number: int
    record: Callable[[str, Tensor], None]
    scales: int = 1
    memory_format: torch.memory_format = torch.channels_last
    shared: dict[str, Any] = field(default_factory=dict)
    """What one objective computes for another, by a name that they agree on."""
    _outputs: list[Tensor] = field(default_factory=list, init=False, repr=False)

    @property
    def degraded(self) -> Tensor:
        """(B,C,H/s,W/s), as the degradation left it."""
        return self.batch.degraded

    @property
    def condition(self) -> Tensor | None:
        """(B,K,H/s,W/s) or None."""
        return self.batch.condition

    @property
    def supervision(self) -> Tensor:
        """(B,C,H,W): the target if there is one, else the clean photos."""
        return self.batch.supervision

    @property
    def outputs(self) -> list[Tensor]:
        """The restored photos at full, half, quarter ... size, float32; computed once.

        One entry unless an objective asked for more.
        """
        if not self._outputs:
            self._outputs += self._computed()
        return self._outputs

    def _computed(self) -> list[Tensor]:
        if self.scales == 1:
            return [self.restore(self.degraded, self.condition)]
        degraded = self.degraded.contiguous(memory_format=self.memory_format)
        return [output.float() for output in cast(Any, self.network).restore_scales(degraded, self.condition)]

    @property
    def restored(self) -> Tensor:
        """The restored photos, float32 (B,C,H,W), with their graph."""
        return self.outputs[0]

    def restore(self, degraded: Tensor, condition: Tensor | None) -> Tensor:
        """The network's answer to other photos, float32; `restored` is what it makes of the batch."""
        answer: Tensor = self.network(degraded.contiguous(memory_format=self.memory_format), condition)
        return answer.float()

    def generator(self, label: str) -> KeyedGenerator:
        """Random numbers per sample for one purpose.

        A function of the samples' keys (seed, pass, position), so neither the number of processes nor
        a resumption changes them.
        """
        if self.batch.keys is None:
            raise ValueError(f"the data module gives no keys for the random numbers of {label!r}")
        return KeyedGenerator(self.batch.keys).fork(label)

    def redegrade(self, label: str = "again") -> Tensor:
        """Another degraded version of the same photos, like `degraded`, from keys of its own.

        Raises ValueError where the photos come degraded.
        """
        if self.batch.redegrade is None:
            raise ValueError("these photos come degraded: there is no second version of them to draw")
        return self.batch.redegrade(self.generator(label).keys)


@dataclass(frozen=True)
class Noise:
    """What a degradation is as noise.

    The `centres` of a degraded pixel's distribution that are the clean pixel; whether pixels are
    `independent` given the photo; whether it is white and `gaussian` with its level as the condition.
    """

    name: str
    centres: frozenset[Centre] = frozenset()
    independent: bool = False
    gaussian: bool = False


@dataclass(frozen=True)
class Setting:
    """What an objective is combined with, known before training.

    The network, the smallest training patch (of the clean photo), whether there are clean photos (or
    partners), and what the condition reads at undamaged pixels (one number per channel: 0 of a
    noise-level map, 1 of a mask). `noise` is what our degradation is as such, None for photos that come
    degraded. `noisy_target`: what is learnt from is not the clean photo but another degraded version of
    it. `strangers`: there are clean photos, of others than those that are degraded.
    """

    network: Network
    patch_size: int
    has_clean: bool = True
    undamaged: tuple[float, ...] = ()
    noise: Noise | None = None
    noisy_target: bool = False
    strangers: bool = False


def check_weights(objective: str, **weights: float) -> None:
    """Raises ValueError for a weight below 0 of the objective of that name."""
    for name, value in weights.items():
        if value < 0:
            raise ValueError(f"objective.{objective}.{name} is 0 or more, got {value}")


class Objective(nn.Module, ABC):
    """A term of what is learnt: called with a `Step`, it gives named scalars in float32.

    Their sum is multiplied by `weight` and takes part from the step `start_step` on.
    """

    needs_clean: ClassVar[bool] = True
    """Whether it compares with clean photos (or a target) that somebody must have."""

    def __init__(self, *, weight: float = 1.0, start_step: int = 0) -> None:
        super().__init__()
        if weight < 0:
            raise ValueError(f"objective.weight is 0 or more, got {weight}")
        if start_step < 0:
            raise ValueError(f"objective.start_step is a step from 0 on, got {start_step}")
        self.weight, self.start_step = weight, start_step

    @abstractmethod
    def terms(self, step: Step) -> Terms:
        """The scalars before their weight, by name; a name that is the objective's own may be ""."""

    def forward(self, step: Step) -> Terms:
        """The weighted terms; none where the weight is 0 or its step has not come."""
        if self.weight == 0 or step.number < self.start_step:
            return {}
        terms = self.terms(step)
        if self.weight != 1:
            terms = {name: self.weight * term for name, term in terms.items()}
        return terms

    def validation(self, step: Step) -> Terms:
        """Its part of the validation loss."""
        return self(step)

    def partners(self) -> Iterable[nn.Parameter]:
        """Parameters of its own that learn with the network's, by the same optimiser."""
        return ()

    @property
    def scales(self) -> int:
        """How many sizes of the restored photos it compares."""
        return 1

    def join(self, others: Mapping[str, "Objective"]) -> None:
        """Called once with all objectives of the run by name, itself among them.

        Raises ValueError for one that it needs and that is not there.
        """

    def check(self, setting: Setting) -> None:
        """Raises ValueError, with the reason and what to set, for what it cannot be combined with."""
        if self.needs_clean and not setting.has_clean:
            raise ValueError(
                f"objective {type(self).__name__} compares with clean photos, and these data have none: "
                "choose an objective that learns without, such as objective=neighbor2neighbor or noise2void"
            )
        if self.needs_clean and setting.noisy_target:
            self._check_noisy_target(setting)

    @property
    def centre(self) -> Centre | None:
        """The centre of the distribution of the targets that it finds; None for no particular one."""
        return None

    def _check_noisy_target(self, setting: Setting) -> None:
        """Raises ValueError where noisy targets would teach something else than clean ones."""
        noise, name = setting.noise, type(self).__name__
        if self.centre is None:
            raise ValueError(
                f"objective {name} with this loss would learn the noise of noisy targets: set "
                "data.target=clean, or objective=supervised loss=mse"
            )
        if noise is not None and self.centre not in noise.centres:
            right = {"mean": "loss=mse", "median": "loss=l1", "mode": "objective=noise2noise with norm l0"}
            fixes = [right[centre] for centre in CENTRES if centre in noise.centres]
            raise ValueError(
                f"data.target=noisy: objective {name} finds the {self.centre} of its targets, and the "
                f"{self.centre} of {noise.name} is not the photo: set {(fixes or ['data.target=clean'])[0]}"
            )


class Opponent(Objective):
    """An objective with parameters of its own, which take a half-step of theirs after the network's."""

    def validation(self, step: Step) -> Terms:  # noqa: ARG002
        """None: an adversarial loss says nothing of how good photos are."""
        return {}

    @abstractmethod
    def make_optimizer(self) -> Optimizer:
        """The optimiser of its parameters."""

    @abstractmethod
    def own_loss(self, step: Step) -> tuple[Tensor, Terms]:
        """What its own parameters minimise, (detached) restored photos given, and diagnostics to log."""

    @abstractmethod
    def own_module(self) -> nn.Module:
        """The module whose parameters its optimiser steps."""
