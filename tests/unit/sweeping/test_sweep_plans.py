"""Which combinations are one job, and how slots share a machine."""

import json
import os
import sys
import threading
import time
from contextlib import redirect_stderr
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf

from restora import vocabulary
from restora.cli import main
from restora.config import ConfigError
from restora.files import write_json
from restora.run_state import Occupied, read_record, sole_run
from restora.sweeping import command, executor, planning, running
from restora.sweeping.command import with_space
from restora.sweeping.executor import Slots, slots_for
from restora.sweeping.on_ray import connected, gpus_of, share
from restora.sweeping.plan import Damaged, Job, Plan, identity, jobs_in, read_plan
from restora.sweeping.slurm import tasks_of
from restora.sweeping.status import _kind
from restora.training import starting
from restora.training.record import RunRecord
from restora.training.resuming import what_to_do

TINY = ["network=dncnn_small", "network.depth=4", "network.channels=4", "logger.mode=disabled"]


def test_a_job_is_known_by_what_decides_its_result() -> None:
    config: dict[str, Any] = {
        "run_dir": "outputs/a/0_x",
        "threads": 1,
        "data": {"workers": 0, "store_dir": "/x", "patch_size": 8},
        "callbacks": {"best": {"directory": "outputs/a/0_x/checkpoints"}},
    }
    moved = {
        "run_dir": "/else/0_x",
        "threads": None,
        "data": {"workers": 4, "store_dir": "/y", "patch_size": 8},
        "callbacks": {"best": {"directory": "/else/0_x/checkpoints"}},
    }
    assert identity(config) == identity(moved)
    assert identity(config) != identity({**moved, "data": {**moved["data"], "patch_size": 9}})


def test_the_command_of_a_sweep_names_the_folders_of_configuration(tmp_path: Path) -> None:
    sources = [
        SimpleNamespace(provider="command-line", path="/my conf"),
        SimpleNamespace(provider="main", path="/x"),
    ]
    job = SimpleNamespace(env_set=OmegaConf.create({}), chdir=None)
    hydra = SimpleNamespace(job=job, runtime=SimpleNamespace(config_sources=sources))
    first: Any = SimpleNamespace(
        hydra=SimpleNamespace(hydra=hydra), settings={}, config={"plugins": ["mylab"]}
    )
    plan = planning.new_plan(tmp_path, ["seed=1,2", "plugins=[mylab]"], first)
    assert plan.command == "restora train --config-dir '/my conf' -m seed=1,2 'plugins=[mylab]'"


def test_a_failed_sweep_says_how_to_retry_it_with_its_plugins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = {"executor": "local", "slots": 1, "options": {}, "detach": False, "search": None}
    plan = Plan(tmp_path, "restora train -m", [], "/", settings, plugins=["mylab"])
    code = iter([1, 130])
    failing = SimpleNamespace(run=lambda source: next(code))
    monkeypatch.setattr(running, "executor_of", lambda *_, **__: failing)
    for words in ("--retry-failed", "--resume"):
        running.run(plan, running.Listed.of([]), jobs=1, config={})
        assert f"restora sweep {tmp_path} --plugin=mylab {words}" in "".join(capfd.readouterr())


def test_a_plan_that_is_damaged_is_said_and_its_jobs_are_found_in_their_folders(tmp_path: Path) -> None:
    settings = {"executor": "local", "slots": 1, "options": {}, "detach": False, "search": None}
    config = {"network": {"_target_": "dncnn"}, "seed": 3}
    job = Job(4, "4_a", identity(config), ["seed=3"])
    Plan(tmp_path, "restora train -m seed=3", ["seed=3"], "/", settings, jobs=[job]).write()
    assert read_plan(tmp_path).jobs == [job]
    file = tmp_path / "sweep.json"
    good = json.loads(file.read_text())
    for text in (
        *("", "[]", json.dumps(good)[:200], '{"a":' * 100_000),
        *(json.dumps(good | more) for more in ({"x": 1}, {"settings": {}}, {"hours": []}, {"jobs": [7]})),
        json.dumps(good | {"jobs": [good["jobs"][0] | {"number": "x"}]}),
    ):
        file.write_text(text)
        with pytest.raises(Damaged, match="give the command of the sweep again, with hydra.sweep.dir="):
            read_plan(tmp_path)
    file.write_text(json.dumps(good | {"format": 2}))
    with pytest.raises(ValueError, match="resume with the version that made it"):
        read_plan(tmp_path)
    (tmp_path / "4_a").mkdir()
    record = {"sweep": {"job": 4, "overrides": ["seed=3"]}, "config": config}
    (tmp_path / "4_a" / "run.json").write_text(json.dumps(record))
    (tmp_path / "5_b").mkdir()
    (tmp_path / "5_b" / "run.json").write_text("[]")
    assert jobs_in(tmp_path) == [job]
    for name, seed in (("4_b", 5), ("other/0_a", 6)):  # of another sweep; of one with a plan of its own
        write_json(tmp_path / name / "run.json", record | {"config": config | {"seed": seed}})
    (tmp_path / "other" / "sweep.json").touch()
    assert [(job.number, job.name) for job in jobs_in(tmp_path)] == [(4, "4_a"), (5, "4_b")]


@pytest.mark.parametrize("bf16", [False, True])
def test_a_job_whose_machine_decides_the_precision_stays_the_same_job(
    bf16: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its record says what it was, also of a job that goes on from its folder on another machine; and a plan
    that was lost has the same jobs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "run", lambda *_, **__: 0)
    monkeypatch.setattr(starting, "train", lambda _, info: RunRecord(info).write() or 0.0)
    words = ["train", "-m", *TINY, "precision=auto,float32", "hydra.sweep.dir=sweep"]
    assert main(words) == 0
    plan = read_plan(tmp_path / "sweep")
    queued = [read_record(plan.path(job)) for job in plan.jobs]
    for here in (bf16, False):
        monkeypatch.setattr(vocabulary, "has_bfloat16", lambda _, found=here: found)
        for job in plan.jobs:
            starting.start_folder(plan.path(job))
    records = [read_record(plan.path(job)) for job in plan.jobs]
    assert [record["config"]["trainer"]["precision"] for record in records] == ["auto", "float32"]
    assert [record["precision"] for record in records] == ["bf16-mixed" if bf16 else "32-true", "32-true"]
    assert [_kind(record) for record in records] == [_kind(record) for record in queued]
    (plan.folder / "sweep.json").unlink()
    assert main(words) == 0
    assert read_plan(plan.folder).jobs == plan.jobs


def test_slots_share_cores_and_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "cores", lambda: 8)
    assert slots_for(None, gpus=[], devices=1) == Slots()
    assert slots_for(3, gpus=[], devices=1) == Slots(3, 2)
    assert slots_for(16, gpus=[], devices=1).threads == 1
    assert slots_for(None, gpus=["0", "1", "2", "3"], devices=2).devices == (("0", "1"), ("2", "3"))
    shared = slots_for(4, gpus=["a", "b"], devices=1)
    assert [shared.environment(slot)["CUDA_VISIBLE_DEVICES"] for slot in range(4)] == ["a", "b", "a", "b"]
    assert shared.threads == 2


def test_tasks_and_shares_of_a_cluster_follow_the_devices() -> None:
    assert tasks_of({"accelerator": "gpu", "devices": 4}) == 4
    assert tasks_of({"accelerator": "cpu", "devices": "auto"}) == 1
    with pytest.raises(ConfigError, match=r"set trainer.devices=N"):
        tasks_of({"accelerator": "gpu", "devices": "auto"})
    nodes = [{"CPU": 16, "GPU": 4}, {"CPU": 8, "GPU": 4}]
    gpu = {"trainer": {"accelerator": "gpu", "devices": 2}}
    assert [gpus_of(nodes, config) for config in (gpu, {"trainer": {"accelerator": "cpu"}})] == [2, 0]
    with pytest.raises(ConfigError, match="no machine of the Ray cluster has 8 GPUs"):
        gpus_of(nodes, {"trainer": {"accelerator": "gpu", "devices": 8}})
    assert share(nodes, {2}, None) == (4, 6)
    assert share(nodes, {0}, None) == (2, 8)
    assert share(nodes, {0, 1, 4}, None) == (8, 3)
    assert share(nodes, {0}, 24) == (24, 1)


def test_ray_is_started_here_unless_a_cluster_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray itself would look for the last cluster of this machine first, which may be dead."""
    asked: list[dict[str, Any]] = []
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=lambda **options: asked.append(options)))
    connected({})
    connected({"address": "auto"})
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    connected({})
    assert [options.get("address") for options in asked] == ["local", "auto", None]

    def late(**_: Any) -> None:
        raise Exception("The current node timed out during startup.")

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=late))
    with pytest.raises(ConfigError, match="Ray: The current node timed out"):
        connected({})


def test_jobs_whose_records_have_lost_values_are_listed_with_the_others(tmp_path: Path, capsys: Any) -> None:
    whole = {
        "status": "finished",
        "config": {"data": {"patch_size": 8}, "trainer": {"max_steps": 9}},
        "cost": {"fit_seconds": 9.0, "share": 1.0},
        "metrics": {"best": {"val/psnr": 28.0}},
    }
    lost = [
        {key: value} for key in ("config", "cost", "metrics", "precision") for value in ("x", [1], 1, None)
    ]
    lost += [{"config": {"data": 1, "trainer": "x", "monitor": 3}}, {"metrics": {"best": {"val/psnr": "x"}}}]
    settings = {"executor": "local", "slots": 1, "options": {}, "detach": False, "search": None}
    jobs = [Job(number, f"{number}_a", str(number), [f"seed={number}"]) for number in range(len(lost) + 1)]
    Plan(tmp_path, "", [], "", settings, jobs=jobs).write()
    for job, change in zip(jobs, [{}, *lost], strict=True):
        (tmp_path / job.name).mkdir()
        write_json(tmp_path / job.name / "run.json", whole | change)
    assert main(["sweep", str(tmp_path)]) == 0
    assert f"{len(jobs)} finished" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("sweep.executor=pbs", "one of local, slurm, ray"),
        ("sweep.detach=true", "no queue"),
        ("sweep.slots=0", "sweep.slots must be a whole number from 1 on, or null, got 0"),
        ("sweep.slots=1.5", "sweep.slots must be a whole number from 1 on, or null, got 1.5"),
        ("sweep.retries=-1", "sweep.retries must be a whole number from 0 on, got -1"),
        ("sweep.limit_hours=many", "sweep.limit_hours must be a number from 0 on, or null, got 'many'"),
        ("hydra.sweep.dir=run", "run is the folder of a run: name another one, hydra.sweep.dir=FOLDER"),
        ("+sweep.options.time=1", "sweep.executor=slurm or ray"),
        ("hydra.sweep.subdir=${name}", "gives two jobs the folder dncnn_small"),
    ],
)
def test_what_cannot_be_run_is_said(
    words: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    assert main(["train", "-m", *TINY, "seed=1,2", words]) == 2
    assert said in capsys.readouterr().err


def test_a_configuration_that_has_changed_is_said(tmp_path: Path, capsys: Any) -> None:
    before, now, other = (Job(n, f"{n}_a", f"{n}", [f"seed={n % 2}"]) for n in (0, 2, 3))
    plan = Plan(tmp_path, "", [], "", {}, jobs=[before, now, other])
    command._say_changed(plan, [now])
    assert "changed since 0_a was planned" in capsys.readouterr().err
    command._say_changed(plan, [before, now])
    assert capsys.readouterr().err == ""


def test_jobs_of_before_an_argument_came_stay_the_same_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """A network and a schedule gained arguments with defaults; the same command goes on with the sweep, also
    where its folder is not named. Another value is another job, and so is a part that was added."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "run", lambda *_, **__: 0)
    words = ["train", "-m", *TINY, "seed=1,2,3"]
    assert main(words) == 0
    (path,) = tmp_path.rglob("sweep.json")
    before = read_plan(path.parent)

    def change(job: Job, key: str, value: Any) -> None:
        """None takes the key away."""
        place = before.path(job) / "run.json"
        record = json.loads(place.read_text())
        *above, last = key.split(".")
        node = record["config"]
        for name in above:
            node = node[name]
        del node[last]
        node.update({} if value is None else {last: value})
        write_json(place, record)

    for job in before.jobs:
        change(job, "network.batch_norm", None)
        change(job, "family.schedule.hold", None)
    old = [Job(job.number, job.name, f"before{job.number}", job.overrides) for job in before.jobs]
    Plan(**{**vars(before), "jobs": old}).write()
    assert main(words) == 0
    (same,) = tmp_path.rglob("sweep.json")
    assert read_plan(same.parent).jobs == before.jobs

    Plan(**{**vars(before), "jobs": old}).write()
    change(old[0], "network.depth", 5)
    change(old[1], "objective", {})
    capsys.readouterr()
    assert main([*words, f"hydra.sweep.dir={path.parent}"]) == 0
    assert f"changed since {old[0].name}, {old[1].name} was planned" in capsys.readouterr().err
    assert [job.number for job in read_plan(path.parent).jobs] == [0, 1, 2, 3, 4]


def test_the_same_command_given_twice_at_once_is_one_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second says who runs it, and ends; jobs would be trained where `run` is called."""
    import restora.training.build  # noqa: F401 -- once for both

    def trained(plan: Plan, *_: Any, **__: Any) -> int:
        (plan.folder / "trained").touch()
        until = time.monotonic() + 60
        while not (tmp_path / "enough").exists() and time.monotonic() < until:
            time.sleep(0.05)
        return 0

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "run", trained)
    for _ in range(2):
        if os.fork() == 0:
            try:
                with (tmp_path / "said").open("a") as said, redirect_stderr(said):
                    code = main(["train", "-m", *TINY, "seed=1,2"])
                os._exit(code)
            finally:
                os._exit(9)
    codes = [os.waitstatus_to_exitcode(os.wait()[1])]
    (tmp_path / "enough").touch()
    codes.append(os.waitstatus_to_exitcode(os.wait()[1]))
    assert codes == [2, 0]
    assert "is being trained in by process" in (tmp_path / "said").read_text()
    assert len(list(tmp_path.rglob("trained"))) == len(list(tmp_path.rglob("sweep.json"))) == 1


def test_a_sweep_that_another_process_runs_is_followed_and_stopped(tmp_path: Path, capsys: Any) -> None:
    """From another terminal: the process that runs it ends when the file `.stop` is there."""
    settings = {"executor": "local", "slots": 1, "options": {}, "detach": False, "search": None}
    Plan(tmp_path, "", [], "/", settings, jobs=[Job(0, "0_a", "x", ["seed=1"])]).write()
    if (child := os.fork()) == 0:
        try:
            with sole_run(tmp_path):
                (tmp_path / "runs").touch()
                until = time.monotonic() + 60
                while not (tmp_path / ".stop").exists() and time.monotonic() < until:
                    time.sleep(0.05)
            os._exit(0 if (tmp_path / ".stop").exists() else 1)
        finally:
            os._exit(9)
    while not (tmp_path / "runs").exists():
        time.sleep(0.05)
    stopping = threading.Timer(0.5, (tmp_path / ".stop").touch)
    stopping.start()
    assert main(["sweep", str(tmp_path), "--follow"]) == 0  # until it has ended
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    said = capsys.readouterr()
    assert "1 queued" in said.err
    assert "1 queued" in said.out
    assert main(["sweep", str(tmp_path), "--stop"]) == 0
    assert "nothing is running in" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["[]", "{", "{}", '{"status": "queued", "config": 1}'])
def test_a_job_whose_record_is_damaged_is_planned_again(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "run", lambda *_, **__: 0)
    words = ["train", "-m", *TINY, "seed=1,2", "hydra.sweep.dir=sweep"]
    assert main(words) == 0
    path = tmp_path / "sweep" / "1_dncnn_small" / "run.json"
    whole = json.loads(path.read_text())
    path.write_text(text)
    assert main(["sweep", "sweep", "--resume"]) == 2
    assert "run.json is damaged: give the command of the sweep again: restora" in capsys.readouterr().err
    assert main(words) == 0
    assert json.loads(path.read_text())["config"] == whole["config"]


@pytest.mark.parametrize("action", ["--resume", "--retry-failed"])
def test_a_resumed_sweep_prints_no_json(action: str, tmp_path: Path, capsys: Any) -> None:
    settings = {"executor": "local", "slots": 1, "options": {}, "detach": False, "search": None}
    Plan(tmp_path, "restora train -m", [], "/", settings).write()
    assert main(["sweep", str(tmp_path), action, "--json"]) == 2
    assert "--json shows a sweep: leave it out" in capsys.readouterr().err


@pytest.mark.parametrize(
    "word", ["name=a/../../../x,b", "hydra.sweep.subdir=../${name}", "hydra.sweep.subdir=/tmp/x"]
)
def test_a_job_stays_in_the_folder_of_its_sweep(
    word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "-m", *TINY, "seed=1,2", word, "hydra.sweep.dir=outputs/sweep"]) == 2
    assert "must be inside the sweep's" in capsys.readouterr().err
    assert not list(tmp_path.rglob("run.json"))


def test_a_job_that_slurm_has_moved_to_another_machine_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = {"host": "elsewhere", "pid": 1, "heartbeat": datetime.now(UTC).isoformat(), "slurm_job": "7"}
    record = {"status": "running", "process": process, "config": {}}
    (tmp_path / "run.json").write_text(json.dumps(record))
    with pytest.raises(Occupied, match=r'on elsewhere.* set "status" to "stopped" in '):
        what_to_do(tmp_path, {}, asked=False, retry=False)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert what_to_do(tmp_path, {}, asked=False, retry=False) == "go on"


def test_the_space_of_a_preset_gives_way_to_the_command_line() -> None:
    assert with_space(["seed=3"], {"seed": "1,2", "name": "a,b"}) == ["name=a,b", "seed=3"]


def test_a_sweep_that_cannot_be_written_is_not_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    settings = {"executor": "local", "slots": 1, "options": {}, "detach": False, "search": None}
    Plan(tmp_path, "restora train -m seed=1", [], "/", settings).write()
    monkeypatch.setattr("os.access", lambda path, mode: mode != os.W_OK)
    assert main(["sweep", str(tmp_path), "--resume"]) == 2
    assert "is not writable: copy the sweep" in capsys.readouterr().err
