"""Sources list the right files for each split, and say what is missing and how to fix it."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image

from restora.data.div2k import Div2k
from restora.data.packing import PhotoFile
from restora.data.sources import SPLITS, Folder, PairedFolder, SamplePhotos, Source, UnpairedFolder, share_out
from restora.photos.errors import DataError


def put(folder: Path, *names: str, size: tuple[int, int] = (8, 8)) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size).save(folder / name)


def names(source: Source, split: str) -> list[str]:
    return [photo.name for photo in source.photos(split)]  # type: ignore[arg-type]


def test_sample_photos_come_with_scikit_image() -> None:
    source = SamplePhotos()
    source.check()
    everything = [name for split in SPLITS for name in names(source, split)]
    assert len(everything) == len(set(everything)) == 6
    assert names(source, "test") == ["chelsea", "coffee"]
    for split in SPLITS:
        for photo in source.photos(split):
            assert Image.open(photo.clean).mode == "RGB"


def test_a_folder_with_splits(tmp_path: Path) -> None:
    put(tmp_path, "train/a.png", "train/deep/b.jpg", "val/c.bmp")
    source = Folder(root=tmp_path)
    source.check()
    assert names(source, "train") == ["a", "deep_b"]
    assert names(source, "val") == ["c"]
    assert names(source, "test") == []


def test_equal_names_keep_what_tells_them_apart(tmp_path: Path) -> None:
    put(tmp_path, "train/a.png", "train/a.jpg", "train/b.png", "val/a.png")
    assert names(Folder(root=tmp_path), "train") == ["a.jpg", "a.png", "b"]


def test_a_folder_is_split_by_names(tmp_path: Path) -> None:
    put(tmp_path, *(f"{index}.png" for index in range(200)))
    source = Folder(root=tmp_path, val_fraction=0.2, test_fraction=0.1)
    before = {name: split for split in SPLITS for name in names(source, split)}
    assert len(before) == 200
    counts = [len(names(source, split)) for split in SPLITS]
    assert 120 <= counts[0] <= 160
    assert 25 <= counts[1] <= 55
    assert 10 <= counts[2] <= 32
    put(tmp_path, *(f"later{index}.png" for index in range(100)))
    after = {name: split for split in SPLITS for name in names(source, split)}
    assert len(after) == 300
    assert all(after[name] == split for name, split in before.items()), "photos changed their split"


def test_a_small_folder_fills_every_split(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "b.png", "c.png")
    source = Folder(root=tmp_path, val_fraction=0.01, test_fraction=0.01)
    assert sorted(name for split in SPLITS for name in names(source, split)) == ["a", "b", "c"]
    assert all(len(names(source, split)) == 1 for split in SPLITS)
    assert names(Folder(root=tmp_path, test_fraction=0.0), "test") == []


def test_three_photos_are_enough_whatever_their_names(tmp_path: Path) -> None:
    for number in range(40):
        folder = tmp_path / str(number)
        folder.mkdir()
        put(folder, *(f"{number}_{i}.png" for i in range(3)))
        source = Folder(root=folder, val_fraction=0.3, test_fraction=0.3)
        assert [len(names(source, split)) for split in SPLITS] == [1, 1, 1]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "no photos for train"),
        (["a.png", "b.png"], "at least 3 photos are needed, one for each split, and .* holds 2: add"),
        (["a.png"], r"holds 1: add photos, .* \(one photo is restored without training"),
        (
            ["train/a.png"],
            r"no photos for val in .* val/ .*: put photos into val/, or set data\.source",
        ),
    ],
)
def test_what_a_folder_lacks(tmp_path: Path, files: Sequence[str], message: str) -> None:
    put(tmp_path, *files)
    with pytest.raises(DataError, match=message):
        Folder(root=tmp_path).check()


@pytest.mark.parametrize("kind", [Folder, PairedFolder])
def test_a_folder_that_is_not_there(tmp_path: Path, kind: type[Folder]) -> None:
    with pytest.raises(DataError, match=r"no folder of photos is given: set data\.source\.root=FOLDER"):
        kind(root=None).check()
    with pytest.raises(DataError, match=r"nowhere does not exist: set data\.source\.root=FOLDER"):
        kind(root=tmp_path / "nowhere").check()


def test_unpaired_clean_photos_may_have_no_test_photos(tmp_path: Path) -> None:
    put(tmp_path, "train/clean/a.png", "train/degraded/b.png", "val/degraded/c.png")
    source = UnpairedFolder(root=tmp_path, holds="clean")
    source.check()
    assert [len(names(source, split)) for split in SPLITS] == [1, 1, 0]
    (tmp_path / "val" / "degraded").rename(tmp_path / "val" / "other")
    with pytest.raises(DataError, match="val/degraded does not exist"):
        source.check()


def test_pairs_of_any_format_and_suffix(tmp_path: Path) -> None:
    put(tmp_path, "train/clean/a.png", "train/clean/b.jpg", "val/clean/v.png", size=(24, 16))
    put(
        tmp_path, "train/degraded/a.jpg", "train/degraded/bx2w1.png", "train/degraded/bx2w2.png", size=(12, 8)
    )
    put(tmp_path, "val/degraded/v.webp", size=(12, 8))
    source = PairedFolder(root=tmp_path)
    source.check()
    assert source.scale == 2
    pairs = {pair.name: (pair.clean.name, pair.degraded.name) for pair in source.photos("train")}  # type: ignore[union-attr]
    assert pairs == {
        "a": ("a.png", "a.jpg"),
        "bx2w1": ("b.jpg", "bx2w1.png"),
        "bx2w2": ("b.jpg", "bx2w2.png"),
    }
    assert names(source, "test") == []


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_partners_may_be_links(tmp_path: Path, link: Callable[[Path, Path], None]) -> None:
    put(tmp_path / "clean", "a.png", "s15/b.png", "c.png")
    put(tmp_path / "degraded", "a.jpg", "a2.jpg", "s15/b.jpg", "s25/b.jpg", "dx1.jpg")
    link(tmp_path / "clean" / "a.png", tmp_path / "clean" / "a2.png")
    link(tmp_path / "clean" / "c.png", tmp_path / "clean" / "d.png")
    link(tmp_path / "degraded" / "dx1.jpg", tmp_path / "degraded" / "c.jpg")
    (tmp_path / "clean" / "s25").symlink_to("s15")
    source = PairedFolder(root=tmp_path)
    shown = [{pair.clean for pair in source.photos(split)} for split in SPLITS]
    assert sum(map(len, shown)) == len(set.union(*shown)) == 3, "a clean photo is in two splits"
    pairs = [pair.paths for split in SPLITS for pair in source.photos(split)]
    assert len(pairs) == 5
    for clean, degraded in pairs:
        name = degraded.relative_to(tmp_path / "degraded").with_suffix("").as_posix().removesuffix("x1")
        assert clean.samefile(tmp_path / "clean" / f"{name}.png")
    put(tmp_path / "degraded", "e.jpg")
    with pytest.raises(DataError, match="degraded/e.jpg"):
        PairedFolder(root=tmp_path).check()


@pytest.mark.parametrize(
    ("clean", "degraded", "said"),
    [
        ("c{:03}.png", "d{}.png", "c002.png goes with d10.png, but with d2.png"),
        ("c{}.png", "d{}.png", ""),
        ("c{:03}.png", "d{:02}.png", ""),
    ],
)
def test_pairs_by_order_whose_numbers_say_otherwise_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, clean: str, degraded: str, said: str
) -> None:
    put(tmp_path / "clean", *(clean.format(number) for number in range(1, 12)))
    put(tmp_path / "degraded", *(degraded.format(number) for number in range(1, 12)))
    source = PairedFolder(root=tmp_path, pair_by="order")
    source.check()
    assert len([row for row in caplog.messages if said and said in row]) == len(caplog.messages) == bool(said)


def test_names_that_macos_wrote_match_those_that_linux_wrote(tmp_path: Path) -> None:
    put(tmp_path / "clean", "caf\u00e9.png", "e\u0301te\u0301.png", "a.png")
    put(tmp_path / "degraded", "cafe\u0301.png", "\u00e9t\u00e9x2.png", "a.png")
    pairs = PairedFolder(root=tmp_path).photos_in(tmp_path)
    assert {(len(pair.clean.name), len(pair.degraded.name)) for pair in pairs} == {(8, 9), (9, 9), (5, 5)}


def test_pairs_split_by_name(tmp_path: Path) -> None:
    files = [f"{index}.png" for index in range(30)]
    put(tmp_path / "clean", *files)
    put(tmp_path / "degraded", *files)
    source = PairedFolder(root=tmp_path)
    source.check()
    assert source.scale == 1
    assert sum(len(names(source, split)) for split in SPLITS) == 30


def test_pairs_of_one_photo_stay_in_one_split(tmp_path: Path) -> None:
    put(tmp_path / "clean", *(f"{index}.png" for index in range(30)))
    put(tmp_path / "degraded", *(f"{index}x1w{k}.png" for index in range(30) for k in range(4)))
    source = PairedFolder(root=tmp_path, val_fraction=0.3, test_fraction=0.3)
    shown = [{pair.clean for pair in source.photos(split)} for split in SPLITS]
    assert sum(len(names(source, split)) for split in SPLITS) == 120
    assert sum(map(len, shown)) == len(set.union(*shown)) == 30, "a clean photo is in two splits"


def test_missing_partners_are_named(tmp_path: Path) -> None:
    put(tmp_path / "clean", "a.png", "b.png", "c.png")
    put(tmp_path / "degraded", "a.png", "d.png")
    with pytest.raises(DataError, match="3 of 3 clean and 2 degraded photos have no partner") as caught:
        PairedFolder(root=tmp_path).check()
    for name in ("clean/b.png", "clean/c.png", "degraded/d.png"):
        assert name in str(caught.value)
    (tmp_path / "degraded").rename(tmp_path / "bad")
    with pytest.raises(DataError, match="degraded does not exist: pairs lie in clean/ and degraded/"):
        PairedFolder(root=tmp_path).check()


@pytest.mark.parametrize("suffix", ["_x4", "_LR_x4", "X4"])
def test_only_the_last_scale_is_a_suffix_and_others_are_said(tmp_path: Path, suffix: str) -> None:
    stems = ("sky_1920x1080", "sky_1280x720", "y2")
    put(tmp_path / "clean", *(f"{stem}.png" for stem in stems))
    put(tmp_path / "degraded", *(f"{stem}x2.png" for stem in stems))
    source = PairedFolder(root=tmp_path)
    assert {p.clean.stem: p.paths[1].stem for s in SPLITS for p in source.photos(s)} == {
        stem: f"{stem}x2" for stem in stems
    }
    for stem in stems:
        (tmp_path / "degraded" / f"{stem}x2.png").rename(tmp_path / "degraded" / f"{stem}{suffix}.png")
    with pytest.raises(DataError, match=f"data.source.degraded_suffix={suffix}"):
        PairedFolder(root=tmp_path).check()
    said = PairedFolder(root=tmp_path, degraded_suffix=suffix)
    assert sum(len(said.photos(split)) for split in SPLITS) == 3


def test_pairs_go_by_their_folders_too(tmp_path: Path) -> None:
    put(tmp_path / "clean", "x_a.png", "x/a.png", "b.png", "b.bmp")
    put(tmp_path / "degraded", "x_a.jpg", "x/a.jpg", "b.png", "b.bmp")
    source = PairedFolder(root=tmp_path)
    pairs = [p.paths for split in SPLITS for p in source.photos(split)]
    assert len(pairs) == 4
    for clean, degraded in pairs:
        relative = clean.relative_to(tmp_path / "clean")
        assert degraded.relative_to(tmp_path / "degraded").with_suffix("") == relative.with_suffix("")
        assert relative.stem != "b" or degraded.suffix == relative.suffix


@pytest.mark.parametrize("odd", range(3))
def test_the_scale_is_that_of_most_pairs(tmp_path: Path, odd: int) -> None:
    for number in range(8):
        put(tmp_path / "clean", f"{number}.png", size=(49, 32))
        put(tmp_path / "degraded", f"{number}.png", size=(49, 32) if number == odd else (25, 16))
    assert PairedFolder(root=tmp_path).scale == 2


def test_a_scale_that_is_none(tmp_path: Path) -> None:
    put(tmp_path / "clean", "a.png", "b.png", "c.png", size=(24, 16))
    put(tmp_path / "degraded", "a.png", "b.png", "c.png", size=(10, 8))
    with pytest.raises(DataError, match=r"10x8.*24x16.*scales 1, 2, 3, 4, 8"):
        PairedFolder(root=tmp_path).check()


def test_the_scale_is_that_of_pairs_that_can_be_read(tmp_path: Path) -> None:
    for folder in (tmp_path / "train", tmp_path / "val"):
        put(folder / "clean", "a.png", "b.png", "c.png", size=(24, 16))
        put(folder / "degraded", "a.png", "b.png", "c.png", size=(12, 8))
    (tmp_path / "train" / "clean" / "a.png").write_bytes(b"")
    (tmp_path / "train" / "degraded" / "b.png").write_text("no picture")
    source = PairedFolder(root=tmp_path)
    source.check()
    assert source.scale == 2
    (tmp_path / "train" / "clean" / "c.png").write_bytes(b"")
    PairedFolder(root=tmp_path).check()  # packing names all of them


@pytest.fixture
def div2k(tmp_path: Path) -> Path:
    put(tmp_path / "DIV2K_train_HR", "0001.png", "0002.png", size=(16, 16))
    put(tmp_path / "DIV2K_valid_HR", *(f"{index:04}.png" for index in range(801, 807)), size=(16, 16))
    return tmp_path


def test_div2k(div2k: Path) -> None:
    source = Div2k(root=div2k, val_photos=2)
    source.check()
    assert (source.paired, source.scale) == (False, 1)
    assert names(source, "train") == ["0001", "0002"]
    assert names(source, "val") == ["0801", "0802"]
    assert names(source, "test") == ["0803", "0804", "0805", "0806"]
    with pytest.raises(DataError, match=r"val_photos=6 leaves nothing.*between 1 and 5"):
        Div2k(root=div2k, val_photos=6).check()


@pytest.mark.parametrize(
    ("track", "scale", "folder", "suffixes"),
    [
        ("bicubic", 2, "DIV2K_{}_LR_bicubic/X2", ["x2"]),
        ("unknown", 3, "DIV2K_{}_LR_unknown/X3", ["x3"]),
        ("bicubic", 8, "DIV2K_{}_LR_x8", ["x8"]),
        ("mild", 4, "DIV2K_{}_LR_mild", ["x4m"]),
        ("wild", 4, "DIV2K_{}_LR_wild", ["x4w1", "x4w2"]),
    ],
)
def test_div2k_tracks(div2k: Path, track: str, scale: int, folder: str, suffixes: list[str]) -> None:
    for half, numbers in (("train", range(1, 3)), ("valid", range(801, 807))):
        put(div2k / folder.format(half), *(f"{n:04}{suffix}.png" for n in numbers for suffix in suffixes))
    source = Div2k(root=div2k, track=track, scale=scale, val_photos=1)
    source.check()
    assert (source.paired, source.scale) == (True, scale)
    train = source.photos("train")
    assert [photo.name for photo in train] == [f"{n:04}{suffix}" for n in (1, 2) for suffix in suffixes]
    assert all(photo.degraded is not None and photo.degraded.stem == photo.name for photo in train)
    assert all(photo.clean.stem == photo.name[:4] for photo in train)
    assert {name[:4] for name in names(source, "val")} == {"0801"}
    assert len(names(source, "test")) == 5 * len(suffixes)


def test_div2k_says_what_to_run(div2k: Path) -> None:
    with pytest.raises(
        DataError, match=r"`restora prepare data=div2k_lr data\.source\.track=mild data\.source\.scale=4`"
    ):
        Div2k(root=div2k, track="mild").check()
    with pytest.raises(DataError, match=r"run `restora prepare data=div2k`, or set data\.source\.root"):
        Div2k(root=div2k / "elsewhere").check()


@pytest.mark.parametrize(
    ("track", "scale", "message"),
    [
        ("lanczos", 2, "no track 'lanczos'; there are: bicubic, unknown, mild, difficult, wild"),
        ("unknown", 8, r"no scale 8: set data\.source\.scale to 2 or 3 or 4"),
        ("wild", 2, r"set data\.source\.scale to 4"),
    ],
)
def test_div2k_refuses_tracks_that_do_not_exist(tmp_path: Path, track: str, scale: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Div2k(root=tmp_path, track=track, scale=scale)


def test_fractions_must_leave_something(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"their sum below 1; got 0\.5 and 0\.5"):
        Folder(root=tmp_path, val_fraction=0.5, test_fraction=0.5)


@pytest.mark.parametrize(
    ("files", "renamed"),
    [
        (["train/a.png", "valid/b.png"], "valid/ to val/"),
        (["Train/a.png", "Valid/b.png", "Test/c.png"], "Test/ to test/, Train/ to train/, Valid/ to val/"),
        (["train/a.png", "val/b.png", "testing/c.png"], "testing/ to test/"),
        (["training/a.png", "val/b.png"], "training/ to train/"),
    ],
    ids=" ".join,
)
def test_splits_of_other_names_are_refused(tmp_path: Path, files: Sequence[str], renamed: str) -> None:
    put(tmp_path, *files)
    with pytest.raises(DataError, match=r"called train/, val/ and test/: rename") as caught:
        Folder(root=tmp_path).check()
    assert str(caught.value).endswith(f"rename {renamed}")


def test_folders_of_photos_may_be_called_like_a_split(tmp_path: Path) -> None:
    put(tmp_path / "one", "Test/a.png", "Paris/b.png", "Paris/c.png")
    Folder(root=tmp_path / "one").check()
    put(tmp_path / "two", "train/a.png", "val/b.png", "valid/c.png")
    Folder(root=tmp_path / "two").check()


def test_a_photo_is_not_a_folder(tmp_path: Path) -> None:
    put(tmp_path, "a.png")
    with pytest.raises(DataError, match=rf"a\.png is a file: set data\.source\.root={tmp_path}, its folder"):
        Folder(root=tmp_path / "a.png").check()


@pytest.mark.parametrize("split", ["", "train/"])
def test_pairs_are_not_learnt_as_clean_photos(split: str, tmp_path: Path) -> None:
    for half in ("clean", "degraded"):
        put(tmp_path, *(f"{split}{half}/{name}.png" for name in "abc"))
    put(tmp_path, *(f"val/{half}/a.png" for half in ("clean", "degraded") if split))
    for holds in ("clean", "degraded"):
        with pytest.raises(DataError, match="set data=paired_folder"):
            Folder(root=tmp_path, holds=holds).check()
    PairedFolder(root=tmp_path).check()


@pytest.mark.parametrize(
    ("clean", "degraded"), [("GT", "LQ"), ("HR", "LR"), ("target", "input"), ("high", "low")]
)
def test_pairs_in_folders_of_other_usual_names(clean: str, degraded: str, tmp_path: Path) -> None:
    put(tmp_path, *(f"{half}/{name}.png" for half in (clean, degraded) for name in "abc"))
    with pytest.raises(DataError, match=f"sub-folders {clean}/ and {degraded}/: set data=paired_folder"):
        Folder(root=tmp_path).check()
    source = PairedFolder(root=tmp_path)
    source.check()
    (pair,) = source.photos("val")
    assert (pair.clean.parent.name, pair.degraded.parent.name) == (clean, degraded)
    put(tmp_path, f"{clean.lower()}2/x.png", "noisy/a.png")  # which of them is meant is not known
    with pytest.raises(DataError, match=r"clean does not exist: pairs lie in clean/ and degraded/ \(or GT"):
        PairedFolder(root=tmp_path).check()


def test_unrelated_folders_may_be_called_like_halves(tmp_path: Path) -> None:
    put(tmp_path, *(f"high/{name}.png" for name in "abc"), "low/d.png")
    Folder(root=tmp_path).check()
    assert sum(len(Folder(root=tmp_path).photos(split)) for split in ("train", "val", "test")) == 4
    put(tmp_path, "low/ax4.png")
    with pytest.raises(DataError, match="set data=paired_folder"):
        Folder(root=tmp_path).check()


@pytest.mark.parametrize(
    ("clean", "degraded"),
    [
        ("0001_GT_SRGB_010", "0001_NOISY_SRGB_010"),  # SIDD
        ("Canon5D2_5_bicycle_mean", "Canon5D2_5_bicycle_Real"),  # PolyU
        ("IMG_4088Reference", "IMG_4088Noisy"),  # RENOIR
    ],
)
def test_pairs_in_one_folder_are_no_clean_photos(clean: str, degraded: str, tmp_path: Path) -> None:
    put(tmp_path, *(f"{scene}/{name}.png" for scene in "abc" for name in (clean, degraded)), "a/other.png")
    with pytest.raises(DataError, match=rf"such as {clean}\.png and {degraded}\.png.*pair_by=order"):
        Folder(root=tmp_path).check()
    Folder(root=tmp_path, holds="degraded").check()
    (tmp_path / f"b/{degraded}.png").unlink()
    (tmp_path / f"c/{degraded}.png").unlink()
    Folder(root=tmp_path).check()  # one pair among five photos may be an accident


def test_splits_inside_the_halves_are_refused(tmp_path: Path) -> None:
    put(tmp_path, *(f"{half}/{part}/a.png" for half in ("GT", "LQ") for part in ("train", "valid")))
    with pytest.raises(DataError, match="splits, which come first: train/GT/, train/LQ/, val/GT/"):
        PairedFolder(root=tmp_path, test_fraction=0).check()


def test_pairs_of_other_names_can_be_paired_by_order(tmp_path: Path) -> None:
    put(tmp_path, "clean/a1.png", "clean/a2.png", "degraded/b1.png", "degraded/b2.png")
    with pytest.raises(DataError, match=r"set data\.source\.pair_by=order"):
        PairedFolder(root=tmp_path).check()


def test_names_that_are_not_text_are_split_too(tmp_path: Path) -> None:
    """As a file system holds them that was filled in another encoding."""
    put(tmp_path, "a.png", "b.png", "c.png", os.fsdecode(b"caf\xe9.png"))
    source = Folder(root=tmp_path)
    source.check()
    assert sorted(name for split in SPLITS for name in names(source, split)) == ["a", "b", "c", "caf%E9"]


def test_a_photo_saved_in_another_format_stays_in_its_split(tmp_path: Path) -> None:
    sides = []
    for suffix in ("png", "jpg"):
        photos = [PhotoFile(f"{n}", tmp_path / f"{n}.{suffix}") for n in range(40)]
        sides.append({photo.name for photo in share_out(photos, tmp_path, "val", 0.3, 0.3)})
    assert sides[0] == sides[1] != set()
