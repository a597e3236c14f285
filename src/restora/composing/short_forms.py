"""Short forms: `loss=charbonnier` stands for `loss@family.loss=charbonnier`.

If only one place of the composed defaults takes a group, the group's name is enough. The places are read from
the composition, so that a group may move.
"""

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository
from hydra._internal.defaults_list import create_defaults_list
from hydra.core.default_element import GroupDefault
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from restora.composing.kept import Kept
from restora.composing.loader import group_options
from restora.composing.overrides import Refused, chooses, first_option, parsed_by, with_alias, written
from restora.composing.sources import COMPLETED

_PHOTOS = ("data.source.", "data.parts.")
_SINGLE = {*COMPLETED, "data", "family"}
_choices = Kept[dict[str, Any]]()
_keys = Kept[set[str]]()


def full_forms(loader: ConfigLoaderImpl, config_name: str, overrides: Iterable[str]) -> list[str]:
    """The overrides with every short form written out, and the choice of data that is kept with `debug=`.

    Raises Refused for a group that no place of the composition takes, or more than one, and for an invalid
    duration.
    """
    parsed = parsed_by(loader, overrides)
    if config_name == "train":
        parsed = [with_alias(o) for o in parsed]
    pending = [o for o in parsed if chooses(o, loader.repository) and not o.is_hydra_override()]
    full: dict[int, str] = {}
    accepted: list[str] = []
    for o in pending:
        _check_list(o)
    while pending:
        # most places are in the defaults; only the others need a composition with the choices accepted so far
        places = choices(loader, config_name, accepted)
        ready = [(o, key) for o in pending if (key := _full_key(o, places))]
        if not ready:
            raise Refused(_no_place(loader, config_name, accepted, pending[0]))
        for o, key in ready:
            full[id(o)] = key
            accepted.append(f"{key}={first_option(o)}")
        pending = [o for o in pending if id(o) not in full]
    words = [written(o, full.get(id(o))) for o in parsed]
    return [*words, *_kept_data(loader, config_name, words, accepted)]


def _check_list(override: Override) -> None:
    """Raises Refused for an option that is listed twice, and for several options of a part.

    The first counts once, and the settings of the others Hydra would merge into one.
    """
    group, options = str(override.key_or_group), override.value()
    if not isinstance(options, list):
        return
    if twice := [str(option) for option in options if options.count(option) > 1]:
        raise Refused(f"{override.input_line}: {twice[0]} is there twice, and counts once: leave one out")
    if group not in _SINGLE:
        return
    fix = "a sweep takes several (-m, without brackets)"
    if group == "degradation":
        fix = "a file lists several, with _target_: chain or one_of, as conf/degradation/blur_noise_jpeg.yaml"
    raise Refused(f"{override.input_line}: there is one {group}, not a list; {fix}")


def _kept_data(
    loader: ConfigLoaderImpl, config_name: str, words: Iterable[str], accepted: Iterable[str]
) -> list[str]:
    """The choice of the data whose photos the overrides name, if `debug=` would replace it; else none."""
    keys = {word.lstrip("+~").partition("=")[0] for word in words}
    accepted = list(accepted)
    without = [word for word in accepted if not word.startswith("debug=")]
    if without == accepted or "data" in keys or not any(key.startswith(_PHOTOS) for key in keys):
        return []
    own = choices(loader, config_name, without).get("data")
    return [] if own == choices(loader, config_name, accepted).get("data") else [f"data={own}"]


def choices(loader: ConfigLoaderImpl, config_name: str, overrides: list[str]) -> dict[str, Any]:
    """The option at each `group@package` of the composed defaults."""
    return _choices.of(
        loader, config_name, overrides, lambda: _composed_choices(loader, config_name, overrides)
    )


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
    """The groups with several options at once, of which Hydra keeps no record."""
    found: dict[str, Any] = {}
    for config in repository.cache.values():
        for default in (config.defaults_list if config is not None else None) or []:
            if isinstance(default, GroupDefault) and default.is_options() and not default.override:
                group = str(default.group).removeprefix("/")
                place = str(default.package or group).removeprefix("_global_.")
                key = group if place == group.replace("/", ".") else f"{group}@{place}"
                found[key] = list(default.value) if isinstance(default.value, Iterable) else default.value
    return found


def read_keys(loader: ConfigLoaderImpl, config_name: str) -> set[str]:
    """The top-level keys of a configuration: those of its file, and the places of the groups it takes."""
    return _keys.of(loader, config_name, [], lambda: _read_keys(loader, config_name))


def _read_keys(loader: ConfigLoaderImpl, config_name: str) -> set[str]:
    primary = loader.repository.load_config(config_name)
    assert primary is not None
    places = choices(loader, config_name, [])
    groups = {(place.partition("@")[2] or place).partition(".")[0] for place in places}
    return {*map(str, primary.config), *groups, "hydra"} - {"defaults"}


def _full_key(override: Override, places: dict[str, Any]) -> str | None:
    key: str = override.get_key_element()
    if key in places:
        return key
    if override.package is not None:
        return None
    taking = _taking(override.key_or_group, places)
    if len(taking) > 1:
        forms = " or ".join(f"{place}={first_option(override)}" for place in taking)
        raise Refused(f"{override.input_line}: ambiguous, write {forms}")
    return taking[0] if taking else None


def _taking(group: str, places: Iterable[str]) -> list[str]:
    return [place for place in places if place.partition("@")[0] == group]


def _no_place(loader: ConfigLoaderImpl, config_name: str, accepted: list[str], override: Override) -> str:
    """A message that names the choices with which this group would have a place."""
    group, form = override.key_or_group, override.get_key_element()
    now = choices(loader, config_name, accepted)
    if places := _taking(group, now):
        forms = " or ".join(f"{place}={first_option(override)}" for place in places)
        return f"{override.input_line}: no setting {form}; write {forms}"
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
            return f"{override.input_line}: {form} is not used here; it needs {' or '.join(found)}"
    return f"{override.input_line}: {form} is not used in this configuration"


def _is_list(places: dict[str, Any], group: str) -> bool:
    return isinstance(places.get(group), list)
