"""Resumes a sweep from its folder alone, which may come from an untrusted source: `restora sweep --resume`.

Jobs in the folder are run from the configurations in their records. A search chooses further jobs, which are
composed from the overrides in its plan; these may set values and choose registered parts, no more.
"""

import re
from pathlib import Path

from omegaconf import OmegaConf

from restora.config import ConfigError, written_out
from restora.files import json_text
from restora.registry import configuration_folders, named_plugins
from restora.run_state import read_record, sole_run
from restora.strangers import check_inside, started_in
from restora.sweeping import combinations, planning
from restora.sweeping.command import of_jobs, searched, with_space
from restora.sweeping.plan import FILE, Job, Plan
from restora.sweeping.running import Listed, run
from restora.sweeping.search import Settings
from restora.training.command import folders_in
from restora.training.resuming import check_stored, refuse_foreign

_OPTIONS = {
    "slurm": (
        *("account", "clusters", "comment", "constraint", "cpus-per-task", "exclude", "exclusive", "gpus"),
        *("gpus-per-node", "gpus-per-task", "gres", "hint", "mem", "mem-per-cpu", "mem-per-gpu", "nice"),
        *("nodelist", "partition", "priority", "qos", "reservation", "requeue", "time", "time-min"),
    ),
    "ray": ("num-cpus", "num-gpus"),
}
"""Options of executors that a plan may set: they neither name files nor other machines, and run nothing."""


def go_on(plan: Plan, *, retry_failed: bool) -> int:
    """Runs the unfinished jobs of a sweep that is described by its folder alone.

    Raises `ConfigError` for a folder that needs more than registered parts.
    """
    _refuse_foreign(plan, retry_failed=retry_failed)
    if plan.settings.get("search"):
        return _search_on(plan, retry_failed=retry_failed)
    if not plan.jobs:
        raise ConfigError(f"{plan.folder} has no jobs yet: give its command again: {plan.command}")
    config = read_record(plan.path(plan.jobs[0]))["config"]
    jobs: list[Job] = list(plan.jobs)
    return run(plan, Listed.of(jobs), jobs=len(jobs), config=config, retry_failed=retry_failed)


def _search_on(plan: Plan, *, retry_failed: bool) -> int:
    """Runs the remaining trials of a search. Its further jobs are composed from the overrides in its plan."""
    again = f"give its command again: {plan.command}"
    if retry_failed:
        raise ConfigError("a failed trial is a result of a search: continue the search with --resume")
    if missing := [place for place in folders_in(plan.command) if place not in _named_folders()]:
        raise ConfigError(
            f"the sweep was started with --config-dir {missing[0]}: add it to the command if you trust it"
        )
    try:
        for word in plan.overrides:
            _check_word(word, plan.folder / FILE)
    except ConfigError as error:
        raise ConfigError(f"{error}; or, if you trust the sweep, {again}") from error
    words, above = of_jobs(written_out("train", plan.overrides))
    words = with_space(words, planning.settings_of(above)["space"])
    first = combinations.composed(combinations.firsts(words), above)
    refuse_foreign(OmegaConf.create(first.config), [])
    combinations.check(first)
    settings = Settings.of(first.settings["search"], first.config["monitor"])
    with sole_run(plan.folder):
        return searched(plan, settings, words, above, first.config)


def _check_word(word: str, path: Path) -> None:
    """Raises `ConfigError` for an override that could run other code or write elsewhere."""
    key, _, value = word.lstrip("+~").partition("=")
    if key == "hydra.sweep.dir":
        return  # not read: the sweep's folder is where its plan is
    check_stored(word, path)
    others = [name for name in re.findall(r"[\w.]+", value) if name not in named_plugins()]
    named = "_target_" in word and re.search(r"\w\.[A-Za-z_]", value)
    elsewhere = re.search(r"directory['\"]?\s*[:=]", word)
    if key == "resume" or elsewhere or named or (key == "plugins" and others):
        raise ConfigError(f"{path} has {word}, which a file must not set: remove it")


def _refuse_foreign(plan: Plan, *, retry_failed: bool) -> None:
    """Raises `ConfigError` for a plan that could run other code or write elsewhere: by modules, environment
    variables, unregistered classes or links."""
    again = f"if you trust it, give its command again: {plan.command}"
    again += " retry_failed=true" if retry_failed else ""
    if missing := [name for name in plan.plugins if name not in named_plugins()]:
        raise ConfigError(f"the sweep needs {missing[0]}: add --plugin {missing[0]} if you trust it")
    known = _OPTIONS.get(str(plan.settings["executor"]), ())
    if others := [key for key in plan.settings["options"] if str(key).replace("_", "-") not in known]:
        raise ConfigError(f"the sweep sets sweep.options.{others[0]}: {again}")
    if plan.environment:
        raise ConfigError(f"the sweep sets {', '.join(plan.environment)} in the environment: {again}")
    check_inside(plan.folder)
    if started_in({"cwd": plan.cwd}, plan.folder) is None:
        raise ConfigError(f"the sweep was started in {plan.cwd}, which is not a folder here: {again}")
    for job in plan.jobs:
        path = plan.path(job) / "run.json"
        config = read_record(plan.path(job)).get("config")
        if not isinstance(config, dict):
            state = "is damaged" if path.exists() else "is missing"
            raise ConfigError(f"{path} {state}: give the command of the sweep again: {plan.command}")
        try:
            text = json_text(config)
            if "${" in text:
                raise ConfigError(f"{text[text.index('${') :][:60]} is not a plain value")
            refuse_foreign(OmegaConf.create(config), [])
        except ValueError as error:
            raise ConfigError(f"{path}: {str(error).partition(': if you')[0]}; {again}") from error


def _named_folders() -> list[str]:
    """The folders of `--config-dir` in this command."""
    return [str(folder) for provider, folder in configuration_folders() if provider == "command-line"]
