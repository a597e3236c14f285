"""A trained network as a function of photos: any size in, the restored photo out, memory bounded by the tile.

Enters: float (B,C,H,W) on the [0,1] scale, B photos of one size (usually 1). Leaves: float32 (B,C',H*s,W*s)
in [0,1] on the device of the input. A network for videos takes T frames, folded into channels in the order of
time, (B,T·C,H,W), and gives the middle one. Only tiles travel to the network's device and back, so a photo
kept on the CPU may be larger than the accelerator's memory.

Four things differ from the raw network: batch normalisation is folded into the convolutions before it, wide
convolutions are computed by fewer multiplications where that is faster, another engine may compute the
exported graph (`artifact/engine_choice.py`), and a network that was evaluated with the test-time local
converter is converted. The first three change nothing but rounding; the last is what the model's figures were
measured with.

Legend: B photos, T frames, C channels, K condition channels, H height, W width, h w of a tile, s scale.
"""

import copy
import logging
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from numbers import Real
from pathlib import Path

import torch
from torch import Tensor

from restora import vocabulary
from restora.allocator import freed_memory_kept
from restora.artifact.engine_choice import EngineChoice, exported, graphs_in
from restora.artifact.engines import check_engine
from restora.artifact.global_statistics import means, of_whole_photo, statistics_engine
from restora.artifact.memory import fitting_tile, ran_out
from restora.artifact.model_folder import ModelDescription
from restora.artifact.parity import Compute
from restora.artifact.prepared import guard_precision, in_channels_last, prepare_network
from restora.artifact.sources import open_source
from restora.artifact.tiles import Tile, batches, check_pixels, check_tile, grid
from restora.artifact.winograd import use_winograd
from restora.image import channels_last, check_photos, check_visible, checked_level
from restora.networks.base import Network, checked
from restora.vocabulary import Precision

Progress = Callable[[int, int], None]
"""Called with (tiles done, tiles in all)."""

TILE = 1088
"""Overlaps are computed twice: 7% of a photo of 12 megapixels with this tile, 17% with half of it. Two
feature maps of 64 channels take 600 MB in float32."""
OVERLAP = 48
"""Neighbouring tiles blend over the middle 16 of these pixels and discard 16 on each side: beyond the
receptive field of DnCNN (radius 17 to 20), and far enough out for deeper networks, whose effective field is a
small part of the nominal one."""

NO_SIGMA = "sigma: this model is not conditioned on a noise level, leave it out"
_LEAST_TILE = 128
"""Below it, most of the computation is for overlaps."""
_TOGETHER_AT_MOST = 64
log = logging.getLogger(__name__)


def pick_device(name: str | torch.device) -> torch.device:
    """`auto` is the first of CUDA, Apple's MPS and the CPU; any other name is torch's own.

    Raises ValueError where it is absent.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"there is no device {name!r}: use auto, cpu, cuda, cuda:1 or mps") from error
    if not _available(device):
        raise ValueError(f"device {name!r} is not available on this machine: use device auto or cpu")
    return device


def _available(device: torch.device) -> bool:
    """Whether tensors can be computed there."""
    if device.type == "cuda":
        return (device.index or 0) < torch.cuda.device_count()
    try:
        return not torch.empty(0, device=device).is_meta
    except (RuntimeError, AssertionError):  # torch was built without it, or there is none
        return False


def every_device(names: str) -> list[str]:
    """The devices of a comma-separated list; `all` is every CUDA device, or the one that `auto` picks."""
    if names == "all":
        return [f"cuda:{index}" for index in range(torch.cuda.device_count())] or ["auto"]
    return [name.strip() for name in names.split(",")]


def default_overlap(tile: int) -> int:
    """The overlap for tiles of this size: 48 pixels, less for tiles too small for that."""
    return min(OVERLAP, tile // 2) if tile else OVERLAP


class Restorer:
    """Restores photos with one network, which is copied and stays unchanged.

    Use it as `restorer(x)`.

    `sigma` is the noise level (8-bit scale) that a network with a noise-level map is given when the call has
    no condition. `tile` is in input pixels, 0 restores the photo in one piece; None is 1088, or less where
    that would take more memory than is free. A tile that runs out of memory is halved. `overlap` is the
    number of pixels that neighbouring tiles share.

    `engine` is torch, onnxruntime or openvino, the latter two on a CPU in float32; auto is the fastest of
    those whose graphs are in `graphs` for the size of the tiles, by `paces` (seconds per megapixel on this
    machine, by side and engine) or by measuring.

    `global_statistics`, for networks with attention across channels (Restormer): tiles use the statistics of
    the whole photo. Networks that use means over the whole photo (`BlindDRUNet`) always do; tiles of theirs
    are computed by torch.
    """

    def __init__(
        self,
        *,
        network: Network,
        device: str | torch.device = "auto",
        precision: str = "float32",
        tile: int | None = None,
        overlap: int | None = None,
        local_converter: tuple[int, int] | None = None,
        sigma: float | None = None,
        description: ModelDescription | None = None,
        engine: str = "auto",
        graphs: Mapping[str, Path] | None = None,
        paces: Mapping[int, Mapping[str, float]] | None = None,
        global_statistics: bool = False,
    ) -> None:
        checked(network)
        check_engine(engine)
        if global_statistics:
            engine = statistics_engine(network, engine)
        self.global_statistics = global_statistics or bool(means(network))
        self._engine_named = other_engine = engine not in ("auto", "torch")
        self.device = pick_device("cpu" if other_engine and device == "auto" else device)
        if other_engine and precision == vocabulary.AUTO:
            precision = "float32"  # as other engines compute
        self.precision: Precision = vocabulary.precision(precision, self.device.type)
        if slow := vocabulary.slow_precision(self.precision, self.device.type):
            _warn_once(slow)
        self._tile_chosen = tile is not None
        self.tile = TILE if tile is None else tile
        check_pixels("tile", self.tile)
        self.overlap = default_overlap(self.tile) if overlap is None else overlap
        check_tile(self.tile, self.overlap, network.size_multiple)
        self.sigma = checked_level(sigma)
        check_visible("sigma", self.sigma or 0)  # not in with_sigma: estimates of clean photos are as low
        self.description = description
        self.said = ""  # how weights were read, and what is not known of them
        prepared = prepare_network(network, local_converter)
        if self.precision != "float32":
            guard_precision(prepared, getattr(torch, self.precision))
        elif self.device.type == "cpu":
            use_winograd(prepared)
        self.network = in_channels_last(prepared.to(device=self.device, dtype=torch.float32))
        self._together_at_most = 1 if self.device.type == "cpu" else _TOGETHER_AT_MOST
        on_cpu = self.device.type == "cpu" and self.precision == "float32"
        if other_engine and not on_cpu:
            raise ValueError(f"engine {engine} computes on a CPU in float32: leave out device and precision")
        usable = dict(graphs or {}) if on_cpu and engine == "auto" else {}
        self._engine = EngineChoice(self.network, usable, paces or {})
        if other_engine:
            self._engine = exported(network, local_converter, engine, self.network, graphs or {})

    def __repr__(self) -> str:
        network = self.network
        return (
            f"Restorer({type(network).__name__}, {network.in_channels} to {network.out_channels} channels, "
            f"x{network.scale}, {self.device}, {self.precision}, tile {self.tile}, engine {self.engine})"
        )

    @property
    def engine(self) -> str:
        """The engine that computed last, or before that the one for large tiles."""
        return self._engine.name

    @classmethod
    def load(
        cls,
        source: str | Path,
        *,
        device: str | torch.device = "auto",
        precision: str = "float32",
        tile: int | None = None,
        overlap: int | None = None,
        sigma: float | None = None,
        engine: str = "auto",
        global_statistics: bool = False,
        task: str | None = None,
        network: str | None = None,
    ) -> "Restorer":
        """The restorer of any source of a model: a model folder, a graph, a run, a checkpoint, weights.

        Without `sigma`, the level is the one that the model was trained at, if it was a single one. `task`
        and `network`: see `open_source`. Raises ValueError for what cannot be used.
        """
        loaded = open_source(source, task=task, network=network)
        description = loaded.description
        if sigma is not None and description.conditioned_on in ("nothing", "mask"):
            raise ValueError(NO_SIGMA)
        graphs, paces = ({}, {}) if loaded.folder is None else graphs_in(loaded.folder, description)
        made = cls(
            network=loaded.network,
            device=device,
            precision=precision,
            tile=tile,
            overlap=overlap,
            local_converter=description.local_converter,
            sigma=description.sigma if sigma is None else sigma,
            description=description,
            engine=engine,
            graphs=graphs,
            paces=paces,
            global_statistics=global_statistics,
        )
        made.said = loaded.said
        return made

    @property
    def scale(self) -> int:
        return self.network.scale

    def with_sigma(self, sigma: float) -> "Restorer":
        """This restorer, with the same network, for another noise level.

        Raises ValueError if the network is not conditioned on one.
        """
        mask = self.description is not None and self.description.conditioned_on == "mask"
        if mask or not self.network.condition_channels:
            raise ValueError(NO_SIGMA)
        other = copy.copy(self)
        other.sigma = checked_level(sigma)
        return other

    def together(self, height: int, width: int) -> int:
        """How many photos or tiles of one size are computed at once.

        An accelerator is fully used by as many pixels as a tile has, a CPU by one photo.
        """
        return max(min(TILE**2 // max(height * width, 1), self._together_at_most), 1)

    @torch.no_grad()
    def __call__(
        self, x: Tensor, condition: Tensor | None = None, *, progress: Progress | None = None
    ) -> Tensor:
        """(B,C,H,W) and (B,K,H,W) or None -> (B,C',H*s,W*s) in [0,1].

        Raises ValueError for a wrong shape or dtype.
        """
        self._check(x)
        condition = self._condition(x, condition)
        with self._on_device():
            return self._restore(x, condition, progress)

    def _on_device(self) -> AbstractContextManager[object]:
        """A CPU keeps freed memory; a GPU is this thread's current one, which Triton's kernels need."""
        if self.device.type == "cuda":
            return torch.cuda.device(self.device)
        return freed_memory_kept() if self.device.type == "cpu" else nullcontext()

    def _restore(self, x: Tensor, condition: Tensor | None, progress: Progress | None) -> Tensor:
        """In tiles as large as memory allows; arguments are checked."""
        longest = max(x.shape[2:])
        if not self._tile_chosen and longest > _LEAST_TILE:
            self._tile_chosen = True
            self._take_tile(
                fitting_tile(self.network, device=self.device, largest=self.tile, least=_LEAST_TILE)
            )
        while True:
            try:
                if self.global_statistics and self.tile and longest > self.tile:
                    return self._by_its_statistics(x, condition, progress)
                return self._in_tiles(x, condition, progress)
            except (RuntimeError, MemoryError) as error:
                smaller = min(self.tile or longest, longest) // 2
                if not ran_out(error):
                    raise
                if smaller < _LEAST_TILE:
                    raise ValueError(
                        f"{self.device} has too little memory for a tile of {2 * smaller} pixels: use a "
                        "smaller model, or free some memory"
                    ) from error
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            self._take_tile(smaller)

    def _take_tile(self, tile: int) -> None:
        self.tile, self.overlap = tile, min(self.overlap, default_overlap(tile))

    def _by_its_statistics(self, x: Tensor, condition: Tensor | None, progress: Progress | None) -> Tensor:
        """Photo by photo, in tiles that use the statistics of the whole photo, computed by torch."""
        if self._engine_named:
            raise ValueError(
                f"engine {self.engine} would give each tile of {self.tile} pixels its own colours or "
                "sharpness, as it does not know the whole photo: use engine torch, or tile 0"
            )
        restored = []
        for index in range(len(x)):
            one, maps = x[index : index + 1], None if condition is None else condition[index : index + 1]

            def show(done: int, tiles: int, index: int = index) -> None:
                if progress is not None:
                    progress(index * tiles + done, len(x) * tiles)

            fixed = of_whole_photo(
                self.network, one, maps, side=self.tile, device=self.device, autocast=self._autocast()
            )
            restored.append(self._in_tiles(one, maps, show, fixed))
        return torch.cat(restored)

    def _in_tiles(
        self,
        x: Tensor,
        condition: Tensor | None,
        progress: Progress | None,
        network: Network | None = None,
    ) -> Tensor:
        """Tile by tile, by the chosen engine or by `network`."""
        count, _, height, width = x.shape
        scale, multiple = self.network.scale, self.network.size_multiple
        tiles = grid(height, width, tile=self.tile, overlap=self.overlap, multiple=multiple)
        jobs = [(photo, tile) for photo in range(count) for tile in tiles]
        out = x.new_zeros(
            (count, self.network.out_channels, height * scale, width * scale), dtype=torch.float32
        )
        largest = max(math.prod(tile.shape) for tile in tiles)
        done, compute = 0, network or self._engine.for_tiles(largest, count * height * width)
        for batch in batches(jobs, self.together):
            restored = self._run(x, condition, batch, compute)
            for y, (photo, tile) in zip(restored, batch, strict=True):
                if len(tiles) > 1:
                    y = y * tile.weights(self.overlap, scale).to(self.device)
                tile.region(out[photo], scale).add_(y.to(out.device))
            done += len(batch)
            if progress is not None:
                progress(done, len(jobs))
        if not all(end.isfinite() for end in out.aminmax()):  # unlike a mask, this takes no memory
            use = "" if self.precision == "float32" else ": use precision float32"
            raise ValueError(
                f"{type(self.network).__name__} produced values that are not finite in {self.precision} from "
                f"a finite photo{use}"
            )
        return out.clamp_(0, 1)

    def _run(
        self, x: Tensor, condition: Tensor | None, batch: list[tuple[int, Tile]], compute: Compute
    ) -> Tensor:
        """`compute` on one batch of tiles of one shape -> float32 (b,C',h*s,w*s) on the network's device."""
        try:
            pieces = self._gather(x, batch)
            maps = None if condition is None else self._gather(condition, batch)
            with self._autocast():
                restored = compute(pieces, maps)
            return restored.float()
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
        torch.cuda.empty_cache()
        self._together_at_most = 1
        return torch.cat([self._run(x, condition, [job], compute) for job in batch])

    def _gather(self, x: Tensor, batch: list[tuple[int, Tile]]) -> Tensor:
        """The tiles of `batch` cut from x, float32 (b,C,h,w) on the network's device."""
        pieces = torch.stack([tile.cut(x[photo]) for photo, tile in batch])
        return pieces.to(device=self.device, dtype=torch.float32, memory_format=torch.channels_last)

    def _autocast(self) -> AbstractContextManager[object]:
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=getattr(torch, self.precision))

    def _check(self, x: Tensor) -> None:
        check_photos(x)
        takes = self.network.in_channels
        frames = self.network.frames
        if x.shape[1] != takes and frames > 1:
            raise ValueError(
                f"the model restores the middle one of {frames} frames of a video, {takes} channels in all, "
                f"got {x.shape[1]}: join the frames (B,C,H,W) by torch.cat(frames, dim=1)"
            )
        if x.shape[1] != takes:
            fix = {
                (3, 1): "use photo.expand(-1, 3, -1, -1)",
                (3, 4): "use photo[:, :3], without alpha",
                (1, 3): "give each channel as a photo of its own, photo.transpose(0, 1)",
            }.get((takes, x.shape[1]), "convert it first")
            if channels_last(x):
                fix = "photos are (B,C,H,W), use photo.permute(0, 3, 1, 2)"
            raise ValueError(f"the model takes {takes} channels, the photo has {x.shape[1]}: {fix}")

    def _condition(self, x: Tensor, condition: Tensor | None) -> Tensor | None:
        channels = self.network.condition_channels
        if condition is not None and channels == 0:
            raise ValueError("the condition: this model takes neither a noise level nor a mask, leave it out")
        if condition is not None and not isinstance(condition, Tensor):
            number = isinstance(condition, Real)
            raise ValueError(
                f"the condition is a tensor (B,{channels},H,W), got "
                f"{condition if number else type(condition).__name__}: for a noise level "
                "use Restorer.load(…, sigma=25) or restorer.with_sigma(25)"
            )
        if channels == 0:
            return None
        if condition is None:
            if self.description is not None and self.description.conditioned_on == "mask":
                raise ValueError(
                    f"the model fills in: give the mask as the second argument, float (B,{channels},H,W), "
                    "1 where a pixel is known and 0 where it is missing"
                )
            if channels != 1 or self.sigma is None:
                raise ValueError(
                    f"the model is conditioned on what it restores ({channels} condition channels): give it "
                    "the noise level on the 8-bit scale, Restorer.load(…, sigma=25) or "
                    "restorer.with_sigma(25), or the condition map itself as the second argument"
                )
            condition = x.new_full((), self.sigma / 255).expand(x.shape[0], 1, *x.shape[2:])
        if condition.shape != (x.shape[0], channels, *x.shape[2:]):
            expected = (x.shape[0], channels, *x.shape[2:])
            raise ValueError(f"the condition must be of shape {expected}, got {tuple(condition.shape)}")
        self._check_values(condition)
        return condition

    def _check_values(self, condition: Tensor) -> None:
        """Raises ValueError for values that no level map or mask has."""
        least, most = map(float, condition.detach().aminmax())
        if not math.isfinite(least + most):
            raise ValueError("the condition has values that are not finite (NaN or infinite)")
        kind = None if self.description is None else self.description.conditioned_on
        if kind in ("noise level", "mask") and not 0 <= least <= most <= 1:
            raise ValueError(
                f"the condition, a {kind}, is on the [0,1] scale, got values from {least:g} to {most:g}: "
                "divide those of the 8-bit scale by 255"
            )


@cache
def _warn_once(words: str) -> None:
    log.warning(words)
