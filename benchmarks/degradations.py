"""Milliseconds of every degradation in conf/degradation on one batch, slowest last.

    python benchmarks/degradations.py [--batch 32] [--size 256] [--only jpeg,rain] [--device cuda]
                                      [--rounds 5] [--threads N]

A batch is random crops of the sample photos, float32 on the device; measured are the parameters, the degraded
photos and the condition (a training step's call). Prints the median over rounds, the least and the most, and
the median of the processor time, which a busy machine disturbs less. A size that is no multiple of a
degradation's scale is cut to one.
"""

import argparse
from collections.abc import Callable

import torch
from timing import Row, Times, interleaved, machine, milliseconds, parser, print_table, save_rows

from restora.allocator import keep_freed_memory
from restora.config import build, parts
from restora.data.sources import SamplePhotos
from restora.degradations.base import Degradation
from restora.keyed import KeyedGenerator, sample_key
from restora.photos.reading import read_photo


def main() -> None:
    options = _options()
    clean = photos_as_in_training(options)
    keys = torch.tensor([sample_key(0, index) for index in range(options.batch)]).to(options.device)
    times: dict[str, Times] = {}
    for name, degradation in _degradations(options.only).items():
        call = {name: _call(degradation, clean, keys)}
        times |= interleaved(call, rounds=2 if options.quick else options.rounds, device=options.device)
    ranked = sorted(times.items(), key=lambda item: item[1].median())
    rows = [
        [
            name,
            milliseconds(t.median()),
            f"{milliseconds(min(t.wall))}-{milliseconds(max(t.wall))}",
            milliseconds(t.median("processor")),
        ]
        for name, t in ranked
    ]
    title = f"{options.batch}x3x{options.size}x{options.size}, {machine(options.device)}"
    print_table(title, ["degradation", "ms", "least-most", "processor ms"], rows)
    slowest, taken = ranked[-1]
    what = f"{len(ranked)} degradations, {options.batch}x3x{options.size}x{options.size}"
    measured = f"{milliseconds(taken.median())} ms for the slowest, {slowest}"
    save_rows([Row(what, measured)], options.rows)


def photos_as_in_training(options: argparse.Namespace) -> torch.Tensor:
    """Clean crops (B,3,H,W) on the device; sets the threads and keeps freed memory."""
    keep_freed_memory()
    if options.threads:
        torch.set_num_threads(options.threads)
    return crops(options.batch, options.size).to(options.device)


def _options() -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("--batch", type=int, default=32)
    made.add_argument("--size", type=int, default=256)
    made.add_argument("--only", default="", help="names, with commas between them (default: all)")
    made.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    made.add_argument("--rounds", type=int, default=5)
    made.add_argument("--threads", type=int, default=0, help="0: what torch chooses")
    return made.parse_args()


def _degradations(only: str) -> dict[str, Degradation]:
    known = parts("degradation")
    wanted = [name.strip() for name in only.split(",")] if only else list(known)
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise SystemExit(f"no degradation {', '.join(unknown)}; there are {', '.join(known)}")
    return {name: build(known[name], "degradation") for name in wanted}


def _call(degradation: Degradation, clean: torch.Tensor, keys: torch.Tensor) -> Callable[[], object]:
    height, width = (n // degradation.scale * degradation.scale for n in clean.shape[-2:])
    clean = clean[..., :height, :width].contiguous()
    return lambda: degradation(clean, KeyedGenerator(keys))


def crops(batch: int, size: int) -> torch.Tensor:
    """(B,3,size,size) in [0,1], from the sample photos in turn; a photo that is too small is mirrored."""
    photos = [read_photo(photo.clean) for photo in SamplePhotos().photos("train")]
    random = torch.Generator().manual_seed(0)
    crops = []
    for index in range(batch):
        x = torch.from_numpy(photos[index % len(photos)].copy()).permute(2, 0, 1)[None].float() / 255
        while min(x.shape[-2:]) < size:
            x = torch.cat((x, x.flip(-1)), -1)
            x = torch.cat((x, x.flip(-2)), -2)
        top, left = (int(torch.randint(n - size + 1, (), generator=random)) for n in x.shape[-2:])
        crops.append(x[..., top : top + size, left : left + size])
    return torch.cat(crops)


if __name__ == "__main__":
    main()
