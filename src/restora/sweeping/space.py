"""The space that a search chooses points from: overrides with several values, as Optuna's distributions."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from restora.composing.overrides import Refused, values_of
from restora.config import ConfigError, parsed


def optuna() -> Any:
    try:
        import optuna as found
    except ImportError as error:
        raise ConfigError('a search needs Optuna: pip install "restora[search]"') from error
    found.logging.set_verbosity(found.logging.WARNING)
    warnings.filterwarnings("ignore", category=found.exceptions.ExperimentalWarning)
    return found


def space_of(words: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Distributions by key, from the overrides with several values, and the other overrides."""
    space: dict[str, Any] = {}
    fixed = []
    for override in parsed(words):
        if override.is_sweep_override():
            space[_key(override)] = _distribution(override)
        else:
            fixed.append(str(override.input_line))
    if not space:
        raise ConfigError(
            "a search needs keys with several values, such as family.optimizer.lr=interval(1e-4,1e-2)"
        )
    return space, fixed


def _key(override: Override) -> str:
    return str(override.input_line).partition("=")[0]


def _distribution(override: Override) -> Any:
    kinds: Any = optuna().distributions
    value: Any = override.value()
    log = "log" in getattr(value, "tags", ())
    try:
        if isinstance(value, IntervalSweep):
            whole = isinstance(value.start, int) and isinstance(value.end, int)
            kind = kinds.IntDistribution if whole else kinds.FloatDistribution
            return kind(value.start, value.end, log=log)
        named = values_of(override)
        if isinstance(value, RangeSweep):
            listed = list(value.range())
            whole = all(isinstance(item, int) for item in listed)
            kind = kinds.IntDistribution if whole else kinds.FloatDistribution
            return kind(min(listed), max(listed), log=log, **({} if log else {"step": abs(value.step)}))
        return kinds.CategoricalDistribution(named)
    except Refused as error:
        raise ConfigError(str(error)) from error
    except ValueError as error:
        raise ConfigError(f"{override.input_line}: {error}") from error


def refuse_intervals(words: Sequence[str]) -> None:
    """Raises `ConfigError` for an interval, which a grid cannot list."""
    for override in parsed(words):
        if isinstance(override.value(), IntervalSweep):
            raise ConfigError(
                f"{override.input_line}: an interval has no list of values: search it (add sweep=tpe or "
                f"sweep=random), or name values, {_key(override)}=A,B,C"
            )


def in_whole_numbers(words: Sequence[str], error: ConfigError) -> ConfigError:
    """The error; for an interval that needs whole numbers, one that names the fix."""
    for override in parsed(words):
        key, value = _key(override), override.value()
        if isinstance(value, IntervalSweep) and str(error).startswith(
            f"{key}={value.start}: expected a whole"
        ):
            said = str(override.input_line).partition("=")[2]
            return ConfigError(f"{override.input_line}: expected whole numbers: write '{key}=int({said})'")
    return error


def check_space(study: Any, space: dict[str, Any], folder: Path) -> None:
    """Raises `ConfigError` where the study has had values of a key that the space does not allow together."""
    check = optuna().distributions.check_distribution_compatibility
    for trial in study.get_trials(deepcopy=False):
        for key in space.keys() & trial.distributions.keys():
            try:
                check(trial.distributions[key], space[key])
            except ValueError as error:
                raise ConfigError(
                    f"the search in {folder} chose {key} from other values: name another folder, "
                    "hydra.sweep.dir=FOLDER"
                ) from error
