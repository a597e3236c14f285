"""`restora prepare` against a web server of our own: DIV2K and test sets in small, with broken
connections and archives."""

import errno
import io
import os
import time
from pathlib import Path

import numpy as np
import pytest
from archive_server import ArchiveServer, Plan, tarred, zipped
from PIL import Image
from warm_start import start_restora

from restora.cli import main
from restora.config import options
from restora.data.store import PhotoStore
from restora.photos.reading import read_photo

TRAIN, VALID = range(1, 4), range(801, 806)
SIDE = 64


def png(number: int, side: int) -> bytes:
    """Random pixels, so that they do not compress, of a colour that tells the number."""
    pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
    pixels[..., 0] = number % 256
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def archives() -> dict[str, bytes]:
    """The official archives' names and layout, with a handful of small photos."""
    made = {}
    for half, numbers in (("train", TRAIN), ("valid", VALID)):
        photos = {f"DIV2K_{half}_HR/{n:04}.png": png(n, SIDE) for n in numbers}
        made[f"DIV2K_{half}_HR.zip"] = zipped({f"DIV2K_{half}_HR/": b"", **photos})
        folder = f"DIV2K_{half}_LR_bicubic/X2"
        made[f"DIV2K_{half}_LR_bicubic_X2.zip"] = zipped(
            {f"{folder}/{n:04}x2.png": png(n, SIDE // 2) for n in numbers}
        )
        suffixes = ("x4w1", "x4w2", "x4w3", "x4w4") if half == "train" else ("x4w",)
        made[f"DIV2K_{half}_LR_wild.zip"] = zipped(
            {f"DIV2K_{half}_LR_wild/{n:04}{s}.png": png(n, SIDE // 4) for n in numbers for s in suffixes}
        )
    return made


@pytest.fixture
def server():
    with ArchiveServer(archives()) as server:
        yield server


def arguments(server: ArchiveServer, tmp_path: Path, *more: str, data: str = "div2k") -> list[str]:
    return [
        "prepare",
        f"data={data}",
        f"data_dir={tmp_path}",
        f"data.source.url={server.url}",
        "data.source.verify=false",
        "data.source.val_photos=2",
        "data.patch_size=32",
        *more,
    ]


def stores(tmp_path: Path) -> dict[str, PhotoStore]:
    folders = (path for path in (tmp_path / "packed").iterdir() if path.is_dir())
    return {path.name.rpartition("-")[0]: PhotoStore(folder=path) for path in folders}


def test_div2k_from_the_web_to_the_store(
    server: ArchiveServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Connections are cut in the middle of both archives."""
    server.plans = [Plan(cut=10_000), Plan(), Plan(cut=30_000)]
    assert main(arguments(server, tmp_path)) == 0
    assert [request.range for request in server.requests] == [None, "bytes=10000-", None, "bytes=30000-"]
    packed = stores(tmp_path)
    assert {name: len(store) for name, store in packed.items()} == {
        "div2k-train-rgb": 3,
        "div2k-val-rgb": 2,
        "div2k-test-rgb": 3,
    }
    for index, number in enumerate(TRAIN):
        photo = read_photo(tmp_path / "DIV2K" / "DIV2K_train_HR" / f"{number:04}.png")
        np.testing.assert_array_equal(packed["div2k-train-rgb"].clean(index), photo)
    printed = capsys.readouterr().out
    assert "megapixels" in printed
    assert packed["div2k-val-rgb"].folder.name in printed
    assert f"packed in {tmp_path}/packed" in printed
    assert not list((tmp_path / "DIV2K").glob("*.zip*"))

    assert main(arguments(server, tmp_path)) == 0
    assert len(server.requests) == 4, "what was there was fetched again"


def test_tracks_besides_and_pairs_to_train_on(server: ArchiveServer, tmp_path: Path) -> None:
    assert main(arguments(server, tmp_path, "bicubic_x2", "wild", "keep_archives=true")) == 0
    assert len(list((tmp_path / "DIV2K").glob("*.zip"))) == 6
    fetched = len(server.requests)
    wild = ["data.source.track=wild", "data.source.scale=4"]
    assert main(arguments(server, tmp_path, *wild, data="div2k_lr")) == 1  # small photos are left out
    assert len(server.requests) == fetched
    store = stores(tmp_path)["div2k-wild-x4-train-rgb"]
    assert [entry.name for entry in store.entries][:5] == [
        "0001x4w1",
        "0001x4w2",
        "0001x4w3",
        "0001x4w4",
        "0002x4w1",
    ]
    assert store.degraded(4).shape == (16, 16, 3)
    assert store.degraded(4)[0, 0, 0] == store.clean(4)[0, 0, 0] == 2


def test_a_corrupt_archive(server: ArchiveServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server.plans = [Plan(flip=20_000), Plan(flip=20_000)]
    assert main(arguments(server, tmp_path)) == 2
    said = capsys.readouterr().err
    assert "DIV2K_train_HR.zip is damaged" in said
    assert "the same command downloads it again" in said
    assert "Traceback" not in said
    assert not (tmp_path / "DIV2K" / "DIV2K_train_HR").exists()
    assert main(arguments(server, tmp_path)) == 0
    assert len(stores(tmp_path)["div2k-train-rgb"]) == 3


def test_the_official_archives_are_known(
    server: ArchiveServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another file under an official name is refused by its size, before a byte of it is kept."""
    assert main([*arguments(server, tmp_path), "data.source.verify=true"]) == 2
    said = capsys.readouterr().err
    assert "the known file has 3530603713" in said
    assert "data.source.verify=false" in said
    assert not list((tmp_path / "DIV2K").glob("*.part"))


def test_killed_in_the_middle_of_a_download(server: ArchiveServer, tmp_path: Path) -> None:
    server.plans = [Plan(rate=20_000)]
    process = start_restora(*arguments(server, tmp_path))
    part = tmp_path / "DIV2K" / "DIV2K_train_HR.zip.part"
    end = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size > 8_000):
        assert process.poll() is None
        assert time.monotonic() < end, "the download did not begin"
        time.sleep(0.01)
    process.kill()
    process.wait()
    kept = part.stat().st_size
    assert main(arguments(server, tmp_path)) == 0
    assert server.requests[1].range == f"bytes={kept}-"
    assert len(stores(tmp_path)["div2k-train-rgb"]) == 3


def test_a_folder_with_a_broken_photo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = tmp_path / "my photos"
    photos.mkdir()
    for number in range(12):
        (photos / f"{number}.png").write_bytes(png(number, SIDE))
    (photos / "broken.png").write_bytes(png(99, SIDE)[:4000])
    (photos / "thumbnail.png").write_bytes(png(98, 16))
    options = [f"data_dir={tmp_path}", f"data.source.root='{photos}'", "data.patch_size=32"]
    assert main(["prepare", "data=folder", *options]) == 1
    said = capsys.readouterr().err
    assert f"{photos}/broken.png: cannot be decoded" in said
    assert f"{photos}/thumbnail.png: is too small: 16x16" in said
    assert sum(len(store) for store in stores(tmp_path).values()) == 13


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data=folder"], "set data.source.root=FOLDER"),
        (["data=sampel"], "Did you mean data=sample"),
        (["data=sample", "mild"], "only DIV2K has tracks"),
        (["data=sample", "--verfy"], "there is no option --verfy"),
        (["data=div2k", "bicubic"], "choose one of bicubic_x2"),
        (["data=div2k_lr", "data.source.scale=5"], "set data.source.scale to 2 or 3 or 4 or 8"),
        (["data=div2k", "data.source.ulr=x"], "Did you mean data.source.url"),
        (["keep_archives=true"], "Set data=NAME, such as div2k, or testsets=NAME"),
        (["set12", "testsets=bsd68"], "only DIV2K has tracks (data=div2k); testsets=a,b has commas"),
        (["testsets=bsd6"], "there is no test set bsd6. Did you mean bsd68"),
        (["testset=bsd68"], "Did you mean testsets"),
        (["testsets=div2k_valid"], "DIV2K_valid_HR is fetched by `restora prepare data=div2k`"),
        (["testsets=set5,bsd68", "archive=http://127.0.0.1:9/x.tar"], "prepare set5 and bsd68 separately"),
        (["testsets=set5", "archive=nowhere"], "nowhere is not a URL: check archive"),
    ],
)
def test_mistakes_are_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["prepare", f"data_dir={tmp_path}", *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("event", "status", "said"),
    [
        (KeyboardInterrupt(), 130, "stopped; the same command continues"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "make room, or set data_dir (RESTORA_DATA)"),
    ],
)
def test_what_ends_it_says_how_it_goes_on(
    event: BaseException,
    status: int,
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def happens(*_: object, **__: object) -> None:
        raise event

    monkeypatch.setattr("restora.apps.prepare._prepare_data", happens)
    assert main(["prepare", "data=sample", f"data_dir={tmp_path}"]) == status
    assert said in capsys.readouterr().err


def test_training_on_data_that_are_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "data=div2k", f"data_dir={tmp_path}", f"output_dir={tmp_path}/out"]) == 2
    assert "run `restora prepare data=div2k`" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_test_sets_from_the_web_to_evaluate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """What the evaluation asks for is what the command brings; the archive is fetched once for both sets."""
    evaluate = [
        "evaluate",
        "classical=bicubic",
        "benchmark=set5_x2",
        f"data_dir={tmp_path}",
        f"output={tmp_path}/out",
    ]
    assert main(evaluate) == 2
    assert "`restora prepare testsets=set5`" in capsys.readouterr().err
    members = {f"benchmark/Set5/HR/{number}.png": png(number, 32) for number in range(5)}
    members |= {f"benchmark/Set14/HR/{number}.png": png(number, 32) for number in range(14)}
    members |= {f"benchmark/Set5/LR_bicubic/X2/{number}x2.png": png(number, 16) for number in range(5)}
    prepare = ["prepare", "testsets=Set5,set14", f"data_dir={tmp_path}"]
    with ArchiveServer({"benchmark.tar": tarred(members)}) as server:
        server.plans = [Plan(cut=20_000)]
        prepare.append(f"archive={server.url}/benchmark.tar")
        assert main(prepare) == 0
        assert [request.range for request in server.requests] == [None, "bytes=20000-"]
        assert len(list((tmp_path / "testsets" / "Set14").iterdir())) == 14
        caplog.set_level("INFO")
        assert main(prepare) == 0
        assert len(server.requests) == 2, "what was there was fetched again"
    assert f"Set5 is already there: 5 photos in {tmp_path}/testsets/Set5" in caplog.messages
    assert main(evaluate) == 0


def test_all_test_sets(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Sets that are there are left alone; the one that comes with DIV2K is named."""
    counts = {"BSD68": 68, "Set12": 12, "Classic5": 5, "LIVE1": 29, "CBSD68": 68, "Kodak24": 24}
    counts |= {"McMaster": 18, "Set5": 5, "Set14": 14, "BSD100": 100, "Urban100": 100}
    photo = png(1, 8)
    for name, count in counts.items():
        (tmp_path / "testsets" / name).mkdir(parents=True)
        for number in range(count):
            (tmp_path / "testsets" / name / f"{number}.png").write_bytes(photo)
    caplog.set_level("INFO")
    assert main(["prepare", "testsets=all", f"data_dir={tmp_path}"]) == 0
    there = [message.partition(" is already there")[0] for message in caplog.messages if "already" in message]
    assert sorted(there) == sorted(counts)
    assert "DIV2K_valid_HR is fetched by `restora prepare data=div2k`" in caplog.messages


def test_the_help_names_every_test_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", "--help"]) == 0
    said = capsys.readouterr().out
    assert "restora prepare testsets=bsd68,set12" in said
    assert "restora prepare testsets=all" in said
    assert {name for name in options("benchmark/testset") if name not in said.split()} == {"folder"}


def test_verify_reads_every_pixel_and_packs_again_what_is_not_as_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """In a folder whose name is no markup."""
    caplog.set_level("INFO")
    photos = tmp_path / "my [/raw] photos"
    photos.mkdir(parents=True)
    for number in range(1, 13):
        (photos / f"{number:02}.png").write_bytes(png(number, SIDE))
    words = ["prepare", "--verify", "data=folder", f"data.source.root={photos}", "data.patch_size=32"]
    words += [f"data_dir={tmp_path / 'data [/raw]'}"]
    assert main(words) == 0
    said = caplog.text + capsys.readouterr().out
    assert "photos are as they were packed" in said
    assert "packed again" not in said
    packed = (tmp_path / "data [/raw]" / "packed").iterdir()
    (store,) = (path for path in packed if "-train-" in path.name and path.is_dir())
    pixels = store / "photos.bin"
    before = pixels.read_bytes()
    changed = bytearray(before)
    changed[len(changed) // 2 + 17] ^= 1  # one bit, with the file's time and size as they were
    times = pixels.stat()
    pixels.write_bytes(changed)
    os.utime(pixels, ns=(times.st_atime_ns, times.st_mtime_ns))
    caplog.clear()
    assert main(words) == 0
    assert "photos.bin" in caplog.text
    assert "packed again" in caplog.text
    assert pixels.read_bytes() == before
