"""Mixed sources: shares, each part's own degradation and keys, the same on any number of processes; and the
layouts of published pairs."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from archive_server import ArchiveServer, zipped
from data_toys import STEPS, Toy, trainer
from PIL import Image
from scipy.io import savemat

from restora.data.div2k import Div2k
from restora.data.mixture import MixtureData, Part, Turns, join
from restora.data.module import PhotoData
from restora.data.packing import PhotoFile
from restora.data.real_pairs import SIDD, GoPro, RealBlur
from restora.data.sources import Folder, PairedFolder, Source
from restora.degradations.compression.jpeg import Jpeg
from restora.degradations.identity import Identity
from restora.degradations.noise.gaussian_noise import GaussianNoise
from restora.degradations.noise.poisson_noise import PoissonNoise
from restora.degradations.sampling.downsample import Downsample
from restora.photos.errors import DataError
from restora.types import Batch

MakePhotos = Callable[..., list[PhotoFile]]


@pytest.fixture
def folders(make_photos: MakePhotos, tmp_path: Path) -> tuple[Path, Path]:
    """Photos, and pairs whose degraded half is the clean one upside down."""
    make_photos(6, folder="photos")
    for index, photo in enumerate(make_photos(5, folder="pairs/clean")):
        other = tmp_path / "pairs" / "degraded" / photo.clean.name
        other.parent.mkdir(exist_ok=True)
        pixels = np.asarray(Image.open(photo.clean)) // 2 + index
        Image.fromarray(pixels).save(other)
    return tmp_path / "photos", tmp_path / "pairs"


def mixture(folders: tuple[Path, Path], store_dir: Path, **options: Any) -> MixtureData:
    photos, pairs = folders
    parts = {
        "made": Part(source=Folder(root=photos), degradation=GaussianNoise(sigma=25), share=3),
        "real": Part(source=PairedFolder(root=pairs), share=1),
    }
    defaults: dict[str, Any] = {
        "parts": parts,
        "degradation": Identity(),
        "patch_size": 16,
        "batch_size": 4,
        "steps_per_epoch": STEPS,
        "seed": 5,
    }
    return MixtureData(store_dir=store_dir, **{**defaults, **options})


def ready(data: PhotoData, stage: str = "fit") -> PhotoData:
    data.prepare_data()
    data.setup(stage)
    return data


def test_shares_are_kept_in_every_stretch() -> None:
    turns = Turns({"a": 5, "b": 3, "c": 0.02})
    names = [turns.of(sample)[0] for sample in range(20_000)]
    for start in range(0, 19_000, 777):
        stretch = names[start : start + 80]
        assert abs(stretch.count("a") - 50) <= 2
        assert abs(stretch.count("b") - 30) <= 2
    assert names.count("c") in range(40, 61)
    for name in "abc":  # numbered one after another, none left out
        numbers = [number for own, number in map(turns.of, range(5000)) if own == name]
        assert numbers == list(range(len(numbers)))
    with pytest.raises(ValueError, match="a thousandth"):
        Turns({"a": 1, "b": 1e-5})
    for shares in ({}, {"a": 0}, {"a": 1, "b": float("inf")}, {"a": float("nan")}):
        with pytest.raises(ValueError, match="shares must be numbers"):
            Turns(shares)


def test_each_part_is_degraded_by_its_own(folders: tuple[Path, Path], tmp_path: Path) -> None:
    data = ready(mixture(folders, tmp_path / "packed"))
    loader = data.train_dataloader()
    made, real = [], []
    for _, raw in zip(range(STEPS), loader, strict=False):
        batch = data.on_after_batch_transfer(raw, 0)
        assert len(batch.names) == 4
        assert batch.condition is None
        assert batch.redegrade is None
        count = len(raw["made"]["names"])
        assert count == 3
        made.append((batch.degraded - batch.clean)[:count])
        real.append((batch.degraded * 255 - (batch.clean * 255 / 2).floor())[count:])
    assert float(torch.cat(made).std()) == pytest.approx(25 / 255, rel=0.1)
    levels = torch.cat(real).round()
    assert ((levels >= 0) & (levels < 5)).all()
    assert torch.equal(levels, levels[:, :1, :1, :1].expand_as(levels))


def test_a_part_is_what_it_is_in_a_run_of_its_own(folders: tuple[Path, Path], tmp_path: Path) -> None:
    data = ready(mixture(folders, tmp_path / "packed"))
    member = data.members["made"]
    mixed = [raw["made"] for _, raw in zip(range(4), data.train_dataloader(), strict=False)]
    alone = list(zip(range(3), member.train_dataloader(), strict=False))
    for key in ("clean", "key"):
        together = torch.cat([part[key] for part in mixed])
        own = torch.cat([batch[key] for _, batch in alone])
        assert torch.equal(together, own[: len(together)])


def test_two_processes_share_one_batch(folders: tuple[Path, Path], tmp_path: Path) -> None:
    whole = ready(mixture(folders, tmp_path / "packed"))
    first = next(iter(whole.train_dataloader()))
    keys = []
    for rank in range(2):

        class Share:
            global_rank, world_size, accumulate_grad_batches = rank, 2, 1
            strategy = type("S", (), {"root_device": torch.device("cpu")})

        part = mixture(folders, tmp_path / "packed")
        part.prepare_data()
        part.setup("fit")
        for module in (part, *part.members.values()):
            module.trainer = Share()
        part._batches_done = lambda: 0
        raw = next(iter(part.train_dataloader()))
        keys += [int(key) for name in raw for key in raw[name]["key"]]
    assert sorted(keys) == sorted(int(key) for name in first for key in first[name]["key"])


def test_a_run_that_goes_on_sees_what_it_would_have_seen(folders: tuple[Path, Path], tmp_path: Path) -> None:
    whole, first, rest = Toy(), Toy(), Toy()
    trainer(tmp_path, max_steps=9).fit(whole, mixture(folders, tmp_path / "packed"))
    start = trainer(tmp_path, max_steps=4)
    start.fit(first, mixture(folders, tmp_path / "packed"))
    start.save_checkpoint(tmp_path / "4.ckpt")
    trainer(tmp_path, max_steps=9).fit(
        rest, mixture(folders, tmp_path / "packed"), ckpt_path=tmp_path / "4.ckpt"
    )
    assert [seen[2] for seen in whole.seen] == [seen[2] for seen in [*first.seen, *rest.seen]]


def test_validation_names_say_the_part(folders: tuple[Path, Path], tmp_path: Path) -> None:
    data = ready(mixture(folders, tmp_path / "packed"), "validate")
    dataset = data.val_dataloader().dataset
    names = [name for index in range(len(dataset)) for name in next(iter(dataset[index].values()))["names"]]
    assert {name.partition("_")[0] for name in names} == {"made", "real"}
    listed = [dataset.store.entries[photo].name for photos in dataset.batches for photo in photos]
    assert listed == names
    assert set(data.stores("val")) == {"made", "real"}


def test_what_cannot_be_mixed_is_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    photos, _ = folders
    small = Part(source=Folder(root=photos), degradation=Downsample(scale=2))
    noisy = Part(source=Folder(root=photos, holds="degraded"))
    plain = Part(source=Folder(root=photos), degradation=Jpeg(quality=20))
    with pytest.raises(ValueError, match="agree in scale, got a 2, b 1"):
        mixture(folders, tmp_path, parts={"a": small, "b": plain})
    with pytest.raises(ValueError, match="agree in clean photos"):
        mixture(folders, tmp_path, parts={"a": noisy, "b": plain})
    with pytest.raises(ValueError, match=r"set degradation=identity, and data\.parts"):
        mixture(folders, tmp_path, degradation=GaussianNoise(sigma=5))


def test_errors_name_the_part_and_its_settings(folders: tuple[Path, Path], tmp_path: Path) -> None:
    def of(source: Source) -> MixtureData:
        return mixture(
            folders,
            tmp_path / "packed",
            parts={"a": Part(source=Folder(root=folders[0])), "b": Part(source=source)},
        )

    with pytest.raises(DataError, match=r"nowhere does not exist: set data\.parts\.b\.source\.root=FOLDER"):
        of(Folder(root=tmp_path / "nowhere")).prepare_data()
    with pytest.raises(DataError, match=r"nowhere does not exist: set data\.parts\.b\.source\.root=FOLDER"):
        of(PairedFolder(root=tmp_path / "nowhere"))
    write(tmp_path / "one/0.png")
    (tmp_path / "one/1.png").symlink_to("nothing")
    with pytest.raises(DataError, match=r"data\.parts\.b: at least 3 photos"):
        of(Folder(root=tmp_path / "one")).source.check()
    assert of(Folder(root=tmp_path / "one")).source.left_out() == {
        tmp_path / "one/1.png": "is a link to nowhere"
    }


def test_what_is_known_of_all_parts(folders: tuple[Path, Path], tmp_path: Path) -> None:
    photos, _ = folders
    parts = {
        "a": Part(source=Folder(root=photos), degradation=GaussianNoise(sigma=25)),
        "b": Part(source=Folder(root=photos), degradation=GaussianNoise(sigma=(0, 50))),
    }
    data = mixture(folders, tmp_path, parts=parts)
    assert data.undamaged == (0.0,)
    assert data.degradation.gaussian
    assert not data.comes_degraded
    assert data.target == "clean"
    assert mixture(folders, tmp_path, parts=parts, target="noisy").target == "noisy"
    parts["c"] = Part(source=Folder(root=photos), degradation=PoissonNoise(photons=30))
    data = mixture(folders, tmp_path, parts=parts)
    assert data.condition_channels == 0
    assert data.degradation.centres == {"mean"}
    assert mixture(folders, tmp_path).comes_degraded


def write(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((40, 40, 3), len(path.name), np.uint8)).save(path)


def test_pairs_of_sidd(tmp_path: Path) -> None:
    for scene in range(1, 5):
        for camera in ("S6", "GP"):
            instance = f"{scene:04}_{scene:03}_{camera}_00100_00060_3200_L"
            for shot in ("010", "011"):
                for kind in ("GT", "NOISY"):
                    write(
                        tmp_path / "SIDD_Medium_Srgb/Data" / instance / f"{scene:04}_{kind}_SRGB_{shot}.PNG"
                    )
    source = SIDD(root=tmp_path)
    source.check()
    train, val = source.photos("train"), source.photos("val")
    assert (len(train), len(val), source.photos("test")) == (12, 4, [])
    assert all("_GT_" in pair.clean.name and "_NOISY_" in pair.degraded.name for pair in train)
    assert all(pair.clean.is_file() for pair in [*train, *val])
    assert len({pair.name for pair in [*train, *val]}) == 16
    scenes = [{pair.name.split("_")[1] for pair in split} for split in (train, val)]
    assert not scenes[0] & scenes[1]


def test_pairs_of_gopro(tmp_path: Path) -> None:
    for part, sequences in (
        ("train", ("GOPR0372_07_00", "GOPR0374_11_00", "GOPR0378_13_00")),
        ("test", ("T",)),
    ):
        for sequence in sequences:
            for frame in ("000047", "000048"):
                for kind in ("blur", "blur_gamma", "sharp"):
                    write(tmp_path / part / sequence / kind / f"{frame}.png")
    source = GoPro(root=tmp_path)
    source.check()
    counts = [len(source.photos(split)) for split in ("train", "val", "test")]
    assert counts == [4, 2, 2]
    pair = source.photos("test")[0]
    assert (pair.clean.parent.name, pair.degraded.parent.name) == ("sharp", "blur")
    with pytest.raises(DataError, match=r"set data\.source\.root=FOLDER"):
        GoPro(root=None).check()
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        DataError, match=r"expected \[GOPRO_Large/\]train/<sequence>.*restora prepare data=gopro"
    ):
        GoPro(root=tmp_path / "empty").check()


def test_validation_blocks_of_sidd_are_its_test_photos(tmp_path: Path) -> None:
    blocks = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 10, 3), np.uint8)
    for kind, values in (("Gt", blocks), ("Noisy", blocks // 2)):
        name = f"Validation{kind}BlocksSrgb"
        savemat(tmp_path / f"{name}.mat", {name: values})
    for scene in ("001", "002"):
        for kind in ("GT", "NOISY"):
            write(tmp_path / f"Data/0001_{scene}_S6/0001_{kind}_SRGB_010.PNG")
    source = SIDD(root=tmp_path)
    assert source.photos("test") == []
    source.obtain()
    pairs = source.photos("test")
    assert [pair.name for pair in pairs][:2] == ["0001_01", "0001_02"]
    assert len(pairs) == 6
    assert np.array_equal(np.asarray(Image.open(pairs[4].clean)), blocks[1, 1])
    assert np.array_equal(np.asarray(Image.open(pairs[4].degraded)), blocks[1, 1] // 2)
    savemat(tmp_path / "ValidationGtBlocksSrgb.mat", {"other": blocks})
    (tmp_path / "validation_blocks/clean/.whole").unlink()
    with pytest.raises(DataError, match="does not hold the array ValidationGtBlocksSrgb"):
        source.obtain()


def test_blocks_of_sidd_appear_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = np.zeros((1, 3, 8, 8, 3), np.uint8)
    for kind in ("Gt", "Noisy"):
        savemat(tmp_path / f"Validation{kind}BlocksSrgb.mat", {f"Validation{kind}BlocksSrgb": blocks})
    for scene in ("001", "002"):
        for kind in ("GT", "NOISY"):
            write(tmp_path / f"Data/0001_{scene}_S6/0001_{kind}_SRGB_010.PNG")
    source, save, saved = SIDD(root=tmp_path), Image.Image.save, []

    def interrupted(image: Image.Image, path: Path) -> None:
        saved.append(path)
        if len(saved) == 5:
            raise KeyboardInterrupt
        save(image, path)

    monkeypatch.setattr(Image.Image, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        source.obtain()
    assert source.photos("test") == []
    source.obtain()
    assert len(source.photos("test")) == 3
    assert all(path.is_file() for pair in source.photos("test") for path in pair.paths)


def test_nothing_is_written_where_nothing_is_missing(tmp_path: Path) -> None:
    for part, count in (("train", 3), ("test", 1)):
        for sequence in range(count):
            for kind in ("blur", "sharp"):
                write(tmp_path / "gopro" / part / f"{part}{sequence}" / kind / "000047.png")
    for scene in ("001", "002"):
        for kind in ("GT", "NOISY"):
            write(tmp_path / f"sidd/Data/0001_{scene}_S6/0001_{kind}_SRGB_010.PNG")
    for half, name in (("train", "0001"), ("valid", "0801"), ("valid", "0802")):
        write(tmp_path / f"div2k/DIV2K_{half}_HR/{name}.png")
    before = sorted(tmp_path.rglob("*"))
    GoPro(root=tmp_path / "gopro").obtain()
    SIDD(root=tmp_path / "sidd").obtain()
    Div2k(root=tmp_path / "div2k", val_photos=1).obtain()
    assert sorted(tmp_path.rglob("*")) == before


def png(shade: int) -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (8, 8), (shade, shade, shade)).save(buffer, "PNG")
    return buffer.getvalue()


def test_sidd_and_gopro_are_downloaded_as_their_archives_unpack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sidd = {
        f"SIDD_Medium_Srgb/Data/{scene}_{scene}_S6_00100/{scene}_{kind}_SRGB_010.PNG": png(int(scene))
        for scene in ("001", "002", "003")
        for kind in ("GT", "NOISY")
    }
    blocks = BytesIO()
    savemat(blocks, {"ValidationGtBlocksSrgb": np.zeros((1, 2, 8, 8, 3), np.uint8)})
    noisy = BytesIO()
    savemat(noisy, {"ValidationNoisyBlocksSrgb": np.ones((1, 2, 8, 8, 3), np.uint8)})
    gopro = {
        f"GOPRO_Large/{part}/{sequence}/{kind}/000047.png": png(7)
        for part, sequence in (("train", "a"), ("train", "b"), ("test", "c"))
        for kind in ("blur", "blur_gamma", "sharp")
    }
    files = {
        "SIDD_Medium_Srgb.zip": zipped(sidd),
        "ValidationGtBlocksSrgb.mat": blocks.getvalue(),
        "ValidationNoisyBlocksSrgb.mat": noisy.getvalue(),
        "GOPRO_Large.zip": zipped(gopro),
    }
    with ArchiveServer(files) as server:
        with pytest.raises(DataError, match=r"the known file has 232055617: it is another file"):
            SIDD(root=tmp_path / "other", url=server.url).obtain()
        source = SIDD(root=tmp_path / "SIDD", url=server.url, verify=False)
        source.obtain()
        assert [len(source.photos(split)) for split in ("train", "val", "test")] == [2, 1, 2]
        asked = len(server.requests)
        source.obtain()  # all is there
        assert len(server.requests) == asked
        with pytest.raises(DataError, match=r"its SHA-256 is"):
            GoPro(root=tmp_path / "other", url=server.url).obtain()
        md5 = hashlib.md5(files["GOPRO_Large.zip"]).hexdigest()
        monkeypatch.setattr(GoPro, "archive", replace(GoPro.archive, sha256=None, md5=md5))
        clips = GoPro(root=tmp_path / "GoPro", url=server.url)
        clips.obtain()
        assert [len(clips.photos(split)) for split in ("train", "val", "test")] == [1, 1, 1]
        assert all(path.is_file() for pair in clips.photos("test") for path in pair.paths)
        assert not list(tmp_path.rglob("*.zip"))
        monkeypatch.setattr(GoPro, "archive", replace(GoPro.archive, md5="0" * 32))
        with pytest.raises(DataError, match=r"its MD5 is"):
            GoPro(root=tmp_path / "other", url=server.url).obtain()


def test_pairs_of_realblur(tmp_path: Path) -> None:
    for part, scenes in (("train", ("scene001", "scene002", "scene003")), ("test", ("scene050",))):
        lines = []
        for scene in scenes:
            folder = f"RealBlur-J_ECC_IMCORR_centroid_itensity_ref/{scene}"
            for number in (1, 2):
                write(tmp_path / folder / f"gt/gt_{number}.png")
                write(tmp_path / folder / f"blur/blur_{number}.png")
                lines.append(f"{folder}/gt/gt_{number}.png {folder}/blur/blur_{number}.png ")
        (tmp_path / f"RealBlur_J_{part}_list.txt").write_text("\n".join(lines) + "\n")
    source = RealBlur(root=tmp_path)
    source.check()
    assert [len(source.photos(split)) for split in ("train", "val", "test")] == [4, 2, 2]
    pair = source.photos("test")[1]
    assert (pair.name, pair.clean.name, pair.degraded.name) == ("scene050_blur_2", "gt_2.png", "blur_2.png")
    assert pair.clean.is_file()
    with pytest.raises(DataError, match=r"RealBlur_R_train_list.txt is not in"):
        RealBlur(root=tmp_path, kind="R").check()
    (tmp_path / "RealBlur_J_test_list.txt").write_text("../../etc/gt/passwd ../blur/x\n")
    with pytest.raises(DataError, match="line 1: expected"):
        source.photos("test")


def test_each_part_draws_its_own_photos_again() -> None:
    """Of a batch with one photo of the first part and two of the second."""

    def part(name: str, count: int) -> Batch:
        photos = torch.zeros(count, 3, 4, 4)
        asked[name] = []

        def redegrade(keys: torch.Tensor) -> torch.Tensor:
            asked[name] += keys.tolist()
            return photos + 1

        return Batch(photos, photos, None, [name] * count, keys=torch.zeros(count), redegrade=redegrade)

    asked: dict[str, list[int]] = {}
    joined = join([part("a", 1), part("b", 2)])
    assert joined.redegrade is not None
    assert joined.redegrade(torch.tensor([7, 8, 9])).shape == (3, 3, 4, 4)
    assert asked == {"a": [7], "b": [8, 9]}
