"""Finds the configuration and composes it, with errors that name the fix.

`conf/` and `experiments/` are found beside the package in an installed wheel and at the root of a checkout
otherwise. The folder that holds them is put on Hydra's search path, so `experiments=denoise/dncnn` is an
ordinary config group; a `conf/` or `experiments/` of the user's own is added by `--config-dir`.
"""

import difflib
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.default_element import GroupDefault
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from restora import registry
from restora.arguments import WrongArgument
from restora.composing import batch_rule
from restora.composing.clip_rule import fit_clipping
from restora.composing.conflicts import how_without, lost_place, without_file
from restora.composing.effect_rule import check_effects
from restora.composing.first_edition import renamed_key
from restora.composing.loader import Loader, group_options, use_own_rules
from restora.composing.overrides import Refused, combinations, parsed_by
from restora.composing.short_forms import choices, full_forms, read_keys
from restora.composing.sources import COMPLETED, RECIPES_PROVIDER, ConfFolder
from restora.composing.task_rule import fit_task
from restora.monitor import direction_of

_FEW_OPTIONS = 12
"""So many are listed beside a near match."""
_WIDTH = 80


class ConfigError(ValueError):
    """The requested configuration cannot be composed; the message names the fix."""


def config_root() -> Path:
    """The folder that holds `conf/` and `experiments/`: the package's own in a wheel, else the checkout's."""
    package = Path(__file__).resolve().parent
    for root in (package, package.parents[1]):
        if (root / "conf" / "train.yaml").is_file():
            return root
    raise ConfigError(
        f"conf/train.yaml is neither in {package} nor in {package.parents[1]}: reinstall restora"
    )


class _ExperimentsPath(SearchPathPlugin):
    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        root = config_root()
        for entry in search_path.get_path():
            if entry.path is not None and entry.path.removeprefix("file://") == str(root / "conf"):
                entry.path = _path(root / "conf")
        search_path.append(provider=RECIPES_PROVIDER, path=_path(root))
        for provider, folder in registry.configuration_folders():
            search_path.append(provider=provider, path=_path(folder))


def _path(folder: Path) -> str:
    return f"{ConfFolder.scheme()}://{folder}"


def register_search_path() -> None:
    """Lets Hydra find the `experiments` group, and compose by our rules. Safe to call more than once."""
    use_own_rules()
    if _ExperimentsPath not in Plugins.instance().discover(SearchPathPlugin):
        Plugins.instance().register(_ExperimentsPath)
        Plugins.instance().register(ConfFolder)


@contextmanager
def _loader() -> Iterator[Loader]:
    """The loader of configurations."""
    register_search_path()
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir=str(config_root() / "conf"), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        assert isinstance(loader, Loader)
        yield loader


def compose(
    config_name: str,
    overrides: Iterable[str] = (),
    *,
    hydra_node: bool = False,
    extra: Iterable[str] = (),
) -> DictConfig:
    """Composes `conf/<config_name>.yaml` with command-line overrides, short forms written out.

    `extra` are top-level keys that only the caller knows. Raises `ConfigError` with the nearest existing
    names when a key, a group or an option does not exist, and for a key that nothing reads.
    """
    overrides = list(overrides)
    with _loader() as loader:
        try:
            written = full_forms(loader, config_name, overrides)
            config = hydra_compose(config_name, written, return_hydra_config=True)
        except Refused as error:
            raise ConfigError(_renamed(overrides) or str(error)) from error
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            message = _innermost(error)
        else:
            _refuse_unused(config, read_keys(loader, config_name) | {*extra}, overrides)
            _refuse_plain_parts(config, loader)
            _refuse_nameless_parts(config, loader)
            if not hydra_node:
                OmegaConf.set_struct(config, False)
                del config["hydra"]
                OmegaConf.set_struct(config, True)
            fit_to_words(config, overrides)
            return config
        try:
            chosen = [o for o in overrides if _is_choice(o, loader)]
            known = _dotted_keys(hydra_compose(config_name, full_forms(loader, config_name, chosen)))
            known = [*dict.fromkeys([*known, *sorted(choices(loader, config_name, []))])]
        except (HydraException, OmegaConfBaseException, ValueError):
            known = []
        raise ConfigError(_explained(message, overrides, known))


def fit_to_words(config: DictConfig, overrides: Iterable[str]) -> None:
    """Fits the values that depend on the overrides, in place.

    A batch other than the experiment's changes learning rates and steps, and the experiment's batch becomes
    `recipe_batch`; another degradation changes the task; a monitored metric decides its direction. With
    objectives that have optimisers of their own, the family clips gradients. Raises `ConfigError` for words
    without effect.
    """
    fit_task(config, overrides := list(overrides))
    if OmegaConf.select(config, "monitor.direction", default="") is None:
        config.monitor.direction = direction_of(str(config.monitor.metric))
    typed = batch_rule.keys_of(overrides)
    fit_clipping(config, typed)
    try:
        check_effects(config, typed)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if batch_rule.is_asked(config, typed):
        recipe = [word for word in overrides if not batch_rule.keys_of([word]) & {*batch_rule.BATCH}]
        config.recipe_batch = batch_rule.batch_of(compose("train", [w for w in recipe if not _is_hydras(w)]))
    batch_rule.rescale(config, typed)


def _is_hydras(override: str) -> bool:
    return override.lstrip("+~").startswith("hydra")


def jobs_of(overrides: Iterable[str]) -> list[list[str]]:
    """The overrides of each job of a sweep; without a sweep, those of the only run."""
    with _loader() as loader:
        try:
            return combinations(loader, overrides)
        except Refused as error:
            raise ConfigError(str(error)) from error
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            raise ConfigError(_innermost(error)) from error


def parsed(overrides: Iterable[str]) -> list[Override]:
    """The overrides as Hydra parses them; `glob` ones can list the options. Raises `ConfigError`."""
    with _loader() as loader:
        try:
            return parsed_by(loader, overrides)
        except Refused as error:
            raise ConfigError(str(error)) from error


def written_out(config_name: str, overrides: Iterable[str]) -> list[str]:
    """The overrides as Hydra takes them, short forms written out. Raises `ConfigError`."""
    overrides = list(overrides)
    with _loader() as loader:
        try:
            return full_forms(loader, config_name, overrides)
        except Refused as error:
            raise ConfigError(_renamed(overrides) or str(error)) from error
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            raise ConfigError(_explained(_innermost(error), overrides, [])) from error


def _refuse_unused(config: DictConfig, known: set[str], overrides: list[str]) -> None:
    """Raises `ConfigError` for a top-level key that nothing reads; an interpolation reads one too."""
    unused = [key for key in map(str, config) if key not in known]
    if not unused:
        return
    text = OmegaConf.to_yaml(config, resolve=False)
    for key in unused:
        if re.search(rf"\$\{{{re.escape(key)}[.}}\[]", text):
            continue
        typed = next(
            (o for o in overrides if re.match(rf"\+*([\w/]+@)?{re.escape(key)}[@.=]", o)), f"{key}=…"
        )
        near = difflib.get_close_matches(key, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        if options(key) and typed.startswith("+"):
            hint = f"; did you mean {typed.lstrip('+')}?"
        raise ConfigError(f"{typed}: unknown key {key!r}, nothing reads it{hint}")


def _refuse_plain_parts(config: DictConfig, loader: Loader) -> None:
    """Raises `ConfigError` for text in place of a group's option, such as `family.loss=l1`."""
    for place in map(str, config.hydra.runtime.choices):
        group, _, key = place.partition("@")
        value = OmegaConf.select(config, key or group, throw_on_missing=False)
        if place.startswith("hydra") or not isinstance(value, bool | int | float | str):
            continue
        known = group_options(loader.repository, group)
        form = f"{place}={value if value in known else 'NAME'}"
        listed = "" if value in known else f"; there are {', '.join(known)}"
        raise ConfigError(f"{key or group}={value}: expected a part, not text: write {form}{listed}")


def _refuse_nameless_parts(config: DictConfig, loader: Loader) -> None:
    """Raises `ConfigError` for a chosen file without `_target_`, the name of the part that it describes."""
    for place, chosen in config.hydra.runtime.choices.items():
        group, _, key = str(place).partition("@")
        if group not in COMPLETED or not isinstance(chosen, str):
            continue
        value = OmegaConf.select(config, key or group, throw_on_missing=False)
        if value is None or (isinstance(value, DictConfig) and "_target_" in value):
            continue
        raise ConfigError(
            f"{_file_of(f'{group}/{chosen}', loader) or f'{place}={chosen}'} has no _target_: write "
            f"_target_: NAME, the registered name of a {COMPLETED[group]}, and each argument in a line below"
        )


def _innermost(error: BaseException) -> str:
    lines: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        text = str(cause).strip()
        if text and not any(text in line for line in lines):
            lines.append(text)
        cause = cause.__cause__
    return "\n".join(lines)


def _is_choice(override: str, loader: Loader) -> bool:
    """Whether an override picks an existing option of a config group; options decide which keys there are."""
    group, _, option = override.lstrip("+~").partition("=")
    group = group.partition("@")[0]
    return loader.repository.config_exists(f"{group}/{option}")


def _dotted_keys(config: DictConfig, prefix: str = "") -> list[str]:
    keys: list[str] = []
    for key in map(str, config):
        name = f"{prefix}{key}"
        keys.append(name)
        if not OmegaConf.is_missing(config, key):
            node = config._get_node(key)
            if isinstance(node, DictConfig) and not node._is_none() and not node._is_interpolation():
                keys.extend(_dotted_keys(node, f"{name}."))
    return keys


def build(node: Any, kind: str, *, where: str = "", **extra: Any) -> Any:
    """The object that a node of the user's configuration describes (`registry.build`).

    Lists and mappings become plain. Raises `ConfigError` with the constructor's own message if it refuses its
    arguments.
    """
    plain = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    try:
        return registry.build(plain, kind, where=where, foreign=True, **extra)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def missing_keys(config: DictConfig, prefix: str = "") -> list[str]:
    """The keys without a value (`???`). Note: OmegaConf's own function would resolve interpolations."""
    found: list[str] = []
    for key in map(str, config):
        node = config._get_node(key)
        if isinstance(node, DictConfig) and not node._is_none() and not node._is_interpolation():
            found += missing_keys(node, f"{prefix}{key}.")
        elif OmegaConf.is_missing(config, key):
            found.append(f"{prefix}{key}")
    return found


def _renamed(overrides: list[str]) -> str | None:
    """A message with the new name of a first edition's key, if an override has one."""
    for override in overrides:
        if (now := renamed_key(override.lstrip("+~").partition("=")[0])) is not None:
            return f"{override}: this key was renamed to {now}"
    return None


def _explained(message: str, overrides: list[str], known: list[str]) -> str:
    """Hydra's message without its search path, with near matches for the unknown key or option."""
    if unchosen := re.match(r"You must specify '([^']+)'", message):
        group = unchosen.group(1)
        return f"which {group}?\n{in_lines(f'Set {group}=NAME, one of', options(group))}"
    option = re.search(r"Could not (?:find|load) '([^']+)'", message)
    if option:
        return _no_such_option(option.group(1))
    if message.startswith("Config group override must be"):  # the message does not name the group
        for override in overrides:
            group, _, value = override.lstrip("+").partition("=")
            known_options = options(group.partition("@")[0])
            if value in ("null", "") and known_options:
                listed = f"{', '.join(known_options)}{how_without(group)}"
                return f"{override}: {group} cannot be left out; choose one of {listed}"
            if known_options and value not in known_options:
                return _no_such_option(f"{group}/{value}")
    message = message.partition("\nConfig search path")[0].strip()
    if clearer := _renamed(overrides) or lost_place(message, overrides):
        return clearer
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0].partition("@")[0]
        if options(key):  # a group: the error is in one of its files, which the message names
            continue
        if key not in known and (key in message or key.split(".")[-1] in message):
            near = [name for name in known if re.search(rf"(^|[._]){re.escape(key.split('.')[-1])}$", name)]
            near = list(dict.fromkeys(near + difflib.get_close_matches(key, known, n=3, cutoff=0.6)))
            hint = f" Did you mean {' or '.join(near[:3])}?" if near else ""
            above = key.rpartition(".")[0]
            if f"{above}._target_" in known:
                keys = [name.removeprefix(f"{above}.") for name in known if name.startswith(f"{above}.")]
                keys = [name for name in keys if "." not in name and not name.startswith("_")]
                more = f" (+{override} passes its constructor one more argument)"
                more = "" if override.startswith("~") else more
                known_there = ", ".join(keys) or "none"
                return f"{override} is not a key of the {above} chosen; its keys: {known_there}.{hint}{more}"
            hint += f" (+{override} adds a new key)" if above in known else ""
            return f"there is no key {key!r} in the configuration.{hint}"
    return message


def _no_such_option(wanted: str) -> str:
    """`wanted` is a path such as network/dncn or experiments/denoise/dncn."""
    cut = wanted.rpartition if wanted.startswith("benchmark/testset/") else wanted.partition
    group, _, wrong = cut("/")
    choices = [name for name in options(group) if not name.startswith("testset/")]  # parts of benchmarks
    if not choices:
        return f"there is no configuration {wanted!r}"
    near = difflib.get_close_matches(wrong, choices, n=3)
    hint = f" Did you mean {' or '.join(f'{group}={name}' for name in near)}?" if near else ""
    listed = "" if near and len(choices) > _FEW_OPTIONS else f"\n{in_lines('There are:', choices)}"
    return without_file(group, wrong) or f"there is no {group}={wrong}.{hint}{listed}{how_without(group)}"


def in_lines(lead: str, names: Sequence[str]) -> str:
    """A list of names after `lead`, in lines of 80 columns."""
    return textwrap.fill(f"{lead} {', '.join(names)}", _WIDTH, break_long_words=False, break_on_hyphens=False)


def set_by(error: BaseException, overrides: Iterable[str]) -> str:
    """A phrase that names the experiment's file that sets the refused argument; empty if none does."""
    cause = error if isinstance(error, WrongArgument) else error.__cause__
    if not isinstance(cause, WrongArgument):
        return ""
    typed = {word.lstrip("+").partition("=")[0] for word in overrides}
    names = [word.partition("=")[2] for word in overrides if word.startswith("experiments=")]
    if cause.key in typed or not names:
        return ""
    option = f"experiments/{names[-1]}"
    with _loader() as loader:
        found = loader.files().load_config(option)
    if found is None or OmegaConf.select(found.config, cause.key, throw_on_missing=False) is None:
        return ""
    file = files_of("experiments")[names[-1]]
    return "" if file is None else f"; {option.rpartition('/')[0]}/{file.name} sets it"


def recipes() -> dict[str, dict[str, Any]]:
    """Experiment -> its own choices, group (without a package) -> option."""
    with _loader() as loader:
        found: dict[str, dict[str, Any]] = {}
        files = loader.files()
        for name in group_options(files, "experiments"):
            loaded = files.load_config(f"experiments/{name}")
            assert loaded is not None
            chosen = [d for d in loaded.defaults_list or [] if isinstance(d, GroupDefault)]
            found[name] = {str(d.group).removeprefix("/"): d.value for d in chosen if d.package is None}
        return found


def files_of(group: str) -> dict[str, Path | None]:
    """Option -> the file that holds it, which may hold others too; None for a class alone."""
    with _loader() as loader:
        return {name: _file_of(f"{group}/{name}", loader) for name in group_options(loader.repository, group)}


def _file_of(option: str, loader: Loader) -> Path | None:
    sources = [source for source in loader.get_sources() if isinstance(source, ConfFolder)]
    return next(filter(None, (source.file_of(option) for source in sources)), None)


def options(group: str) -> list[str]:
    """The names of a config group, such as `network` or `benchmark/testset`."""
    with _loader() as loader:
        return group_options(loader.repository, group)


def option(group: str, name: str) -> dict[str, Any]:
    """The description of the part `group=name`, for a group of complete parts (networks, degradations)."""
    with _loader() as loader:
        found = loader.files().load_config(f"{group}/{name}")
    if found is None:
        raise ConfigError(_no_such_option(f"{group}/{name}"))
    node = OmegaConf.to_container(found.config)
    assert isinstance(node, dict)
    return {str(key): value for key, value in node.items()}


def parts(group: str) -> dict[str, dict[str, Any]]:
    """Name -> description of the options of a group of complete parts.

    These are networks, degradations, discriminators, losses and schedules. A file that holds no mapping
    gives an empty one.
    """
    with _loader() as loader:
        found: dict[str, dict[str, Any]] = {}
        files = loader.files()
        for name in group_options(files, group):
            loaded = files.load_config(f"{group}/{name}")
            assert loaded is not None
            node = OmegaConf.to_container(loaded.config)
            found[name] = {str(key): value for key, value in node.items()} if isinstance(node, dict) else {}
        return found


def all_options() -> dict[str, list[str]]:
    """The options of every group by its name."""
    with _loader() as loader:
        groups = {"experiments"}  # the root of a checkout holds other folders too
        for source in loader.get_sources():
            if source.provider in ("main", "command-line", "plugin"):
                groups.update(source.list("", ObjectType.GROUP))
        return {group: group_options(loader.repository, group) for group in sorted(groups)}
