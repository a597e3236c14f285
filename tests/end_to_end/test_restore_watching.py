"""`restora restore --watch`, and commands that go on in the folder of the photos."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from restora.apps.restore import main as restore
from restora.apps.restoring import running
from restora.apps.restoring.plan import Failure, Naming, Plan
from restora.apps.restoring.watching import appearing


def photo(path: Path, seed: int = 0, size: tuple[int, int] = (9, 7)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(values).save(path)
    return path


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def watching(folder: Path, naming: Naming | None = None, *, overwrite: bool = False):
    naming = naming or Naming()
    return appearing(folder / "in", folder / "out", naming, overwrite=overwrite, seconds=0.005)


def written(planned: Plan) -> list[str]:
    """Makes the outputs, as the command would."""
    for job in planned.jobs:
        photo(job.target)
    return [job.name for job in planned.jobs]


def test_the_folder_of_the_results_is_not_watched(identity, tmp_path, capsys):
    photo(tmp_path / "in" / "a.png")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    for output in ("in", "link"):
        with pytest.raises(ValueError, match="is the folder that is watched.*name another OUTPUT"):
            restore([str(identity), str(tmp_path / "in"), str(tmp_path / output), "--watch", "--suffix=_c"])
    assert "watching" not in capsys.readouterr().out


def test_results_in_a_folder_below_are_not_restored_again(tmp_path):
    photo(tmp_path / "in" / "a.png")
    plans = appearing(tmp_path / "in", tmp_path / "in" / "out", Naming(), overwrite=True, seconds=0.005)
    assert written(next(plans)) == ["a.png"]
    photo(tmp_path / "in" / "b.png")
    assert written(next(plans)) == ["b.png"]


def test_two_photos_of_one_output_are_named_and_the_watch_goes_on(tmp_path):
    """The second one comes when the output of the first is there."""
    photo(tmp_path / "in" / "a.jpg")
    plans = watching(tmp_path, Naming("png"))
    assert written(next(plans)) == ["a.jpg"]
    photo(tmp_path / "in" / "a.png", 1)
    planned = next(plans)
    (failure,) = planned.failures
    assert (failure.name, planned.jobs) == ("a.png", [])
    assert "out/a.png, which was made of" in failure.reason
    photo(tmp_path / "in" / "b.jpg")
    assert written(next(plans)) == ["b.jpg"]


def test_a_folder_that_is_gone_for_a_while_is_named_once(tmp_path):
    photo(tmp_path / "in" / "a.png")
    plans = watching(tmp_path)
    assert written(next(plans)) == ["a.png"]
    (tmp_path / "in").rename(tmp_path / "elsewhere")
    (failure,) = next(plans).failures
    assert "there is no photo, video or folder" in failure.reason
    (tmp_path / "elsewhere").rename(tmp_path / "in")
    photo(tmp_path / "in" / "b.png")
    assert written(next(plans)) == ["b.png"]


def test_what_was_restored_in_part_is_restored_again_when_it_is_complete(tmp_path):
    """A copy that stalls is taken for complete; its output exists."""
    photo(tmp_path / "in" / "a.png")
    photo(tmp_path / "in" / "b.png")
    plans = watching(tmp_path)
    planned = next(plans)
    assert written(planned) == ["a.png", "b.png"]
    planned.failures.append(Failure("b.png", "is cut short"))
    photo(tmp_path / "in" / "a.png", 1, (19, 17))
    photo(tmp_path / "in" / "b.png", 1, (19, 17))
    assert written(next(plans)) == ["b.png"]
    photo(tmp_path / "in" / "b.png", 2, (29, 17))
    photo(tmp_path / "in" / "c.png")
    assert written(next(plans)) == ["c.png"]


def test_a_full_disk_ends_the_watch_and_its_photos_are_restored_by_the_next(
    identity, tmp_path, monkeypatch, capsys
):
    for name in "abcdefgh":
        photo(tmp_path / "in" / f"{name}.png")
    command = [str(identity), str(tmp_path / "in"), str(tmp_path / "out"), "--watch"]

    def full(path, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as disk:
        disk.setattr(running, "write_whole", full)
        disk.setattr(appearing, "__kwdefaults__", {"seconds": 0.005})
        assert restore(command) == 1
    said = capsys.readouterr()
    assert "stopped watching: nothing more can be written to" in said.out
    assert "No space left on device" in said.err
    assert len(next(watching(tmp_path)).jobs) == 8


@pytest.mark.parametrize(
    ("words", "made"),
    [
        (["--suffix=_c"], ["a_c.jpg", "b_c.jpg"]),
        (["--suffix=_c", "--compare"], ["a_c.jpg", "a_c.jpg.compare.jpg", "b_c.jpg", "b_c.jpg.compare.jpg"]),
        (["--format=png"], ["a.png", "b.png"]),
    ],
)
def test_a_command_goes_on_in_the_folder_of_the_photos(words, made, identity, tmp_path, capsys):
    for name in ("a.jpg", "b.jpg"):
        photo(tmp_path / name)
    command = [str(identity), str(tmp_path), str(tmp_path), *words]
    assert restore(command) == 0
    there = names(tmp_path)
    assert there == sorted(["a.jpg", "b.jpg", *made])
    (tmp_path / made[-1].removesuffix(".compare.jpg")).unlink()
    with pytest.raises(ValueError, match="would be overwritten: name another OUTPUT"):
        restore(command)
    assert restore([*command, "--skip-existing"]) == 0
    assert names(tmp_path) == there
    assert "1 photo skipped" in capsys.readouterr().out
    assert restore([*command, "--skip-existing"]) == 0
    assert names(tmp_path) == there
    assert "nothing to restore" in capsys.readouterr().out


def test_a_photo_is_never_its_own_output(identity, tmp_path):
    photo(tmp_path / "a.png")
    photo(tmp_path / "b.jpg")
    for words in ([], ["--skip-existing"], ["--overwrite"], ["--format=png", "--skip-existing"]):
        with pytest.raises(ValueError, match=r"would be overwritten: name another OUTPUT$"):
            restore([str(identity), str(tmp_path), str(tmp_path), *words])
