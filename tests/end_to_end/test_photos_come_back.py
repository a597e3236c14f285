"""Every kind of photo through every command: what comes out is what went in, or a refusal; and several
commands agree about one bad folder."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from identity_model import identity_model
from photo_kinds import HEIGHT, WIDTH, bad_files, colours, cut_out, deep_colours, photo_kinds, saved, tiff
from PIL import Image, ImageCms, ImageOps
from PIL.PngImagePlugin import PngInfo
from run_folders import Strided, photo, tiny_network, write_run

from restora.apps.export import main as export
from restora.apps.restore import main as restore
from restora.artifact.photo_pixels import restore_photo
from restora.artifact.restorer import Restorer
from restora.config import compose
from restora.data.packing import pack
from restora.data.sources import Folder
from restora.evaluation.benchmarks.denoise import Denoise
from restora.networks.base import Network
from restora.path_values import with_quoted_paths
from restora.photos.decoding import rounded_to_8_bits
from restora.photos.encoding import DEEP, LOSSY, NO_ALPHA
from restora.photos.files import FORMATS, Photo, read_photo
from restora.photos.kinds import FORMAT_SUFFIXES
from restora.photos.listing import list_photos
from restora.photos.reading import read_photo as read_for_training

KINDS = photo_kinds()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return identity_model(tmp_path_factory.mktemp("models") / "identity")


@pytest.fixture(scope="module")
def album(tmp_path_factory):
    """A folder of every kind."""
    folder = tmp_path_factory.mktemp("album")
    for name, kind in KINDS.items():
        place = folder / name.replace(".", "_")  # so that no two outputs have one name
        place.mkdir()
        (place / name).write_bytes(kind.data)
    return folder


def difference(one, other):
    return np.abs(one.astype(int) - other.astype(int)).max()


def test_photos_that_would_share_a_name_keep_their_endings(model, tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("photo.jfif", "photo.jpg"):
        (tmp_path / "in" / name).write_bytes(KINDS[name].data)
    Image.fromarray(colours()).save(tmp_path / "in" / "photo.png")
    assert restore([str(model), str(tmp_path / "in"), str(tmp_path / "out"), "--format", "png"]) == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["photo.jfif.png", "photo.jpg.png", "photo.png"]


@pytest.mark.parametrize("target", [None, *sorted(set(FORMAT_SUFFIXES) - {"jpeg", "tiff"})])
def test_every_kind_to_every_format(model, album, tmp_path, target, capsys):
    """Equal pixels and transparency, or a refusal that says why and leaves no file."""
    options = [] if target is None else ["--format", target]
    code = restore([str(model), str(album), str(tmp_path / "out"), *options])
    errors, refused = capsys.readouterr().err, 0
    for name, kind in KINDS.items():
        stem, own = os.path.splitext(name)
        suffix = own if target is None or FORMATS.get(own) == FORMATS[FORMAT_SUFFIXES[target]] else None
        path = tmp_path / "out" / name.replace(".", "_") / f"{stem}{suffix or FORMAT_SUFFIXES[target]}"
        format_name = FORMATS.get(path.suffix)
        clear = kind.alpha is not None and (kind.alpha < np.iinfo(kind.alpha.dtype).max).any()
        if format_name is None or (clear and format_name in NO_ALPHA):
            assert f"{name}: " in errors
            assert not path.exists()
            refused += 1
            continue
        given, back = read_photo(album / name.replace(".", "_") / name), read_photo(path)
        pixels, alpha = given.pixels, given.alpha
        if format_name not in DEEP:
            pixels = rounded_to_8_bits(pixels)
            alpha = None if alpha is None else rounded_to_8_bits(alpha)
        lossy = format_name in LOSSY and not (format_name == "WEBP" and given.metadata.lossless)
        assert back.pixels.dtype == pixels.dtype, name
        if back.pixels.shape[2] != pixels.shape[2]:  # WebP and AVIF have no grey
            assert format_name in ("WEBP", "AVIF")
            pixels = np.repeat(pixels, 3, axis=2)
        if lossy:
            assert np.abs(back.pixels.astype(int) - pixels).mean() < 6, name
        else:
            np.testing.assert_array_equal(back.pixels, pixels, err_msg=name)
        if clear:
            assert difference(back.alpha, alpha) <= (4 if lossy else 0), name
    assert code == (1 if refused else 0)


def shown(kind):
    """float (H,W,3): a kind's pixels as training sees them, 8 bits over white."""
    pixels = rounded_to_8_bits(kind.pixels).astype(float)
    if kind.alpha is not None:
        weight = rounded_to_8_bits(kind.alpha)[..., None] / 255
        pixels = pixels * weight + 255 * (1 - weight)
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels


def test_what_restores_trains_and_is_evaluated_as_the_same_pixels(album, tmp_path):
    source = Folder(root=album)
    files = [photo for split in ("train", "val", "test") for photo in source.photos(split)]
    store = pack(files, store_dir=tmp_path, name="all", channels="rgb", processes=1)
    assert store.left_out == []
    found = {path.name: index for index, path in enumerate(list_photos(album))}
    assert len(store.entries) == len(files) == len(KINDS) == len(found)
    for index, file in enumerate(files):
        kind = KINDS[file.clean.name]
        assert np.abs(store.clean(index) - shown(kind)).max() <= 0.5 + kind.near, file.name
    single = Denoise(root=str(album / "rgb16_planar_tif"), color="rgb", sigma=25)
    read = single.read(0, "rgb").mul(255)[0].permute(1, 2, 0).numpy()
    assert np.abs(read - shown(KINDS["rgb16_planar.tif"])).max() <= 0.51


BAD = bad_files()


@pytest.fixture
def bad_folder(tmp_path):
    """What people have in a folder: good photos, and every way not to be one."""
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, make in BAD.items():
        (folder / name).write_bytes(make())
    for name in ("rgb8.png", "rgb16.tif", "still.gif", "photo.jfif"):
        (folder / name).write_bytes(KINDS[name].data)
    (folder / "nowhere.png").symlink_to("gone.png")
    os.mkfifo(folder / "pipe.jpg")
    (folder / "again").symlink_to(".")
    (folder / "twice.png").symlink_to("rgb8.png")
    (folder / "notes.txt").write_text("summer")
    (folder / ".hidden.png").write_bytes(b"left by another system")
    return folder


GOOD = {"rgb8.png", "rgb16.tif", "still.gif", "photo.jfif"}
NAMED = {*BAD, "nowhere.png", "pipe.jpg"}


def reasons_of_restore(model, folder, output, capsys):
    code = restore([str(model), str(folder), str(output), "--format", "png"])
    assert code == 1
    prefix = "restora restore: "
    lines = [line.removeprefix(prefix) for line in capsys.readouterr().err.splitlines() if prefix in line]
    return dict(line.split(": ", 1) for line in lines if "were left out, or not" not in line)


def reasons_of_packing(folder, store_dir):
    source = Folder(root=folder)
    files = [photo for split in ("train", "val", "test") for photo in source.photos(split)]
    store = pack(files, store_dir=store_dir, name="bad", channels="rgb", processes=1)
    gone = {os.path.basename(item.path): item.reason for item in store.left_out}
    return gone | {path.name: reason for path, reason in source.left_out().items()}


def reasons_one_by_one(folder, read):
    """As `preview` and `evaluate` read: a path, and an error that names it."""
    reasons = {}
    for name in sorted(NAMED | GOOD):
        try:
            read(folder / name)
        except ValueError as error:
            reasons[name] = str(error).removeprefix(f"{folder / name}: ")
    return reasons


def test_commands_agree_about_a_bad_folder(model, bad_folder, tmp_path, capsys):
    restoring = reasons_of_restore(model, bad_folder, tmp_path / "out", capsys)
    packing = reasons_of_packing(bad_folder, tmp_path / "store")
    preview = reasons_one_by_one(bad_folder, read_for_training)
    evaluating = [path.name for path in Denoise(root=str(bad_folder), color="rgb", sigma=25).photos]
    table = {
        name: (restoring.get(name), packing.get(name), preview.get(name)) for name in sorted(NAMED | GOOD)
    }
    for name, reasons in table.items():
        assert len(set(reasons)) == 1, (name, reasons)
        assert (reasons[0] is None) == (name in GOOD), (name, reasons)
    assert set(restoring) == set(packing) == NAMED
    listed_only = {"nowhere.png", "pipe.jpg", "clip.mp4", "picture.jxl"}
    assert set(evaluating) == (NAMED | GOOD) - listed_only
    assert {path.stem for path in (tmp_path / "out").rglob("*.png")} == {os.path.splitext(n)[0] for n in GOOD}


def test_evaluate_names_what_it_leaves_out(bad_folder, caplog):
    with pytest.raises(ValueError, match=r"bomb\.png: is too large.*60000x60000"):
        Denoise(root=str(bad_folder), color="rgb", sigma=25).check()
    assert "clip.mp4: is a video" in caplog.text


def test_hidden_colours_do_not_leak_into_the_edge(tmp_path):
    """The visible pixels of a cut-out are the same whatever lies under alpha 0, and that comes back as it
    was."""

    class Blur(Network):
        family, tasks = "unet", ("denoise",)
        in_channels = out_channels = 3

        def restore(self, x, condition):
            return torch.nn.functional.avg_pool2d(x, 5, 1, 2, count_include_pad=False)

    restorer = Restorer(network=Blur(), device="cpu")
    alpha, outputs = cut_out(), []
    for hidden in (0, 255):
        pixels = colours().copy()
        pixels[alpha == 0] = hidden
        outputs.append(restore_photo(Photo(pixels, alpha), restorer))
        assert (outputs[-1].pixels[alpha == 0] == hidden).all()
    seen = alpha > 0
    np.testing.assert_array_equal(outputs[0].pixels[seen], outputs[1].pixels[seen])
    plain = restore_photo(Photo(colours(), None), restorer)
    inner = np.abs(outputs[0].pixels[:, 10:12].astype(int) - plain.pixels[:, 10:12].astype(int))
    assert inner.mean() < 12


def command(*arguments, **options):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    made = [sys.executable, "-m", "restora", *map(str, arguments)]
    return subprocess.run(made, capture_output=True, text=True, env=environment, check=False, **options)


@pytest.mark.parametrize("name", ["a" * 236 + ".png", "照" * 80 + ".png", "é'#,[x] (1).png"])
def test_names_as_long_and_odd_as_the_system_allows(model, tmp_path, name):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / name).write_bytes(KINDS["rgb8.png"].data)
    assert restore([str(model), str(tmp_path / "d"), str(tmp_path / "o")]) == 0
    assert [path.name for path in (tmp_path / "o").iterdir()] == [name]


def test_a_name_that_a_suffix_makes_too_long_is_refused_before_computing(model, tmp_path, capsys):
    (tmp_path / f"{'a' * 246}.png").write_bytes(KINDS["rgb8.png"].data)
    source = tmp_path / f"{'a' * 246}.png"
    assert restore([str(model), str(source), str(tmp_path / "o"), "--suffix", "_restored"]) == 1
    assert "longer than 255 bytes" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["pic.heic", "pic.gif", "pic.mp4", "pic.jxl"])
def test_a_picture_name_that_cannot_be_written_is_refused(model, tmp_path, name):
    (tmp_path / "a.png").write_bytes(KINDS["rgb8.png"].data)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.png").write_bytes(KINDS["rgb8.png"].data)
    for source in ("a.png", "folder"):
        with pytest.raises(ValueError, match=name):
            restore([str(model), str(tmp_path / source), str(tmp_path / name)])
    assert not (tmp_path / name).exists()


def test_a_gif_goes_into_the_png_that_was_named(model, tmp_path, capsys):
    (tmp_path / "a.gif").write_bytes(KINDS["still.gif"].data)
    assert restore([str(model), str(tmp_path / "a.gif"), str(tmp_path / "o.png")]) == 0
    assert (read_photo(tmp_path / "o.png").pixels == KINDS["still.gif"].pixels).all()
    assert restore([str(model), str(tmp_path / "a.gif"), str(tmp_path / "out")]) == 1
    assert "add --format png" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "format_name"), [("a.gif", "GIF"), ("a.webp", "WEBP"), ("a.png", "PNG"), ("a.tif", "TIFF")]
)
def test_the_first_frame_is_restored_and_the_others_are_said(model, tmp_path, name, format_name, capsys):
    images = [Image.fromarray(colours()), Image.fromarray(colours()[::-1].copy())]
    options = {"lossless": True} if name == "a.webp" else {}
    (tmp_path / name).write_bytes(
        saved(images[0], format_name, save_all=True, append_images=images[1:], **options)
    )
    assert restore([str(model), str(tmp_path / name), str(tmp_path / "o.png")]) == 1
    assert "has 2 frames or pages: the first was restored" in capsys.readouterr().err
    assert read_photo(tmp_path / "o.png").pixels.shape == (HEIGHT, WIDTH, 3)


def exif_of(orientation=6):
    made = Image.Exif()
    made[0x0112], made[0x010F] = orientation, "Camera"
    made.get_ifd(0x8769).update({0xA002: WIDTH, 0xA003: HEIGHT})
    return made


XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description tiff:ImageWidth="56" '
    b"exif:PixelXDimension='56'><tiff:ImageLength>40</tiff:ImageLength></rdf:Description></rdf:RDF></x:xmpmeta>"
)
IPTC = b"\x1c\x02\x50\x00\x06Byline"


def full_jpeg():
    """EXIF, XMP with its extension, IPTC, a comment, a segment of nobody's."""
    resources = b"8BIM\x04\x04\x00\x00" + len(IPTC).to_bytes(4, "big") + IPTC + b"\0" * (len(IPTC) % 2)
    segments = [
        (0xED, b"Photoshop 3.0\x00" + resources),
        (
            0xE1,
            b"http://ns.adobe.com/xmp/extension/\x00"
            + b"0" * 32
            + (5).to_bytes(4, "big")
            + bytes(4)
            + b"<ext>",
        ),
        (0xEB, b"JP something of others"),
    ]
    extra = b"".join(
        bytes([255, marker]) + (2 + len(body)).to_bytes(2, "big") + body for marker, body in segments
    )
    return saved(colours(), "JPEG", quality=95, exif=exif_of(), xmp=XMP, comment=b"by Ann", extra=extra)


def test_iptc_extended_xmp_and_comments_are_kept_or_counted(model, tmp_path, capsys):
    (tmp_path / "a.jpg").write_bytes(full_jpeg())
    assert restore([str(model), str(tmp_path / "a.jpg"), str(tmp_path / "o.jpg")]) == 0
    data = (tmp_path / "o.jpg").read_bytes()
    for block in (IPTC, b"xmp/extension/\x00" + b"0" * 32, b"by Ann", XMP):
        assert block in data
    said = capsys.readouterr().out
    assert "left out of the written files: APP11 (JP something of others) (1 photo)" in said
    assert restore([str(model), str(tmp_path / "a.jpg"), str(tmp_path / "o.png")]) == 0
    said = capsys.readouterr().out
    for what in ("IPTC", "extended XMP", "APP11"):
        assert what in said
    assert b"by Ann" in (tmp_path / "o.png").read_bytes()
    assert restore([str(model), str(tmp_path / "a.jpg"), str(tmp_path / "o.tif")]) == 0
    with Image.open(tmp_path / "o.tif") as image:
        assert image.tag_v2[33723] == IPTC
    assert restore([str(model), str(tmp_path / "o.tif"), str(tmp_path / "p.jpg")]) == 0
    assert IPTC in (tmp_path / "p.jpg").read_bytes()


def test_png_text_is_counted_where_it_has_no_place(model, tmp_path, capsys):
    text = PngInfo()
    text.add_text("Title", "Old photo")
    (tmp_path / "a.png").write_bytes(saved(colours(), "PNG", pnginfo=text))
    assert restore([str(model), str(tmp_path / "a.png"), str(tmp_path / "o.png")]) == 0
    assert "left out" not in capsys.readouterr().out
    assert restore([str(model), str(tmp_path / "a.png"), str(tmp_path / "o.jpg")]) == 0
    assert "PNG text (1 photo)" in capsys.readouterr().out


def test_sizes_in_exif_and_xmp_follow_an_enlargement(tmp_path):
    model = identity_model(tmp_path / "up2", scale=2)
    (tmp_path / "a.jpg").write_bytes(full_jpeg())
    for name in ("o.jpg", "o.png", "o.webp", "o.tif"):
        assert restore([str(model), str(tmp_path / "a.jpg"), str(tmp_path / name)]) == 0
        back = read_photo(tmp_path / name).metadata
        assert b'tiff:ImageWidth="112"' in back.xmp
        assert b"exif:PixelXDimension='112'" in back.xmp
        assert b"<tiff:ImageLength>80<" in back.xmp
        with Image.open(tmp_path / name) as image:
            directory = image.getexif().get_ifd(0x8769)
        assert (directory[0xA002], directory[0xA003]) == (112, 80), name


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
def test_a_broken_exif_block_is_left_out_with_a_word(model, tmp_path, name, capsys):
    block = b"Exif\x00\x00garbage, not a TIFF file"
    options = {"lossless": True} if name == "a.webp" else {}
    (tmp_path / name).write_bytes(saved(colours(), FORMATS[name[1:]], exif=block, **options))
    assert restore([str(model), str(tmp_path / name), str(tmp_path / "out")]) == 0
    assert "broken EXIF (1 photo)" in capsys.readouterr().out
    assert b"garbage" not in (tmp_path / "out" / name).read_bytes()


def test_stripped_photos_keep_their_colours_and_their_way_up(model, tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    (tmp_path / "a.jpg").write_bytes(
        saved(colours(), "JPEG", quality=95, exif=exif_of(6), xmp=XMP, comment=b"by Ann", icc_profile=profile)
    )
    assert restore([str(model), str(tmp_path / "a.jpg"), str(tmp_path / "o.png"), "--strip-metadata"]) == 0
    with Image.open(tmp_path / "o.png") as image, Image.open(tmp_path / "a.jpg") as given:
        image.load()
        assert not image.getexif()
        assert set(image.info) <= {"icc_profile"}
        assert image.info["icc_profile"] == profile
        shown = np.asarray(ImageOps.exif_transpose(given))
        np.testing.assert_array_equal(np.asarray(image), shown)


def test_strength_blends_and_quality_and_suffix_are_the_users(tmp_path):
    run = write_run(tmp_path / "job")
    assert export([str(run), "--no-onnx"]) == 0
    model, source = str(run / "model"), tmp_path / "a.png"
    Image.fromarray(photo()).save(source)
    pixels = {}
    for strength in ("0", "0.5", "1"):
        out = tmp_path / f"o{strength}.png"
        assert restore([model, str(source), str(out), "--strength", strength]) == 0
        pixels[strength] = read_photo(out).pixels.astype(int)
    np.testing.assert_array_equal(pixels["0"], photo())
    assert np.abs(pixels["0.5"] - (pixels["0"] + pixels["1"]) / 2).max() <= 1
    assert (pixels["1"] != pixels["0"]).any()
    for quality in ("30", "90"):
        arguments = ["--format", "jpg", "--quality", quality, "--suffix", f"_{quality}"]
        assert restore([model, str(source), str(tmp_path / "out"), *arguments]) == 0
    sizes = [(tmp_path / "out" / f"a_{quality}.jpg").stat().st_size for quality in ("30", "90")]
    assert sizes[0] < sizes[1]
    for wrong in (["--strength", "2"], ["--quality", "0"], ["--suffix", "a/b"], ["--max-megapixels", "0"]):
        with pytest.raises(ValueError, match=wrong[0]):
            restore([model, str(source), str(tmp_path / "o.png"), *wrong])


def test_self_ensemble_is_the_mean_over_turns(tmp_path):
    torch.manual_seed(0)
    restorer = Restorer(network=Strided(), device="cpu")
    values = photo(24, 36)
    calls = []
    mean = restore_photo(
        Photo(values, None),
        restorer,
        self_ensemble=True,
        progress=lambda done, total: calls.append((done, total)),
    ).pixels
    turned = []
    for turns in range(4):
        for mirrored in (False, True):
            one = np.rot90(values[:, ::-1] if mirrored else values, turns)
            result = np.rot90(restore_photo(Photo(one.copy(), None), restorer).pixels, -turns)
            turned.append((result[:, ::-1] if mirrored else result).astype(float))
    assert np.abs(mean - np.mean(turned, axis=0)).max() <= 1
    assert calls[-1] == (8, 8)
    equivariant = restore_photo(Photo(np.rot90(values).copy(), None), restorer, self_ensemble=True).pixels
    assert difference(np.rot90(equivariant, -1), mean) <= 1


def test_compare_puts_before_and_after_beside_the_photo(model, tmp_path):
    (tmp_path / "a.png").write_bytes(KINDS["rgba16.png"].data)
    assert restore([str(model), str(tmp_path / "a.png"), str(tmp_path / "out"), "--compare"]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.compare.jpg", "a.png"]
    with Image.open(tmp_path / "out" / "a.compare.jpg") as sheet:
        assert sheet.width > 2 * 256


def test_a_crash_leaves_no_half_file_and_skip_existing_goes_on(model, tmp_path):
    """Killed while it writes: what is there is whole; the next run makes the rest, and clears up."""
    (tmp_path / "in").mkdir()
    for number in range(6):
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (700, 700, 3), np.uint8)).save(
            tmp_path / "in" / f"{number}.png"
        )
    script = (
        "import os, sys, restora.files as files\n"
        "original = os.fsync\n"
        "count = []\n"
        "def dies(handle):\n"
        "    count.append(1)\n"
        "    os._exit(9) if len(count) == 3 else original(handle)\n"
        "files.os.fsync = dies\n"
        "from restora.apps.restore import main\n"
        f"main([{str(model)!r}, {str(tmp_path / 'in')!r}, {str(tmp_path / 'out')!r}])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == 9
    left = list((tmp_path / "out").iterdir())
    assert any(path.suffix == ".part" for path in left)
    whole = [path for path in left if path.suffix == ".png"]
    assert 0 < len(whole) < 6
    for path in whole:
        np.testing.assert_array_equal(read_photo(path).pixels, read_photo(tmp_path / "in" / path.name).pixels)
    times = {path: path.stat().st_mtime_ns for path in whole}
    assert restore([str(model), str(tmp_path / "in"), str(tmp_path / "out"), "--skip-existing"]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"{n}.png" for n in range(6)]
    assert {path: path.stat().st_mtime_ns for path in whole} == times


def test_links_are_restored_once_and_said(model, tmp_path, capsys):
    (tmp_path / "album").mkdir()
    (tmp_path / "album" / "b.png").write_bytes(KINDS["rgb8.png"].data)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(KINDS["rgb8.png"].data)
    (tmp_path / "in" / "linked").symlink_to("../album")
    (tmp_path / "in" / "loop").symlink_to(".")
    (tmp_path / "in" / "twice.png").symlink_to("a.png")
    assert restore([str(model), str(tmp_path / "in"), str(tmp_path / "out")]) == 0
    found = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.png"))
    assert found == ["a.png", "linked/b.png"]
    assert "1 link to photos that are listed already" in capsys.readouterr().out


def test_one_limit_and_one_option(model, tmp_path, monkeypatch, capsys):
    (tmp_path / "a.png").write_bytes(KINDS["rgb8.png"].data)
    monkeypatch.setenv("RESTORA_MAX_MEGAPIXELS", "0.001")
    arguments = [str(model), str(tmp_path / "a.png"), str(tmp_path / "o.png")]
    assert restore(arguments) == 1
    assert "the limit is 0.001 (set RESTORA_MAX_MEGAPIXELS to raise it)" in capsys.readouterr().err
    assert restore([*arguments, "--max-megapixels", "1"]) == 0


FOLDERS = [
    "José",
    "照片",
    "My Photos (2020)",
    "a,b",
    "it's [new]",
    'say "x"',
    "#1 = best",
    "back\\slash",
    "{x}",
]


@pytest.mark.parametrize("name", FOLDERS)
def test_paths_of_any_characters_in_every_command(tmp_path, name):
    """Composed as the commands do it; the values that arrive are the paths that were typed."""
    root = tmp_path / name
    root.mkdir()
    words = ["data=folder", f"data.source.root={root}", f"data_dir={root}"]
    for command_name, more in (("prepare", []), ("train", [f"output_dir={root}"])):
        config = compose(command_name, with_quoted_paths([*words, *more]))
        assert config.data.source.root == str(root)
        assert config.data_dir == str(root)
    sheet = str(root / "出.png")
    config = compose("preview", with_quoted_paths(["degradation=jpeg", f"output={sheet}"]))
    assert config.output == sheet
    config = compose("evaluate", with_quoted_paths(["benchmark=denoise", f"benchmark.root={root}"]))
    assert config.benchmark.root == str(root)


def test_quoting_leaves_the_grammar_to_those_who_use_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kept = [
        "network.depth=17,20",
        "weights=null",
        "data.source.root='a b'",
        "-m",
        "seed=1",
        "benchmark.root=???",
    ]
    assert with_quoted_paths(kept, sweep=True) == kept
    assert with_quoted_paths(["data.source.root=a,b"], sweep=True) == ["data.source.root='a','b'"]
    (tmp_path / "a,b").mkdir()
    assert with_quoted_paths(["data.source.root=a,b"], sweep=True) == ["data.source.root='a,b'"]


@pytest.mark.slow
def test_prepare_and_preview_with_odd_names_as_typed(tmp_path):
    root = tmp_path / "it's [José], 照片 #1"
    root.mkdir()
    for number in range(12):
        Image.fromarray(photo(96, 96, seed=number)).save(root / f"{number}.png")
    data = f"data_dir={tmp_path / 'data'}"
    done = command("prepare", "data=folder", f"data.source.root={root}", data)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    sheet = root / "出, 1.png"
    done = command("preview", "degradation=jpeg", root / "0.png", f"output={sheet}", "size=32", "draws=1")
    assert done.returncode == 0, done.stderr
    assert sheet.is_file()


@pytest.mark.slow
def test_a_closed_pipe_and_a_text_file_end_quietly(tmp_path):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for words in ("preview --help", "evaluate --help"):
        shell = f"{sys.executable} -m restora {words} | head -1"
        done = subprocess.run(
            ["bash", "-c", shell], capture_output=True, text=True, env=environment, check=False
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert "BrokenPipe" not in done.stderr
    run = write_run(tmp_path / "job")
    (tmp_path / "notaphoto.png").write_text("summer")
    done = command("export", run, tmp_path / "m", "--no-onnx", "--photos", tmp_path / "notaphoto.png")
    assert done.returncode == 2
    assert "notaphoto.png: is not a photo in a known format" in done.stderr
    assert "Traceback" not in done.stderr


def test_float_photos_of_another_range_are_refused_with_the_fix():
    restorer = Restorer(network=tiny_network(), device="cpu")
    x = torch.from_numpy(photo()).permute(2, 0, 1)[None].float()
    with pytest.raises(ValueError, match="divide 8-bit photos by 255"):
        restorer(x)
    assert restorer(x / 255 + 0.5).shape == x.shape  # noise that was not cut off goes above 1


def test_deep_photos_of_other_programs_agree_with_tifffile(model, tmp_path):
    tifffile = pytest.importorskip("tifffile")
    for name, options in (("planar", {"planar": True}), ("plain", {})):
        source = tmp_path / f"{name}.tif"
        source.write_bytes(tiff(deep_colours(), **options))
        assert restore([str(model), str(source), str(tmp_path / "out")]) == 0
        theirs = tifffile.imread(source)
        theirs = np.moveaxis(theirs, 0, -1) if theirs.shape[0] == 3 else theirs
        np.testing.assert_array_equal(tifffile.imread(tmp_path / "out" / source.name), theirs)
