"""Every kind of photo through every command: what comes out is what went in, or a refusal."""

import os

import numpy as np
import pytest
import torch
from photo_kinds import HEIGHT, WIDTH, colours, cut_out, deep_colours, photo_kinds, saved, tiff
from PIL import Image
from run_folders import Strided, photo, tiny_network, write_run

from restora.apps.export import main as export
from restora.apps.restore import main as restore
from restora.artifact.photo_pixels import restore_photo
from restora.artifact.restorer import Restorer
from restora.data.packing import pack
from restora.data.sources import Folder
from restora.evaluation.benchmarks.denoise import Denoise
from restora.networks.base import Network
from restora.photos.decoding import rounded_to_8_bits
from restora.photos.encoding import DEEP, LOSSY, NO_ALPHA
from restora.photos.files import FORMATS, Photo, read_photo
from restora.photos.kinds import FORMAT_SUFFIXES
from restora.photos.listing import list_photos

KINDS = photo_kinds()


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


@pytest.mark.parametrize("target", [None, *sorted(set(FORMAT_SUFFIXES) - {"jpeg", "tiff"})])
def test_every_kind_to_every_format(identity, album, tmp_path, target, capsys):
    """Equal pixels and transparency, or a refusal that says why and leaves no file."""
    options = [] if target is None else ["--format", target]
    code = restore([str(identity), str(album), str(tmp_path / "out"), *options])
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


def test_a_gif_goes_into_the_png_that_was_named(identity, tmp_path, capsys):
    (tmp_path / "a.gif").write_bytes(KINDS["still.gif"].data)
    assert restore([str(identity), str(tmp_path / "a.gif"), str(tmp_path / "o.png")]) == 0
    assert (read_photo(tmp_path / "o.png").pixels == KINDS["still.gif"].pixels).all()
    assert restore([str(identity), str(tmp_path / "a.gif"), str(tmp_path / "out")]) == 1
    assert "add --format png" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "format_name"), [("a.gif", "GIF"), ("a.webp", "WEBP"), ("a.png", "PNG"), ("a.tif", "TIFF")]
)
def test_the_first_frame_is_restored_and_the_others_are_said(identity, tmp_path, name, format_name, capsys):
    images = [Image.fromarray(colours()), Image.fromarray(colours()[::-1].copy())]
    options = {"lossless": True} if name == "a.webp" else {}
    (tmp_path / name).write_bytes(
        saved(images[0], format_name, save_all=True, append_images=images[1:], **options)
    )
    assert restore([str(identity), str(tmp_path / name), str(tmp_path / "o.png")]) == 1
    assert "has 2 frames or pages: the first was restored" in capsys.readouterr().err
    assert read_photo(tmp_path / "o.png").pixels.shape == (HEIGHT, WIDTH, 3)


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
    for wrong in (
        ["--strength", "2"],
        ["--quality", "0"],
        ["--quality", "80"],  # a PNG has none
        ["--suffix", "a/b"],
        ["--max-megapixels", "0"],
        ["--max-megapixels", "inf"],
    ):
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


def test_compare_puts_before_and_after_beside_the_photo(identity, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(KINDS["rgba16.png"].data)
    (tmp_path / "in" / "a.jpg").write_bytes(KINDS["photo.jpg"].data)
    assert restore([str(identity), str(tmp_path / "in"), str(tmp_path / "out"), "--compare"]) == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["a.jpg", "a.jpg.compare.jpg", "a.png", "a.png.compare.jpg"]
    with Image.open(tmp_path / "out" / "a.png.compare.jpg") as sheet:
        assert sheet.width > 2 * 256


def test_float_photos_of_another_range_are_refused_with_the_fix():
    restorer = Restorer(network=tiny_network(), device="cpu")
    x = torch.from_numpy(photo()).permute(2, 0, 1)[None].float()
    with pytest.raises(ValueError, match="divide 8-bit photos by 255"):
        restorer(x)
    assert restorer(x / 255 + 0.5).shape == x.shape  # noise that was not cut off goes above 1


def test_deep_photos_of_other_programs_agree_with_tifffile(identity, tmp_path):
    tifffile = pytest.importorskip("tifffile")
    for name, options in (("planar", {"planar": True}), ("plain", {})):
        source = tmp_path / f"{name}.tif"
        source.write_bytes(tiff(deep_colours(), **options))
        assert restore([str(identity), str(source), str(tmp_path / "out")]) == 0
        theirs = tifffile.imread(source)
        theirs = np.moveaxis(theirs, 0, -1) if theirs.shape[0] == 3 else theirs
        np.testing.assert_array_equal(tifffile.imread(tmp_path / "out" / source.name), theirs)
