"""Where the configuration lives, and composing it with errors that name the mend.

`conf/` and `experiments/` are found beside the package in an installed wheel and at the root of a checkout
otherwise. The folder that holds them is put on Hydra's search path, so `experiments=denoise/dncnn` is an
ordinary config group; a `conf/` or `experiments/` of the user's own is added by `--config-dir`.
"""

import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from restora import registry
from restora.first_edition import renamed_key


class ConfigError(ValueError):
    """The configuration the user asked for cannot be composed; the message says what to set."""


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
        search_path.append(provider="restora", path=f"file://{config_root()}")
        for provider, folder in registry.configuration_folders():
            search_path.append(provider=provider, path=f"file://{folder}")


def register_search_path() -> None:
    """Lets Hydra find the `experiments` group. Safe to call more than once."""
    if _ExperimentsPath not in Plugins.instance().discover(SearchPathPlugin):
        Plugins.instance().register(_ExperimentsPath)


def compose(config_name: str, overrides: Iterable[str] = (), *, hydra_node: bool = False) -> DictConfig:
    """Composes `conf/<config_name>.yaml` with command-line overrides.

    Raises `ConfigError` with the nearest existing names when a key, a group or an option does not exist.
    """
    register_search_path()
    GlobalHydra.instance().clear()
    overrides = list(overrides)
    directory = str(config_root() / "conf")
    with initialize_config_dir(config_dir=directory, version_base="1.3"):
        try:
            return hydra_compose(config_name, overrides, return_hydra_config=hydra_node)
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            message = _innermost(error)
        try:
            known = _dotted_keys(
                hydra_compose(config_name, [o for o in overrides if _is_choice(o, directory)])
            )
        except (HydraException, OmegaConfBaseException, ValueError):
            known = []
    raise ConfigError(_explained(message, overrides, known))


def _innermost(error: BaseException) -> str:
    lines: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        text = str(cause).strip()
        if text and not any(text in line for line in lines):
            lines.append(text)
        cause = cause.__cause__
    return "\n".join(lines)


def _is_choice(override: str, directory: str) -> bool:
    """Whether an override picks an option of a config group that exists (those decide which keys there
    are)."""
    group, _, option = override.lstrip("+~").partition("=")
    group = group.partition("@")[0]
    roots = (Path(directory), Path(directory).parent)
    return any((root / group / f"{option}.yaml").is_file() for root in roots)


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
    """What a node of the user's configuration stands for (`registry.build`), lists and mappings plain.

    Raises `ConfigError` with the constructor's own message where it refuses its arguments.
    """
    plain = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    try:
        return registry.build(plain, kind, where=where, foreign=True, **extra)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def missing_keys(config: DictConfig, prefix: str = "") -> list[str]:
    """The keys that wait for a value (`???`). OmegaConf's own function resolves interpolations."""
    found: list[str] = []
    for key in map(str, config):
        node = config._get_node(key)
        if isinstance(node, DictConfig) and not node._is_none() and not node._is_interpolation():
            found += missing_keys(node, f"{prefix}{key}.")
        elif OmegaConf.is_missing(config, key):
            found.append(f"{prefix}{key}")
    return found


def _explained(message: str, overrides: list[str], known: list[str]) -> str:
    """Hydra's message without its search path, and the near matches for the key or option that it complains
    of."""
    option = re.search(r"Could not find '([^']+)'", message)
    if option:
        return _no_such_option(option.group(1))
    if message.startswith("Config group override must be"):  # without the name of the group
        for override in overrides:
            group, _, value = override.lstrip("+").partition("=")
            if value in ("null", "") and (choices := options(group)):
                return f"{override}: {group} cannot be left out; choose one of {', '.join(choices)}"
    message = message.partition("\nConfig search path")[0].strip()
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0].partition("@")[0]
        if (now := renamed_key(override.lstrip("+~").partition("=")[0])) is not None:
            return f"{override}: the key is called {now} now"
        if key not in known and (key in message or key.split(".")[-1] in message):
            near = [name for name in known if name.split(".")[-1] == key.split(".")[-1]]
            near += [
                name for name in difflib.get_close_matches(key, known, n=3, cutoff=0.6) if name not in near
            ]
            hint = f" Did you mean {' or '.join(near[:3])}?" if near else ""
            return f"there is no key {key!r} in the configuration.{hint} (+{override} adds a new key)"
    return message


def _no_such_option(wanted: str) -> str:
    """`wanted` is a path such as network/dncn or experiments/denoise/dncn."""
    group, _, wrong = wanted.partition("/")
    choices = options(group)
    if not choices:
        return f"there is no configuration {wanted!r}"
    near = difflib.get_close_matches(wrong, choices, n=3)
    hint = f" Did you mean {' or '.join(f'{group}={name}' for name in near)}?" if near else ""
    return f"there is no {group}={wrong}.{hint}\nThere are: {', '.join(choices)}"


def options(group: str) -> list[str]:
    """The names of a config group, such as `network` or `benchmark/testset`."""
    roots = [root / group for root in (config_root() / "conf", config_root()) if (root / group).is_dir()]
    return sorted(
        str(path.relative_to(root).with_suffix("")) for root in roots for path in root.rglob("*.yaml")
    )
