"""Composes, checks and hashes the combinations of `restora train -m …`.

Hydra takes 20 ms for a composition and OmegaConf as long for its values, which for a thousand jobs is a
minute. Most jobs differ by a few numbers: of the jobs with the same parts, only the first is composed fully.
The others are copies of it with their own numbers and with new values of the keys that refer to these. A job
whose overrides could change more (an option, a list, an added key, a batch that scales learning rates) is
composed fully.
"""

import pickle
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from restora.composing import batch_rule
from restora.composing.kept import as_of_now
from restora.composing.overrides import plain_value
from restora.config import ConfigError, compose, jobs_of, options, set_by
from restora.registry import stored
from restora.sweeping.plan import identity

HERE = "__run_dir__"
"""Placeholder of the run folder until it is known."""
_CHECKED = 64
"""Combinations that are checked; beyond these, up to `_MOST_CHECKED`, only those with a new value."""
_MOST_CHECKED = 256
_SILENT_SECONDS = 2.0
_NOT_PLAIN = ("recipe_batch", "plugins", "run_dir", "resume")
Path = tuple[str, ...]


@dataclass(frozen=True)
class Composed:
    """One composed combination.

    It has its own overrides, its plain configuration, and the composition with Hydra's node. Jobs that differ
    only by `values` share one composition.
    """

    words: list[str]
    config: dict[str, Any]
    hydra: DictConfig
    settings: dict[str, Any]
    identity: str
    values: Mapping[Path, Any] = field(default_factory=dict)

    def subfolder(self, number: int) -> str:
        """The name of job `number`."""
        self.use(number)
        return str(OmegaConf.select(self.hydra, "hydra.sweep.subdir"))

    def use(self, number: int) -> None:
        """Writes this combination's values into the shared composition, also for `${hydra:…}`."""
        OmegaConf.set_readonly(self.hydra.hydra, False)
        self.hydra.hydra.job.num, self.hydra.hydra.job.id = number, str(number)
        for path, value in self.values.items():
            _within(self.hydra, path[:-1])[path[-1]] = value
        HydraConfig.instance().cfg = cast(Any, self.hydra)  # set_config copies it, in 10 ms


def is_hydras(word: str) -> bool:
    return bool(re.match(r"[+~]*hydra[./=]", word))


def is_about_the_sweep(word: str) -> bool:
    """Whether an override sets how the sweep is run, and is no setting of a job."""
    return bool(re.match(r"[+~]*(sweep[.=]|retry_failed=)", word))


def composed(words: Sequence[str], above: Sequence[str], number: int = 0) -> Composed:
    """Composes a combination; `above` are the overrides of Hydra and the sweep, which jobs do not record."""
    return _of_plain(words, *_whole(words, above, number))


def _whole(words: Sequence[str], above: Sequence[str], number: int) -> tuple[dict[str, Any], DictConfig]:
    config = compose("train", [*words, *above, "hydra.mode=MULTIRUN", f"run_dir={HERE}"], hydra_node=True)
    OmegaConf.set_struct(config, False)
    OmegaConf.set_readonly(config.hydra, False)
    config.hydra.job.num, config.hydra.job.id = number, str(number)
    config.hydra.runtime.output_dir = HERE
    HydraConfig.instance().cfg = cast(Any, config)
    return {key: _resolved(config, key) for key in map(str, config) if key != "hydra"}, config


def _of_plain(
    words: Sequence[str],
    plain: dict[str, Any],
    config: DictConfig,
    values: Mapping[Path, Any] | None = None,
) -> Composed:
    settings = plain.pop("sweep")
    kept = stored(plain)
    return Composed(list(words), kept, config, settings, identity(kept), values or {})


def _resolved(config: DictConfig, key: str) -> Any:
    if OmegaConf.is_missing(config, key):
        return "???"
    value = config[key]
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def check(job: Composed, *, apart: Sequence[str] = (), here: bool = True) -> None:
    """Raises `ConfigError` for a job that cannot be trained; with `here`, on this machine.

    `apart` are the overrides that distinguish the job from others; the message names them.
    """
    from restora.training.build import check_before_training

    here = here and job.settings["executor"] == "local"
    try:
        check_before_training(OmegaConf.create(job.config), here=here)
    except ValueError as error:
        where = f" (in the job {' '.join(apart)})" if apart else ""
        raise ConfigError(f"{error}{set_by(error, job.words)}{where}") from error


def firsts(words: Sequence[str]) -> list[str]:
    """The overrides with the first of several values each."""
    return jobs_of(words)[0]


@as_of_now()
def combinations(
    words: Sequence[str], above: Sequence[str], say: Callable[[str], None], *, here: bool = True
) -> list[Composed]:
    """Composes every combination of a grid, and checks some of them; with `here`, for this machine.

    Combinations that differ only by the seed count once. The first 64 are checked, and later ones if they
    have a value that no earlier one had, up to 256 in all.
    """
    listed = jobs_of(words)
    alike, found = Alike(listed, above), list[Composed]()
    checked, seen = set[str](), Seen()
    known = set[tuple[str, ...]]()
    said, last = float("inf"), len(listed) - 1
    shown = False
    for number, words in enumerate(listed):
        job = alike.composed(words, number)
        unseeded = tuple(word for word in words if not re.match(r"([\w.]+\.)?seed=", word))
        wanted = seen.is_new(unseeded) or len(checked) < _CHECKED
        if wanted and unseeded not in known and len(checked) < _MOST_CHECKED:
            known.add(unseeded)
            if (kind := identity(job.config, seeds=False)) not in checked:
                checked.add(kind)
                check(job, apart=[word for word in words if word not in alike.common], here=here)
        found.append(job)
        now = time.monotonic()
        said = min(said, now)  # the first job takes longer, it imports torch
        if now - said > _SILENT_SECONDS or (shown and number == last):
            said, shown = now, True
            say(f"composed and checked {number + 1} of {len(listed)} jobs")
    return found


class Seen:
    """The overrides seen so far; a float between two seen floats of its key counts as seen."""

    def __init__(self) -> None:
        self.words = set[str]()
        self.ends = dict[str, tuple[float, float]]()

    def is_new(self, words: Sequence[str]) -> bool:
        """Whether any of the overrides is new; adds all of them."""
        return sum(map(self._is_new, words)) > 0  # sum, not any: all are added

    def _is_new(self, word: str) -> bool:
        if word in self.words:
            return False
        self.words.add(word)
        key, value = plain_value(word) or ("", None)
        if not isinstance(value, float):
            return True
        low, high = self.ends.get(key, (value, value))
        new = key not in self.ends or not low <= value <= high
        self.ends[key] = min(low, value), max(high, value)
        return new


# --- alike -------------------------------------------------------------------------------------------------


class Alike:
    """Composes the combinations of a grid; `listed` are the overrides of each."""

    def __init__(self, listed: Sequence[Sequence[str]], above: Sequence[str]) -> None:
        self.above = above
        self.common = set(listed[0]).intersection(*listed)
        self.has_recipe = "experiments" in batch_rule.keys_of(listed[0])
        self.known = dict[tuple[str, ...], _Pattern | None]()
        self.plain = dict[str, bool]()

    def composed(self, words: Sequence[str], number: int) -> Composed:
        """One combination, from an earlier one of the same parts if possible."""
        plain = {word: found for word in words if word not in self.common and (found := self._value(word))}
        kind = tuple(plain[word][0] if word in plain else word for word in words)
        values = {tuple(key.split(".")): value for key, value in plain.values()}
        if (pattern := self.known.get(kind)) is not None:
            return pattern.with_values(words, values, number)
        made, config = _whole(words, self.above, number)
        if kind not in self.known:
            self.known[kind] = _Pattern.of(made, config, values)
        return _of_plain(words, made, config, values if self.known[kind] else {})

    def _value(self, word: str) -> tuple[str, Any] | None:
        """Key and value of an override that only changes values; None for any other."""
        found = plain_value(word)
        if found is not None and found[0] not in self.plain:
            self.plain[found[0]] = self._is_plain(found[0])
        return found if found and self.plain[found[0]] else None

    def _is_plain(self, key: str) -> bool:
        path = key.split(".")
        scales = key == "network.scale" or (self.has_recipe and key in batch_rule.BATCH)
        return not (scales or path[0] in _NOT_PLAIN or path[-1].startswith("_") or options(key))


@dataclass(frozen=True)
class _Pattern:
    """A combination, from which others differ by the values of some keys; `read`: keys that refer to them."""

    plain: bytes
    config: DictConfig
    read: list[Path]

    @classmethod
    def of(cls, plain: dict[str, Any], config: DictConfig, values: Iterable[Path]) -> "_Pattern | None":
        """None if other values could change more than these keys and the keys that refer to them."""
        raw: Any = OmegaConf.to_container(config, resolve=False)
        hydras = raw.pop("hydra")
        places = {place.rpartition("@")[2] for place in hydras["runtime"]["choices"]}
        if not all(_is_value(raw, path) and ".".join(path) not in places for path in values):
            return None
        refers = {path: str(value) for path, value in _leaves(raw, ()) if "${" in str(value)}
        if any("hydra" in text.replace("${hydra:runtime.", "") for text in refers.values()):
            return None
        if "overrid" in str(hydras["sweep"]["subdir"]):
            return None
        return cls(pickle.dumps(plain), config, _that_follow(values, refers))

    def with_values(self, words: Sequence[str], values: Mapping[Path, Any], number: int) -> Composed:
        plain = pickle.loads(self.plain)  # a copy, in 20 µs
        if self.read:
            Composed(list(words), {}, self.config, {}, "", values).use(number)
        for path, value in values.items():
            _within(plain, path[:-1])[path[-1]] = value
        for path in self.read:
            if path not in values:
                _within(plain, path[:-1])[path[-1]] = _resolved(_within(self.config, path[:-1]), path[-1])
        return _of_plain(words, plain, self.config, values)


def _is_value(raw: dict[str, Any], path: Path) -> bool:
    """Whether a key exists and holds a single value."""
    node: Any = raw
    for key in path:
        if not isinstance(node, dict) or key not in node:
            return False
        node = node[key]
    return not isinstance(node, dict | list)


def _leaves(node: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    """The leaves of nested mappings, with their paths; a list counts as a leaf."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _leaves(value, (*path, key))
    else:
        yield path, node


def _that_follow(values: Iterable[Path], refers: Mapping[Path, str]) -> list[Path]:
    """The keys that refer, or may refer, to one of the values, directly or through other keys."""
    found, names = list[Path](), [".".join(path) for path in values]
    while more := [path for path, text in refers.items() if path not in found and _may_refer(text, names)]:
        found += more
        names += [".".join(path) for path in more]
    return found


def _may_refer(text: str, names: Iterable[str]) -> bool:
    said = re.findall(r"\$\{([A-Za-z_][\w.]*)\}", text)
    if "${" in re.sub(r"\$\{(hydra:runtime\.[\w.]*|oc\.env:[^${}]*|[A-Za-z_][\w.]*)\}", "", text):
        return True
    pairs = [(f"{one}.", f"{name}.") for one in said for name in names]
    return any(one.startswith(name) or name.startswith(one) for one, name in pairs)


def _within(node: Any, path: Path) -> Any:
    for key in path:
        node = node[key]
    return node
