"""Writes pictures that are no photos, to see what a model does to them: text, lines, shapes and patterns.

    python benchmarks/drawings.py FOLDER [--count 24] [--side 256]
    restora evaluate model=zoo:jpeg benchmark=jpeg benchmark.quality=40 \\
        benchmark.color=rgb benchmark.root=FOLDER

They are drawn by the transform that recipes use (`restora.data.graphics`), from seeds that no training has: a
crop's seed is a hash.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from restora.data.crops import SeededTransform
from restora.data.graphics import Graphics

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--side", type=int, default=256, help="pixels")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    draw = SeededTransform([Graphics(alone=1.0, shapes=(12, 30), p=1.0)])
    for number in range(options.count):
        picture = np.zeros((options.side, options.side, 3), np.uint8)
        draw(number, picture, None)
        Image.fromarray(picture).save(options.folder / f"drawing{number:02}.png")
