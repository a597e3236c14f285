"""What a photo carries besides its pixels comes back, or is counted as left out."""

import numpy as np
import pytest
from identity_model import identity_model
from photo_kinds import HEIGHT, WIDTH, colours, saved
from PIL import Image, ImageCms, ImageOps
from PIL.PngImagePlugin import PngInfo

from restora.apps.restore import main as restore
from restora.photos.files import FORMATS, read_photo


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


def test_iptc_extended_xmp_and_comments_are_kept_or_counted(identity, tmp_path, capsys):
    (tmp_path / "a.jpg").write_bytes(full_jpeg())
    assert restore([str(identity), str(tmp_path / "a.jpg"), str(tmp_path / "o.jpg")]) == 0
    data = (tmp_path / "o.jpg").read_bytes()
    for block in (IPTC, b"xmp/extension/\x00" + b"0" * 32, b"by Ann", XMP):
        assert block in data
    said = capsys.readouterr().out
    assert "left out of the written files: APP11 (JP something of others) (1 photo)" in said
    assert restore([str(identity), str(tmp_path / "a.jpg"), str(tmp_path / "o.png")]) == 0
    said = capsys.readouterr().out
    for what in ("IPTC", "extended XMP", "APP11"):
        assert what in said
    assert b"by Ann" in (tmp_path / "o.png").read_bytes()
    assert restore([str(identity), str(tmp_path / "a.jpg"), str(tmp_path / "o.tif")]) == 0
    with Image.open(tmp_path / "o.tif") as image:
        assert image.tag_v2[33723] == IPTC
    assert restore([str(identity), str(tmp_path / "o.tif"), str(tmp_path / "p.jpg")]) == 0
    assert IPTC in (tmp_path / "p.jpg").read_bytes()


@pytest.mark.parametrize(("mode", "suffix"), [("CMYK", ".jpg"), ("CMYK", ".tif"), ("LAB", ".tif")])
def test_colours_that_are_none_of_the_screen_are_said_to_become_srgb(
    identity, tmp_path, mode, suffix, capsys
):
    image = Image.fromarray(colours()).convert(mode)
    (tmp_path / f"a{suffix}").write_bytes(saved(image, FORMATS[suffix]))
    assert restore([str(identity), str(tmp_path / f"a{suffix}"), str(tmp_path / f"o{suffix}")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"{mode.replace('LAB', 'Lab')} colours (they became sRGB) (1 photo)" in said


def test_png_text_is_counted_where_it_has_no_place(identity, tmp_path, capsys):
    text = PngInfo()
    text.add_text("Title", "Old photo")
    (tmp_path / "a.png").write_bytes(saved(colours(), "PNG", pnginfo=text))
    assert restore([str(identity), str(tmp_path / "a.png"), str(tmp_path / "o.png")]) == 0
    assert "left out" not in capsys.readouterr().out
    assert restore([str(identity), str(tmp_path / "a.png"), str(tmp_path / "o.jpg")]) == 0
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
def test_a_broken_exif_block_is_left_out_with_a_word(identity, tmp_path, name, capsys):
    block = b"Exif\x00\x00garbage, not a TIFF file"
    options = {"lossless": True} if name == "a.webp" else {}
    (tmp_path / name).write_bytes(saved(colours(), FORMATS[name[1:]], exif=block, **options))
    assert restore([str(identity), str(tmp_path / name), str(tmp_path / "out")]) == 0
    assert "broken EXIF (1 photo)" in capsys.readouterr().out
    assert b"garbage" not in (tmp_path / "out" / name).read_bytes()


def test_stripped_photos_keep_their_colours_and_their_way_up(identity, tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    (tmp_path / "a.jpg").write_bytes(
        saved(colours(), "JPEG", quality=95, exif=exif_of(6), xmp=XMP, comment=b"by Ann", icc_profile=profile)
    )
    assert restore([str(identity), str(tmp_path / "a.jpg"), str(tmp_path / "o.png"), "--strip-metadata"]) == 0
    with Image.open(tmp_path / "o.png") as image, Image.open(tmp_path / "a.jpg") as given:
        image.load()
        assert not image.getexif()
        assert set(image.info) <= {"icc_profile"}
        assert image.info["icc_profile"] == profile
        shown = np.asarray(ImageOps.exif_transpose(given))
        np.testing.assert_array_equal(np.asarray(image), shown)
