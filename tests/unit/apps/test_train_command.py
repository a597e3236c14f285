"""The command in run.json, when typed, gives the configuration of the run: whatever was swept, quoted or
resumed."""

import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from restora import cli, registry
from restora.sweeping import command
from restora.sweeping.plan import Plan
from restora.sweeping.running import Listed
from restora.training import starting, tracking
from restora.training.command import repeating
from restora.training.record import RunInfo, RunRecord

SMALL = ["network=dncnn_small", "network.depth=4", "logger.mode=disabled"]


def main(words: list[str]) -> None:
    assert cli.main(["train", *words]) == 0


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[RunInfo]:
    """What `restora train` hands to the training function, which is not run; run.json is as it is at the
    start."""
    runs: list[RunInfo] = []

    def train(config: Any, info: RunInfo) -> float:
        runs.append(info)
        if config.resume is None:
            RunRecord(info).write()
        return 0.0

    def run(plan: Plan, source: Listed, **_: Any) -> int:
        for job in source.jobs:
            starting.start_folder(plan.path(job), jobs=len(plan.jobs))
        return 0

    monkeypatch.setattr(starting, "train", train)
    monkeypatch.setattr(command, "run", run)
    monkeypatch.setattr(registry, "_folders", [])
    return runs


def typed(command: str, started: list[RunInfo], folder: Path) -> RunInfo:
    program, name, *words = shlex.split(command)
    assert (program, name) == ("restora", "train")
    main([*words, f"hydra.run.dir={folder}"])
    return started[-1]


def settings(info: RunInfo) -> dict[str, Any]:
    """The configuration without what differs between any two runs: the places that they write to."""

    def without(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: without(item) for key, item in value.items() if key not in ("run_dir", "resume")}
        return value.replace(str(info.folder), "RUN") if isinstance(value, str) else value

    found = without(info.config)
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    "words",
    [
        ["name='two words (and brackets) $HOME'"],
        ['logger.project="it\'s; 100% `quoted` \\\\ done"'],
        ["logger.tags=[x,'y z']", "++trainer.detect_anomaly=true", "~callbacks.non_finite"],
        ["schedule@family.schedule=constant", "network.channels=16"],
        ["experiments=denoise/dncnn", "trainer=cpu", "debug=fast"],
        ["output_dir='~/my runs'", "+hydra.job.env_set.LEVEL=3"],
    ],
    ids=lambda words: words[0].partition("=")[0],
)
@pytest.mark.slow
def test_it_repeats_a_single_run(words: list[str], started: list[RunInfo], tmp_path: Path) -> None:
    main([*SMALL, *words, f"hydra.run.dir={tmp_path / 'first'}"])
    first = started[0]
    assert str(tmp_path) not in first.command
    assert set(words) <= set(shlex.split(first.command))
    again = typed(first.command, started, tmp_path / "again")
    assert again.folder != first.folder
    assert settings(again) == settings(first)
    assert again.command == first.command


@pytest.mark.slow
def test_a_job_of_a_sweep_has_its_own_command(started: list[RunInfo], tmp_path: Path) -> None:
    swept = [
        "network.channels=8,16",
        "name=a,'b c'",
        "schedule@family.schedule=constant",
        "logger.tags=[x,y]",
        "~callbacks.non_finite",
    ]
    main(["-m", *SMALL, *swept, f"hydra.sweep.dir={tmp_path / 'sweep'}"])
    jobs = list(started)
    assert len({job.command for job in jobs}) == 4
    assert [job.sweep["job"] for job in jobs if job.sweep] == list(range(4))
    for number in (0, 3):
        assert "-m" not in shlex.split(jobs[number].command)
        again = typed(jobs[number].command, started, tmp_path / f"again{number}")
        assert settings(again) == settings(jobs[number])
        assert again.sweep is None


@pytest.mark.slow
def test_a_resumed_run_has_the_whole_command_and_keeps_its_place_in_the_sweep(
    started: list[RunInfo], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main(["-m", *SMALL, "seed=5,6", f"hydra.sweep.dir={tmp_path / 'sweep'}"])
    _, job = started
    assert job.sweep is not None
    main([f"resume={job.folder}"])
    resumed = started[-1]
    assert resumed.folder == job.folder
    assert resumed.command == job.command
    assert resumed.sweep == job.sweep == {"id": str(tmp_path / "sweep"), "job": 1, "overrides": job.overrides}
    sent: dict[str, Any] = {}
    monkeypatch.setattr(tracking, "_init", lambda mode, **words: sent.update(words))
    log = tracking.wandb_log(resumed)
    assert log is not None
    log.start()
    assert (sent["group"], sent["job_type"]) == (str(tmp_path / "sweep"), "sweep")
    main([f"resume={job.folder}", "trainer.max_steps=70"])  # once more, and longer
    longer = started[-1]
    assert longer.sweep == job.sweep
    again = typed(longer.command, started, tmp_path / "again")
    assert settings(again) == settings(longer)
    assert again.config["trainer"]["max_steps"] == 70


@pytest.mark.slow
def test_a_run_record_that_is_damaged_has_no_place_in_a_sweep(started: list[RunInfo], tmp_path: Path) -> None:
    main([*SMALL, f"hydra.run.dir={tmp_path / 'run'}"])
    for content in ("", "[]", '{"sweep": 4}'):
        (tmp_path / "run" / "run.json").write_text(content)
        main([f"resume={started[0].folder}"])
        assert started[-1].sweep is None
    assert len(started) == 4


@pytest.mark.slow
def test_configuration_of_ones_own_is_part_of_the_command(started: list[RunInfo], tmp_path: Path) -> None:
    group = tmp_path / "my conf" / "network"
    group.mkdir(parents=True)
    content = {"_target_": "dncnn", "in_channels": 3, "depth": 5, "channels": 4}
    (group / "mine.yaml").write_text(yaml.safe_dump(content))
    main(["--config-dir", str(tmp_path / "my conf"), "network=mine", f"hydra.run.dir={tmp_path / 'first'}"])
    again = typed(started[0].command, started, tmp_path / "again")
    assert settings(again) == settings(started[0])
    assert again.config["network"]["depth"] == 5


def test_folders_sweepers_and_launchers_are_left_out() -> None:
    hydra = ["hydra.run.dir=/x", "hydra.sweep.dir=/y", "hydra/launcher=slurm", "hydra.mode=MULTIRUN"]
    kept = ["hydra.searchpath=[file:///my conf]", "+hydra.job.env_set.A=1"]
    assert repeating(["seed=1", "resume='/run'"], [*hydra, *kept]) == (
        "restora train seed=1 'hydra.searchpath=[file:///my conf]' +hydra.job.env_set.A=1"
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["hydra.sweep.dir=FOLDER/a"], "hydra.sweep.dir is a setting of sweeps: add -m, or name the folder"),
        (["run_dir=FOLDER/a"], "name its folder by hydra.run.dir=FOLDER"),
        (["sweep.slots=2"], "sweep.slots is a setting of sweeps: add -m"),
        (["-m", "seed=1,2", "hydra.run.dir=FOLDER/a"], "name that of the sweep, hydra.sweep.dir=FOLDER"),
        (["-m", "resume=a,b"], "resume=RUN continues one run: leave -m out"),
        (["-m", "resume=a", "seed=1,2"], "resume=RUN continues one run: leave -m out"),
        (["-m", "seed=1,2", "hydra.sweep.dir=FOLDER/file"], "hydra.sweep.dir: FOLDER/file is a file"),
        (["-m", "seed=1,2", "hydra.sweep.dir=/proc/none"], "hydra.sweep.dir: /proc cannot be written to"),
        (["hydra.run.dir=FOLDER/file"], "hydra.run.dir: FOLDER/file is a file"),
        (["hydra.run.dir=/proc/none"], "hydra.run.dir: /proc cannot be written to"),
        (["output_dir=/proc/none"], "output_dir: /proc cannot be written to"),
        (["-m", "seed=1,2", "output_dir=/proc/none"], "output_dir: /proc cannot be written to"),
    ],
)
def test_folders_of_another_kind_and_unwritable_ones_are_refused(
    words: list[str], said: str, started: list[RunInfo], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    words = [word.replace("FOLDER", str(tmp_path)) for word in words]
    assert cli.main(["train", *SMALL, *words]) == 2
    assert said.replace("FOLDER", str(tmp_path)).replace(f"dir={tmp_path}", "dir=FOLDER") in " ".join(
        capsys.readouterr().err.split()
    )
    assert not started
    assert not (tmp_path / "a").exists()
