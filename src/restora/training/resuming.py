"""Resuming a run: which overrides apply, what may change, and from which checkpoint.

Enters: a run folder, perhaps from an untrusted source. Leaves: the arguments of the resuming command, or an
error with the reason. The overrides in a folder are restricted: they may set values and choose registered
parts, but they cannot set Hydra's own keys, pass flags, read the environment, write outside of the folder, or
name a function or class that is not registered, unless the user types the same override again.
"""

import logging
import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from lightning.pytorch import Callback, LightningModule, Trainer
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from restora import registry
from restora.artifact.checkpoint import read_checkpoint
from restora.composing.first_edition import renamed
from restora.composing.path_values import quoted
from restora.config import ConfigError, config_root
from restora.run_state import Occupied, read_record, status_of
from restora.strangers import check_inside, started_in
from restora.training.command import folders_in
from restora.training.poison import reduced_rate
from restora.vocabulary import precision_in_one_spelling

log = logging.getLogger(__name__)
TYPED_IN = "RESTORA_TYPED_IN"
"""The user's working directory, for messages: a run is resumed in the one that it was started in."""
_PATHS = re.compile(r"(root|dir|folders?|path|weights|file|directory|testsets|init|init\.source|teacher)$")
_OF_NO_RESULT = re.compile(
    r"^(run_dir|resume|retry_failed|threads|output_dir|data_dir|data\.store_dir|data\.workers|leakage\..*"
    r"|logger\..*|plugins.*)$"
)
"""Keys that affect where and how a run works, but not its result."""
_FIXED = re.compile(
    r"^(network\..*|init\..*|family\._target_|data\.channels|data\.steps_per_epoch|.*optimizer\._target_"
    r"|family\.(freeze|rate_factors|adapters)(\..*)?)$"
)
"""Keys that the initial weights, the weights, the optimiser's state or the position in the data depend on."""
_SAME_STATE = {"adam", "adamw"}
"""Optimisers that go on with each other's state."""
_LENGTHS = ("max_steps", "max_epochs", "max_time")
_INTERPOLATION = re.compile(r"\$\{[\w.]*\}")
"""The value of another key; other interpolations call a function, e.g. to read the environment."""
_LONGEST_FILE = 1 << 20


# --- the words of the command ----------------------------------------------------------------------------


def continued(argv: Sequence[str]) -> list[str]:
    """With `resume=RUN`, puts the run's own overrides first and changes to its working directory."""
    runs = [word.partition("=")[2] for word in argv if word.startswith("resume=")]
    if not runs or runs[-1] == "null":
        return list(argv)
    folder = Path(runs[-1].strip("'\"")).expanduser().resolve()
    rest = [word for word in argv if not word.startswith("resume=")]
    if folder.is_dir() and not os.access(folder, os.W_OK):
        raise ConfigError(f"resume={runs[-1]}: the folder is not writable: copy the run to a folder of yours")
    check_inside(folder)
    earlier = stored_overrides(folder, runs[-1], rest)
    _refuse_without_own_parts(folder, runs[-1], earlier, argv)
    earlier = renamed(word for word in earlier if not word.startswith("plugins="))
    if "recipe_batch" not in ((_record(folder) or {}).get("config") or {}):
        earlier = [*earlier, "recipe_batch=null"]  # a run from before this setting
    rest = _from_here(rest, folder)
    return [*earlier, *rest, f"resume={quoted(str(folder))}", f"hydra.run.dir={quoted(str(folder))}"]


def _refuse_without_own_parts(folder: Path, named: str, earlier: list[str], argv: Sequence[str]) -> None:
    """Raises `ConfigError` that names the run's plugins and `--config-dir` if `argv` lacks them."""
    plugins = [word for word in earlier if word.startswith("plugins=")][-1:]
    if any(word.startswith("plugins=") for word in argv):
        plugins = []
    folders = folders_in(str((_record(folder) or {}).get("command")))
    given = [folder for provider, folder in registry.configuration_folders() if provider == "command-line"]
    if given or any(re.match(r"--config-dir\b|-cd$", word) for word in argv):
        folders = []
    own = [word for path in folders for word in ("--config-dir", path)]
    if not plugins and not own:
        return
    lacking = [f"{path} does not exist: name its new place; " for path in folders if not Path(path).is_dir()]
    words = " ".join([*plugins, *([shlex.join(own)] if own else [])])
    raise ConfigError(
        f"resume={named}: the run was started with {words}, and a file alone never imports a module or reads "
        f"another folder: {''.join(lacking)}add {words} if you trust it"
    )


def stored_overrides(folder: Path, named: str, typed: Sequence[str] = ()) -> list[str]:
    """The overrides that a run was started with, without those that the user has `typed` again.

    They are read from `.hydra/overrides.yaml`, or from run.json if that is damaged or differs. Raises
    `ConfigError`.
    """
    path = folder / ".hydra" / "overrides.yaml"
    record = _record(folder)
    if not path.exists() and record is None:
        raise ConfigError(f"resume={named}: not a run folder ({path} does not exist)")
    words: Any = None
    try:
        words = _list_in(path)
        problem = f"is a {type(words).__name__}, not a list"
    except Exception as error:  # errors of YAML and OmegaConf, OS errors, bytes that are no text
        problem = f"cannot be read ({str(error).strip().partition(chr(10))[0] or type(error).__name__})"
    if not _are_words(words):
        words = (record or {}).get("overrides")
        if not _are_words(words):
            raise ConfigError(
                f"resume={named}: {path} {problem}, and run.json does not hold the overrides: put it back, "
                "one override a line, each after a dash"
            )
        log.warning("%s %s: the overrides are taken from run.json", path, problem)
    recorded: Any = (record or {}).get("overrides")
    if _are_words(recorded) and _own(recorded) != _own(words):
        log.warning("%s is not what the run was started with: the overrides are those of run.json", path)
        words = recorded
    words = [word for word in words if not word.startswith("resume=") and word not in typed]
    for word in words:
        check_stored(word, path)
    return words


def _list_in(path: Path) -> Any:
    """The content of a YAML file; aliases share one object, so many of them take no memory."""
    if path.stat().st_size > _LONGEST_FILE:
        raise ValueError(f"it has {path.stat().st_size} bytes")
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _own(words: Iterable[str]) -> list[str]:
    """The overrides without `resume`."""
    return [word for word in words if not word.startswith("resume=")]


def _are_words(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(word, str) for word in value)


def check_stored(word: str, path: Path) -> None:
    """Raises `ConfigError` for overrides that a file must not contain: flags, Hydra's settings, functions."""
    key = word.lstrip("+~").partition("=")[0].partition("@")[0]
    if word.startswith("-") or re.split(r"[./]", key)[0] == "hydra" or "${hydra" in word:
        raise ConfigError(
            f"{path} has {word}, which a file must not set: remove it, or add it to the command"
        )
    if "${" in _INTERPOLATION.sub("", word):
        raise ConfigError(
            f"{path} has {word}, which calls a function, and a file must not read the environment: if you "
            f"trust it, add '{word}' to the command"
        )
    try:
        OverridesParser.create().parse_override(word)
    except HydraException as error:
        raise ConfigError(f"{path} has {word!r}, which is not an override: restore the file") from error


def _from_here(words: list[str], folder: Path) -> list[str]:
    """Changes to the folder that the run was started in, for its relative paths; relative paths in `words`
    are made absolute first."""
    record, here = _record(folder) or {}, Path.cwd()
    os.environ[TYPED_IN] = str(here)
    if not record.get("cwd") or record["cwd"] == str(here):
        return words
    there = started_in(record, folder)
    if there is None or not there.is_dir():
        log.warning(
            "the run was started in %s, which does not exist: its relative paths are read from the "
            "current folder",
            record["cwd"],
        )
        return words
    os.chdir(there)
    moved = []
    for word in words:
        key, _, value = word.partition("=")
        if _PATHS.search(key) and value and not os.path.isabs(value) and (here / value).exists():
            word = f"{key}={quoted(str(here / value))}"
        moved.append(word)
    return moved


def _record(folder: Path) -> dict[str, Any] | None:
    """`run.json` of a run; None if it cannot be read, or its configuration is none."""
    record = read_record(folder)
    return record if record and isinstance(record.get("config", {}), dict) else None


def refuse_foreign(config: DictConfig, typed: Sequence[str]) -> None:
    """Raises `ConfigError` for an unregistered function or class in a resumed configuration.

    Also for a callback that writes outside of the run's folder. Names in the installed configuration files or
    in the user's own arguments are allowed.
    """
    _refuse_other_folders(config, typed)
    known = _of_configuration_files()
    for where, target in _targets(config, ""):
        if "." not in target or target in known or any(target in word for word in typed):
            continue
        if not _is_registered(target):
            raise ConfigError(
                f"{where} is {target}, which is not a registered part, and a file alone never runs code: "
                "if you "
                f"trust the run, add +{where}={target} to the command, or register it in a module and name "
                "that, plugins=[MODULE]"
            )


def _refuse_other_folders(config: DictConfig, typed: Sequence[str]) -> None:
    plain: Any = OmegaConf.to_container(config, resolve=False)
    callbacks = plain.get("callbacks")
    for name, node in callbacks.items() if isinstance(callbacks, dict) else ():
        if not isinstance(node, dict) or "directory" not in node:
            continue
        place, own = str(node["directory"]), ("${run_dir}", str(plain.get("run_dir")))
        inside = any(place == folder or place.startswith(f"{folder}/") for folder in own)
        if (inside and ".." not in Path(place).parts) or any(place in word for word in typed):
            continue
        raise ConfigError(
            f"callbacks.{name}.directory is {place}, and a run writes in its own folder: if you trust it, "
            f"add callbacks.{name}.directory={place} to the command"
        )


def _is_registered(target: str) -> bool:
    return any(registry.part_of({"_target_": target}, kind) is not None for kind in registry.PACKAGES)


def _targets(node: Any, where: str) -> Iterable[tuple[str, str]]:
    """Every `_target_` with its key; values that cannot be resolved here are skipped: they are no parts."""
    keys: Iterable[Any] = node.keys() if isinstance(node, DictConfig) else range(len(node))
    for key in keys:
        place = f"{where}.{key}" if where else str(key)
        try:
            value = None if OmegaConf.is_missing(node, key) else node[key]
        except OmegaConfBaseException:
            continue
        if key == "_target_":
            yield place, str(value)
        elif isinstance(value, DictConfig | ListConfig):
            yield from _targets(value, place)


def _of_configuration_files() -> set[str]:
    """Every `_target_` in the installed configuration files."""
    root = config_root()
    files = (path for folder in ("conf", "experiments") for path in (root / folder).rglob("*.yaml"))
    return {name for path in files for name in re.findall(r"_target_:\s*([\w.]+)", path.read_text())}


# --- an existing folder ----------------------------------------------------------------------------------


def what_to_do(folder: Path, config: Mapping[str, Any], *, asked: bool, retry: bool) -> str:
    """ "start", "go on" or "skip" with the run of `folder`; `asked` where the user named it with resume=.

    Raises `Occupied` for a folder that holds something else.
    """
    path = folder / "run.json"
    if not path.exists():
        if not asked and (folder / "checkpoints").is_dir():
            raise Occupied(
                f"{folder} holds checkpoints but no run.json: name another folder, or move it away"
            )
        return "go on" if asked else "start"
    record = _record(folder)
    if record is None:
        if not asked:
            raise Occupied(f"{path} cannot be read: name another folder, or resume with resume={folder}")
        return "go on"
    state, process = status_of(record, folder), record.get("process")
    process = process if isinstance(process, dict) else {}
    if state == "queued":
        return "start"
    elsewhere = process.get("host") != os.uname().nodename and not is_requeued(process)
    if state == "running" and elsewhere:
        raise Occupied(
            f"{folder} is being trained in by process {process.get('pid')} on {process.get('host')}, last "
            f"heard of at {process.get('heartbeat')}: wait for it, or train in another folder; if that "
            f'process has ended, set "status" to "stopped" in {path}'
        )
    if asked:
        return "go on"
    if changed := [key for key in differences(record.get("config"), config) if not _OF_NO_RESULT.match(key)]:
        raise Occupied(
            f"{folder} holds a run of another configuration ({', '.join(changed[:5])}"
            f"{', …' if len(changed) > 5 else ''}): name another folder"
            f"{_or_longer(folder, changed, config)}"
        )
    if state == "failed" and not retry:
        raise Occupied(
            f"{folder} holds a run that failed ({str(record.get('error'))[:200]}): try it again with "
            "retry_failed=true, or name another folder"
        )
    return "skip" if state in ("finished", "pruned") else "go on"


def _or_longer(folder: Path, changed: Iterable[str], config: Mapping[str, Any]) -> str:
    """How to train a run for longer, where only its length differs."""
    lengths = {f"trainer.{key}": value for key, value in config["trainer"].items() if key in _LENGTHS}
    if not {*changed} <= {*lengths}:
        return ""
    words = " ".join(f"{key}={lengths[key]}" for key in changed)
    return f", or train it for longer with resume={folder} {words}"


def is_requeued(process: Mapping[str, Any]) -> bool:
    """Whether the process belonged to this SLURM job, of which only one instance runs, this one."""
    return process.get("slurm_job") is not None and process["slurm_job"] == os.environ.get("SLURM_JOB_ID")


def differences(earlier: Any, now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Key -> (earlier value, current value) where both configurations have the key and differ.

    Paths in the run's own folder count as equal if the folder was moved. Keys of one configuration alone are
    of another version; but a mapping where there was null, or the reverse, differs as a whole, and so do
    other objectives.
    """
    if not isinstance(earlier, Mapping):
        return {}
    then, here = _flat(registry.stored(earlier)), _flat(now)
    for side in (then, here):
        if "trainer.precision" in side:
            side["trainer.precision"] = precision_in_one_spelling(side["trainer.precision"])
    old, new = str(then.get("run_dir")), str(here.get("run_dir"))

    def moved(value: Any) -> Any:
        return value.replace(old, new) if isinstance(value, str) else value

    found = {key: (then[key], here[key]) for key in then if key in here and moved(then[key]) != here[key]}
    found |= _emptied(earlier, now) | _other_objectives(earlier, now)
    return {key: pair for key, pair in found.items() if key not in ("run_dir", "resume", "retry_failed")}


def _emptied(then: Mapping[str, Any], now: Mapping[str, Any], where: str = "") -> dict[str, tuple[Any, Any]]:
    """Keys with a mapping in one configuration and null, or an empty one, in the other."""
    found: dict[str, tuple[Any, Any]] = {}
    for key in then:
        if key not in now:
            continue
        one, other, place = then[key], now[key], f"{where}{key}"
        if isinstance(one, Mapping) and isinstance(other, Mapping) and one and other:
            found |= _emptied(one, other, f"{place}.")
        elif (isinstance(one, Mapping) and one and not other) or (
            isinstance(other, Mapping) and other and not one
        ):
            found[place] = (one, other)
    return found


def _other_objectives(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    one, other = (node.get("objective") for node in (then, now))
    if (
        not isinstance(one, Mapping)
        or not isinstance(other, Mapping)
        or not one
        or one.keys() == other.keys()
    ):
        return {}
    return {"objective": (list(one), list(other))}


def _flat(node: Any, where: str = "") -> dict[str, Any]:
    if isinstance(node, Mapping) and node:
        return {k: v for key, value in node.items() for k, v in _flat(value, f"{where}{key}.").items()}
    return {where.removesuffix("."): list(node) if isinstance(node, list | tuple) else node}


def check_changes(changed: Mapping[str, tuple[Any, Any]]) -> None:
    """Logs the keys that differ from the configuration that the run was trained with.

    Raises `ConfigError` for keys that cannot change.
    """
    differing = {key: pair for key, pair in changed.items() if not _OF_NO_RESULT.match(key)}
    if fixed := [key for key, pair in differing.items() if _FIXED.match(key) and not _same_state(pair)]:
        listed = ", ".join(f"{key} was {differing[key][0]}, is {differing[key][1]}" for key in fixed[:3])
        raise ConfigError(
            f"a resumed run keeps its network, its starting weights, what is trained by which optimiser, and "
            f"its place in the data: {listed}. "
            "Leave that out, or start another run from these weights with init=RUN"
        )
    for key, (then, now) in differing.items():
        log.warning("from here on %s is %s; it was %s", key, now, then)


def _same_state(pair: tuple[Any, Any]) -> bool:
    return {str(name).rpartition(".")[2].lower() for name in pair} <= _SAME_STATE


# --- the checkpoint --------------------------------------------------------------------------------------


def find_checkpoint(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """The newest intact checkpoint of a run and its entry "restora"; None if there is none.

    For a damaged checkpoint it logs a warning and takes an older one.
    """
    for name in ("last", "previous", "best"):
        path = folder / "checkpoints" / f"{name}.ckpt"
        if not path.is_file():
            continue
        try:
            checkpoint = read_checkpoint(path)
            if "loops" not in checkpoint or not checkpoint.get("optimizer_states"):
                raise ValueError(f"{path} holds weights only")
        except (ValueError, OSError) as error:
            log.warning("%s: trying an older checkpoint", error)
            continue
        if name != "last":
            log.warning("resuming from %s", path)
        return path, checkpoint["restora"]
    return None


class ConfiguredOptimizer(Callback):
    """Gives an optimiser that was loaded from a checkpoint the options of the configuration.

    A checkpoint holds the options that it was trained with. The configuration of the run may have changed
    since then: by this command, or by an earlier one that was killed before its first checkpoint. All
    processes of a distributed run apply it. Learning rates that were reduced after non-finite steps stay
    reduced, unless they are changed.
    """

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        fresh: Any = module.configure_optimizers()
        for loaded, made in zip(
            trainer.optimizers, fresh if isinstance(fresh, list) else [fresh], strict=True
        ):
            for group, options in zip(loaded.param_groups, made.param_groups, strict=True):
                before = group.get("initial_lr")
                group.update({key: value for key, value in options.items() if key not in ("params", "lr")})
                if before == reduced_rate(trainer, options["initial_lr"]):
                    group["initial_lr"] = before
