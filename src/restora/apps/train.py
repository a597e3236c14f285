"""`restora train`: Hydra in front of `training.run.train`.

Errors that can be foreseen are found before the first job starts: each combination of a sweep is composed,
and its parts are checked for compatibility. `resume=RUN_FOLDER` continues a run with its own overrides.
"""

import os
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from restora.composing.overrides import sweeps_among
from restora.composing.path_values import quoted, with_quoted_paths
from restora.config import (
    ConfigError,
    all_options,
    compose,
    config_root,
    fit_to_words,
    jobs_of,
    register_search_path,
    set_by,
    written_out,
)
from restora.files import check_writable, read_json, write_whole

_JOBS = "RESTORA_JOBS"
_COMBINATIONS_CHECKED = 256
_LAUNCHERS_HERE = ("basic", "joblib")
"""Launchers whose jobs run on this machine."""
_SLURM = "submitit_slurm"

HELP = """usage: restora train [-m] [GROUP=OPTION ...] [KEY=VALUE ...]

  restora train experiments=denoise/dncnn            one run
  restora train experiments=denoise/dncnn debug=fast a few steps, to try it out
  restora train experiments=denoise/dncnn loss=l1    with another loss
  restora train -m network.depth=17,20 seed=1,2,3    a sweep
  restora train -m sweep=tpe family.optimizer.lr='interval(1e-4,1e-2)'
                                                     a search
  restora train resume=outputs/<run>                 resume a stopped run

  --dry-run          with -m: list the jobs and what they will cost
  --yes              with -m: start also what costs more than sweep.limit_hours
  --cfg job          print the composed configuration and stop
  --config-dir DIR   also look for configuration in DIR
  --hydra-help       what Hydra itself understands

A group chosen here wins over what an experiment says about it. An experiment
keeps its own patches, batches and crops beside data=NAME, and its own length
beside trainer=NAME where that option leaves it open.

trainer.max_time=90s, 5min, 1h30min or 2d; precision=float32, bf16, float16 or
auto (bf16 where the device multiplies in it, else float32); threads=N CPU
threads. `restora experiments` lists what each experiment costs.

groups and their options:
"""
_NOT_OF_TRAINING = ("benchmark", "hydra")
"""Groups of other commands, and of Hydra."""


def help_text(width: int = 80) -> str:
    """The usage, followed by every group with its options."""
    lines = [HELP.rstrip()]
    for group, names in all_options().items():
        if group not in _NOT_OF_TRAINING:
            lead = f"  {group:<14} "
            lines += textwrap.wrap(
                "  ".join(names), width, initial_indent=lead, subsequent_indent=" " * len(lead)
            )
    return "\n".join(lines) + "\n"


def main(argv: list[str]) -> int:
    """Checks the overrides, then calls Hydra. Raises `ConfigError` for what cannot be trained."""
    if any(flag in argv for flag in ("-h", "--help")):
        print(help_text())
        return 0
    sweep = any(flag in argv for flag in ("-m", "--multirun"))
    resumed, typed = any(word.startswith("resume=") and word != "resume=null" for word in argv), argv
    _refuse_other_folders(typed, sweep=sweep or "hydra.mode=MULTIRUN" in typed, resumed=resumed)
    if resumed:  # imported only here, as it imports Lightning
        from restora.training.resuming import continued, refuse_foreign

        argv = continued(argv)
    dry_run, yes = "--dry-run" in argv, "--yes" in argv
    argv = with_quoted_paths([word for word in argv if word not in ("--dry-run", "--yes")], sweep=sweep)
    options = get_args_parser().parse_intermixed_args(argv)
    flags = [word for word in argv if word not in options.overrides]
    overrides = written_out("train", options.overrides)
    if resumed:
        refuse_foreign(compose("train", [word for word in overrides if not _is_hydras(word)]), typed)
    if options.cfg and not options.multirun:
        compose("train", overrides)  # raises its errors
    elif options.multirun and not options.cfg and not _asks_hydra(options, overrides, resumed=resumed):
        from restora.sweeping.command import start

        return start(overrides, dry_run=dry_run, yes=yes)
    elif dry_run:
        raise ConfigError("--dry-run works with a sweep only: add -m (restora bench measures one run)")
    elif not (options.cfg or options.info or options.hydra_help or options.shell_completion):
        os.environ[_JOBS] = str(_check(overrides, options.overrides, multirun=options.multirun))
        overrides = [*overrides, *_claimed(overrides, multirun=options.multirun)]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # cli.py explains errors
    register_search_path()
    sys.argv = ["restora train", *flags, *overrides]
    try:
        hydra.main(version_base="1.3", config_path=str(config_root() / "conf"), config_name="train")(job)()
    except _Failed as failed:
        raise failed.error from failed.error.__cause__
    return 0


class _Failed(BaseException):
    """Carries the error of a job past Hydra, which would print all overrides in front of its message."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def _is_hydras(override: str) -> bool:
    return override.lstrip("+~").startswith("hydra")


def _asks_hydra(options: Any, overrides: list[str], *, resumed: bool) -> bool:
    """Whether Hydra handles a sweep: with its launcher or sweeper, `resume`, or an option without jobs."""
    named = any(word.startswith(("hydra/launcher=", "hydra/sweeper=")) for word in overrides)
    return bool(named or resumed or options.info or options.hydra_help or options.shell_completion)


def _refuse_other_folders(words: list[str], *, sweep: bool, resumed: bool) -> None:
    """Raises `ConfigError` for settings of a sweep without `-m`, and for those of one run with it."""
    keys = dict.fromkeys(word.lstrip("+~").partition("=")[0].partition("@")[0] for word in words)
    if "run_dir" in keys:
        raise ConfigError("run_dir is set when a run starts: name its folder by hydra.run.dir=FOLDER")
    if not sweep:
        for key in keys:
            if re.match(r"(hydra\.)?sweep(\.|$)", key):
                other = ", or name the folder of this run, hydra.run.dir=FOLDER" if ".dir" in key else ""
                raise ConfigError(f"{key} is a setting of sweeps: add -m{other}")
    elif "hydra.run.dir" in keys:
        raise ConfigError(
            "hydra.run.dir is the folder of one run: name that of the sweep, hydra.sweep.dir=FOLDER, or "
            "leave -m out"
        )
    elif resumed and not any(key.startswith("hydra/launcher") for key in keys):
        raise ConfigError(
            "resume=RUN continues one run: leave -m out. A sweep is resumed by its own command, or by "
            "restora sweep FOLDER --resume; init=RUN starts runs from the weights of another"
        )


def _claimed(overrides: list[str], *, multirun: bool) -> list[str]:
    """Creates the folder of this run or sweep for this command alone; returns the override that sets it.

    Returns no override if the user named a folder. Raises ValueError for one that cannot be written.
    """
    key = "hydra.sweep.dir" if multirun else "hydra.run.dir"
    named = any(word.partition("=")[0].lstrip("+") == key for word in overrides)
    torchrun = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True" and "RANK" in os.environ
    if not torchrun and any(name in os.environ for name in ("LOCAL_RANK", "RANK", "SLURM_PROCID")):
        return []  # several processes of one run execute this
    from restora.run_state import claim

    single = [word for word in overrides if not (multirun and (word in sweeps_among([word])))]
    config = compose("train", single, hydra_node=True)
    try:
        folder = config.hydra.sweep.dir if multirun else config.hydra.run.dir
    except OmegaConfBaseException:  # one of the job's own values, which Hydra resolves later
        return []
    check_writable(Path(folder), setting=key if named else "output_dir", folder=True)
    if named:
        return []
    if torchrun:
        from restora.training.devices import agreed

        return [f"{key}={quoted(agreed(lambda: str(claim(Path(folder).resolve()))))}"]
    return [f"{key}={quoted(str(claim(Path(folder))))}"]


def _check(overrides: list[str], typed: list[str], *, multirun: bool) -> int:
    """Composes and checks the jobs; returns their number. `typed` are the overrides in their short forms."""
    from restora.training.build import check_before_training
    from restora.training.devices import check_tasks

    multirun = multirun or "hydra.mode=MULTIRUN" in overrides
    if not multirun and (swept := sweeps_among(overrides)):
        words = [short for short, full in zip(typed, overrides, strict=False) if full in swept]
        raise ConfigError(f"{' '.join(words)} has several values: add -m to sweep over them")
    launchers = [word.partition("=")[2] for word in overrides if word.startswith("hydra/launcher=")]
    here = not launchers or launchers[-1] in _LAUNCHERS_HERE
    combinations = jobs_of(overrides) if multirun else [overrides]
    for words in combinations[:_COMBINATIONS_CHECKED]:
        try:
            check_before_training(compose("train", words), here=here)
            if launchers and launchers[-1] == _SLURM:
                hydras = [word for word in overrides if _is_hydras(word) and word not in words]
                composed = compose("train", [*words, *hydras], hydra_node=True)
                check_tasks(composed, composed.hydra.launcher)
        except ValueError as error:
            where = f" (in the job {' '.join(words)})" if len(combinations) > 1 else ""
            raise ConfigError(f"{error}{set_by(error, words)}{where}") from error
    return len(combinations)


def job(config: DictConfig) -> float:
    """One job of Hydra, possibly in a launcher's process."""
    from restora.redaction import redacted, without_secrets
    from restora.registry import stored, use_plugins
    from restora.training.command import own_folders, own_overrides, repeating
    from restora.training.record import RunInfo
    from restora.training.starting import start

    use_plugins(config.plugins)  # a launcher's process has no command line
    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    OmegaConf.set_struct(config, False)
    config.run_dir = str(folder)
    fit_to_words(config, hydra_config.overrides.task)
    config.pop("sweep", None)  # only for the command that runs the jobs
    if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0:
        config.retry_failed = True  # a restart by torchrun --max-restarts
    plain = without_secrets(OmegaConf.to_container(config, resolve=True))
    assert isinstance(plain, dict)
    choices = hydra_config.runtime.choices
    overrides = without_secrets(own_overrides(hydra_config.overrides.task))
    folders = own_folders(hydra_config.runtime.config_sources)
    info = RunInfo(
        folder=folder,
        config=stored(plain),
        experiment=choices["experiments"],
        network_name=choices["network"],
        command=redacted(repeating(overrides, hydra_config.overrides.hydra, folders)),
        overrides=overrides,
        cwd=hydra_config.runtime.cwd,
        sweep=_place_in_sweep(hydra_config, folder, overrides),
        jobs=int(os.environ.get(_JOBS, "1")),
    )
    try:
        return start(config, info, write=lambda: _write_hydra_folder(folder, config, hydra_config))
    except Exception as error:
        if hydra_config.mode == RunMode.RUN:
            raise _Failed(error) from None
        raise


def _write_hydra_folder(folder: Path, config: DictConfig, hydra_config: Any) -> None:
    """Writes Hydra's files in `.hydra/`, but only once the folder is known to be this run's, and without
    passwords."""
    from restora.composing.writing import yaml_text
    from restora.redaction import without_secrets

    contents: dict[str, Any] = {
        "config": OmegaConf.to_container(config, resolve=False),
        "overrides": list(hydra_config.overrides.task),
        "hydra": {"hydra": OmegaConf.to_container(hydra_config, resolve=False, enum_to_str=True)},
    }
    for name, content in contents.items():
        write_whole(folder / ".hydra" / f"{name}.yaml", yaml_text(without_secrets(content)))


def _place_in_sweep(hydra_config: Any, folder: Path, overrides: list[str]) -> dict[str, Any] | None:
    """The sweep and the job's number in it; a run that is resumed by itself keeps its entry."""
    if hydra_config.mode == RunMode.MULTIRUN:
        return {"id": hydra_config.sweep.dir, "job": int(hydra_config.job.num), "overrides": overrides}
    try:
        earlier = read_json(folder / "run.json").get("sweep")
    except (OSError, ValueError, AttributeError):
        return None
    return earlier if isinstance(earlier, dict) else None
