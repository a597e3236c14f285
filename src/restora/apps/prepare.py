"""`restora prepare`: a data set downloaded, verified and packed, so that training starts at once."""

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from restora.data.module import PhotoData

HELP = """usage: restora prepare data=NAME [TRACK ...] [KEY=VALUE ...]

  restora prepare data=div2k                          the photos of DIV2K (4.0 GB)
  restora prepare data=div2k bicubic_x4 mild          and low-resolution tracks of it
  restora prepare data=div2k_lr data.source.scale=2   pairs of the bicubic track, packed to train on
  restora prepare data=folder data.source.root=PATH   your own photos
  restora prepare data=paired_folder data.source.root=PATH   your own pairs

A download that was broken off goes on where it stopped. data_dir=PATH (or RESTORA_DATA) is where all is kept.
tracks: bicubic_x2 bicubic_x3 bicubic_x4 bicubic_x8 unknown_x2 unknown_x3 unknown_x4 mild difficult wild
"""


def main(argv: list[str]) -> int:
    """Raises ValueError for what cannot be prepared; photos that cannot be used are named and left out."""
    if not argv or any(flag in argv for flag in ("-h", "--help")):
        print(HELP)
        return 0 if argv else 2
    from restora.config import compose

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    tracks = [word for word in argv if "=" not in word]
    overrides = [word for word in argv if "=" in word]
    if tracks:
        overrides.append(f"tracks=[{','.join(tracks)}]")
    config = compose("prepare", overrides)
    data = _made(config.data)
    data.source.obtain(tracks=list(config.tracks), keep_archives=config.keep_archives)
    data.prepare_data()
    _show(data)
    return 0


def _made(node: "DictConfig") -> "PhotoData":
    """The data module of a configuration node."""
    from restora.config import build
    from restora.degradations.identity import Identity

    data: PhotoData = build(node, degradation=Identity())
    return data


def _show(data: "PhotoData") -> None:
    from rich.console import Console
    from rich.table import Table

    from restora.data.sources import SPLITS

    table = Table("split", "photos", "megapixels", "left out", "store", box=None)
    for split in SPLITS:
        store = data.store(split)
        if store is None:
            continue
        pixels = sum(entry.clean.height * entry.clean.width for entry in store.entries)
        gone = len(data.left_out(store, split))
        table.add_row(split, str(len(store)), f"{pixels / 1e6:.1f}", str(gone), store.folder.name)
    console = Console()
    console.print(table)
    console.print(f"packed in {data.store_dir}", soft_wrap=True, highlight=False)
