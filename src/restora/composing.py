"""How a command line becomes a configuration: what Hydra does, and two rules of ours.

*Short forms.* `loss=charbonnier` stands for `loss@family.loss=charbonnier`: where one place of the composed
defaults takes a group, its name alone is enough. The places are read from the composition, so that a group
may move.

*A group that is chosen on the command line wins.* What a recipe (a file of `experiments/`) says about the
part that it had chosen itself is left out: `experiments=denoise/dncnn degradation=jpeg` has jpeg's own
numbers. Two groups are about surroundings, and a recipe keeps what is its own of them: of `data` the patches,
batches and crops (the option brings the `source`), of `trainer` what the option's file leaves open.
"""

import copy
import functools
import itertools
import os
import pickle
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, Generic, TypeVar

import hydra._internal.hydra as hydra_internal
from hydra import version
from hydra._internal import defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.config_repository import CachingConfigRepository, IConfigRepository
from hydra._internal.defaults_list import create_defaults_list
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.default_element import ConfigDefault, GroupDefault, InputDefault
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override
from hydra.core.utils import JobRuntime
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from restora import registry, vocabulary
from restora.config_source import COMPLETED, ConfFolder

T = TypeVar("T")
RECIPES = "experiments/"
RECIPES_PROVIDER = "restora"
"""Of the source whose recipes they are."""
BASE = "base"
"""The option of a group that the others are made of, and that nobody chooses."""
_SURROUNDINGS = ("data", "trainer")
_APART = ("experiments", "debug")
"""Groups whose options are about the whole configuration."""
_ALIASES = {"precision": "trainer.precision", "init": "init.source"}
"""Words that stand for a key: one that other commands have in the same sense, and the source of `init`."""
_DURATIONS = ("trainer.max_time",)


class Loader(ConfigLoaderImpl):
    """Hydra's, with recipes that give way to what was chosen on the command line.

    Note: a launcher's process unpickles it, so that a job is composed there by the same rules.
    """

    def files(self) -> IConfigRepository:
        """The files of the configuration, as they were read before while they are the same."""
        return _GivingWay(self.repository, _read_of(_files_of(self, [])))

    def _parse_overrides_and_create_caching_repo(
        self, config_name: str | None, overrides: list[str]
    ) -> tuple[list[Override], CachingConfigRepository]:
        parsed = OverridesParser.create().parse_overrides(overrides)
        repository = _GivingWay(self.repository, _read_of(_files_of(self, overrides)))
        self._process_config_searchpath(config_name, parsed, repository)
        chosen = {
            o.get_key_element(): o.value()
            for o in parsed
            if not o.is_sweep_override() and _chooses(o, repository) and not o.is_hydra_override()
        }
        repository.chosen = {k: v for k, v in chosen.items() if k not in _APART}
        return parsed, repository

    @staticmethod
    def _embed_result_config(ret: ConfigResult, package_override: str | None) -> ConfigResult:
        """At its place, as a copy: what has been read is kept for the next composition."""
        made = ConfigLoaderImpl._embed_result_config(ret, package_override)
        return replace(ret, config=copy.deepcopy(ret.config)) if made is ret else made

    def get_group_options(
        self,
        group_name: str,
        results_filter: ObjectType | None = ObjectType.CONFIG,
        config_name: str | None = None,
        overrides: list[str] | None = None,
    ) -> list[str]:
        """Also those of sub-groups, for `experiments=glob(quickstart/*)`."""
        if results_filter == ObjectType.CONFIG and not overrides:
            return group_options(self.repository, group_name)
        return list(super().get_group_options(group_name, results_filter, config_name, overrides))

    def _load_configuration_impl(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """What groups are chosen decides most of a composition: that is kept while the files are the same.
        What sets values is applied to copies of it, in a tenth of the time."""
        if overrides and overrides[-1].startswith(_ADDED):
            (last,) = OverridesParser.create().parse_overrides(overrides[-1:])
            if not last.is_sweep_override():
                config = self._load_configuration_impl(
                    config_name, overrides[:-1], run_mode, from_shell, validate_sweep_overrides
                )
                OmegaConf.update(config, last.key_or_group, last.value())
                config.hydra.overrides.hydra.append(last.input_line)
                return config
        parsed = parsed_by(self, overrides)
        values = [override for override in parsed if self._sets_a_value(override)]
        chosen = [str(override.input_line) for override in parsed if not self._sets_a_value(override)]
        try:  # as one run, which is the same for a sweep where it succeeds
            known, name = _compositions.of(
                self, config_name, chosen, lambda: self._pickled(config_name, chosen, from_shell)
            )
        except HydraException:
            if run_mode == RunMode.RUN and validate_sweep_overrides:
                raise
            made = super()._load_configuration_impl
            return made(config_name, overrides, run_mode, from_shell, validate_sweep_overrides)
        copied: DictConfig = pickle.loads(known)  # in 3 ms; deepcopy takes 17
        if copied.hydra.job.name == name:
            copied.hydra.job.name = JobRuntime.instance().get("name")
        if values:
            self._apply_overrides_to_config(values, copied)
            _note(copied, [override for override in parsed if not override.is_hydra_override()])
        return copied

    def _pickled(self, config_name: str | None, overrides: list[str], from_shell: bool) -> tuple[bytes, str]:
        """A composition, and the name that Hydra had for the program."""
        made = super()._load_configuration_impl(config_name, overrides, RunMode.RUN, from_shell, True)
        return pickle.dumps(made), JobRuntime.instance().get("name")

    def _sets_a_value(self, override: Override) -> bool:
        """Whether an override changes nothing but values of the task's configuration."""
        other = override.is_hydra_override() or override.is_sweep_override()
        return not (other or self.repository.group_exists(override.key_or_group))


def _note(config: DictConfig, overrides: list[Override]) -> None:
    """Writes to Hydra's node which overrides there were."""
    shown = config.hydra.job.config.override_dirname
    config.hydra.overrides.task = [str(override.input_line) for override in overrides]
    config.hydra.job.override_dirname = get_overrides_dirname(
        overrides=overrides,
        kv_sep=shown.kv_sep,
        item_sep=shown.item_sep,
        exclude_keys=list(shown.exclude_keys),
    )


class _Kept(Generic[T]):
    """The last few results of something that depends on the files of the configuration and on overrides."""

    def __init__(self, most: int = 32) -> None:
        self.most, self.known = most, dict[Any, T]()

    def of(
        self, loader: ConfigLoaderImpl, config_name: str | None, overrides: list[str], make: Callable[[], T]
    ) -> T:
        key = _state(loader, config_name, overrides)
        if key is None:
            return make()
        if key not in self.known:
            made = make()
            while len(self.known) >= self.most:
                del self.known[next(iter(self.known))]
            self.known[key] = made
        return self.known[key]


_compositions = _Kept[tuple[bytes, str]]()
_read: dict[Any, dict[str, ConfigResult]] = {}
"""What was read of the configuration, by the state of its files: of the last state alone."""
_ADDED = ("hydra.mode=RUN", "hydra.run.dir=", "hydra.sweep.dir=")
"""Overrides that change no other key: Hydra adds the first when it has seen that it is no sweep, and a
command the others when it has claimed its folder."""
_MOST_FILES = 2000


def _read_of(files: Any) -> dict[str, ConfigResult]:
    """What has been read of the files in this state, to be added to."""
    if files is None:
        return {}
    if files not in _read:
        _read.clear()
        _read[files] = {}
    return _read[files]


def _files_of(loader: ConfigLoaderImpl, overrides: list[str]) -> Any:
    """The state of what a composition reads; None where that is not known."""
    sources = [source for source in loader.get_sources() if source.scheme() not in ("pkg", "structured")]
    if any(source.scheme() != ConfFolder.scheme() for source in sources):
        return None
    if any("searchpath" in word for word in overrides):
        return None
    files = []
    for source in sources:
        # the root of a checkout is a source for one folder in it
        folder = os.path.join(source.path, RECIPES) if source.provider == RECIPES_PROVIDER else source.path
        files.append(_files_in(folder))
    if any(len(found) == _MOST_FILES for found in files):
        return None
    plugins = tuple(frozenset(registry.foreign(kind)) for kind in sorted({*COMPLETED.values()}))
    return plugins, tuple(files)


def _state(loader: ConfigLoaderImpl, config_name: str | None, overrides: list[str]) -> Any:
    """What a composition depends on; None where that is not known."""
    files = _files_of(loader, overrides)
    return files and (config_name, tuple(overrides), os.getcwd(), version.getbase(), files)


_hydras_names = defaults_list._create_interpolation_map


def _names_to_refer_to(overrides: Any, defaults: list[InputDefault], self_added: bool) -> DictConfig:
    """What the names in a defaults list may refer to; Hydra collects it for every file (a fifth of the time
    of a composition), also where no name refers to anything."""
    groups = (default.value for default in defaults if isinstance(default, GroupDefault))
    files = (default.path for default in defaults if isinstance(default, ConfigDefault))
    if not any("${" in str(name) for name in (*groups, *files)):
        return OmegaConf.create()
    return _hydras_names(overrides, defaults, self_added)


def use_own_rules() -> None:
    """Lets Hydra compose by the rules of this module. Safe to call more than once."""
    hydra_internal.ConfigLoaderImpl = Loader  # type: ignore[attr-defined]
    defaults_list._create_interpolation_map = _names_to_refer_to  # type: ignore[assignment]


_seen: dict[str, Any] | None = None
"""The files by their folder, where they are looked at once."""


@contextmanager
def as_of_now() -> Iterator[None]:
    """All that is composed within is composed from the files as they are when they are first looked at."""
    global _seen
    before, _seen = _seen, {} if _seen is None else _seen
    try:
        yield
    finally:
        _seen = before


def _files_in(folder: str) -> tuple[Any, ...]:
    if _seen is not None and folder in _seen:
        return tuple(_seen[folder])
    found = tuple(itertools.islice(_files(folder), _MOST_FILES))
    if _seen is not None:
        _seen[folder] = found
    return found


def _files(folder: str) -> Iterator[tuple[str, int, int]]:
    """The configuration files in a folder, each with when it was changed and its size."""
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            status = os.stat(path, follow_symlinks=True) if name.endswith(".yaml") else None
            yield (path, status.st_mtime_ns, status.st_size) if status else ("", 0, 0)


def _chooses(override: Override, repository: IConfigRepository) -> bool:
    """Whether an override picks an option of a group, rather than setting a key."""
    if override.is_add() or override.is_force_add() or override.is_delete():
        return False
    return "." not in override.key_or_group and repository.group_exists(override.key_or_group)


class _GivingWay(CachingConfigRepository):
    """Recipes without what they say about parts that were chosen on the command line."""

    def __init__(self, repository: IConfigRepository, read: dict[str, ConfigResult]) -> None:
        self.delegate = repository
        self.cache: dict[str, ConfigResult | None] = {}
        self.read = read
        self.chosen: dict[str, Any] = {}

    def initialize_sources(self, config_search_path: ConfigSearchPath) -> None:
        self.delegate, self.read = copy.deepcopy(self.delegate), {}
        super().initialize_sources(config_search_path)

    def load_config(self, config_path: str) -> ConfigResult | None:
        key = f"config_path={config_path}"
        if key in self.cache:
            return self.cache[key]
        found = self.read.get(config_path) or self.delegate.load_config(config_path)
        if found is not None:
            self.read[config_path] = found
        self.cache[key] = found = self._given_way(config_path, found)
        return found

    def _given_way(self, config_path: str, found: ConfigResult | None) -> ConfigResult | None:
        if found is None or not self.chosen or not config_path.startswith(RECIPES):
            return found
        found = copy.deepcopy(found)
        for key, option in self.chosen.items():
            for path in self._won(key, option):
                _remove(found.config, path)
        places = [_place(key) for key in self.chosen if _place(key) not in _SURROUNDINGS]
        if found.defaults_list:
            found.defaults_list = [
                default
                for default in found.defaults_list
                if not any(_is_below(default, place) for place in places)
            ]
        return found

    def _won(self, key: str, option: Any) -> Iterator[str]:
        """The keys of a recipe that a chosen option replaces."""
        place = _place(key)
        if place == "data":
            yield "data.source"
        elif place == "trainer":
            yield from self._said(f"{key}/{option}")
        else:
            yield place

    def _said(self, path: str) -> Iterator[str]:
        """The keys that the file of an option says, and those that it is based on but `base`."""
        found = self.load_config(path)
        if found is None:
            return
        group = path.rpartition("/")[0]
        prefix = "" if (found.header or {}).get("package") == "_global_" else f"{group}."
        for name in _leaves(found.config):
            yield f"{prefix}{name}"
        for default in found.defaults_list or []:
            if not default.is_self() and (option := default.get_name() or BASE) != BASE:
                yield from self._said(f"{group}/{option}")


def _place(key: str) -> str:
    """Where the option of `group@package` stands in the configuration."""
    group, _, package = key.partition("@")
    return package or group.replace("/", ".")


def _is_below(default: InputDefault, place: str) -> bool:
    """Whether a recipe overrides a choice inside the part at `place`."""
    if not isinstance(default, GroupDefault) or not default.override:
        return False
    package = (default.package or "").removeprefix("_global_.")
    return package.startswith(f"{place}.")


def _remove(config: Any, path: str) -> None:
    above, _, key = path.rpartition(".")
    node = OmegaConf.select(config, above) if above else config
    if isinstance(node, DictConfig) and key in node:
        del node[key]


def _leaves(config: Any, prefix: str = "") -> Iterator[str]:
    for key in map(str, config):
        node = config._get_node(key)
        if isinstance(node, DictConfig) and not node._is_none() and len(node):
            yield from _leaves(node, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


# --- short forms --------------------------------------------------------------------------------------------


class Refused(ValueError):
    """An override that cannot be written out; the message is complete."""


def full_forms(loader: ConfigLoaderImpl, config_name: str, overrides: Iterable[str]) -> list[str]:
    """The overrides with every short form written out.

    Raises Refused for a group that no place of the composition takes, or more than one, and for what is no
    duration.
    """
    parsed = parsed_by(loader, overrides)
    if config_name == "train":
        parsed = [_with_alias(o) for o in parsed]
    pending = [o for o in parsed if _chooses(o, loader.repository) and not o.is_hydra_override()]
    full: dict[int, str] = {}
    accepted: list[str] = []
    while pending:
        # what everybody may choose is known from the defaults; only the rest needs a composition of its own
        places = choices(loader, config_name, accepted)
        ready = [(o, key) for o in pending if (key := _full_key(o, places))]
        if not ready:
            raise Refused(_no_place(loader, config_name, accepted, pending[0]))
        for o, key in ready:
            full[id(o)] = key
            accepted.append(f"{key}={_first(o)}")
        pending = [o for o in pending if id(o) not in full]
    return [_written(o, full.get(id(o))) for o in parsed]


def parsed_by(loader: ConfigLoaderImpl, overrides: Iterable[str]) -> list[Override]:
    """The overrides as Hydra's grammar reads them; those with `glob` look among the loader's options."""
    return [replace(_parsed(word), config_loader=loader) for word in overrides]


@functools.lru_cache(maxsize=4096)
def _parsed(override: str) -> Override:
    """Not to be changed. A millisecond each, and the jobs of a sweep have most of theirs in common."""
    return OverridesParser.create().parse_overrides([override])[0]


def sweeps_among(overrides: Iterable[str]) -> list[str]:
    """The overrides that name several values."""
    return [word for word in overrides if _parsed(word).is_sweep_override()]


def combinations(loader: ConfigLoaderImpl, overrides: Iterable[str]) -> list[list[str]]:
    """The overrides of every job of a sweep, whatever their form; of an interval, both ends."""
    parsed = parsed_by(loader, overrides)
    values: dict[str, list[str]] = {}
    for o in parsed:
        if o.is_hydra_override():
            continue
        key = o.get_key_element()
        if o.is_discrete_sweep():
            values[key] = [f"{key}={value}" for value in values_of(o)]
        elif o.is_sweep_override():
            interval: Any = o.value()
            values[key] = [f"{key}={interval.start}", f"{key}={interval.end}"]
        else:
            values[key] = [str(o.input_line)]
    return [list(job) for job in itertools.product(*values.values())]


def values_of(override: Override) -> list[str]:
    """The values of a sweep that can be listed, as they are typed. Raises Refused where there are none."""
    found = [str(value) for value in override.sweep_string_iterator()]
    if not found:
        raise Refused(f"{override.input_line}: no value fits")
    return found


def choices(loader: ConfigLoaderImpl, config_name: str, overrides: list[str]) -> dict[str, Any]:
    """What stands at each `group@package` of the composed defaults."""
    return _choices.of(
        loader, config_name, overrides, lambda: _composed_choices(loader, config_name, overrides)
    )


_choices = _Kept[dict[str, Any]]()


def read_keys(loader: ConfigLoaderImpl, config_name: str) -> set[str]:
    """The top-level keys of a configuration: those of its file, and the places of the groups it takes."""
    return _keys.of(loader, config_name, [], lambda: _read_keys(loader, config_name))


_keys = _Kept[set[str]]()


def _read_keys(loader: ConfigLoaderImpl, config_name: str) -> set[str]:
    primary = loader.repository.load_config(config_name)
    assert primary is not None
    places = choices(loader, config_name, [])
    groups = {(place.partition("@")[2] or place).partition(".")[0] for place in places}
    return {*map(str, primary.config), *groups, "hydra"} - {"defaults"}


def _composed_choices(loader: ConfigLoaderImpl, config_name: str, overrides: list[str]) -> dict[str, Any]:
    parsed, repository = loader._parse_overrides_and_create_caching_repo(config_name, overrides)
    made = create_defaults_list(
        repo=repository,
        config_name=config_name,
        overrides_list=parsed,
        prepend_hydra=False,
        skip_missing=True,
    )
    return {**_lists(repository), **made.overrides.known_choices}


def _lists(repository: CachingConfigRepository) -> dict[str, Any]:
    """The groups of which several options are taken at once (Hydra keeps no record of those)."""
    found: dict[str, Any] = {}
    for config in repository.cache.values():
        for default in (config.defaults_list if config is not None else None) or []:
            if isinstance(default, GroupDefault) and default.is_options() and not default.override:
                group = str(default.group).removeprefix("/")
                place = str(default.package or group).removeprefix("_global_.")
                key = group if place == group.replace("/", ".") else f"{group}@{place}"
                found[key] = list(default.value) if isinstance(default.value, Iterable) else default.value
    return found


def _full_key(override: Override, places: dict[str, Any]) -> str | None:
    key: str = override.get_key_element()
    if key in places:
        return key
    if override.package is not None:
        return None
    taking = _taking(override.key_or_group, places)
    if len(taking) > 1:
        forms = " or ".join(f"{place}={_first(override)}" for place in taking)
        raise Refused(f"{override.input_line}: which one? Write {forms}")
    return taking[0] if taking else None


def _taking(group: str, places: Iterable[str]) -> list[str]:
    return [place for place in places if place.partition("@")[0] == group]


def _no_place(loader: ConfigLoaderImpl, config_name: str, accepted: list[str], override: Override) -> str:
    """What would have to be chosen for this group to have a place."""
    group, form = override.key_or_group, override.get_key_element()
    now = choices(loader, config_name, accepted)
    if places := _taking(group, now):
        forms = " or ".join(f"{place}={_first(override)}" for place in places)
        return f"{override.input_line}: nothing takes {form}; write {forms}"
    others = [word for word in accepted if word.partition("=")[0] not in ("objective", "family")]
    for other in ("objective", "family"):
        found = []
        for option in group_options(loader.repository, other):
            choice = f"{other}=[{','.join([*now[other], option])}]" if _is_list(now, other) else ""
            choice = choice or f"{other}={option}"
            with suppress(HydraException):
                if _taking(group, choices(loader, config_name, [*others, choice])):
                    found.append(choice)
        if found:
            return f"{override.input_line}: nothing here takes {form}; {' or '.join(found)} does"
    return f"{override.input_line}: nothing in this configuration takes {form}"


def _is_list(places: dict[str, Any], group: str) -> bool:
    return isinstance(places.get(group), list)


def _first(override: Override) -> str:
    """The option that an override chooses; of a sweep, the first."""
    if override.is_sweep_override():
        return values_of(override)[0]
    return str(override.get_value_element_as_str())


def _with_alias(override: Override) -> Override:
    if override.package is None and (key := _ALIASES.get(override.key_or_group)):
        override.key_or_group = key
    return override


def _written(override: Override, key: str | None) -> str:
    if override.key_or_group in _DURATIONS and override.value() is not None:
        return f"{override.get_key_element()}={_durations(override)}"
    if override.is_delete():
        return str(override.input_line)
    return f"{key or override.get_key_element()}={_value_of(override)}"


def _value_of(override: Override) -> str:
    """As it was typed, a sweep with all its values."""
    return str(override.input_line).partition("=")[2]


def _durations(override: Override) -> str:
    """A duration as one word, so that it replaces a mapping instead of being merged into it."""
    value = override.value()
    if isinstance(value, ChoiceSweep):
        return ",".join(_one_duration(one) for one in value.list)
    return _value_of(override) if override.is_sweep_override() else _one_duration(value)


def _one_duration(value: Any) -> str:
    if value is None:
        return "null"
    plain = {str(k): v for k, v in value.items()} if isinstance(value, dict) else str(value)
    try:
        length = vocabulary.seconds(plain, "trainer.max_time")
    except ValueError as error:
        raise Refused(str(error)) from error
    assert length is not None
    return vocabulary.duration(length)


def group_options(repository: IConfigRepository, group: str) -> list[str]:
    """The options of a group, those of its sub-groups as `sub/name`."""
    found = [name for name in repository.get_group_options(group, ObjectType.CONFIG) if name != BASE]
    for below in repository.get_group_options(group, ObjectType.GROUP):
        found += [f"{below}/{name}" for name in group_options(repository, f"{group}/{below}")]
    return sorted(found)
