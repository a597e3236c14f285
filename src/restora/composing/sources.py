"""Makes the options of Hydra's groups from the files of `conf/` and `experiments/`.

A file is an option by its own name, as usual in Hydra, unless the name begins with `_`: such files are shared
by others. Repeated settings are filled in here:

- *Constructors.* A file of the groups in `COMPLETED` that names a registered part (`_target_`) holds only the
  differences from the constructor's defaults; the other keys are read from the constructor.
- *Variants.* The mapping `variants` of a file holds further options by their full names, each with its
  differences from the file: `dncnn_small: {depth: 7}`. Its `defaults` replace the file's choices.
- *Products.* `testsets` and `severities` of a benchmark make an option of each pair: `bsd68_sigma25`.
- *Objectives.* A file of `objective` may hold the objective itself or, under its name, `mine: {_target_: …}`.
- *Networks without a file.* A registered network that no file names is an option by its registered name.

The configuration of plugins and the folders given with `--config-dir` are read in the same way.
"""

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import yaml  # type: ignore[import-untyped]
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigLoadError, ConfigResult
from omegaconf import OmegaConf
from omegaconf._utils import get_yaml_loader

from restora import registry
from restora.composing import constructors

COMPLETED = {
    **{kind: kind for kind in ("network", "discriminator", "degradation", "schedule", "loss", "method")},
    "adversarial": "loss",
    "perceptual": "loss",
}
"""Groups whose files hold only differences from the constructor's defaults, and the kind of their parts."""
RECIPES = "experiments"
RECIPES_PROVIDER = "restora"
"""The provider name of the source with the recipes."""
PRODUCT = ("testsets", "severities")
"""The tables of a benchmark that make an option of each pair."""


class Unreadable(ValueError):
    """A file that is not YAML; the message names it, the line and the column."""


class ConfFolder(FileConfigSource):
    """A folder of configuration files, with all options that the files define."""

    @staticmethod
    def scheme() -> str:
        return "restora"

    def is_group(self, config_path: str) -> bool:
        return not self._outside(config_path) and bool(super().is_group(config_path))

    def _outside(self, config_path: str) -> bool:
        """Whether a path is not of the recipes, beside which there are other folders, such as `metrics`."""
        return self.provider == RECIPES_PROVIDER and config_path.partition("/")[0] not in ("", RECIPES)

    def is_config(self, config_path: str) -> bool:
        if self._outside(config_path):
            return False
        return bool(super().is_config(config_path)) or self._implied(config_path) is not None

    def load_config(self, config_path: str) -> ConfigResult:
        file = self._implied(config_path)
        if file == "":
            content: dict[str, Any] = {"_target_": Path(config_path).stem}
            header: dict[str, str | None] = {"package": None}
        else:
            path = Path(self.path, file or config_path).with_suffix(".yaml")
            if not path.exists():
                raise ConfigLoadError(f"Config not found : {path}")
            found = _content(path, path.stat().st_mtime_ns)
            if not isinstance(found, dict):
                return super().load_config(config_path)
            content, header = found, _header(path, path.stat().st_mtime_ns)
            if file:
                content = laid_over(content, dict(_options_in(content))[Path(config_path).stem])
        group = config_path.partition("/")[0]
        if "/" in config_path:
            content = _filled_in(content, group)
        if group == "objective" and "_target_" in content and "defaults" not in content:
            content = {Path(config_path).stem: content}
        return ConfigResult(
            config=OmegaConf.create(content),
            path=f"{self.scheme()}://{self.path}",
            provider=self.provider,
            header=dict(header),
        )

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        names = {*super().list(config_path, results_filter)}
        if results_filter in (None, ObjectType.CONFIG):
            names.update(self._implied_options(config_path))
        return sorted(name for name in names if not name.startswith("_"))

    def file_of(self, option: str) -> Path | None:
        """The file of this folder that holds an option such as `network/dncnn_small`."""
        file = f"{option}.yaml" if super().is_config(option) else self._implied(option)
        return Path(self.path, file).with_suffix(".yaml") if file else None

    def _implied(self, config_path: str) -> str | None:
        """The file that defines an option without its own file; empty for a class without file; else None."""
        if super().is_config(config_path):
            return None
        group, _, name = config_path.removesuffix(".yaml").rpartition("/")
        return self._implied_options(group).get(name)

    def _implied_options(self, group: str) -> dict[str, str]:
        folder = Path(self.path, group)
        if not group or not folder.is_dir():
            return {}
        found: dict[str, str] = {}
        parts = set()
        for path in sorted(folder.glob("*.yaml")):
            content = _mapping(path)
            parts.add(content.get("_target_"))
            found |= dict.fromkeys((name for name, _ in _options_in(content)), f"{group}/{path.stem}")
        if group == "network" and self.provider == "main":
            registered = {*constructors.own_parts(group), *registry.foreign(group)}
            found |= dict.fromkeys(registered - parts - {*found} - _spoken_of_elsewhere(group), "")
        return found


def _spoken_of_elsewhere(group: str) -> set[str]:
    """The parts and options with a file in the configuration of plugins or of the user."""
    files = [
        path for _, folder in registry.configuration_folders() for path in (folder / group).glob("*.yaml")
    ]
    contents = [_mapping(path) for path in files]
    return {*(path.stem for path in files), *(str(content.get("_target_")) for content in contents)}


def laid_over(config: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """A file's content with the differences of a variant: mappings merge, other values replace.

    In the defaults list, a choice of the same group is replaced, and any other is added.
    """
    rest = dict(overlay)
    choices = {_group(entry): entry for entry in rest.pop("defaults", [])}
    merged = _merged(config, rest)
    if choices:
        kept = [choices.pop(_group(entry), entry) for entry in config.get("defaults") or []]
        merged["defaults"] = [*kept, *choices.values()]
    return merged


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    made = dict(below)
    for key, value in above.items():
        known = made.get(key)
        both = isinstance(known, Mapping) and isinstance(value, Mapping)
        made[key] = _merged(cast(Mapping[str, Any], known), value) if both else value
    return made


def _group(entry: Any) -> str:
    """The group of a defaults list's entry; `override /network: dncnn` is the same as `network: dncnn`."""
    choice = str(entry) if isinstance(entry, str) else str(next(iter(entry)))
    return choice.removeprefix("override ").removeprefix("/")


def _filled_in(content: Mapping[str, Any], group: str) -> dict[str, Any]:
    """A file's own option: without the tables, and with every argument of the constructor."""
    tables = ("variants", *(PRODUCT if all(table in content for table in PRODUCT) else ()))
    config = {key: value for key, value in content.items() if key not in tables}
    if group not in COMPLETED or "_target_" not in config or "defaults" in config:
        return config
    try:
        known = constructors.defaults(COMPLETED[group], str(config["_target_"]))
    except registry.UnknownPart:  # a dotted path: built unchanged, or refused later
        return config
    return _merged({"_target_": config["_target_"]} | known, config)


def _mapping(path: Path) -> dict[str, Any]:
    content = _content(path, path.stat().st_mtime_ns)
    return content if isinstance(content, dict) else {}


@functools.lru_cache(maxsize=1024)
def _content(path: Path, _modified: int) -> Any:
    """A file's content as plain values, which must not be changed; the C parser is ten times as fast."""
    loader: Any = _loader()
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=loader)
    except UnicodeDecodeError as error:
        raise Unreadable(f"{path}: not a text in UTF-8 ({error.reason} at byte {error.start})") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "
        raise Unreadable(f"{path}: {where}{error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise Unreadable(f"{path}: {' '.join(str(error).split())}") from error


@functools.lru_cache(maxsize=1024)
def _header(path: Path, _modified: int) -> dict[str, str | None]:
    with path.open(encoding="utf-8") as file:
        return ConfFolder._get_header_dict(file.read(512))


@functools.cache
def _loader() -> type:
    """OmegaConf's own YAML loader (numbers, no dates, unique keys), with libyaml if PyYAML has it."""
    usual = get_yaml_loader()
    if not hasattr(yaml, "CSafeLoader"):
        return cast(type, usual)
    return type(
        "Loader",
        (yaml.CSafeLoader,),
        {
            "construct_mapping": _construct_mapping,
            "yaml_implicit_resolvers": usual.yaml_implicit_resolvers,
            "yaml_constructors": usual.yaml_constructors,
        },
    )


def _construct_mapping(loader: Any, node: Any, deep: bool = False) -> Any:
    seen = set()
    for key, _ in node.value:
        if key.value in seen:
            raise yaml.constructor.ConstructorError(
                "while reading a mapping",
                node.start_mark,
                f"the key {key.value} is given twice",
                key.start_mark,
            )
        seen.add(str(key.value))
    return yaml.CSafeLoader.construct_mapping(loader, node, deep=deep)


def _options_in(content: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The options that a file's tables define, each with its differences."""
    for name, overlay in (content.get("variants") or {}).items():
        yield name, overlay or {}
    for testset, of_set in (content.get("testsets") or {}).items():
        for severity, of_severity in (content.get("severities") or {}).items():
            chosen = {"defaults": [{"override testset": testset}]}
            yield f"{testset}_{severity}", {**chosen, **(of_set or {}), **(of_severity or {})}
