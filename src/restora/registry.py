"""Stable names of the parts of runs, and the construction of parts from their descriptions.

A class registers itself under a kind and a name (`@register("network", "dncnn")`); run records, checkpoints
and model folders store that name. A description is a mapping whose `_target_` is the name
and whose other keys are constructor arguments, built inside out. Parts come from this package, from entry
points of installed packages (group `restora.networks` and so on: `mynet = "mylab.nets:MyNet"`) and from
modules that the user names (`plugins=[mylab]`).

Note: a description read from a file can only name registered parts. Dotted paths, which can import any code,
are allowed only in the user's own configuration (`foreign=True`).
"""

import difflib
import functools
import importlib
import importlib.util
import inspect
import logging
import pkgutil
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

from restora.arguments import check_arguments, check_counts, shown

T = TypeVar("T")
log = logging.getLogger(__name__)

PACKAGES: dict[str, tuple[str, ...]] = {
    "network": ("restora.networks",),
    "discriminator": ("restora.networks.discriminators",),
    "degradation": ("restora.degradations",),
    "loss": ("restora.losses",),
    "objective": ("restora.objectives",),
    "schedule": ("restora.training.schedules",),
    "optimizer": ("restora.training.optimizers",),
    "family": ("restora.families",),
    "data": ("restora.data.module", "restora.data.mixture", "restora.data.unpaired"),
    "source": (
        "restora.data.sources",
        "restora.data.clip_folder",
        "restora.data.div2k",
        "restora.data.free_photos",
        "restora.data.real_pairs",
        "restora.data.dnd",
    ),
    "benchmark": ("restora.evaluation.benchmarks",),
    "testset": ("restora.evaluation.testsets",),
    "method": ("restora.fitting",),
    "callback": ("restora.training.callbacks", "restora.training.poison", "restora.training.unmoved"),
}
"""The packages that define the parts of each kind."""

KIND_OF_KEY = {
    **{kind: kind for kind in PACKAGES},
    "adversarial": "loss",
    "perceptual": "loss",
    "losses": "loss",
    "discriminator_optimizer": "optimizer",
    "clean_discriminator": "discriminator",
    "degraded_discriminator": "discriminator",
    "backward": "network",
    "callbacks": "callback",
    "degraded_by": "degradation",
}
"""The kind of part that a key of a part holds. Elements of a list or a plain mapping are of the kind above
them."""

_CLOSED = ("network", "degradation", "loss", "optimizer", "schedule")
"""Kinds whose arguments hold parts of the same kind only, whatever the keys are."""

_REFUSALS = (
    *(TypeError, ValueError, RuntimeError, ArithmeticError, LookupError, AssertionError, AttributeError),
)
"""The errors by which a constructor refuses its arguments, or shows that it is wrong itself."""

_parts: dict[str, dict[str, type[Any]]] = {kind: {} for kind in PACKAGES}
_plugins: list[str] = []
_folders: list[Path] = []
_named: dict[type[Any], tuple[str, str]] = {}


class UnknownPart(ValueError):
    """A description names an unregistered part; the message lists similar names."""


def register(kind: str, name: str) -> Callable[[type[T]], type[T]]:
    """Class decorator: registers the class as `name` among the parts of `kind`. Names are unique."""
    if kind not in PACKAGES:
        raise ValueError(f"there is no kind {kind!r}: kinds are {', '.join(PACKAGES)}")
    if not name or "." in name:
        raise ValueError(f"the name of a {kind} has no dots, got {name!r}")

    def decorate(cls: type[T]) -> type[T]:
        if not isinstance(cls, type) and kind not in ("optimizer", "schedule"):
            raise ValueError(f"the {kind} {name!r} is a class, got the {type(cls).__name__} {cls!r}")
        other = _parts[kind].get(name)
        if other is not None and (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ValueError(
                f"{cls.__module__}.{cls.__qualname__} cannot be the {kind} {name!r}: "
                f"{other.__module__}.{other.__qualname__} has that name"
            )
        _parts[kind][name] = cls
        _named[cls] = (kind, name)
        return cls

    return decorate


@functools.cache
def _import_own(kind: str) -> None:
    """Imports the modules of this package that define parts of the kind."""
    for package in PACKAGES[kind]:
        module = importlib.import_module(package)
        if hasattr(module, "__path__"):
            for found in pkgutil.walk_packages(module.__path__, f"{package}."):
                importlib.import_module(found.name)


@functools.cache
def _installed() -> dict[str, dict[str, Any]]:
    """Entry points of installed packages, by kind and name; each is imported on first use.

    Read once for all kinds, as the metadata of every installed package takes a tenth of a second.
    """
    points = entry_points()
    return {
        kind: {point.name: point for point in points.select(group=f"restora.{_plural(kind)}")}
        for kind in PACKAGES
    }


def _plural(kind: str) -> str:
    return {"data": "data", "family": "families", "loss": "losses"}.get(kind, f"{kind}s")


def use_plugins(modules: Iterable[str]) -> None:
    """Imports modules that the user named, so that they register their parts.

    A module of the working directory is found too. Raises ValueError for one that cannot be imported.
    """
    for name in modules:
        if not all(part.isidentifier() for part in name.split(".")):
            raise ValueError(
                f"plugins: {name!r} is not the name of a module, such as mylab or mylab.networks"
            )
        here = str(Path.cwd())
        if here not in sys.path:
            sys.path.append(here)
        try:
            importlib.import_module(name)
            _plugins.append(name)
        except Exception as error:
            raise ValueError(
                f"plugins: the module {name!r} cannot be imported ({type(error).__name__}: {error}); "
                "it is looked for among installed packages and in the working directory"
            ) from error


def named_plugins() -> list[str]:
    """The modules that the user has named."""
    return list(_plugins)


def is_plugins(module: str) -> bool:
    """Whether a module belongs to a plugin: one that the user named, or an installed package's."""
    entries = {point.value.partition(":")[0] for each in _installed().values() for point in each.values()}
    return any(module == name or module.startswith(f"{name}.") for name in {*_plugins, *entries})


def use_configuration(folders: Iterable[str]) -> None:
    """Adds folders with configuration of the user's own. Raises ValueError for one that is not there."""
    for folder in folders:
        if not Path(folder).is_dir():
            raise ValueError(f"--config-dir: there is no folder {folder!r}")
        _folders.append(Path(folder).resolve())


def configuration_folders() -> list[tuple[str, Path]]:
    """Folders with configuration, each with its provider.

    The provider is "command-line" for folders that the user named, "plugin" for the `conf` folders of plugins
    and of installed packages that have entry points. Nothing is imported to find them.
    """
    packages = {
        point.value.partition(":")[0] for of_kind in _installed().values() for point in of_kind.values()
    }
    found = [("command-line", folder) for folder in _folders]
    for name in dict.fromkeys([*_plugins, *sorted(packages)]):
        spec = importlib.util.find_spec(name.partition(".")[0])
        for place in [] if spec is None else spec.submodule_search_locations or []:
            if (folder := Path(place) / "conf").is_dir():
                found.append(("plugin", folder))
    return found


def find(kind: str, name: str) -> type[Any]:
    """The class of a stored name.

    Also takes the dotted class names that the first edition stored. Raises UnknownPart.
    """
    if name in _parts[kind]:
        return _parts[kind][name]
    _import_own(kind)
    if name in _parts[kind]:
        return _parts[kind][name]
    if name in _installed()[kind]:
        return _imported(kind, name)
    old = _of_dotted(kind, name)
    if old is not None:
        return old
    if "." in name:
        raise UnknownPart(f"the {kind} {name!r} is refused: only registered parts are built from a file")
    near = difflib.get_close_matches(name, names(kind), n=3)
    hint = f"; did you mean {' or '.join(near)}?" if near else f"; there are {', '.join(names(kind))}."
    raise UnknownPart(
        f"there is no {kind} {name!r}{hint} Parts of your own: plugins=[MODULE] or --plugin MODULE "
        "(in Python, import MODULE)"
    )


def _imported(kind: str, name: str) -> type[Any]:
    """The part of an installed package. Raises UnknownPart with the reason why it cannot be imported."""
    point = _installed()[kind][name]
    try:
        return register(kind, name)(point.load())
    except Exception as error:
        package = "" if point.dist is None else f" of the installed package {point.dist.name}"
        raise UnknownPart(
            f"the {kind} {name!r}{package} ({point.value}) cannot be imported: "
            f"{type(error).__name__}: {error}"
        ) from error


def _of_dotted(kind: str, path: str) -> type[Any] | None:
    """The part that a first-edition file means by `restora.<package>.<module>.<Class>`: class names have not
    changed, and are unique within a kind. Common foreign classes of that edition are in `_OLD_FOREIGN`."""
    if path in _OLD_FOREIGN:
        return find(kind, _OLD_FOREIGN[path])
    package = PACKAGES[kind][0].split(".")[1]
    if not path.startswith(f"restora.{package}."):
        return None
    name = path.rpartition(".")[2]
    return next((cls for cls in _parts[kind].values() if cls.__name__ == name), None)


_OLD_FOREIGN = {
    "torch.nn.L1Loss": "l1",
    "torch.nn.MSELoss": "mse",
    "torch.optim.Adam": "adam",
    "torch.optim.AdamW": "adamw",
    "torch.optim.SGD": "sgd",
    "torch.optim.RMSprop": "rmsprop",
}


def name_of(cls: type[Any]) -> str:
    """The name under which a class is registered. Raises UnknownPart."""
    if cls not in _named:
        raise UnknownPart(
            f"{cls.__module__}.{cls.__qualname__} has no name: register it with "
            f'@restora.registry.register(KIND, "NAME")'
        )
    return _named[cls][1]


def names(kind: str) -> list[str]:
    """All names of a kind: this package's, installed packages' and plugins'."""
    _import_own(kind)
    return sorted({*_parts[kind], *_installed()[kind]})


def foreign(kind: str) -> set[str]:
    """Names of plugins' and installed packages' parts of a kind, without importing any."""
    plugins = {name for name, cls in _parts[kind].items() if not cls.__module__.startswith("restora.")}
    return {*plugins, *_installed()[kind]}


def classes(kind: str) -> dict[str, type[Any]]:
    """Name -> class of all parts of a kind, but those of installed packages that cannot be imported."""
    found = {}
    for name in names(kind):
        try:
            found[name] = find(kind, name)
        except UnknownPart as error:
            _say_once(str(error))
    return found


@functools.cache
def _say_once(reason: str) -> None:
    log.warning("left out: %s", reason)


def kind_below(kind: str | None, key: str, *, within_part: bool) -> str | None:
    """The kind of the parts under `key` of a description of `kind`; `within_part`: that is a part itself."""
    if kind in _CLOSED or (kind is not None and not within_part):
        return kind
    return KIND_OF_KEY.get(key, kind)


def part_of(node: Mapping[str, Any], kind: str | None) -> type[Any] | None:
    """The class that a description names; None if it names none or an unregistered one."""
    target = node.get("_target_")
    if not isinstance(target, str) or kind is None:
        return None
    try:
        return find(kind, target)
    except UnknownPart:
        return None


def stored(node: Any, kind: str | None = None) -> Any:
    """A description as it is written to files: plain values, every `_target_` the stable name of its part.

    A class without a name (a foreign one of the user's configuration) keeps its path.
    """
    if isinstance(node, Mapping):
        within = "_target_" in node
        plain = {
            str(key): stored(value, kind_below(kind, str(key), within_part=within))
            for key, value in node.items()
        }
        found = part_of(node, kind)
        if found is not None:
            plain["_target_"] = name_of(found)
        return plain
    if isinstance(node, list | tuple):
        return [stored(value, kind) for value in node]
    return node


def build(node: Any, kind: str | None, *, where: str = "", foreign: bool = False, **extra: Any) -> Any:
    """The object that a description describes, its parts built first; plain values are returned unchanged.

    `where` is the key of the description in messages, `extra` are further arguments of the outermost object.
    `_partial_: true` gives a function that takes the remaining arguments, as a schedule that is a function
    always is. Raises a ValueError that names the key for an unknown part and for refused arguments: keys are
    checked against the constructor's signature, values of the user's own configuration (`foreign`) also
    against its annotations.
    """
    where = where or kind or ""
    if isinstance(node, list | tuple):
        return [build(value, kind, where=f"{where}[{i}]", foreign=foreign) for i, value in enumerate(node)]
    if not isinstance(node, Mapping):
        return node
    within = "_target_" in node
    values = {
        str(key): build(
            value,
            kind_below(kind, str(key), within_part=within),
            where=f"{where}.{key}",
            foreign=foreign,
        )
        for key, value in node.items()
        if key not in ("_target_", "_partial_")
    }
    if not within:
        return values | extra
    cls = _class_of(str(node["_target_"]), kind, where, foreign)
    values |= extra
    partial = bool(node.get("_partial_")) or is_schedule(cls, kind)
    name = str(node["_target_"])
    check_arguments(cls, values, where=where, name=name, partial=partial, types=foreign)
    if foreign and kind in ("network", "discriminator") and cls.__module__.startswith("restora."):
        check_counts(values, where=where)
    if partial:
        return functools.partial(cls, **values)
    try:
        return cls(**values)
    except _REFUSALS as error:
        if isinstance(error, ValueError) and _is_ours(error):
            raise
        said = _in_words(error)
        raise ValueError(f"{where}: {name} cannot be made of {_listed(values)}: {said}") from error


def _in_words(error: Exception) -> str:
    """The error's text, on one line where it is pydantic's, by which albumentations checks arguments."""
    errors = getattr(error.__cause__, "errors", None)
    if not callable(errors):
        return str(error)
    said = (f"{detail['loc'][0]}: {detail['msg']}" if detail["loc"] else detail["msg"] for detail in errors())
    return ", ".join(dict.fromkeys(said))


def is_schedule(made: Callable[..., Any], kind: str | None) -> bool:
    """Whether a part is a schedule itself, a function of the share done, not what makes one."""
    if kind != "schedule" or isinstance(made, type):
        return False
    try:
        first = next(iter(inspect.signature(made).parameters.values()), None)
    except (TypeError, ValueError):  # written in C
        return True
    return first is not None and first.default is first.empty and first.kind is not first.KEYWORD_ONLY


def _class_of(target: str, kind: str | None, where: str, foreign: bool) -> Callable[..., Any]:
    if kind is not None:
        try:
            return find(kind, target)
        except UnknownPart as error:
            if not foreign or "." not in target:
                raise UnknownPart(f"{where}: {error}") from None
    if not foreign:
        raise UnknownPart(f"{where}: {target} is refused: only registered parts are built from a file")
    module, _, name = target.rpartition(".")
    try:
        made: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UnknownPart(f"{where}: {target} cannot be found: {error}") from error
    return made


def _is_ours(error: BaseException) -> bool:
    """Whether the error was raised in this package, whose messages are complete."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    return place is not None and str(place.tb_frame.f_globals.get("__name__")).partition(".")[0] == "restora"


def _listed(values: Mapping[str, Any]) -> str:
    plain = {k: v for k, v in values.items() if isinstance(v, bool | int | float | str | list | tuple)}
    return ", ".join(f"{key}={shown(plain[key])}" if key in plain else key for key in values) or "nothing"
