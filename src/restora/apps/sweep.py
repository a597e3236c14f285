"""`restora sweep`: shows the status of a sweep, follows, stops or resumes it."""

import os
import sys
import time
from pathlib import Path

from restora.apps.parser import Parser
from restora.files import json_text
from restora.run_state import is_locked
from restora.sweeping.plan import STOP, Plan, read_plan

HELP = """usage: restora sweep FOLDER [--json]
                     [--follow | --stop | --resume | --retry-failed]

  restora sweep outputs/<sweep>           each job: queued, running with figure
                                          and time left, finished, failed and
                                          why, stopped, dead, pruned; the cost;
                                          the best of a search so far
  restora sweep outputs/<sweep> --json    the same for programs
  restora sweep outputs/<sweep> --follow  until the sweep ends
  restora sweep outputs/<sweep> --stop    ends it; running jobs are saved
  restora sweep outputs/<sweep> --resume  resumes what is not finished
  restora sweep outputs/<sweep> --retry-failed
                                          and retries what failed

FOLDER is what `restora train -m` printed at its start; it contains sweep.json.
"""
_FOLLOW_SECONDS = 2.0


def main(argv: list[str]) -> int:
    """Raises `ValueError` for a folder that is no sweep's."""
    if not argv or any(word in ("-h", "--help") for word in argv):
        print(HELP, end="")
        return 0 if argv else 2
    parser = Parser(prog="restora sweep", add_help=False)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", action="store_true")
    what = parser.add_mutually_exclusive_group()
    for name in ("follow", "stop", "resume", "retry-failed"):
        what.add_argument(f"--{name}", action="store_true")
    words = parser.parse_args(argv)
    plan = read_plan(words.folder)
    if words.json and (words.resume or words.retry_failed):
        raise ValueError("--json shows a sweep: leave it out where the sweep is resumed")
    if words.resume or words.retry_failed:
        return resume(plan, retry_failed=words.retry_failed)
    if words.stop:
        stop(plan)
    elif words.follow:
        follow(plan.folder)
    show(read_plan(words.folder), as_json=words.json)
    return 0


def show(plan: Plan, *, as_json: bool) -> None:
    if as_json:
        from restora.sweeping.status import as_dict

        print(json_text(as_dict(plan)))
    else:
        from restora.sweeping import showing
        from restora.sweeping.front import front

        showing.show(plan)
        showing.show_best(front(plan))


def follow(folder: Path) -> None:
    """Shows the sweep until nothing runs in it."""
    from rich.console import Console
    from rich.live import Live

    from restora.sweeping import showing
    from restora.sweeping.status import statuses

    console = Console(stderr=True, highlight=False)
    with Live(console=console, auto_refresh=False, transient=True) as live:
        before = ""
        while _is_run(plan := read_plan(folder)):
            if console.is_terminal:
                live.update(showing.table(plan, only={"running", "failed"}), refresh=True)
            elif (line := showing.states(statuses(plan))) != before:
                before = line
                print(line, file=sys.stderr, flush=True)
            time.sleep(_FOLLOW_SECONDS)


def _is_run(plan: Plan) -> bool:
    """Whether a process runs the sweep, or SLURM still has its jobs without one."""
    return is_locked(plan.folder) or bool(_in_queue(plan))


def _in_queue(plan: Plan) -> list[str]:
    """Numbers of the sweep's jobs in SLURM's queue."""
    if plan.settings.get("executor") != "slurm":
        return []
    from restora.sweeping.slurm import queued

    return list(queued(plan).values())


def stop(plan: Plan) -> None:
    """Asks the sweep's process to stop, or cancels its SLURM jobs, and waits until they have ended."""
    if is_locked(plan.folder):
        (plan.folder / STOP).touch()
    elif numbers := _in_queue(plan):
        from restora.sweeping.slurm import cancel

        cancel(numbers)
    else:
        print(f"nothing is running in {plan.folder}", file=sys.stderr)
        return
    print("running jobs are saved and stopped", file=sys.stderr, flush=True)
    while _is_run(plan):
        time.sleep(0.5)


def resume(plan: Plan, *, retry_failed: bool) -> int:
    """Resumes the sweep, in the folder where it was started."""
    from restora.strangers import started_in
    from restora.sweeping.resuming import go_on

    plan.folder = plan.folder.resolve()
    if not os.access(plan.folder, os.W_OK):
        raise ValueError(f"{plan.folder} is not writable: copy the sweep to a folder of yours")
    there = started_in({"cwd": plan.cwd}, plan.folder)
    if there is not None and there.is_dir():
        os.chdir(there)
    return go_on(plan, retry_failed=retry_failed)
