"""Starts a sweep by `restora train -m …`, or resumes it by the same command."""

import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from restora.config import ConfigError, written_out
from restora.run_state import sole_run
from restora.sweeping import combinations, estimate, planning, search, showing, space
from restora.sweeping.plan import FILE, Job, Plan
from restora.sweeping.running import Listed, check_executor, run
from restora.words import counted


def start(typed: Sequence[str], *, dry_run: bool = False, yes: bool = False) -> int:
    """Plans the sweep, or finds its earlier plan, and runs the unfinished jobs; returns the exit status.

    `dry_run` shows the expected cost instead; `yes` confirms a costly sweep in advance.
    """
    if any(os.environ.get(name, "0") != "0" for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID")):
        raise ConfigError(
            "a sweep is started by one process, which starts those of its jobs: leave torchrun out"
        )
    words, above = of_jobs(typed)
    settings = planning.settings_of(above)
    check_executor(settings)
    words = with_space(words, settings["space"])
    if settings["search"] is not None:
        return _search(typed, words, above, dry_run=dry_run, yes=yes)
    space.refuse_intervals(words)
    jobs = combinations.combinations(words, above, planning.tell, here=not dry_run)
    if dry_run:
        return _show_cost(jobs, settings)
    identities = {job.identity for job in jobs}

    def same(plan: Plan) -> bool:
        return {job.identity for job in planning.renewed(plan, jobs)} == identities

    retry = any(word.lstrip("+") == "retry_failed=true" for word in typed)
    chosen: list[Job] = []
    with _plan(typed, jobs, same, lambda plan: chosen.extend(planning.add_jobs(plan, jobs)), yes=yes) as plan:
        if folded := len(jobs) - len(chosen):
            left = counted(len(chosen), "job")
            planning.tell(f"{folded} of {len(jobs)} combinations give the same run as others: {left}")
        _say_changed(plan, chosen)
        source, config = Listed.of(chosen), jobs[0].config
        return run(plan, source, jobs=len(chosen), config=config, retry_failed=retry)


def of_jobs(typed: Sequence[str]) -> tuple[list[str], list[str]]:
    """The overrides of jobs, and those of Hydra and the sweep."""
    above = [word for word in typed if combinations.is_hydras(word) or combinations.is_about_the_sweep(word)]
    return [word for word in typed if word not in above], above


def _say_changed(plan: Plan, chosen: Sequence[Job]) -> None:
    """Prints which jobs have the same overrides but were planned from other configuration files."""
    now, words = {job.identity for job in chosen}, [job.overrides for job in chosen]
    before = [job.name for job in plan.jobs if job.identity not in now and job.overrides in words]
    if before:
        planning.tell(
            f"the configuration has changed since {', '.join(before[:3])}{', …' if len(before) > 3 else ''} "
            "was planned: what was trained stays, and the jobs are trained anew in folders of their own"
        )


@contextmanager
def _plan(
    typed: Sequence[str],
    jobs: Sequence[combinations.Composed],
    same: Callable[[Plan], bool],
    write: Callable[[Plan], None],
    *,
    yes: bool,
) -> Iterator[Plan]:
    """Writes the plan of this command and holds its folder's lock. Asks before a costly new sweep."""
    folder = planning.sweep_folder(typed, jobs[0], same)
    if not (folder / FILE).exists():
        _ask_if_costly(jobs, yes=yes)
    with ExitStack() as held:
        with planning.one_by_one(folder.parent):
            folder = planning.claimed(planning.sweep_folder(typed, jobs[0], same), typed)
            held.enter_context(sole_run(folder))
            write(plan := planning.new_plan(folder, typed, jobs[0]))
        yield plan


def with_space(words: Sequence[str], ready: dict[str, object]) -> list[str]:
    """The overrides, with those of `sweep.space` added whose keys they do not set."""
    typed = {re.split(r"[=@]", word.lstrip("+~"))[0] for word in words}
    added = [f"{key}={value}" for key, value in ready.items() if key not in typed]
    return written_out("train", [*added, *words]) if added else list(words)


def _search(
    typed: Sequence[str], words: Sequence[str], above: Sequence[str], *, dry_run: bool, yes: bool
) -> int:
    """Runs a sweep whose jobs are chosen one after the other; returns the exit status."""
    wanted, _ = space.space_of(words)
    first = combinations.composed(combinations.firsts(words), above)
    try:
        combinations.check(first, here=not dry_run)
    except ConfigError as error:
        raise space.in_whole_numbers(words, error) from error
    settings = search.Settings.of(first.settings["search"], first.config["monitor"])
    copies = [first] * settings.trials
    if dry_run:
        return _show_cost(copies, first.settings, chosen_later=True)

    def write(plan: Plan) -> None:
        study = search.open_study(plan.folder, settings)
        space.check_space(study, wanted, plan.folder)  # before the plan is replaced
        plan.write()

    with _plan(typed, copies, lambda plan: plan.overrides == list(typed), write, yes=yes) as plan:
        return searched(plan, settings, words, above, first.config)


def searched(
    plan: Plan, settings: search.Settings, words: Sequence[str], above: Sequence[str], config: dict[str, Any]
) -> int:
    """Runs the remaining trials of a search and shows the best; `config` is a job's."""
    source = search.Search.of(plan, settings, words, above)
    code = run(plan, source, jobs=settings.trials, config=config)
    best, reasons, repeated = source.best(), source.reasons(), source.repeated()
    showing.show_best(best)
    if repeated:
        planning.tell(
            f"{repeated} of {settings.trials} trials chose a point again and took the result of its job"
        )
    if code > 1:  # stopped
        return code
    if not best:
        planning.tell(f"no trial has a result: {reasons[0] if reasons else 'all were pruned'}")
    return 0 if best else 1  # a failed trial is a result too


# --- cost --------------------------------------------------------------------------------------------------


def _show_cost(
    jobs: Sequence[combinations.Composed], settings: dict[str, Any], *, chosen_later: bool = False
) -> int:
    """Prints the cost for `--dry-run`."""
    hours = estimate.measured(jobs, planning.tell)
    estimate.show(jobs, hours, settings, chosen_later=chosen_later)
    return 0


def _ask_if_costly(jobs: Sequence[combinations.Composed], *, yes: bool) -> None:
    """Raises `ConfigError` if a new sweep will cost more than its limit and the user does not confirm it."""
    limit = jobs[0].settings.get("limit_hours")
    if limit is None or yes:
        return
    hours = estimate.known_hours(jobs, float(limit), planning.tell)
    if hours <= float(limit):
        return
    said = (
        f"{len(jobs)} jobs will take about {hours:.0f} hours of computing, and sweep.limit_hours is {limit}"
    )
    if not sys.stdin.isatty():
        raise ConfigError(f"{said}: add --yes if that is meant, or set sweep.limit_hours")
    if input(f"{said}. Start? [y/N] ").strip().lower() not in ("y", "yes"):
        raise ConfigError("not started")
