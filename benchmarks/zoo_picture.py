"""docs/zoo.png: what models that come with restora make of photos that none of them was trained on.

    python benchmarks/zoo_picture.py [--data-dir data]

Each panel: a photo of the set's held-out share (`restora prepare data=free_photos`), degraded with a fixed
seed, and what the model makes of it, pixel for pixel. The photos are in the public domain or CC0.
"""

import argparse
import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from restora import Restorer
from restora.config import build, option
from restora.image import enlarge, to_8_bit
from restora.keyed import KeyedGenerator, image_key, sample_key

SIDE, EDGE, SIZE, COLUMNS = 200, 6, 17, 2
PANELS = (
    ("explore_world_animals_kangaroo", "everyday_photo", "photo", (200, 60), 4),
    ("explore_farm_animals_horse", "gaussian_noise", "denoise", (340, 120), 2),
    ("explore_monuments_machuPicchu", "old_photo_scan", "old_photo", (120, 60), 5),
    ("explore_monuments_machuPicchu", "damaged", "inpaint", (180, 90), 4),
    ("explore_farm_animals_horse", "defocus_blur", "deblur", (40, 110), 0),
    ("explore_monuments_qutubMinar", "small_photo_x4", "sr_photo_x4", (130, 180), 0),
)
"""Photo, degradation, model, upper left corner of the shown crop, seed."""


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data-dir", default=os.environ.get("RESTORA_DATA", "data"))
    made.add_argument("--output", default=str(Path(__file__).parents[1] / "docs" / "zoo.png"))
    options = made.parse_args()
    panels = [panel(Path(options.data_dir), *words) for words in PANELS]
    width, height = (panels[0].width + 2 * EDGE, panels[0].height)
    rows = -(-len(panels) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * width - 2 * EDGE, rows * height), "white")
    for place, part in enumerate(panels):
        sheet.paste(part, (place % COLUMNS * width, place // COLUMNS * height))
    sheet.save(options.output)


def panel(
    data: Path, name: str, degradation: str, model: str, corner: tuple[int, int], seed: int
) -> Image.Image:
    """One photo degraded, restored and clean, each with a caption above."""
    photo = np.asarray(Image.open(data / "free_photos" / f"{name}.png").convert("RGB"), np.float32) / 255
    clean = torch.from_numpy(photo).permute(2, 0, 1)[None]
    clean = clean[..., : clean.shape[-2] // 8 * 8, : clean.shape[-1] // 8 * 8]
    key = torch.tensor([sample_key(image_key(name), seed)])
    degraded, condition = build(option("degradation", degradation), "degradation")(clean, KeyedGenerator(key))
    degraded = to_8_bit(degraded)
    restorer = Restorer.load(f"zoo:{model}", sigma=25 if model == "denoise" else None)
    if model == "inpaint":
        restored = torch.where(condition > 0, degraded, restorer(degraded, condition))
    else:
        restored = restorer(degraded)
    shown = (enlarge(degraded, clean.shape[-2:]), restored, clean)
    x, y = corner
    part = Image.new("RGB", (3 * SIDE + 2 * EDGE, SIDE + SIZE + 2 * EDGE), "white")
    write = ImageDraw.Draw(part)
    for place, (image, words) in enumerate(zip(shown, (degradation, f"zoo:{model}", "photo"), strict=True)):
        left = place * (SIDE + EDGE)
        error = (to_8_bit(image) - clean)[..., 4:-4, 4:-4].square().mean()
        figure = "" if place == 2 else f"  {-10 * float(torch.log10(error)):.1f} dB"
        write.text((left, EDGE), words + figure, "black", ImageFont.load_default(SIZE - 3))
        pixels = to_8_bit(image)[0, :, y : y + SIDE, x : x + SIDE].permute(1, 2, 0).mul(255).round()
        part.paste(Image.fromarray(pixels.byte().numpy()), (left, SIZE + EDGE))
    return part


if __name__ == "__main__":
    main()
