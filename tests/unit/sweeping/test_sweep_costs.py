"""What a sweep is estimated to cost, before it starts and while it runs."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from restora.cli import main
from restora.config import compose, options
from restora.files import write_json
from restora.sweeping import estimate, planning
from restora.sweeping.combinations import Composed
from restora.sweeping.estimate import kind
from restora.sweeping.plan import Job, Plan
from restora.sweeping.showing import summary
from restora.sweeping.status import statuses

TINY = ["network=dncnn_small", "network.depth=4", "network.channels=4", "logger.mode=disabled"]


def test_what_is_to_come_is_estimated_from_what_was_stopped_where_nothing_is_finished(tmp_path: Path) -> None:
    settings = {"executor": "local", "slots": 1, "options": {}, "detach": False, "search": None}
    jobs = [Job(n, f"{n}_a", f"{n}", [f"seed={n}"]) for n in range(2)]
    stopped_at = {"fit_seconds": 10, "share": 0.25}
    plan = Plan(tmp_path, "", [], "/", settings, jobs=jobs)
    for job, status, cost in zip(jobs, ("stopped", "queued"), (stopped_at, {}), strict=True):
        record = {"status": status, "config": {"seed": job.number}, "cost": cost}
        write_json(plan.path(job) / "run.json", record)
    assert [job.left for job in statuses(plan)] == [30, 40]
    assert summary(statuses(plan)) == "1 queued, 1 stopped · 0:10 spent · about 1:10 of computing to come"
    process = {"host": "with a clock that is ahead", "heartbeat": "2200-01-01T00:00:00+00:00"}
    elsewhere = {"status": "running", "process": process, "cost": stopped_at}
    write_json(plan.path(jobs[0]) / "run.json", elsewhere)
    assert statuses(plan)[0].left == 30


@pytest.mark.parametrize(
    ("word", "same"),
    [
        ("seed=2", True),
        ("family.optimizer.lr=1", True),
        ("trainer.accumulate_grad_batches=4", False),
        ("family.optimizer._target_=muon", False),
    ],
)
def test_jobs_whose_steps_take_another_time_are_measured_apart(word: str, same: bool) -> None:
    one, other = (OmegaConf.to_container(compose("train", [*TINY, *more])) for more in ([], [word]))
    assert (kind(one) == kind(other)) == same


@pytest.mark.parametrize("name", [name for name in options("sweep") if name not in ("grid", "tpe")])
@pytest.mark.slow
def test_ready_sweeps_pass_their_dry_run(name: str, capsys: Any) -> None:
    """Also those for a GPU, where there is none; their files say how many jobs they are."""
    settings = planning.settings_of([f"sweep={name}"])
    if not settings["space"]:
        return
    if settings["search"]:
        pytest.importorskip("optuna")
    assert main(["train", "-m", f"sweep={name}", "data=sample", "--dry-run"]) == 0
    said = capsys.readouterr().out
    count = next(line.split()[1].rstrip(",") for line in said.splitlines() if line.startswith("jobs "))
    text = next((Path(__file__).resolve().parents[3] / "conf" / "sweep").glob(f"{name}.yaml")).read_text()
    assert f"# cost: {count} jobs of" in text
    assert torch.cuda.is_available() or ("device    a GPU" in said) == (" one GPU" in text)


def test_a_sweep_in_slow_bfloat16_is_not_taken_for_a_cheap_one(monkeypatch: pytest.MonkeyPatch) -> None:
    config: Any = OmegaConf.to_container(
        compose("train", [*TINY, "name=x", "run_dir=x", "precision=bf16"]), resolve=True
    )
    monkeypatch.setattr("restora.vocabulary.platform.machine", lambda: "x86_64")
    hours = []
    for has in (True, False):
        monkeypatch.setattr("restora.vocabulary.has_bfloat16", lambda device, has=has: has)
        hours.append(estimate._most_hours(config))
    assert hours[1] > 10 * hours[0] > 0


def test_the_disk_is_that_of_the_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)
    hydra = {"job": {"num": 0, "id": "0"}, "sweep": {"dir": str(tmp_path / "new" / "sweep")}}
    job = Composed([], {}, OmegaConf.create({"hydra": hydra}), {}, "")
    assert estimate.place_of(job) == tmp_path


@pytest.mark.slow
def test_what_a_sweep_costs_is_said_and_asked(
    shared_data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RESTORA_DATA", str(shared_data_dir))
    sizes = ["data.patch_size=24", "data.batch_size=4", "data.val_crop=48", "trainer.max_steps=40"]
    words = ["train", "-m", *TINY, *sizes, "threads=1", "data.workers=0", "seed=1,2,1"]
    assert main([*words, "sweep.slots=2", "--dry-run"]) == 0
    output = capsys.readouterr()
    assert "measuring 1 of 1 kinds of jobs" in output.err  # seeds cost the same
    assert "seed=2" in output.out
    assert "jobs      2, 1 left out as the same\n" in output.out
    assert "2 at a time" in output.out
    assert main([*words, "sweep.limit_hours=0"]) == 2
    assert "--yes" in capsys.readouterr().err
    assert not list(tmp_path.rglob("sweep.json"))
