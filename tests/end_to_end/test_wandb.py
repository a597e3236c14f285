"""What a W&B user finds: read back from the real offline files with W&B's own reader."""

import json
import os
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from warm_start import run_code, run_restora

COMMON = ["debug=fast", "experiments=quickstart/dncnn", "logger.mode=offline"]


def train(cwd: Path, *overrides: str, **environment: str) -> subprocess.CompletedProcess[str]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("WANDB_MODE", "WANDB_SILENT"):
            patch.delenv(name, raising=False)
        return run_restora("train", *overrides, cwd=cwd, RESTORA_DATA=str(cwd.parent / "data"), **environment)


def inspect(run: Path, *flags: str) -> list[dict]:
    """The records of an offline run, by `wandb leet inspect`."""
    done = run_code("from wandb.cli.leet import leet; leet()", "inspect", "--json", *flags, run)
    assert done.returncode == 0, done.stdout
    text = done.stdout.strip()
    try:
        return [json.loads(text)]
    except json.JSONDecodeError:
        return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wandb") / "work"
    folder.mkdir()
    fault = f"+callbacks.fault={{_target_:fault_callbacks.Once,step:2,marker:{folder}/failed}}"
    words = ["seed=1,2", fault, "sweep.retries=1", f"hydra.sweep.dir={folder}/sweep"]
    path = f"{Path(__file__).parents[1]}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    done = train(folder, "-m", *COMMON, *words, PYTHONPATH=path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "retry 1 of 1" in done.stderr
    return folder / "sweep"


def test_one_run_per_job_grouped_by_sweep(sweep: Path) -> None:
    """Also of the job that failed and was tried again, which has two parts of one run."""
    jobs = sorted(path.parent for path in sweep.rglob("run.json"))
    identities = []
    for job, count in zip(jobs, (2, 1), strict=True):
        parts = sorted(job.glob("wandb/offline-run-*"))  # of one second: W&B numbers those after the first
        assert len(parts) == count
        (identity,) = {file.stem.removeprefix("run-") for part in parts for file in part.glob("run-*.wandb")}
        assert json.loads((job / "run.json").read_text())["wandb"]["id"] == identity
        identities.append(identity)
        inspected = [json.dumps(inspect(part)) for part in parts]
        assert all(str(sweep) in text for text in inspected)  # the group
        assert "val/psnr" in inspected[-1]
        assert "validation photos" in inspected[-1]
        assert "checkpoint-" in inspected[-1]  # the artifact
    assert len(set(identities)) == 2


def test_a_run_of_a_wandb_sweep_is_the_one_that_its_agent_names(tmp_path: Path) -> None:
    """The agent's own functions make the command line and the file of parameters, from the command of the
    how-to page; what they stand for is trained."""
    from wandb import env
    from wandb.sdk.launch.sweeps import utils
    from wandb.sdk.lib import config_util

    page = (Path(__file__).parents[2] / "docs" / "how-to" / "wandb.md").read_text()
    block = page.partition("```yaml\n")[2].partition("```")[0]
    settings = yaml.safe_load(block)
    args = {"family.optimizer.lr": {"value": 0.003}, "network.depth": {"value": 4}}
    assert set(args) == set(settings["parameters"])
    config_util.save_config_file_from_dict(str(tmp_path / "config-abc123.yaml"), args)
    values = utils.create_sweep_command_args({"args": args})
    words: list[str] = []
    for word in utils.create_sweep_command(settings["command"]):
        words += values.get(word[2:-1], []) if word.startswith("${") else [word]
    assert words[:2] == ["restora", "train"]
    offline = [word for word in words[2:] if word != "logger.mode=online"]
    named = {
        env.SWEEP_ID: "s1",
        env.RUN_ID: "abc123",
        env.SWEEP_PARAM_PATH: str(tmp_path / "config-abc123.yaml"),
    }
    (tmp_path / "work").mkdir()
    done = train(tmp_path / "work", *offline, *COMMON[::2], f"hydra.run.dir={tmp_path}/run", **named)
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["wandb"]["id"] == "abc123"
    assert record["config"]["family"]["optimizer"]["lr"] == 0.003
    assert record["config"]["network"]["depth"] == 4
    (made,) = (tmp_path / "run").glob("wandb/offline-run-*")
    assert made.name.endswith("-abc123")


def test_online_without_a_key_goes_on_offline_and_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    home = tmp_path / "home"
    home.mkdir()
    started = time.monotonic()
    words = [*COMMON, "logger.mode=online", f"hydra.run.dir={folder}/run"]
    done = train(folder, *words, HOME=str(home), WANDB_API_KEY="")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no API key" in done.stdout + done.stderr
    assert json.loads((folder / "run" / "run.json").read_text())["wandb"]["mode"] == "offline"
    assert time.monotonic() - started < 120


def test_online_without_a_network_goes_on_offline_within_seconds(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    words = [*COMMON, "logger.mode=online", f"hydra.run.dir={folder}/run"]
    # a port of this machine that nobody listens on
    done = train(folder, *words, WANDB_API_KEY="0" * 40, WANDB_BASE_URL="http://127.0.0.1:9")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "cannot be reached" in done.stdout + done.stderr
    assert json.loads((folder / "run" / "run.json").read_text())["wandb"]["mode"] == "offline"
