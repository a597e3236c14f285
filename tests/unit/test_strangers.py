"""What a stranger's run folder must not do: lead elsewhere, tell W&B where to send, choose where we are."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from restora.run_state import LOCK, sole_run
from restora.strangers import check_inside, started_in


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    (folder / "images").mkdir(parents=True)
    (folder / "wandb" / "offline-run-1" / "logs").mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    (tmp_path / "precious").write_text("mine")
    return folder


def link(name: str, target: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        path.symlink_to(target)

    return change


@pytest.mark.parametrize(
    "change",
    [
        link("images/a_clean.png", "../../precious"),
        link("images", ".."),
        link("metrics.csv", "/nowhere/at/all"),
        link("loop", "loop/../../x"),
        link("wandb/offline-run-1/debug-core.log", "../../../precious"),
        lambda folder: (folder / "wandb" / "settings").write_text("[default]\nbase_url = http://x\n"),
    ],
    ids=["a file", "a folder", "nowhere", "a loop", "W&B's name elsewhere", "W&B's settings"],
)
def test_what_leads_out_of_the_folder_is_refused(change: Callable[[Path], object], run: Path) -> None:
    check_inside(run)
    change(run)
    with pytest.raises(ValueError, match=r"is a link to|sets what W&B does"):
        check_inside(run)


def test_links_within_it_and_the_one_that_wandb_makes_are_its_own(run: Path) -> None:
    (run / "wandb" / "latest-run").symlink_to("offline-run-1")
    (run / "best").symlink_to(run / "checkpoints" / "best.ckpt")
    (run / "wandb" / "offline-run-1" / "logs" / "debug-core.log").symlink_to("/root/.cache/wandb/x.log")
    check_inside(run)


def test_the_lock_is_not_written_where_a_link_leads(run: Path) -> None:
    (run / LOCK).symlink_to("../precious")
    with pytest.raises(OSError, match=r"\.lock"), sole_run(run):
        pass
    assert (run / "../precious").read_text() == "mine"


def test_where_a_run_was_started_is_believed_outside_of_it_alone(run: Path, tmp_path: Path) -> None:
    assert started_in({"cwd": str(tmp_path)}, run) == tmp_path
    for place in (str(run), str(run / "images"), "run", ".", "/a\0b", None, 3, ["/"]):
        assert started_in({"cwd": place}, run) is None
    os.symlink(run / "images", tmp_path / "elsewhere")
    assert started_in({"cwd": str(tmp_path / "elsewhere")}, run) is None
