"""Compositions of degradations: one after another, one of several, one or none.

Stages have names, as in `degradation.stages.noise.sigma=10`. The name also keys a stage's random numbers, so
adding or removing one stage leaves the numbers of the others as they were.

Legend: B samples, C channels, H height, W width, s scale, K condition channels.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from restora.degradations.base import SYMMETRIC, Degradation, Params, Severity, Shape
from restora.degradations.compose.selection import where_drawn
from restora.degradations.identity import Identity
from restora.degradations.parameters import as_probability, per_sample
from restora.keyed import KeyedGenerator
from restora.registry import register

Stage = TypeVar("Stage", bound=Degradation)
Value = TypeVar("Value")


class _Staged(Degradation):
    """A composition of named degradations."""

    stages: Mapping[str, Degradation]

    @property
    def parts(self) -> tuple[Degradation, ...]:
        return tuple(self.stages.values())


@register("degradation", "chain")
class Chain(_Staged):
    """Stages one after another; scales multiply.

    The conditions of the stages are concatenated in their order. A condition of a stage before a reduction is
    averaged over the pixels that become one, so a mask then gives the known share.
    """

    def __init__(self, *, stages: Mapping[str, Degradation]) -> None:
        self.stages = named(stages, Degradation)
        for stage in self.stages.values():
            self.scale *= stage.scale
            self.out_channels = stage.out_channels or self.out_channels
        self.undamaged = tuple(value for stage in self.stages.values() for value in stage.undamaged)
        self.independent = all(part.independent for part in self.parts)
        # noise on noise keeps the mean; only the first stage, whose input is clean, need not be symmetric
        if "mean" in self.parts[0].centres and all(part.centres == SYMMETRIC for part in self.parts[1:]):
            self.centres = self.parts[0].centres if len(self.parts) == 1 else frozenset({"mean"})
        self.fill = _first_fill(self.parts)

    @property
    def severity(self) -> Severity | None:
        return self.parts[0].severity if len(self.parts) == 1 else None

    @property
    def severities(self) -> dict[str, Severity]:
        """Without those whose name several stages have: one number does not describe stages in sequence."""
        names = [name for part in self.parts for name in part.severities]
        found = {name: value for part in self.parts for name, value in part.severities.items()}
        return {name: value for name, value in found.items() if names.count(name) == 1}

    def sample(self, shape: Shape, generator: KeyedGenerator) -> Params:
        batch, channels, height, width = shape
        params: dict[str, Params] = {}
        for name, stage in self.stages.items():
            params[name] = stage.sample((batch, channels, height, width), generator.fork(name))
            height, width = height // stage.scale, width // stage.scale
            channels = stage.out_channels or channels
        return params

    def apply(self, clean: Tensor, params: Params) -> Tensor:
        x = clean
        for name, stage in self.stages.items():
            x = stage.degrade(x, params[name])
        return x

    def condition(self, clean: Tensor, params: Params) -> Tensor | None:
        maps: list[Tensor] = []
        for name, stage in self.stages.items():
            # a stage's condition depends on the size of its input alone, so a view of the right size will do
            own = stage.condition(clean, params[name])
            if own is not None:
                maps.append(own)
            clean = clean[..., : clean.shape[-2] // stage.scale, : clean.shape[-1] // stage.scale]
        size = clean.shape[-2:]
        reduced = [m if m.shape[-2:] == size else F.avg_pool2d(m, m.shape[-2] // size[0]) for m in maps]
        return torch.cat(reduced, 1) if reduced else None


@register("degradation", "one_of")
class OneOf(_Staged):
    """Each sample goes through one stage, drawn with the given relative `weights` (equal by default).

    Stages must agree in scale. There is a condition if all stages give one of
    the same meaning; `Identity` goes with any.
    """

    def __init__(
        self, *, stages: Mapping[str, Degradation], weights: Mapping[str, float] | None = None
    ) -> None:
        self.stages = named(stages, Degradation)
        self.weights = probabilities(self.stages, weights)
        self.scale = _agreed("scale", self.stages, {s.scale for s in self.stages.values()})
        meanings = {s.undamaged for s in self.stages.values() if not isinstance(s, Identity)}
        self.undamaged = next(iter(meanings)) if len(meanings) == 1 else ()
        self.centres = frozenset.intersection(*(part.centres for part in self.parts))
        self.independent = all(part.independent for part in self.parts)
        self.gaussian = all(part.gaussian or isinstance(part, Identity) for part in self.parts)
        self.fill = _first_fill(self.parts)

    @property
    def severity(self) -> Severity | None:
        all_of = [part.severity for part in self.parts]
        known = [one for one in all_of if one is not None]
        return _hull(known) if len(known) == len(all_of) and len({s.name for s in known}) == 1 else None

    @property
    def severities(self) -> dict[str, Severity]:
        """By name, from the lowest to the highest value that any stage draws."""
        names = dict.fromkeys(name for part in self.parts for name in part.severities)
        return {
            name: _hull([p.severities[name] for p in self.parts if name in p.severities]) for name in names
        }

    def sample(self, shape: Shape, generator: KeyedGenerator) -> Params:
        stages = {name: stage.sample(shape, generator.fork(name)) for name, stage in self.stages.items()}
        return {"choice": choose(self.weights, generator), "stages": stages}

    def apply(self, clean: Tensor, params: Params) -> Tensor:
        batch, channels, height, width = clean.shape
        out = clean.new_empty(batch, channels, height // self.scale, width // self.scale)
        for index, (name, stage) in enumerate(self.stages.items()):
            out = where_drawn(params["choice"] == index, clean, stage.degrade, params["stages"][name], out)
        return out

    def condition(self, clean: Tensor, params: Params) -> Tensor | None:
        if not self.undamaged:
            return None
        batch, _, height, width = clean.shape
        out = clean.new_zeros(()).expand(
            batch, self.condition_channels, height // self.scale, width // self.scale
        )
        for index, (name, stage) in enumerate(self.stages.items()):
            own = stage.condition(clean, params["stages"][name])
            own = _undamaged_like(out, self.undamaged) if own is None else own
            out = torch.where(per_sample(params["choice"] == index), own, out)
        return out


@register("degradation", "on_demand")
class OnDemand(OneOf):
    """One of several severities, drawn in training with shares that follow validation.

    Gao and Grauman, "On-Demand Learning for Deep Image Restoration", ICCV 2017: training begins with the
    given weights, and after each validation the share of a stage is proportional to 1/PSNR of the photos that
    went through it. Validation and tests draw the stages with the given weights at all times. Not clipped
    where its stages are not.
    """

    def __init__(
        self, *, stages: Mapping[str, Degradation], weights: Mapping[str, float] | None = None
    ) -> None:
        super().__init__(stages=stages, weights=weights)
        self.in_training = OneOf(stages=stages, weights=weights)
        """The degradation of training photos, with the changing shares."""

    @property
    def shares(self) -> dict[str, float]:
        return dict(zip(self.stages, self.in_training.weights, strict=True))

    def ask(self, psnr: Mapping[str, float]) -> None:
        """Sets the shares by the mean PSNR (dB) of each stage; a missing one counts as the others' mean."""
        usual = sum(psnr.values()) / len(psnr)
        self.in_training.weights = probabilities(
            self.stages, {name: 1 / max(psnr.get(name, usual), 1.0) for name in self.stages}
        )

    def stage_of(self, keys: Tensor) -> list[str]:
        """The stages that validation photos with these keys (B,) go through."""
        return [list(self.stages)[index] for index in choose(self.weights, KeyedGenerator(keys)).tolist()]


@register("degradation", "maybe")
class Maybe(Degradation):
    """Each sample goes through the stage with the given `probability`, and stays unchanged otherwise."""

    def __init__(self, *, stage: Degradation, probability: float) -> None:
        if stage.scale != 1:
            raise ValueError(f"a stage that may be left out must keep the size, got scale {stage.scale}")
        self.stage, self.probability = stage, as_probability("probability", probability)
        self.undamaged, self.fill = stage.undamaged, stage.fill
        self.centres, self.independent, self.gaussian = stage.centres, stage.independent, stage.gaussian

    @property
    def parts(self) -> tuple[Degradation, ...]:
        return (self.stage,)

    @property
    def severity(self) -> Severity | None:
        return self.stage.severity if self.probability == 1 else None

    @property
    def severities(self) -> dict[str, Severity]:
        """Those of the photos that are degraded."""
        return self.stage.severities

    def sample(self, shape: Shape, generator: KeyedGenerator) -> Params:
        applied = generator.fork("maybe").uniform() < self.probability
        return {"applied": applied, "stage": self.stage.sample(shape, generator.fork("stage"))}

    def apply(self, clean: Tensor, params: Params) -> Tensor:
        return where_drawn(params["applied"], clean, self.stage.degrade, params["stage"], clean)

    def condition(self, clean: Tensor, params: Params) -> Tensor | None:
        own = self.stage.condition(clean, params["stage"])
        if own is None:
            return None
        return torch.where(per_sample(params["applied"]), own, _undamaged_like(own, self.undamaged))


def _hull(ranges: Sequence[Severity]) -> Severity:
    """The smallest range that holds all."""
    lows, highs = [one.low for one in ranges], [one.high for one in ranges]
    return Severity(ranges[0].name, min(lows), max(highs))


def _first_fill(parts: Iterable[Degradation]) -> float | None:
    return next((part.fill for part in parts if part.fill is not None), None)


def _undamaged_like(condition: Tensor, undamaged: tuple[float, ...]) -> Tensor:
    out = torch.empty_like(condition)
    for channel, value in enumerate(undamaged):
        out[:, channel] = value
    return out


def choose(weights: Sequence[float], generator: KeyedGenerator) -> Tensor:
    """An index per sample, int64 (B,), drawn with these probabilities."""
    draw = generator.fork("choice").uniform()
    choice = torch.zeros_like(draw, dtype=torch.int64)
    reached = 0.0
    for weight in weights[:-1]:
        reached += weight
        choice += draw >= reached
    return choice


def named(stages: Mapping[str, Stage], kind: type[Stage]) -> dict[str, Stage]:
    """The stages of a composition by name, each checked to be of the given kind."""
    checked = {str(name): stage for name, stage in stages.items()}
    for name, stage in checked.items():
        if not isinstance(stage, kind):
            raise ValueError(f"stage {name!r} must be a {kind.__name__}, got {type(stage).__name__}")
    if not checked:
        raise ValueError("a composition needs at least one stage")
    return checked


def probabilities(stages: Iterable[str], weights: Mapping[str, float] | None) -> list[float]:
    """Relative weights, one per stage, scaled to sum to one; equal ones if there are none."""
    names = list(stages)
    weights = dict.fromkeys(names, 1.0) if weights is None else dict(weights)
    total = sum(weights.values())
    if set(weights) != set(names) or min(weights.values()) < 0 or not 0 < total < math.inf:
        raise ValueError(
            f"weights must be numbers >= 0, not all 0, one for each of {', '.join(names)}; got {weights}"
        )
    return [weights[name] / total for name in names]


def _agreed(what: str, stages: Iterable[str], values: set[Value]) -> Value:
    if len(values) != 1:
        raise ValueError(f"the stages {', '.join(stages)} must agree in {what}, got {values}")
    return next(iter(values))
