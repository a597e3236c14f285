"""Before the first step a run compares what it learns from with what judges it, says so and records it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from restora.artifact.card import write_card
from restora.artifact.checkpoint import locate
from restora.artifact.export import export_model
from restora.cli import main
from restora.config import ConfigError, compose
from restora.data.module import PhotoData
from restora.data.sources import Folder
from restora.degradations.identity import Identity
from restora.training.build import check_before_training
from restora.training.leakage import check_leakage


def save(photo: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(photo)).save(path)


@pytest.fixture
def photos(tmp_path: Path) -> PhotoData:
    """Two training photos; one of them, half as large, is also held out."""
    root = tmp_path / "photos"
    save(data.astronaut(), root / "train" / "astronaut.png")
    save(data.coffee(), root / "train" / "coffee.png")
    save(data.rocket(), root / "val" / "rocket.png")
    save(data.coffee()[::2, ::2], root / "test" / "cup.png")
    save(data.chelsea(), root / "test" / "chelsea.png")
    return PhotoData(
        source=Folder(root=root),
        store_dir=tmp_path / "packed",
        degradation=Identity(),
        patch_size=32,
        batch_size=1,
        steps_per_epoch=1,
    )


def test_held_out_photos_and_named_folders_are_compared(photos: PhotoData, tmp_path: Path) -> None:
    save(data.astronaut()[:, ::-1], tmp_path / "sets" / "Space" / "mirrored.png")
    save(data.camera(), tmp_path / "more" / "camera.png")
    report = check_leakage(photos, testsets=tmp_path / "sets", folders=[tmp_path / "more"])
    assert report.testsets == {
        "this run's validation set": 1, "this run's held-out set": 2, "Space": 1, "more": 1
    }  # fmt: skip
    assert {name: [(leak.training, leak.test) for leak in leaks] for name, leaks in report.leaks.items()} == {
        "this run's held-out set": [("coffee", "cup")],
        "Space": [("astronaut", "mirrored.png")],
    }


def test_folders_of_one_name_are_kept_apart(photos: PhotoData, tmp_path: Path) -> None:
    save(data.astronaut(), tmp_path / "sets" / "Set5" / "a.png")
    folders = [tmp_path / "mine" / "Set5", tmp_path / "others" / "more", tmp_path / "mine" / "more"]
    for folder in folders:
        save(data.camera(), folder / "camera.png")
    report = check_leakage(photos, testsets=tmp_path / "sets", folders=folders)
    assert set(report.testsets) > {"Set5", str(folders[0]), "more", str(folders[2])}
    assert list(report.leaks) == ["this run's held-out set", "Set5"]


def test_out_of_time_the_report_says_how_many_were_compared(photos: PhotoData, tmp_path: Path) -> None:
    report = check_leakage(photos, testsets=tmp_path / "none", max_seconds=0)
    assert (report.training_photos, report.training_total) == (1, 2)
    assert "only 1 of 2 training photos" in report.lines()[0]


@pytest.mark.slow
def test_a_run_says_and_records_it_and_its_model_card_states_it(
    photos: PhotoData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "train", "debug=fast", "data=folder", f"data.source.root={tmp_path}/photos", "data.patch_size=32",
        f"data_dir={tmp_path}", "network=dncnn_color", "network.depth=3", "network.channels=4",
    ]  # fmt: skip
    assert main([*words, f"hydra.run.dir={tmp_path}/run"]) == 0
    sentence = "1 of 2 photos of this run's held-out set are among the training photos: coffee is cup"
    printed = capsys.readouterr().err
    assert sentence in printed
    assert printed.index(sentence) < printed.index("· step ")
    found = json.loads((tmp_path / "run" / "run.json").read_text())["leakage"]
    assert found["words"] == [sentence]
    assert found["leaks"] == {"this run's held-out set": [{"training": "coffee", "test": "cup"}]}
    export_model(locate(tmp_path / "run"), tmp_path / "model", wanted=())
    assert sentence in (tmp_path / "model" / "README.md").read_text()
    shutil.rmtree(tmp_path / "run")
    assert main([*words, "leakage.check=false", f"hydra.run.dir={tmp_path}/run"]) == 0
    assert sentence not in capsys.readouterr().err
    assert json.loads((tmp_path / "run" / "run.json").read_text())["leakage"] is None
    description = export_model(locate(tmp_path / "run"), tmp_path / "model", wanted=())
    write_card(tmp_path / "model", description)
    assert "was not checked" in (tmp_path / "model" / "README.md").read_text()


@pytest.mark.parametrize(("exists", "message"), [(False, "does not exist"), (True, "holds no photos")])
def test_a_wrong_folder_is_refused_before_training(exists: bool, message: str, tmp_path: Path) -> None:
    folder = tmp_path / "more"
    if exists:
        folder.mkdir()
    with pytest.raises((ConfigError, ValueError), match=message):
        check_before_training(compose("train", [f"leakage.folders=[{folder}]"]))
