"""Finding test photos, and saying how to get them where they are missing."""

from pathlib import Path

import pytest
from PIL import Image

from restora.evaluation.testsets import TestSet, find_photos, photo_names

SET5 = TestSet(name="Set5", root="somewhere", images=5, source="at https://example.org/set5.zip.")


def photo(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)
    return path


def test_photos_are_sorted_and_other_files_left_out(tmp_path: Path) -> None:
    paths = [photo(tmp_path / name) for name in ("b.png", "a.jpg", "c.bmp")]
    (tmp_path / "readme.txt").write_text("no photo")
    photo(tmp_path / "low" / "a.png")
    assert find_photos(str(tmp_path)) == sorted(paths)


def test_a_single_subfolder_is_entered(tmp_path: Path) -> None:
    inside = photo(tmp_path / "Set5" / "HR" / "baby.png")
    assert find_photos(str(tmp_path)) == [inside]


def test_several_subfolders_must_be_chosen_from(tmp_path: Path) -> None:
    photo(tmp_path / "HR" / "baby.png")
    photo(tmp_path / "LR" / "baby.png")
    with pytest.raises(ValueError, match=r"HR, .*LR"):
        find_photos(str(tmp_path))


@pytest.mark.parametrize("exists", [False, True])
def test_a_missing_set_says_where_to_get_it(exists: bool, tmp_path: Path) -> None:
    root = tmp_path if exists else tmp_path / "Set5"
    with pytest.raises(ValueError, match=r"https://example.org/set5.zip.*benchmark.root"):
        find_photos(str(root), SET5)


def test_names_keep_the_suffix_only_where_they_must() -> None:
    assert photo_names([Path("x/a.png"), Path("x/b.png"), Path("x/b.jpg")]) == ["a", "b.png", "b.jpg"]
