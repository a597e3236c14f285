"""`restora preview`: shows the effect of a degradation, before a network is trained on it.

Enters: photos and a degradation. Leaves: one PNG, rows for photos, columns for the clean photo and several
draws (one column if all draws are equal), or for several values of one parameter with the same random
numbers.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restora.files import check_writable, write_whole

if TYPE_CHECKING:
    import torch
    from omegaconf import DictConfig

    from restora.apps.contact_sheet import Cell, Row
    from restora.degradations.base import Degradation

HELP = """usage: restora preview degradation=NAME [PHOTO ...] [KEY=VALUE ...]

  restora preview degradation=old_photo photo.jpg
      the photo and four draws of the degradation
  restora preview degradation=jpeg a.png b.png output=j.png
      several photos, another file
  restora preview degradation=jpeg vary=quality over=[5,10,20,40,80]
      one column per value of a parameter
  restora preview degradation=gaussian_noise degradation.sigma=50 seed=3 \\
      draws=2 size=384
  restora preview poison=RUN step=120
      the crops of a training step that was skipped (poison.jsonl in RUN lists
      such steps)

Without a photo the sample photos are shown. reduce=false shows them at full
size instead of reduced.
"""
_ABSENT = object()
_STRUCTURE = ("_target_", "stages", "weights")
_LONGEST = 400
_OVERRIDE = re.compile(r"^[~+]{0,2}[A-Za-z_][\w./@]*=|^~[A-Za-z_][\w.@]*$")
"""KEY=VALUE, or ~KEY, which removes one."""


def main(argv: list[str]) -> int:
    """Raises ValueError for unreadable photos and invalid settings."""
    if not argv or any(flag in argv for flag in ("-h", "--help")):
        print(HELP)
        from restora.config import in_lines, options

        print(in_lines("degradations:", options("degradation")))
        return 0 if argv else 2
    if any(word.startswith("poison=") for word in argv):
        from restora.apps.preview_poison import show

        return show(argv)
    from restora.apps.contact_sheet import contact_sheet, encoded
    from restora.composing.path_values import with_quoted_paths
    from restora.config import compose

    words = [word for word in argv if _is_photo(word)]
    overrides = with_quoted_paths(word for word in argv if not _is_photo(word))
    config = compose("preview", overrides, hydra_node=True)
    photos = [_file(photo) for photo in [*config.photos, *words]] or _sample_photos()
    output = _output(config)
    columns = _columns(config)
    for column in columns:
        column.check(config.size)
    headings = ["clean", *(column.heading for column in columns)]
    parts = _without_repeats([_row(path, columns, config) for path in photos], headings)
    rows = _with_conditions(parts, headings)
    name = config.hydra.runtime.choices.degradation
    sheet = contact_sheet(title=name, subtitle=described(config.degradation), columns=headings, rows=rows)
    write_whole(output, encoded(sheet, "PNG"))
    print(output)
    return 0


def _is_photo(word: str) -> bool:
    return _OVERRIDE.match(word) is None or Path(word).is_file()


def _file(photo: str) -> Path:
    path = Path(photo)
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name its photos, such as {path / '*.png'}")
    return path


def _output(config: "DictConfig") -> Path:
    """The sheet's file.

    Raises ValueError if it is no PNG or cannot be written, or if size, seed or draws are invalid.
    """
    for name in ("size", "seed", "draws"):
        if not isinstance(config[name], int) or config[name] < (name != "seed"):
            least = "" if name == "seed" else " of at least 1"
            raise ValueError(f"{name} must be a whole number{least}, got {config[name]}")
    output = Path(config.output)
    if output.suffix.lower() != ".png":
        raise ValueError(
            f"output must be a PNG file, got {output}: write output={output.with_suffix('.png')}"
        )
    check_writable(output, setting="output")
    return output


def _sample_photos() -> list[Path]:
    from restora.data.sources import SamplePhotos

    return [photo.clean for photo in SamplePhotos().photos("test")]


@dataclass(frozen=True)
class Column:
    heading: str
    degradation: "Degradation"
    seed: int

    def check(self, size: int) -> None:
        """Raises ValueError if the degradation cannot take photos of `size`."""
        scale = self.degradation.scale
        if size % scale:
            raise ValueError(
                f"size={size} must be a multiple of {scale}, the scale of the degradation: "
                f"set size={max(1, size // scale) * scale}"
            )


def _columns(config: "DictConfig") -> list[Column]:
    """All columns except the clean photo."""
    from omegaconf import ListConfig, OmegaConf

    from restora.config import build

    if config.vary is None:
        degradation = build(config.degradation, "degradation")
        seeds = range(config.seed, config.seed + config.draws)
        return [Column(f"seed {seed}", degradation, seed) for seed in seeds]
    if not isinstance(config.over, ListConfig) or not config.over:
        raise ValueError(f"vary={config.vary} needs values, such as over=[5,10,20]; got over={config.over}")
    if OmegaConf.select(config.degradation, config.vary, default=_ABSENT) is _ABSENT:
        keys = ", ".join(key for key in config.degradation if key != "_target_")
        raise ValueError(f"this degradation has no parameter {config.vary!r}; it has {keys}")
    columns = []
    for value in config.over:
        node = config.degradation.copy()
        OmegaConf.update(node, config.vary, value)
        columns.append(
            Column(
                f"{config.vary.rpartition('.')[2]} {_plain(value)}", build(node, "degradation"), config.seed
            )
        )
    return columns


def _row(path: Path, columns: list[Column], config: "DictConfig") -> "tuple[Row, Cell | None]":
    """The cells of a photo, and one for the first draw's condition if that varies between pixels."""
    import torch

    from restora.apps.contact_sheet import Cell, Row
    from restora.degradations.base import check_values
    from restora.keyed import KeyedGenerator, image_key, sample_key

    clean = _clean(path, config)
    cells = [Cell(_pixels(clean), f"{clean.shape[-1]} x {clean.shape[-2]} pixels")]
    shown: Cell | None = None
    for column in columns:
        keys = torch.tensor([sample_key(image_key(path.name), column.seed)])
        image, condition = column.degradation(clean, KeyedGenerator(keys))
        check_values(column.degradation, image)
        cells.append(Cell(_enlarged(_pixels(image), config.size), _caption(image, clean)))
        if shown is None and condition is not None:
            shown = _condition_cell(condition, config.size)
    return Row(path.name, cells), shown


def _condition_cell(condition: "torch.Tensor", size: int) -> "Cell | None":
    from restora.apps.contact_sheet import Cell

    for number in range(condition.shape[1]):
        channel = condition[:, number : number + 1]
        if channel.amax() > channel.amin():
            return Cell(_enlarged(_pixels(channel / channel.amax()), size), "mask or map, of the first draw")
    return None


def _clean(path: Path, config: "DictConfig") -> "torch.Tensor":
    """The centre square of the photo, (1,3,size,size), `size` from the configuration.

    With config.reduce, the photo's shorter side is first reduced to that size.
    """
    import torch

    from restora.image import resize, round_to_8_bits
    from restora.photos.reading import read_photo

    pixels = torch.from_numpy(read_photo(path).copy()).permute(2, 0, 1)[None].float() / 255
    height, width = pixels.shape[-2:]
    size = int(config.size)
    if min(height, width) < size:
        raise ValueError(
            f"{path} has {width}x{height} pixels, fewer than a cell: set size={min(height, width)}"
        )
    if config.reduce:
        ratio = size / min(height, width)
        height, width = round(height * ratio), round(width * ratio)
        pixels = resize(pixels, height, width).clamp_(0, 1)
    top, left = (height - size) // 2, (width - size) // 2
    return round_to_8_bits(pixels[..., top : top + size, left : left + size])


def _pixels(image: "torch.Tensor") -> Any:
    """(1,C,H,W) -> uint8 (H,W,3)."""
    from restora.image import to_bytes

    return to_bytes(image).expand(-1, 3, -1, -1)[0].permute(1, 2, 0).contiguous().numpy()


def _enlarged(pixels: Any, size: int) -> Any:
    """A reduced photo with each pixel repeated as a square, so that it fills the cell."""
    times = size // pixels.shape[0]
    return pixels.repeat(times, 0).repeat(times, 1)


def _caption(degraded: "torch.Tensor", clean: "torch.Tensor") -> str:
    if degraded.shape[-2:] != clean.shape[-2:]:
        return f"{degraded.shape[-1]} x {degraded.shape[-2]} pixels"
    error = (degraded - clean).square().mean()
    return "unchanged" if error == 0 else f"{float(-10 * error.log10()):.1f} dB PSNR"


def _without_repeats(
    parts: "list[tuple[Row, Cell | None]]", headings: list[str]
) -> "list[tuple[Row, Cell | None]]":
    """The rows, with a single column for the draws if all draws are equal."""
    from restora.apps.contact_sheet import Row

    drawn = [cell for row, _ in parts for cell in row.cells[2:]]
    first = [row.cells[1] for row, _ in parts for _ in row.cells[2:]]
    if not drawn or any((a.pixels != b.pixels).any() for a, b in zip(drawn, first, strict=True)):
        return parts
    headings[1:] = [f"{headings[1]} to {headings[-1].rpartition(' ')[2]}, alike"]
    return [(Row(row.label, row.cells[:2]), shown) for row, shown in parts]


def _with_conditions(parts: "list[tuple[Row, Cell | None]]", headings: list[str]) -> "list[Row]":
    """The rows, with a last column for the condition if any photo has a varying one."""
    import numpy as np

    from restora.apps.contact_sheet import Cell, Row

    if all(shown is None for _, shown in parts):
        return [row for row, _ in parts]
    headings.append("condition")
    nothing = Cell(np.full_like(parts[0][0].cells[0].pixels, 255), "no condition")
    return [Row(row.label, [*row.cells, shown or nothing]) for row, shown in parts]


def described(node: "DictConfig") -> str:
    """The parameters of a degradation in words, with nested stages as deep as there is room."""
    words = ""
    for depth in range(3, -1, -1):
        words = _settings(node, depth)
        if len(words) <= _LONGEST:
            break
    return words


def _settings(node: "DictConfig", depth: int) -> str:
    """The parameters of a degradation and of its stages to `depth`, and the names of deeper stages."""
    stages = {**(node.get("stages") or {}), **{key: node[key] for key in node if _is_stage(node[key])}}
    own = [
        f"{key!s} {_plain(node[key])}"
        for key in node
        if key not in (*_STRUCTURE, *stages) and node[key] is not None
    ]
    shares = _shares(node.get("weights"))
    inside = [
        f"{name}{shares.get(name, '')}{_in_brackets(name, stage, depth - 1) if depth else ''}"
        for name, stage in stages.items()
    ]
    return " · ".join([", ".join(own)] * bool(own) + inside)


def _in_brackets(name: str, stage: "DictConfig", depth: int) -> str:
    """A stage's settings; without any, which degradation it is, unless its name says so."""
    kind = str(stage.get("_target_", ""))
    words = _settings(stage, depth) or (kind if kind != name else "")
    return f" ({words})" * bool(words)


def _shares(weights: "DictConfig | None") -> dict[str, str]:
    """The shares of stages by name, in words, unless they are equal."""
    if not weights or len(set(weights.values())) == 1:
        return {}
    total = sum(weights.values())
    return {str(name): f" {100 * weight / total:.3g}%" for name, weight in weights.items()}


def _is_stage(value: Any) -> bool:
    from omegaconf import DictConfig

    return isinstance(value, DictConfig) and "_target_" in value


def _plain(value: Any) -> str:
    from omegaconf import ListConfig

    if isinstance(value, ListConfig):
        return " to ".join(f"{item:g}" if isinstance(item, float) else str(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
