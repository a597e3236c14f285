"""Photos of any number of channels, such as three colour frames folded into nine: packed, cut, trained on and
shown."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from data_toys import photo_data, trainer
from PIL import Image

from restora.config import ConfigError
from restora.data.packing import PhotoFile, Reader, pack
from restora.data.sources import Folder, Split
from restora.families.base import Family
from restora.networks.dncnn import DnCNN
from restora.networks.unet import UNet
from restora.photos.errors import PhotoError
from restora.photos.reading import channel_count, channel_word, read_photo
from restora.training.build import check_together
from restora.training.callbacks import SaveTestImages
from restora.training.schedules import Constant
from restora.types import Batch


def size_of(path: Path) -> tuple[int, int]:
    height, width = np.load(path, mmap_mode="r").shape[1:3]
    return height, width


def folded(path: Path, channels: int) -> Any:
    """(T,H,W,C) -> (H,W,T·C); all that there is, whatever was asked for."""
    frames = np.load(path)
    return frames.transpose(1, 2, 0, 3).reshape(*frames.shape[1:3], -1)


class Clips(Folder):
    """Clips as `.npy` files (T,H,W,C)."""

    reader = Reader(size_of, folded)
    channel_counts = None

    def photos(self, split: Split) -> list[PhotoFile]:
        files = sorted(self.existing_root().glob("*.npy"))
        chosen = {"train": files[:-2], "val": files[-2:-1], "test": files[-1:]}[split]
        return [PhotoFile(path.stem, path) for path in chosen]


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for number in range(5):
        frames = random.integers(0, 256, (3, 40, 48, 3), dtype=np.uint8)
        np.save(tmp_path / f"clip{number}.npy", frames)
    return tmp_path


@pytest.fixture
def nine(clips: Path, tmp_path: Path) -> Any:
    data = photo_data(Clips(root=clips), tmp_path / "packed", channels=9)
    data.prepare_data()
    data.setup("fit")
    return data


def network(channels: int) -> DnCNN:
    return DnCNN(in_channels=channels, depth=3, channels=4, batch_norm=False, bias=True)


@pytest.mark.parametrize(
    ("channels", "count", "word"),
    [("rgb", 3, "rgb"), (3, 3, "rgb"), ("gray", 1, "gray"), (1, 1, "gray"), (9, 9, "9"), (2, 2, "2")],
)
def test_words_stand_for_numbers(channels: Any, count: int, word: str) -> None:
    assert (channel_count(channels), channel_word(channels)) == (count, word)


@pytest.mark.parametrize("channels", [0, -3, True, None, "grey", "9", 3.0])
def test_what_is_no_number_of_channels(channels: Any) -> None:
    with pytest.raises(ValueError, match="rgb, gray or a number from 1 on"):
        channel_count(channels)


def test_a_number_packs_the_store_of_its_word(tmp_path: Path, make_photos: Callable[..., Any]) -> None:
    photos = make_photos(2)
    stores = [pack(photos, store_dir=tmp_path / "s", name="x", channels=c) for c in ("gray", 1)]
    assert stores[0].folder == stores[1].folder
    np.testing.assert_array_equal(read_photo(photos[0].clean, 1), read_photo(photos[0].clean, "gray"))
    np.testing.assert_array_equal(read_photo(photos[0].clean, 3), read_photo(photos[0].clean, "rgb"))


def test_a_photo_file_has_no_nine_channels(tmp_path: Path, make_photos: Callable[..., Any]) -> None:
    photo = make_photos(1)[0]
    with pytest.raises(PhotoError, match="not with 9 channels"):
        read_photo(photo.clean, 9)
    with pytest.raises(ValueError, match="set data.channels=rgb or gray, or choose a source"):
        photo_data(Folder(root=photo.clean.parent), tmp_path / "packed", channels=9)


def test_the_store_holds_every_frame(nine: Any, clips: Path) -> None:
    store = nine.store("val")
    assert store.channels == 9
    assert "-9-" in store.folder.name
    np.testing.assert_array_equal(store.clean(0), folded(clips / "clip3.npy", 9))
    store.verify(whole=True)


def test_other_channels_than_asked_for_are_left_out(clips: Path, tmp_path: Path) -> None:
    files = Clips(root=clips).photos("train")
    with pytest.raises(ValueError, match="expected uint8 with 6 channels"):
        pack(files, store_dir=tmp_path / "s", name="x", channels=6, reader=Clips.reader)


def test_every_symmetry_of_a_crop_comes_from_the_clip(nine: Any, clips: Path) -> None:
    whole = {n: folded(clips / f"clip{n}.npy", 9) for n in range(3)}
    seen: set[int] = set()
    for raw in list(nine.train_dataloader()):
        for crop in raw["clean"].permute(0, 2, 3, 1).numpy():
            for member in range(8):
                turned = crop.transpose(1, 0, 2) if member & 4 else crop
                turned = turned[:, ::-1] if member & 1 else turned
                turned = turned[::-1] if member & 2 else turned
                if any(holds(clip, turned) for clip in whole.values()):
                    seen.add(member)
                    break
            else:
                pytest.fail("a crop is in no clip")
    assert any(member & 4 for member in seen), "none was transposed"


def holds(clip: Any, crop: Any) -> bool:
    corners = np.argwhere((clip == crop[0, 0]).all(axis=2))
    side = len(crop)
    return any(np.array_equal(clip[y : y + side, x : x + side], crop) for y, x in corners)


def test_a_network_of_nine_channels_learns_from_them(nine: Any, tmp_path: Path) -> None:
    check_together(network(9), nine)
    family = Family(
        network=network(9),
        loss=torch.nn.MSELoss(),
        optimizer=partial(torch.optim.SGD, lr=0.01),
        schedule=Constant(),
    )
    before = [weight.detach().clone() for weight in family.network.parameters()]
    made = trainer(tmp_path, max_steps=2)
    made.fit(family, nine)
    after = list(family.network.parameters())
    assert all(not torch.equal(one, other) for one, other in zip(before, after, strict=True))
    figures = made.test(family, nine, verbose=False)[0]
    assert 10 < figures["test/psnr"] < 60


@pytest.mark.parametrize(("channels", "fix"), [(9, "data.channels=9"), (1, "data.channels=gray")])
def test_a_network_of_other_channels_is_refused(channels: int, fix: str) -> None:
    data: Any = SimpleNamespace(scale=1, condition_channels=0, channels="rgb", frames=1)
    with pytest.raises(ConfigError, match=f"network.in_channels=3, or {fix}"):
        check_together(network(channels), data)
    with pytest.raises(ConfigError, match="set network.out_channels=3"):
        check_together(UNet(channels=[4, 8], out_channels=1, residual=False), data)


@pytest.mark.parametrize(("channels", "shown"), [(9, 3), (2, 1)])
def test_pictures_show_the_first_channels(channels: int, shown: int, tmp_path: Path, caplog: Any) -> None:
    photo = torch.rand(1, channels, 12, 16)
    batch = Batch(degraded=photo, clean=photo, condition=None, names=["a"])
    caplog.set_level("INFO")
    SaveTestImages(directory=tmp_path).on_test_batch_end(None, None, {"restored": photo}, batch, 0)  # type: ignore[arg-type]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a_clean.png",
        "a_degraded.png",
        "a_restored.png",
    ]
    pixels = np.atleast_3d(np.asarray(Image.open(tmp_path / "a_restored.png")))
    np.testing.assert_array_equal(pixels, (photo[0, :shown].permute(1, 2, 0) * 255).round().byte().numpy())
    assert f"a has {channels} channels" in caplog.text
