"""The base of benchmarks: test photos, their degradation, and the protocol that scores the outputs.

Enters: the index of a photo and the inputs that the method under test takes. Leaves: an `Observation`, the
same for every run, process and machine; then, from the method's output, the two tensors that the metrics
compare. Photos are processed one at a time: they differ in size, and so the figures cannot depend on how the
photos are distributed over processes.

Legend: C channels, H height, W width, h w of the degraded photo, K condition channels.
"""

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from restora.evaluation.protocol import Color, Protocol
from restora.evaluation.testsets import TestSet, find_photos
from restora.image import luminance_plane
from restora.photos.errors import PhotoError
from restora.photos.listing import look_through
from restora.photos.names import unique_names
from restora.photos.reading import photo_size, read_photo

log = logging.getLogger(__name__)
_LISTED = 10
Planes = Literal["gray", "rgb", "y"]
"""The planes that a method is given: grey, colour, or the luminance of a colour photo."""


@dataclass(frozen=True)
class Intake:
    """The input of a method: channels (None: any number), scale (None: it is given the scale), frames."""

    channels: int | None = None
    scale: int | None = None
    frames: int = 1


@dataclass(frozen=True)
class Observation:
    """One degraded photo, all on the CPU, float32 on the [0,1] scale.

    `degraded` (1,C,h,w), of clips (1,T·C,h,w); `clean` (1,C',H,W); `condition` (1,K,h,w) or None; `baseline`
    (1,C',H,W) is the degraded photo at the size of the clean one, scored as "input". `sigma` (8-bit scale),
    `kernel` (k,k) and `quality` may be used by classical methods; `chroma` (1,2,H,W) is what a luminance
    network does not change. `eight_bit` is False where the output is not a photo to be saved, but the Y of
    one.
    """

    name: str
    degraded: Tensor
    clean: Tensor
    baseline: Tensor
    condition: Tensor | None = None
    scale: int = 1
    sigma: float | None = None
    kernel: NDArray[np.float64] | None = None
    mask: Tensor | None = None
    quality: int | None = None
    chroma: Tensor | None = None
    eight_bit: bool = True
    facts: dict[str, float] = field(default_factory=dict)
    """Columns of this photo in per_image.csv."""


@dataclass(frozen=True, kw_only=True)
class Benchmark(ABC):
    """Plain values in, observations out. Subclasses define the degradation of a photo (`degrade`)."""

    task: ClassVar[str]
    severity: ClassVar[str | None] = None
    """The argument that a severity curve varies."""

    @property
    def classical_task(self) -> str:
        """The task whose classical methods can be measured on it."""
        return self.task

    @property
    def moves(self) -> bool:
        """Whether photos are moved for a network that takes several frames."""
        return False

    root: str
    color: Color
    testset: TestSet | None = None
    limit: int | None = None
    """Score the first photos only."""
    border: int | None = None
    round_output: bool = True
    y_rounded: bool = False

    def __post_init__(self) -> None:
        if not self.root:
            raise ValueError(
                "which photos? Set benchmark.root=FOLDER, or benchmark/testset=NAME, one of set5, set14, "
                "bsd68, bsd100, urban100, kodak24, mcmaster, cbsd68, live1, classic5, set12, div2k_valid"
            )
        self.protocol  # noqa: B018 - a wrong color or border fails here and not at the first photo
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"benchmark.limit is a number of photos >= 1 or null for all, got {self.limit}")

    @property
    def protocol(self) -> Protocol:
        return Protocol(
            color=self.color,
            border=self.default_border if self.border is None else self.border,
            round_output=self.round_output,
            y_rounded=self.y_rounded,
        )

    @property
    def default_border(self) -> int:
        return 0

    @cached_property
    def photos(self) -> list[Path]:
        return find_photos(self.root, self.testset)[: self.limit]

    @cached_property
    def names(self) -> list[str]:
        photos = self.photos
        distinct = list(dict.fromkeys(photos))
        known = dict(zip(distinct, unique_names(distinct, photos[0].parent), strict=True)) if photos else {}
        return [known[path] for path in photos]

    def check(self) -> None:
        """Raises ValueError for photos that are not there or cannot be decoded.

        Note: figures of fewer photos would be figures of another benchmark, so none is left out.
        """
        if Path(self.root).expanduser().is_dir():
            for path, reason in look_through(Path(self.root).expanduser()).left_out.items():
                log.warning("%s: %s; it is left out", path, reason)
        check_photos(self.photos, "benchmark.root")

    @property
    def title(self) -> str:
        """A short title of the benchmark."""
        values = self.describe()
        severity = [] if self.severity is None else [f"{self.severity} {values[self.severity]}"]
        return ", ".join([values["testset"], self.task.replace("_", " "), *severity, self.color])

    def describe(self) -> dict[str, Any]:
        """All settings that the figures depend on, as plain JSON values."""
        values = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "testset"}
        if self.severity is not None:
            values = {self.severity: values[self.severity]} | values
        values["border"] = self.protocol.border
        named = self.testset is not None and self.testset.root is not None
        name = self.testset.name if self.testset is not None and named else Path(self.root).name
        return {"task": self.task, "testset": name} | values

    def observe(self, index: int, intake: Intake) -> Observation:
        """Photo `index`, degraded. Raises ValueError if the method cannot take this benchmark's photos."""
        return self.degrade(self.read(index, self.planes(intake)), index, intake)

    @abstractmethod
    def degrade(self, clean: Tensor, index: int, intake: Intake) -> Observation:
        """(1,C,H,W) in [0,1], 8-bit values -> the observation for the method."""

    def planes(self, intake: Intake) -> Planes:
        """Which planes a method is given. Raises ValueError with the setting that would fit."""
        if not self.moves:
            check_single(intake)
        wanted = 3 if self.color == "rgb" else 1
        if intake.channels in (None, wanted):
            return self.color
        if self.color == "gray" and intake.channels == 3 and intake.frames == 1:
            return "gray"  # the network gets the plane in each of its channels
        if self.color == "y" and intake.channels == 3:
            return "rgb"
        if intake.channels == 1:
            raise ValueError(
                "the network takes one channel and benchmark.color=rgb gives three: set benchmark.color=gray "
                "(or y), or per_channel=true to restore each channel on its own"
            )
        raise ValueError(
            f"the network takes {intake.channels} channels and benchmark.color={self.color} gives {wanted}: "
            f"set benchmark.color=rgb"
        )

    def read(self, index: int, planes: Planes) -> Tensor:
        """The photo as float32 (1,C,H,W), 8-bit values over 255."""
        pixels = read_photo(self.photos[index], "gray" if planes == "gray" else "rgb")
        photo = torch.tensor(pixels).permute(2, 0, 1)[None].float() / 255
        return luminance_plane(photo) if planes == "y" else photo

    def cut_to_multiple(self, clean: Tensor, scale: int) -> Tensor:
        """(1,C,H,W) without the rows and columns that are left over by `scale`. Raises ValueError."""
        height, width = clean.shape[-2:]
        if min(height, width) < scale:
            raise ValueError(f"{height}x{width} pixels cannot be reduced {scale} times")
        return clean[..., : height - height % scale, : width - width % scale]

    def complete(self, output: Tensor, observation: Observation) -> Tensor:  # noqa: ARG002
        """The output (1,C',H,W), completed by the parts that the method does not restore, for scoring."""
        return output


def check_photos(paths: Sequence[Path], setting: str, *, pixels: bool = True) -> None:
    """Raises ValueError that names the files that are not photos, or whose `pixels` cannot be decoded."""
    read = partial(_fault, read_photo if pixels else photo_size)
    with ThreadPoolExecutor(os.cpu_count()) as threads:  # decoders release Python's lock
        wrong = [fault for fault in threads.map(read, dict.fromkeys(paths)) if fault is not None]
    if wrong:
        listed = "\n  ".join(wrong[:_LISTED])
        more = f"\n  and {len(wrong) - _LISTED} more" if len(wrong) > _LISTED else ""
        raise ValueError(f"{listed}{more}: fix these files or take them out of the folder ({setting})")


def _fault(read: Callable[[Path], object], path: Path) -> str | None:
    """Why `read` cannot read the photo, with its name; None if it can."""
    try:
        read(path)
    except PhotoError as error:
        return str(error)
    return None


def at_random(seed: int, place: int, low: float, high: float) -> float:
    """A severity drawn uniformly for the photo at this place of the sorted list."""
    return low if low == high else float(np.random.default_rng((seed, place)).uniform(low, high))


def whole_at_random(seed: int, place: int, low: int, high: int) -> int:
    """The same of whole numbers, each as often as any other."""
    return int(np.random.default_rng((seed, place)).integers(low, high, endpoint=True))


def check_single(intake: Intake) -> None:
    """Raises ValueError for a method that takes several frames: the photos of a benchmark are single."""
    if intake.frames > 1:
        raise ValueError(
            f"the network takes {intake.frames} frames of a video, and these are single photos: set "
            "benchmark=denoise, which moves them, or evaluate a run on its own clips (checkpoint=RUN)"
        )
