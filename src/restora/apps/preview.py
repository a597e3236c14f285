"""`restora preview`: a contact sheet of what a degradation does, before anything is trained on it.

Rows are photos; columns are the clean photo and several draws of the degradation, each with its PSNR. The
numbers are drawn as in training, so the sheet shows what a network would see.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from PIL import Image, ImageDraw, ImageFont
    from torch import Tensor

    from restora.degradations.base import Degradation

HELP = """usage: restora preview degradation=NAME [PHOTO ...] [KEY=VALUE ...]

  restora preview degradation=motion_blur                 on the sample photos
  restora preview degradation=jpeg photo.jpg other.png    on your own
  restora preview degradation=gaussian_noise degradation.sigma=50 draws=5 crop=null output=noise.png

writes one picture (output=preview.png) with a row per photo; restora preview degradation=x lists the names
"""

_GAP, _TITLE, _CAPTION = 8, 26, 20
_LONGEST = 900
"""Whole photos (crop=null) are reduced to this for the sheet."""
_INK, _PAPER, _FAINT = (25, 25, 28), (250, 250, 248), (110, 110, 116)


def main(argv: list[str]) -> int:
    """Raises ValueError for an unknown degradation, a photo that cannot be read, or one that is too small."""
    if not argv or any(flag in argv for flag in ("-h", "--help")):
        print(HELP)
        return 0 if argv else 2
    from restora.config import build, compose

    files = [Path(word) for word in argv if "=" not in word]
    config = compose("preview", [word for word in argv if "=" in word])
    degradation: Degradation = build(config.degradation)
    if config.draws < 1:
        raise ValueError(f"draws is at least 1, got {config.draws}")
    rows = [(name, _draws(photo, degradation, config)) for name, photo in _photos(files, config)]
    sheet = contact_sheet(_title(argv, config), rows)
    output = Path(config.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(output)
    print(f"{output}: {len(rows)} photos, {config.draws} draws each")
    return 0


def _title(argv: list[str], config: "DictConfig") -> str:
    words = [word for word in argv if word.startswith("degradation")]
    return " ".join(words) or f"degradation={config.degradation._target_.rpartition('.')[2]}"


def _photos(files: list[Path], config: "DictConfig") -> list[tuple[str, "Tensor"]]:
    """(name, (1,3,H,W) float in [0,1]) of each photo, its centre if `crop` is set."""
    import torch

    from restora.data.photos import read_photo
    from restora.data.sources import SamplePhotos

    files = files or [Path(name) for name in config.photos]
    if not files:
        files = [photo.clean for split in ("test", "val") for photo in SamplePhotos().photos(split)]
    photos = []
    for path in files:
        pixels = torch.tensor(read_photo(path)).permute(2, 0, 1)[None]  # (1,3,H,W)
        photos.append((path.stem, _centre(pixels, config.crop).float() / 255))
    return photos


def _centre(pixels: "Tensor", crop: int | None) -> "Tensor":
    height, width = pixels.shape[-2:]
    rows, columns = (height, width) if crop is None else (min(crop, height), min(crop, width))
    top, left = (height - rows) // 2, (width - columns) // 2
    return pixels[..., top : top + rows, left : left + columns]


def _draws(
    photo: "Tensor", degradation: "Degradation", config: "DictConfig"
) -> list[tuple[str, "Image.Image"]]:
    """The clean photo and its draws, each with a caption."""
    import torch

    from restora.degradations.keyed import KeyedGenerator, sample_key
    from restora.metrics.image import psnr

    scale = degradation.scale
    height, width = (side // scale * scale for side in photo.shape[-2:])
    photo = photo[..., :height, :width]
    cells = [("clean", _picture(photo, 1))]
    keys = torch.tensor([sample_key(config.seed, draw) for draw in range(config.draws)])
    image = degradation(photo.expand(config.draws, -1, -1, -1).contiguous(), KeyedGenerator(keys)).image
    for draw in range(config.draws):
        one = image[draw : draw + 1]
        caption = f"{width // scale}×{height // scale}"
        if one.shape == photo.shape:
            caption = f"{float(psnr(one.clamp(0, 1), photo)):.1f} dB"
        cells.append((f"{draw + 1}: {caption}", _picture(one, scale)))
    return cells


def _picture(photo: "Tensor", scale: int) -> "Image.Image":
    """(1,C,H,W) -> a picture as large as the clean one: smaller photos are shown by their pixels."""
    from PIL import Image

    pixels = photo[0].clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).convert("RGB")
    if scale > 1:
        picture = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
    picture.thumbnail((_LONGEST, _LONGEST))
    return picture


def contact_sheet(title: str, rows: list[tuple[str, list[tuple[str, "Image.Image"]]]]) -> "Image.Image":
    """One picture of all rows; a row is (name, cells), a cell (caption, picture)."""
    from PIL import Image, ImageDraw, ImageFont

    width = max(sum(cell.width + _GAP for _, cell in cells) for _, cells in rows) + _GAP
    heights = [max(cell.height for _, cell in cells) + _CAPTION + _GAP for _, cells in rows]
    sheet = Image.new("RGB", (max(width, 320), sum(heights) + _TITLE + _GAP), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    draw.text((_GAP, 6), title, fill=_INK, font=ImageFont.load_default(15))
    top = _TITLE + _GAP
    for (name, cells), height in zip(rows, heights, strict=True):
        left = _GAP
        for index, (caption, cell) in enumerate(cells):
            sheet.paste(cell, (left, top))
            text = f"{name} · {caption}" if index == 0 else caption
            _caption(draw, (left, top + cell.height + 2), text, cell.width, font)
            left += cell.width + _GAP
        top += height
    return sheet


def _caption(
    draw: "ImageDraw.ImageDraw",
    at: tuple[int, int],
    text: str,
    width: int,
    font: "ImageFont.FreeTypeFont | ImageFont.ImageFont",
) -> None:
    while len(text) > 4 and draw.textlength(text, font=font) > width:
        text = text[:-2] + "…"
    draw.text(at, text, fill=_FAINT, font=font)
