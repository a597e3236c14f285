"""Composes a configuration from the command line with Hydra, and with one more rule.

*A group that is chosen on the command line wins.* The settings of a recipe (a file of `experiments/`) for its
own choice of that group are left out: `experiments=denoise/dncnn degradation=jpeg` has jpeg's own numbers.
For two groups a recipe keeps part of its settings: of `data` the patches, batches and crops (the option sets
the `source`), of `trainer` the keys that the option's file does not set.
"""

import copy
import functools
import pickle
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import hydra._internal.hydra as hydra_internal
from hydra._internal import defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.config_repository import CachingConfigRepository, IConfigRepository
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.default_element import ConfigDefault, GroupDefault, InputDefault
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobRuntime
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, grammar_parser
from omegaconf import base as omegaconf_base

from restora.composing.kept import Kept, files_of, read_of
from restora.composing.overrides import chooses, parsed_by
from restora.composing.sources import RECIPES

BASE = "base"
"""The option of a group on which the others are based, and which is not chosen itself."""
_SURROUNDINGS = ("data", "trainer")
_APART = ("experiments", "debug")
"""Groups whose options apply to the whole configuration."""
_ADDED = ("hydra.mode=RUN", "hydra.run.dir=", "hydra.sweep.dir=")
"""Overrides that change no other key: Hydra adds the first if there is no sweep, and a command adds one of
the others after it has claimed its folder."""
_compositions = Kept[tuple[bytes, str]]()
_hydras_names = defaults_list._create_interpolation_map


class Loader(ConfigLoaderImpl):
    """Hydra's loader, with recipes that yield to the choices of the command line.

    Note: a launcher's process unpickles it, so that a job is composed there by the same rules.
    """

    def files(self) -> IConfigRepository:
        """The configuration files; unchanged files come from the cache."""
        return _GivingWay(self.repository, read_of(files_of(self, [])))

    def _parse_overrides_and_create_caching_repo(
        self, config_name: str | None, overrides: list[str]
    ) -> tuple[list[Override], CachingConfigRepository]:
        parsed = OverridesParser.create().parse_overrides(overrides)
        repository = _GivingWay(self.repository, read_of(files_of(self, overrides)))
        self._process_config_searchpath(config_name, parsed, repository)
        chosen = {
            o.get_key_element(): o.value()
            for o in parsed
            if not o.is_sweep_override() and chooses(o, repository) and not o.is_hydra_override()
        }
        repository.chosen = {k: v for k, v in chosen.items() if k not in _APART}
        return parsed, repository

    @staticmethod
    def _embed_result_config(ret: ConfigResult, package_override: str | None) -> ConfigResult:
        """Embeds a copy, because the original stays in the cache for the next composition."""
        made = ConfigLoaderImpl._embed_result_config(ret, package_override)
        return replace(ret, config=copy.deepcopy(ret.config)) if made is ret else made

    def get_group_options(
        self,
        group_name: str,
        results_filter: ObjectType | None = ObjectType.CONFIG,
        config_name: str | None = None,
        overrides: list[str] | None = None,
    ) -> list[str]:
        """The options, also of sub-groups, for `experiments=glob(quickstart/*)`."""
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
        """Caches the composition of the chosen groups while the files do not change. Overrides that only set
        values are applied to copies of it, in a tenth of the time."""
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
        try:  # as a single run; if that succeeds, a sweep has the same result
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
        """A pickled composition, and Hydra's name of the program."""
        made = super()._load_configuration_impl(config_name, overrides, RunMode.RUN, from_shell, True)
        return pickle.dumps(made), JobRuntime.instance().get("name")

    def _sets_a_value(self, override: Override) -> bool:
        """Whether an override only changes values of the task's configuration."""
        other = override.is_hydra_override() or override.is_sweep_override()
        return not (other or self.repository.group_exists(override.key_or_group))


def _note(config: DictConfig, overrides: list[Override]) -> None:
    """Records the overrides in Hydra's node."""
    shown = config.hydra.job.config.override_dirname
    config.hydra.overrides.task = [str(override.input_line) for override in overrides]
    config.hydra.job.override_dirname = get_overrides_dirname(
        overrides=overrides,
        kv_sep=shown.kv_sep,
        item_sep=shown.item_sep,
        exclude_keys=list(shown.exclude_keys),
    )


class _GivingWay(CachingConfigRepository):
    """Loads recipes without their settings for parts that were chosen on the command line."""

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
        if found is None or not self.chosen or not config_path.startswith(f"{RECIPES}/"):
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
        """The keys that an option's file sets, and those of the files that it is based on, except `base`."""
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
    """The key in the configuration of the option of `group@package`."""
    group, _, package = key.partition("@")
    return package or group.replace("/", ".")


def _is_below(default: InputDefault, place: str) -> bool:
    """Whether a recipe makes a choice inside the part at `place`."""
    if not isinstance(default, GroupDefault):
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


def group_options(repository: IConfigRepository, group: str) -> list[str]:
    """The options of a group, those of its sub-groups as `sub/name`."""
    found = [name for name in repository.get_group_options(group, ObjectType.CONFIG) if name != BASE]
    for below in repository.get_group_options(group, ObjectType.GROUP):
        found += [f"{below}/{name}" for name in group_options(repository, f"{group}/{below}")]
    return sorted(found)


def _names_to_refer_to(overrides: Any, defaults: list[InputDefault], self_added: bool) -> DictConfig:
    """The values for interpolations in a defaults list's names; nothing if no name has one, whereas Hydra
    collects them for every file (a fifth of the time of a composition)."""
    groups = (default.value for default in defaults if isinstance(default, GroupDefault))
    files = (default.path for default in defaults if isinstance(default, ConfigDefault))
    if not any("${" in str(name) for name in (*groups, *files)):
        return OmegaConf.create()
    return _hydras_names(overrides, defaults, self_added)


_interpolation = functools.lru_cache(maxsize=4096)(grammar_parser.parse)
"""Caches the parsing of interpolations, which are the same in every configuration; parsing them again takes a
third of the time of a cached composition."""


def use_own_rules() -> None:
    """Makes Hydra compose by the rules of this module. Safe to call more than once."""
    setattr(omegaconf_base, "parse", _interpolation)  # noqa: B010 -- an imported name of that module
    hydra_internal.ConfigLoaderImpl = Loader  # type: ignore[attr-defined]
    defaults_list._create_interpolation_map = _names_to_refer_to  # type: ignore[assignment]
