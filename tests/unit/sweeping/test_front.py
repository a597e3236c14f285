"""`restora sweep FOLDER` shows the result of a search, from the folders of its jobs."""

import json
from pathlib import Path
from typing import Any

from restora.apps import sweep
from restora.sweeping.front import front
from restora.sweeping.plan import Job, Plan


def searched(folder: Path, figures: list[tuple[str, float, int]], search: dict[str, Any] | None) -> Plan:
    jobs = []
    for number, (status, psnr, macs) in enumerate(figures):
        job = Job(number, f"{number}_x", f"x{number}", ["seed=1", f"lr=0.00{number + 1}23456"])
        (folder / job.name).mkdir()
        record = {"status": status, "metrics": {"best": {"val/psnr": psnr}}, "macs_256": macs}
        (folder / job.name / "run.json").write_text(json.dumps(record))
        jobs.append(job)
    return Plan(
        folder=folder, command="", overrides=["seed=1"], cwd="/", settings={"search": search}, jobs=jobs
    )


def test_it_is_the_jobs_that_no_other_beats(tmp_path: Path, capsys: Any) -> None:
    objectives = {"val/psnr": "max", "macs_256": "min"}
    settings = {"sampler": "tpe", "trials": 9, "objectives": objectives}
    figures = [("finished", 30.0, 9), ("finished", 29.0, 9), ("failed", 40.0, 1), ("finished", 28.0, 5)]
    plan = searched(tmp_path, figures, settings)
    assert [name for name, _, _ in front(plan)] == ["3_x", "0_x"]
    assert front(plan)[1][1:] == ({"val/psnr": 30.0, "macs_256": 9.0}, {"lr": 0.00123456})
    sweep.show(plan, as_json=False)
    assert "best trade-offs" in capsys.readouterr().out


def test_a_grid_has_none(tmp_path: Path) -> None:
    assert front(searched(tmp_path, [("finished", 30.0, 9)], None)) == []
