"""The interface of training objectives, and the training step that they take as input.

An objective is a function of a `Step` that returns named scalars; a family sums and logs them. Tensors that
several objectives need, such as the restored photos, are computed once per step. An `Opponent` is an
objective with parameters of its own (a discriminator), which are updated after the network's half-step.

Legend: B samples, C channels, H height, W width, s scale.
"""

import math
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
MakeOptimizer = Callable[[Iterable[nn.Parameter]], Optimizer]
Centre = Literal["mean", "median", "mode"]
CENTRES: tuple[Centre, ...] = get_args(Centre)


@dataclass
class Step:
    """One training step.

    `progress` is the share of the training that is done, `number` the number of earlier steps, `record`
    logs a scalar under a name. `scales` is the number of output sizes that the network returns.
    """

    network: Network
    batch: Batch
    progress: float
    number: int
    record: Callable[[str, Tensor], None]
    scales: int = 1
    memory_format: torch.memory_format = torch.channels_last
    shared: dict[str, Any] = field(default_factory=dict)
    """Results that objectives pass to each other, by name."""
    _outputs: list[Tensor] = field(default_factory=list, init=False, repr=False)

    @property
    def degraded(self) -> Tensor:
        """(B,C,H/s,W/s): the degraded photos, the network's input."""
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

    @property
    def ran(self) -> bool:
        """Whether the network has restored the photos of the batch."""
        return bool(self._outputs)

    def _computed(self) -> list[Tensor]:
        if self.scales == 1:
            return [self.restore(self.degraded, self.condition)]
        degraded = self.degraded.contiguous(memory_format=self.memory_format)
        return [output.float() for output in cast(Any, self.network).restore_scales(degraded, self.condition)]

    @property
    def restored(self) -> Tensor:
        """The restored photos, float32 (B,C,H,W), with their autograd graph."""
        return self.outputs[0]

    def restore(self, degraded: Tensor, condition: Tensor | None) -> Tensor:
        """The network's output for other photos, float32; for those of the batch use `restored`."""
        answer: Tensor = self.network(degraded.contiguous(memory_format=self.memory_format), condition)
        return answer.float()

    def generator(self, label: str) -> KeyedGenerator:
        """Random numbers per sample for one purpose.

        They depend only on the samples' keys (seed, pass, position), not on the number of processes or
        on resuming.
        """
        if self.batch.keys is None:
            raise ValueError(f"the data module gives no keys for the random numbers of {label!r}")
        return KeyedGenerator(self.batch.keys).fork(label)

    def redegrade(self, label: str = "again") -> Tensor:
        """Another degraded version of the same photos, like `degraded`, drawn with other keys.

        Raises ValueError for photos that are already degraded in the data set.
        """
        if self.batch.redegrade is None:
            raise ValueError("these photos come degraded: there is no second version of them to draw")
        return self.batch.redegrade(self.generator(label).keys)


@dataclass(frozen=True)
class Noise:
    """The properties of a degradation regarded as noise.

    `centres`: which centres of a degraded pixel's distribution equal the clean pixel; `independent`: whether
    pixels are independent given the photo; `gaussian`: whether it is white Gaussian noise with its level as
    the condition.
    """

    name: str
    centres: frozenset[Centre] = frozenset()
    independent: bool = False
    gaussian: bool = False


@dataclass(frozen=True)
class Setting:
    """The network and the data that an objective is combined with, known before training.

    `patch_size` is that of the smallest training patch (of the clean photo). `has_clean`: there are clean
    photos (or partners of pairs). `undamaged` is the value of the condition at undamaged pixels (one number
    per channel: 0 for a noise-level map, 1 for a mask). `noise` describes a synthetic degradation, None for
    photos that are already degraded. `noisy_target`: the target is not the clean photo but another degraded
    version of it. `unpaired`: there are clean photos, but unpaired with the degraded ones. `batch_size` is
    that of the smallest patches, None if it is not known.
    """

    network: Network
    patch_size: int
    has_clean: bool = True
    undamaged: tuple[float, ...] = ()
    noise: Noise | None = None
    noisy_target: bool = False
    unpaired: bool = False
    batch_size: int | None = None


def check_weights(objective: str, **weights: float) -> None:
    """Raises ValueError for a weight of the named objective that is negative or not finite."""
    for name, value in weights.items():
        if not 0 <= value < math.inf:
            raise ValueError(f"objective.{objective}.{name} must be 0 or more, got {value}")


class Objective(nn.Module, ABC):
    """A term of the training loss: called with a `Step`, it returns named scalars in float32.

    They are multiplied by `weight` and used from the step `start_step` on.
    """

    needs_clean: ClassVar[bool] = True
    """Whether the objective needs clean photos (or a target) to compare with."""
    takes_target: ClassVar[bool] = True
    """Whether the objective compares with the target of the data (`data.target`)."""
    expects_noisy_partners: ClassVar[bool] = False
    """Whether the partners of pairs are taken for further noisy versions, not for clean photos."""

    exact: ClassVar[bool] = False
    """Whether a training that has the objective multiplies float32 without TF32, gradients included."""

    def __init__(self, *, weight: float = 1.0, start_step: int = 0) -> None:
        super().__init__()
        if not 0 <= weight < math.inf:
            raise ValueError(f"the weight of objective {type(self).__name__} must be 0 or more, got {weight}")
        if start_step < 0:
            raise ValueError(
                f"the start_step of objective {type(self).__name__} must be 0 or more, got {start_step}"
            )
        self.weight, self.start_step = weight, start_step

    @abstractmethod
    def terms(self, step: Step) -> Terms:
        """The unweighted scalars by name; the name "" stands for the objective's own name."""

    def forward(self, step: Step) -> Terms:
        """The weighted terms; empty if the weight is 0 or before `start_step`."""
        if self.weight == 0 or step.number < self.start_step:
            return {}
        return self._weighted(self.terms(step))

    def _weighted(self, terms: Terms) -> Terms:
        self._check_terms(terms)
        if self.weight != 1:
            terms = {name: self.weight * term for name, term in terms.items()}
        return terms

    def _check_terms(self, terms: Any) -> None:
        """Raises ValueError for anything but scalar tensors by name."""
        if not isinstance(terms, Mapping):
            raise ValueError(
                f"the objective {type(self).__name__} returned a {type(terms).__name__}, expected scalars by "
                'name, such as {"": loss}'
            )
        for name, term in terms.items():
            if isinstance(term, Tensor) and term.ndim == 0:
                continue
            got = f"the shape {tuple(term.shape)}" if isinstance(term, Tensor) else f"a {type(term).__name__}"
            raise ValueError(
                f"the objective {type(self).__name__} returned {got} as its term {name!r}, expected a tensor "
                "with one number: average it, such as by .mean()"
            )

    def validation(self, step: Step) -> Terms:
        """The objective's part of the validation loss, weighted as in training; empty if the weight is 0."""
        return self._weighted(self.validation_terms(step)) if self.weight != 0 else {}

    def validation_terms(self, step: Step) -> Terms:
        """The unweighted scalars of the validation loss by name: those of the training unless overridden."""
        return self.terms(step)

    def partners(self) -> Iterable[nn.Parameter]:
        """Parameters of the objective that the network's optimiser trains too."""
        return ()

    @property
    def scales(self) -> int:
        """How many sizes of the restored photos the objective compares."""
        return 1

    def join(self, others: Mapping[str, "Objective"]) -> None:
        """Called once with all objectives of the run by name, including this one.

        Raises ValueError if an objective that this one needs is missing.
        """

    def check(self, setting: Setting) -> None:
        """Raises ValueError, with the reason and the fix, for a setting that it cannot be combined with."""
        if self.needs_clean and setting.unpaired:
            raise ValueError(
                f"objective {type(self).__name__} compares with the clean version of the same photo, and the "
                "clean photos here are others: choose objective=cycle or fastcut, which learn from those, or "
                "for noise cycle_noise"
            )
        if self.needs_clean and not setting.has_clean:
            raise ValueError(
                f"objective {type(self).__name__} compares with clean photos, and these data have none: "
                "choose an objective that learns without, such as objective=neighbor2neighbor or noise2void"
            )
        if self.needs_clean and setting.noisy_target:
            self._check_noisy_target(setting)

    @property
    def centre(self) -> Centre | None:
        """The centre of the targets' distribution that minimises the loss; None for no particular one."""
        return None

    def _check_noisy_target(self, setting: Setting) -> None:
        """Raises ValueError where noisy targets have another optimum than clean ones."""
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
    """An objective with parameters of its own, updated in a half-step after the network's."""

    def validation_terms(self, step: Step) -> Terms:  # noqa: ARG002
        """Empty: an adversarial loss does not measure the quality of photos."""
        return {}

    @abstractmethod
    def make_optimizer(self) -> Optimizer:
        """Makes the optimiser of the objective's own parameters."""

    @abstractmethod
    def own_loss(self, step: Step) -> tuple[Tensor, Terms]:
        """The loss of the objective's own parameters (restored photos detached), and diagnostics to log."""


def check_all(objectives: Mapping[str, Objective], setting: Setting) -> None:
    """Raises ValueError, with the fix, if one refuses the setting or none takes part from step 0 on."""
    for part in objectives.values():
        part.check(setting)
    if all(part.weight == 0 or part.start_step > 0 for part in objectives.values()):
        keys = " ".join(
            f"objective.{name}.weight=1" if part.weight == 0 else f"objective.{name}.start_step=0"
            for name, part in objectives.items()
        )
        raise ValueError(f"no objective takes part at step 0, so nothing is learnt: set one of {keys}")
