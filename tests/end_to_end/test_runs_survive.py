"""Run folders are claimed, locked and believed only as far as they are whole; what a stranger's run folder
says runs no code."""

import csv
import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from fault_callbacks import EVENTS
from test_resume import COMMON, SLOW, finish, rows, start, wait_for_step

from restora.cli import main
from restora.run_state import claim, is_locked, sole_run

QUICK = [*COMMON, "trainer.max_steps=6", "trainer.val_check_interval=3"]


@pytest.fixture(scope="module")
def data(shared_data_dir: Path) -> Path:
    return shared_data_dir


@pytest.fixture(autouse=True)
def here(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that a test runs in this process leave its folder and environment as they were."""
    monkeypatch.setenv("RESTORA_DATA", str(data))
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    finish(start(folder, data, *QUICK))
    return folder


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())


def copied(run: Path, target: Path, **changes: Any) -> Path:
    shutil.copytree(run, target)
    (target / "run.json").write_text(json.dumps(record(target) | changes))
    return target


def train(*words: str) -> int:
    return main(["train", *words])


def test_runs_that_start_in_the_same_second_have_folders_of_their_own(data: Path, tmp_path: Path) -> None:
    assert [claim(tmp_path / "x").name for _ in range(3)] == ["x", "x_2", "x_3"]
    for seed in (1, 2):
        words = [*QUICK, f"seed={seed}", "trainer.max_steps=3", f"output_dir={tmp_path}/out"]
        assert train(*words, f"name=n{seed}") == 0
    runs = [record(path.parent) for path in (tmp_path / "out").rglob("run.json")]
    assert sorted(run["name"] for run in runs) == ["n1", "n2"]


def test_an_occupied_folder_is_skipped_gone_on_with_or_refused(
    finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = copied(finished, tmp_path / "run")
    before = record(folder)
    overrides = (folder / ".hydra" / "overrides.yaml").read_text()
    assert train(*QUICK, f"hydra.run.dir={folder}") == 0
    assert "finished already: skipped" in capfd.readouterr().err
    assert record(folder) == before

    assert train(*QUICK, "family.optimizer.lr=0.5", f"hydra.run.dir={folder}") == 2
    assert "another configuration (family.optimizer.lr)" in capfd.readouterr().err
    assert record(folder) == before
    assert (folder / ".hydra" / "overrides.yaml").read_text() == overrides
    assert train(*QUICK, "trainer.max_steps=9", f"hydra.run.dir={folder}") == 2
    assert f"train it for longer with resume={folder} trainer.max_steps=9" in capfd.readouterr().err

    failed = copied(finished, tmp_path / "failed", status="failed", error="ValueError: the disk")
    assert train(*QUICK, f"hydra.run.dir={failed}") == 2
    assert "retry_failed=true" in capfd.readouterr().err
    assert train(*QUICK, f"hydra.run.dir={failed}", "retry_failed=true") == 0
    assert record(failed)["status"] == "finished"


def test_a_folder_that_is_trained_in_is_refused(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = start(folder, data, *COMMON, SLOW[0], "+callbacks.slow.seconds=3")
    wait_for_step(process, folder, 2)
    assert is_locked(folder)
    output = finish(start(folder, data, f"resume={folder}", "callbacks.slow=null"), expected=2)
    assert f"{folder} is being trained in by process {process.pid}" in output
    process.kill()
    process.communicate()
    assert not is_locked(folder)
    with sole_run(folder):
        assert is_locked(folder)


def test_a_second_signal_ends_at_once(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = start(folder, data, *COMMON, SLOW[0], "+callbacks.slow.seconds=20")
    deadline = time.monotonic() + 120
    while not (folder / "checkpoints").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(2)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=10)
    assert process.returncode == -signal.SIGTERM


DAMAGES = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(os.urandom(path.stat().st_size)),
    "missing": lambda path: path.unlink(),
}


@pytest.mark.parametrize(
    "file", ["checkpoints/last.ckpt", "run.json", "metrics.csv", ".hydra/overrides.yaml"]
)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named_and_the_rest_is_used(
    finished: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    file: str,
    damage: str,
) -> None:
    folder = copied(finished, tmp_path / "run", status="stopped")
    DAMAGES[damage](folder / file)
    assert train(f"resume={folder}") == 0
    said = capfd.readouterr()
    if damage != "missing":
        assert Path(file).name in said.out + said.err + caplog.text
    assert "Traceback" not in said.err
    after, before = record(folder), record(finished)
    assert after["status"] == "finished"
    assert after["test"]["psnr"] == before["test"]["psnr"]
    torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)  # whole again
    if file != "metrics.csv" and file != "checkpoints/last.ckpt":  # as when it is killed in its last test
        assert after["metrics"] == before["metrics"]
        assert after["cost"]["samples"] == before["cost"]["samples"]
        assert rows(folder) == rows(finished)
    with (folder / "metrics.csv").open() as table:
        steps = [
            (row["step"], bool(row["val/psnr"]), bool(row.get("test/psnr"))) for row in csv.DictReader(table)
        ]
    assert len(set(steps)) == len(steps)


def test_a_flipped_bit_in_a_checkpoint_is_recognised(
    finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = copied(finished, tmp_path / "run", status="stopped")
    path = folder / "checkpoints" / "last.ckpt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert train(f"resume={folder}") == 0
    assert "last.ckpt is damaged" in "".join(capfd.readouterr())


def test_without_any_checkpoint_a_run_starts_anew_cleanly(finished: Path, tmp_path: Path) -> None:
    folder = copied(finished, tmp_path / "run", status="running", process={"host": "elsewhere"})
    shutil.rmtree(folder / "checkpoints")
    assert train(f"resume={folder}") == 0
    for name in ("cost", "metrics", "test"):
        after, before = record(folder)[name], record(finished)[name]
        if name == "cost":
            assert after["samples"] == before["samples"]
        elif name == "metrics":
            assert after == before
    assert len((folder / "metrics.csv").read_text().splitlines()) == len(
        (finished / "metrics.csv").read_text().splitlines()
    )


def test_keys_that_change_on_resume_hold_are_named_and_recorded(
    finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = copied(finished, tmp_path / "run", status="stopped")
    assert train(f"resume={folder}", "family.optimizer.lr=0", "trainer.max_steps=9") == 0
    said = "".join(capfd.readouterr())
    assert "family.optimizer.lr is 0" in said
    changes = record(folder)["changes"]
    assert changes[0]["step"] == 6
    assert changes[0]["keys"]["trainer.max_steps"] == {"from": 6, "to": 9}
    then, now = (
        torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for run in (finished, folder)
    )
    weights = [key for key in then if key.startswith("network.") and key.endswith("weight")]
    assert all(torch.equal(then[key], now[key]) for key in weights), "a rate of zero moves nothing"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["network.channels=12"], "network.channels was 8, is 12. Leave that out, or start another run"),
        (["trainer.max_steps=5"], "has trained for 6 steps already: set more than 6"),
        (["trainer.max_steps=8", "data.source=folder", "data.source.root=/nowhere"], "/nowhere"),
        (["trainer.max_steps=8", "data.patch_size=4096"], "smaller than 4096x4096"),  # found in fit
    ],
)
@pytest.mark.parametrize("status", ["finished", "stopped"])
def test_a_run_that_cannot_be_resumed_so_stays_as_it_was(
    finished: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
    status: str,
) -> None:
    folder = copied(finished, tmp_path / "run", status=status)

    def content() -> dict[str, bytes]:
        files = [folder / "run.json", *(folder / ".hydra").iterdir()]
        return {path.name: path.read_bytes() for path in files}

    before = content()
    assert train(f"resume={folder}", *words) == 2
    assert message in "".join(capfd.readouterr())
    assert content() == before
    assert train(f"resume={folder}", "trainer.max_steps=8") == 0
    assert record(folder)["status"] == "finished"
    assert record(folder)["cost"]["steps"] == 8


def test_relative_paths_are_those_of_the_start_and_other_photos_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import skimage

    samples = Path(skimage.__file__).parent / "data"
    for place, names in (
        ("a", ("astronaut.png", "coffee.png", "rocket.jpg", "chelsea.png")),
        ("b", ("motorcycle_left.png", "motorcycle_right.png", "rocket.jpg", "coffee.png")),
    ):
        (tmp_path / place / "photos").mkdir(parents=True)
        for name in names:
            shutil.copy(samples / name, tmp_path / place / "photos")
    folder = tmp_path / "run"
    monkeypatch.chdir(tmp_path / "a")
    words = [*QUICK, "data=folder", "data.source.root=photos", "data.val_crop=48", f"hydra.run.dir={folder}"]
    words = [word for word in words if not word.startswith(("data.steps", "data.batch"))]
    assert train(*words, "data.batch_size=4") == 0, capfd.readouterr().err
    photos = record(folder)["photos"]
    monkeypatch.chdir(tmp_path / "b")
    assert train(f"resume={folder}", "trainer.max_steps=7") == 0
    assert record(folder)["photos"] == photos
    shutil.rmtree(tmp_path / "a" / "photos")
    shutil.copytree(tmp_path / "b" / "photos", tmp_path / "a" / "photos")
    capfd.readouterr()
    assert train(f"resume={folder}", "trainer.max_steps=8") == 2
    assert "not those that this run was trained with" in capfd.readouterr().err


def test_diverging_fails_with_one_message_and_keeps_finite_weights(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = [*QUICK, "family.optimizer.lr=1e30", "trainer.max_steps=40", "trainer.val_check_interval=10"]
    assert train(*words, f"hydra.run.dir={tmp_path / 'run'}") == 2
    said = capfd.readouterr().err
    assert "family.optimizer.lr" in said
    assert "Traceback" not in said
    assert "Error executing job" not in said, "Hydra's line of overrides"
    assert record(tmp_path / "run")["status"] == "failed"
    for path in (tmp_path / "run").rglob("*.ckpt"):
        state = torch.load(path, weights_only=True)["state_dict"]
        assert all(torch.isfinite(value).all() for value in state.values() if value.is_floating_point())


def test_a_folder_that_is_moved_while_it_is_trained_in_stays_one(
    finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder, place = tmp_path / "run", tmp_path / "elsewhere"
    EVENTS["move"] = lambda: folder.rename(place)
    fault = [
        f"+callbacks.fault.{word}" for word in ("_target_=fault_callbacks.AtStep", "step=2", "event=move")
    ]
    assert train(*QUICK, *fault, f"hydra.run.dir={folder}") == 2
    assert "was moved or deleted during training" in capfd.readouterr().err
    assert not list(folder.rglob("*")), "half a run in the old place"
    assert train(f"resume={place}", "callbacks.fault=null") == 0
    assert rows(place) == rows(finished)


# --- a stranger's run folder -----------------------------------------------------------------------------


def with_overrides(finished: Path, target: Path, *words: str) -> Path:
    folder = copied(finished, target, status="stopped")
    path = folder / ".hydra" / "overrides.yaml"
    path.write_text(path.read_text() + "".join(f"- {json.dumps(word)}\n" for word in words))
    saved = record(folder)
    (folder / "run.json").write_text(json.dumps(saved | {"overrides": [*saved["overrides"], *words]}))
    return folder


@pytest.mark.parametrize(
    "words",
    [
        ["+callbacks.x._target_=subprocess.getoutput", "+callbacks.x.cmd='touch OWNED'"],
        ["+callbacks.x._target_=restora.cli.main", "+callbacks.x.argv=[train]"],
        ["++data.source._target_=os.system", "++data.source.command='touch OWNED'"],
        ["+part=os", "+callbacks.x._target_='${part}.system'", "+callbacks.x.command='touch OWNED'"],
        ["hydra.callbacks.x._target_=os.system"],
        ["+hydra.job.env_set.LD_PRELOAD=evil.so"],
        ["hydra/launcher=joblib"],
        ["hydra.searchpath=[file:///tmp]"],
        ["--experimental-rerun=evil.pickle"],
        ["--config-dir=/tmp"],
        ["plugins=[evil]"],
        ["+callbacks.x=${hydra:job}"],
        ["name=${oc.env:HOME}"],
        ["+a=oc.env", "name='${${a}:HOME}'"],
        ["callbacks.last.directory=/elsewhere"],
        ["callbacks.test_images.directory='${run_dir}/../../elsewhere'"],
    ],
    ids=lambda words: words[0].replace("/", "_")[:40],
)
def test_overrides_of_a_file_run_no_code(
    finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], words: list[str]
) -> None:
    folder = with_overrides(
        finished, tmp_path / "run", *[w.replace("OWNED", str(tmp_path / "o")) for w in words]
    )
    assert train(f"resume={folder}") == 2
    assert not (tmp_path / "o").exists()
    assert "Traceback" not in capfd.readouterr().err


class Runs:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return exec, (f"open({str(self.marker)!r}, 'w')",)


@pytest.mark.parametrize("name", ["last", "best"])
def test_a_pickled_object_in_a_checkpoint_is_not_loaded(
    finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    folder, marker = copied(finished, tmp_path / "run", status="stopped"), tmp_path / "ran"
    path = folder / "checkpoints" / f"{name}.ckpt"
    torch.save(torch.load(path, weights_only=True) | {"extra": Runs(marker)}, path)
    code = train(f"resume={folder}")
    said = capfd.readouterr()
    assert not marker.exists()
    assert f"{name}.ckpt" in said.out + said.err
    assert code == (0 if name == "last" else 2)


@pytest.mark.parametrize("command", ["evaluate", "export", "report"])
def test_a_hostile_description_starts_nothing(
    finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], command: str
) -> None:
    """A command of ours under `_target_`, which would start a training with the stranger's words."""
    started = tmp_path / "started"
    hostile = {"_target_": "restora.cli.main", "argv": ["train", *QUICK, f"hydra.run.dir={started}"]}
    folder = copied(finished, tmp_path / "run")
    path = folder / "checkpoints" / "best.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["restora"]["degradation"] = hostile
    torch.save(checkpoint, path)
    saved = record(folder)
    saved["config"]["degradation"] = saved["config"]["data"]["source"] = hostile
    (folder / "run.json").write_text(json.dumps(saved))
    shutil.rmtree(folder / "images")
    words = {
        "evaluate": [
            f"checkpoint={path}",
            f"benchmark.root={finished / 'images'}",
            "benchmark=degraded",
            f"output={tmp_path / 'o'}",
        ],
        "export": [str(folder), str(tmp_path / "model"), "--no-onnx"],
        "report": [str(folder), "--baselines", "--output", str(tmp_path / "r.html")],
    }
    main([command, *words[command]])
    assert not started.exists()
    capfd.readouterr()
