"""Crops are turned slices of their photo, uniformly placed, and a function of their key alone."""

import pickle
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from restora.data import loaders
from restora.data.crops import CropBatches, WholePhotos, reduced, turn
from restora.data.loaders import TrainingLoader
from restora.data.packing import PhotoFile, pack
from restora.data.schedule import CropSchedule, ResumableSampler, Stage
from restora.data.store import PhotoStore
from restora.keyed import image_key

SIZES = [(70, 90), (64, 100), (128, 64)]
SCALE = 2


def coordinates(height: int, width: int, photo: int) -> NDArray[np.uint8]:
    """A photo that tells of every pixel where it was: (y, x, number of the photo)."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([y, x, np.full_like(y, photo)], axis=-1).astype(np.uint8)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[PhotoFile]:
    """Pairs of coordinate photos; the degraded ones have half the sides and tell their own pixels."""
    folder = tmp_path_factory.mktemp("coordinates")
    made = []
    for number, (height, width) in enumerate(SIZES):
        clean, degraded = folder / f"{number}.png", folder / f"{number}_small.png"
        Image.fromarray(coordinates(height, width, number)).save(clean)
        Image.fromarray(coordinates(height // SCALE, width // SCALE, number)).save(degraded)
        made.append(PhotoFile(f"photo{number}", clean, degraded))
    return made


@pytest.fixture(scope="module")
def pairs(photos: list[PhotoFile]) -> PhotoStore:
    folder = photos[0].clean.parent / "packed"
    return pack(photos, store_dir=folder, name="pairs", channels="rgb", scale=SCALE)


@pytest.fixture(scope="module")
def store(photos: list[PhotoFile]) -> PhotoStore:
    """The clean photos alone."""
    clean = [PhotoFile(photo.name, photo.clean) for photo in photos]
    return pack(clean, store_dir=photos[0].clean.parent / "packed", name="clean", channels="rgb")


def batches(
    store: PhotoStore,
    *,
    size: int = 32,
    batch: int = 12,
    seed: int = 1,
    paired: bool = False,
    geometry: Any = "d4",
    reductions: Sequence[int] = (1,),
    transforms: Sequence[Any] = (),
    rank: int = 0,
    world_size: int = 1,
) -> CropBatches:
    stages = [Stage(0, size, batch)]
    schedule = CropSchedule(seed=seed, photos=3, stages=stages, rank=rank, world_size=world_size)
    return CropBatches(
        store=store,
        photos=[0, 1, 2],
        schedule=schedule,
        paired=paired,
        scale=SCALE if paired else 1,
        geometry=geometry,
        reductions=reductions,
        transforms=transforms,
    )


def test_a_batch_is_ready_to_be_used(store: PhotoStore) -> None:
    made = batches(store)[0]
    assert made["clean"].shape == (12, 3, 32, 32)
    assert made["clean"].dtype == torch.uint8
    assert made["clean"].is_contiguous(memory_format=torch.channels_last)
    assert made["key"].shape == (12,)
    assert made["key"].dtype == torch.int64
    assert "degraded" not in made


def place(crop: torch.Tensor) -> tuple[int, int, int, bool]:
    """(photo, top, left, whether turned) of a crop (3,h,h) of coordinates, which must be a turned slice."""
    y, x, photo = crop.numpy().astype(int)
    assert len(np.unique(photo)) == 1
    size = crop.shape[-1]
    top, left = y.min(), x.min()
    slices = coordinates(256, 256, 0)[top : top + size, left : left + size, :2].astype(int)
    members = [turned(slices, member) for member in range(8)]
    (found,) = [m for m in range(8) if np.array_equal(members[m], np.stack([y, x], axis=-1))]
    return int(photo[0, 0]), int(top), int(left), found


def turned(pixels: NDArray[Any], member: int) -> NDArray[Any]:
    """The eight symmetries by numpy."""
    pixels = pixels[:: -1 if member & 2 else 1, :: -1 if member & 1 else 1]
    return pixels.swapaxes(0, 1) if member & 4 else pixels


def test_crops_are_turned_slices_of_the_named_photo(store: PhotoStore) -> None:
    places = []
    for number in range(60):
        made = batches(store)[number]
        for crop, name in zip(made["clean"], made["names"], strict=True):
            photo, top, left, member = place(crop)
            assert name == f"photo{photo}"
            assert 0 <= top <= SIZES[photo][0] - 32
            assert 0 <= left <= SIZES[photo][1] - 32
            places.append((photo, top, left, member))
    counts = np.bincount([member for *_, member in places], minlength=8)
    assert counts.min() > 0.7 * len(places) / 8, "a symmetry is missing or rare"
    tops = [top for photo, top, *_ in places if photo == 0]
    assert (min(tops), max(tops)) == (0, 38), "places do not reach both edges"
    histogram = np.histogram(tops, bins=3, range=(0, 39))[0]
    assert histogram.min() > 0.7 * len(tops) / 3, "places are not uniform"


def test_reduced_crops_are_means_of_larger_ones(store: PhotoStore) -> None:
    counts = {1: 0, 3: 0}
    for number in range(20):
        made = batches(store, size=20, geometry="none", reductions=(1, 3, 9))[number]
        for crop, name in zip(made["clean"], made["names"], strict=True):
            y, x, photo = crop.numpy().astype(int)
            steps = np.unique(np.diff(y, axis=0)), np.unique(np.diff(x, axis=1))
            (reduction,) = np.unique(np.concatenate(steps))  # the store holds its pixels' coordinates
            counts[int(reduction)] += 1
            size = 20 * reduction
            top, left = (int(first) - (reduction - 1) // 2 for first in (y[0, 0], x[0, 0]))
            part = store.clean(int(photo[0, 0]))[top : top + size, left : left + size]
            means = part.reshape(20, reduction, 20, reduction, 3).astype(float).mean((1, 3))
            assert np.abs(crop.permute(1, 2, 0).numpy() - means).max() <= 0.5, name
    assert min(counts.values()) > 0.4 * sum(counts.values()), counts


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_any_number_of_channels_is_reduced(channels: int) -> None:
    part = np.random.default_rng(channels).integers(0, 256, (12, 12, channels), np.uint8)
    made = reduced(part, 3)
    assert made.shape == (4, 4, channels)
    means = part.reshape(4, 3, 4, 3, channels).astype(float).mean((1, 3))
    assert np.abs(made - means).max() <= 0.5


@pytest.mark.parametrize(("geometry", "members"), [("none", {0}), ("hflip", {0, 1})])
def test_other_geometries(store: PhotoStore, geometry: str, members: set[int]) -> None:
    found = {
        place(crop)[3] for number in range(5) for crop in batches(store, geometry=geometry)[number]["clean"]
    }
    assert found == members


def test_a_photo_of_the_size_of_the_crop(store: PhotoStore) -> None:
    for crop in batches(store, size=64)[0]["clean"]:
        photo, top, left, _ = place(crop)
        room = [(6, 26), (0, 36), (64, 0)][photo]
        assert top <= room[0]
        assert left <= room[1]


@pytest.mark.parametrize("channels", [1, 3])
def test_turning_is_albumentations_d4(channels: int) -> None:
    """Ours goes through OpenCV for speed; the group is that of the library that the field uses."""
    functional = pytest.importorskip("albumentations.augmentations.geometric.functional")
    large = np.random.default_rng(0).integers(0, 256, (20, 30, channels), dtype=np.uint8)
    crop = large[3:12, 5:14]
    wanted = ["e", "h", "v", "r180", "t", "r90", "r270", "hvt"]
    for member, name in enumerate(wanted):
        out = np.zeros((9, 9, channels), np.uint8)
        turn(crop, member, out)
        np.testing.assert_array_equal(out, functional.d4(crop, name).reshape(out.shape), err_msg=name)


def test_pairs_stay_aligned(pairs: PhotoStore) -> None:
    for number in range(10):
        made = batches(pairs, paired=True)[number]
        assert made["degraded"].shape == (12, 3, 16, 16)
        for clean, degraded in zip(made["clean"], made["degraded"], strict=True):
            photo, top, left, member = place(clean)
            assert place(degraded) == (photo, top // SCALE, left // SCALE, member)
            assert top % SCALE == left % SCALE == 0


def same(first: Any, second: Any) -> bool:
    return (
        torch.equal(first["clean"], second["clean"])
        and torch.equal(first["key"], second["key"])
        and first["names"] == second["names"]
    )


def test_a_batch_is_a_function_of_its_number(store: PhotoStore) -> None:
    forward = [batches(store)[number] for number in range(4)]
    again = batches(store)
    assert all(same(again[number], forward[number]) for number in (3, 1, 0, 2))
    assert not same(forward[0], forward[1])
    assert not same(forward[0], batches(store, seed=2)[0])


def test_processes_together_cut_the_same(store: PhotoStore) -> None:
    one = batches(store)[5]
    parts = [batches(store, rank=rank, world_size=3)[5] for rank in range(3)]
    assert torch.equal(torch.cat([part["clean"] for part in parts]), one["clean"])
    assert torch.equal(torch.cat([part["key"] for part in parts]), one["key"])
    assert [name for part in parts for name in part["names"]] == one["names"]


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_cut_the_same(pairs: PhotoStore, workers: int) -> None:
    here = batches(pairs, paired=True)
    sampler = ResumableSampler(steps_per_epoch=4, batches_done=lambda: 3)
    loader = TrainingLoader(batches(pairs, paired=True), sampler, workers=workers, pin_memory=False)
    made = list(loader)
    assert len(made) == 4
    for number, batch in zip(range(3, 7), made, strict=True):
        assert same(batch, here[number])
        assert torch.equal(batch["degraded"], here[number]["degraded"])
        assert batch["clean"].is_contiguous(memory_format=torch.channels_last)
        assert batch["clean"].is_shared(), "a batch was copied on its way"


def test_albumentations_transforms_are_seeded_by_the_sample(store: PhotoStore) -> None:
    albumentations = pytest.importorskip("albumentations")
    noise = [albumentations.GaussNoise(std_range=(0.1, 0.2), p=1.0)]
    first, plain = batches(store, transforms=noise)[3], batches(store)[3]
    other = batches(store, transforms=noise)
    other[9]
    assert same(other[3], first)
    assert same(pickle.loads(pickle.dumps(other))[3], first), "a spawned worker would not do the same"
    change = first["clean"].int() - plain["clean"].int()
    assert change.float().std() > 5
    assert not torch.equal(change[0], change[1])
    half = batches(store, transforms=noise, rank=1, world_size=2)[3]
    assert torch.equal(half["clean"], first["clean"][6:])


def test_transforms_change_degraded_partners_alike(pairs: PhotoStore) -> None:
    albumentations = pytest.importorskip("albumentations")
    made = batches(pairs, paired=True, transforms=[albumentations.InvertImg(p=0.5)])[0]
    plain = batches(pairs, paired=True)[0]
    inverted = [not torch.equal(a, b) for a, b in zip(made["clean"], plain["clean"], strict=True)]
    assert 0 < sum(inverted) < 12
    assert inverted == [
        not torch.equal(a, b) for a, b in zip(made["degraded"], plain["degraded"], strict=True)
    ]


def test_transforms_may_not_change_the_size(store: PhotoStore) -> None:
    albumentations = pytest.importorskip("albumentations")
    wrong = batches(store, transforms=[albumentations.Resize(height=16, width=16)])
    with pytest.raises(ValueError, match=r"data\.transforms must keep a crop uint8 \(32, 32, 3\)"):
        wrong[0]


def whole(store: PhotoStore, *, crop: int | None = None, scale: int = 1, paired: bool = False) -> WholePhotos:
    return WholePhotos(store=store, photos=[0, 1, 2], paired=paired, scale=scale, crop=crop, counted=True)


def test_whole_photos(store: PhotoStore) -> None:
    photos = whole(store)
    assert len(photos) == len(list(photos)) == 3
    for number, made in enumerate(photos):
        np.testing.assert_array_equal(made["clean"][0].permute(1, 2, 0), coordinates(*SIZES[number], number))
        assert made["names"] == [f"photo{number}"]
        assert made["key"].tolist() == [image_key(f"photo{number}")]


@pytest.mark.parametrize(
    ("crop", "scale", "shape", "corner"),
    [
        (None, 4, (68, 88), (0, 0)),
        (40, 1, (40, 40), (15, 25)),
        (40, 4, (40, 40), (12, 24)),
        (80, 1, (70, 80), (0, 5)),
        (500, 3, (69, 90), (0, 0)),
    ],
)
def test_centres(
    store: PhotoStore, crop: int | None, scale: int, shape: tuple[int, int], corner: tuple[int, int]
) -> None:
    made = whole(store, crop=crop, scale=scale)[0]["clean"][0]
    assert tuple(made.shape[1:]) == shape
    assert tuple(made[:2, 0, 0].tolist()) == corner


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (0, [[0], [1], [2], [0], [2], [0]]),
        (2 * 70 * 90, [[0, 0], [1], [2], [2], [0]]),
        (10**9, [[0, 0, 0], [1], [2, 2]]),
    ],
)
def test_photos_of_equal_size_come_together(
    pairs: PhotoStore, pixels: int, expected: list[list[int]]
) -> None:
    given = [0, 1, 2, 0, 2, 0]
    together = WholePhotos(
        store=pairs, photos=given, paired=True, scale=SCALE, crop=None, counted=True, pixels=pixels
    )
    assert together.batches == expected
    alone = list(whole(pairs, scale=SCALE, paired=True))
    for photos, made in zip(expected, together, strict=True):
        assert made["names"] == [f"photo{photo}" for photo in photos]
        for place, photo in enumerate(photos):
            for key in ("clean", "degraded", "key"):
                assert torch.equal(made[key][place], alone[photo][key][0])


def test_whole_pairs_stay_aligned(pairs: PhotoStore) -> None:
    for crop in (None, 40):
        for made in whole(pairs, crop=crop, scale=SCALE, paired=True):
            clean, degraded = made["clean"][0], made["degraded"][0]
            assert [side // SCALE for side in clean.shape[1:]] == list(degraded.shape[1:])
            torch.testing.assert_close(clean[:2, ::SCALE, ::SCALE] // SCALE, degraded[:2])


def test_grey(tmp_path: Path) -> None:
    Image.fromarray(coordinates(50, 60, 0)[..., 1]).save(tmp_path / "a.png")
    photos = [PhotoFile("a", tmp_path / "a.png")] * 3
    grey = pack(photos, store_dir=tmp_path / "packed", name="x", channels="gray")
    made = batches(grey)[0]["clean"]
    assert made.shape == (12, 1, 32, 32)
    assert all(len(np.unique(crop)) == 32 for crop in made)


@pytest.mark.parametrize(
    ("said", "device", "devices", "cores", "wanted"),
    [
        ("auto", "cpu", 1, 16, 0),
        ("auto", "cuda", 1, 16, 8),
        ("auto", "cuda", 4, 16, 3),
        ("auto", "cuda", 8, 4, 1),
        (3, "cpu", 1, 16, 3),
        (0, "cuda", 1, 16, 0),
    ],
)
def test_workers_follow_the_cores_of_each_device(monkeypatch, said, device, devices, cores, wanted) -> None:
    monkeypatch.setattr(loaders, "cores", lambda: cores)
    strategy = SimpleNamespace(root_device=torch.device(device))
    trainer = SimpleNamespace(strategy=strategy, num_devices=devices)
    assert loaders.workers_of(said, trainer) == wanted


def test_more_workers_than_cores_are_named(monkeypatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(loaders, "cores", lambda: 2)
    assert loaders.workers_of(2, None) == 2
    assert not caplog.messages
    assert loaders.workers_of(8, None) == 8
    (line,) = caplog.messages
    assert line.startswith("data.workers=8 exceeds the cores of this process (2)")
    assert line.endswith("set data.workers=auto")
