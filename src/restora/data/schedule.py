"""The crops of each training batch: a pure function of the seed and the number of the batch.

Photos are visited in passes; each pass is a permutation of all of them. Sample number g of a run is photo
`permutation(seed, g // n)[g % n]`, and its key, which fixes the place of the crop, its geometry and its
degradation, is that of (seed, pass, position in the pass). Nothing depends on how many workers or processes
cut the crops, on the length of Lightning's epochs, or on where a run was stopped and resumed.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from restora.keyed import sample_key

_ORDER_STREAM = 0x0D3
_MASK = (1 << 64) - 1


@dataclass(frozen=True)
class Stage:
    """From step `start_step` on: crops of `patch_size`, `batch_size` of them over all processes."""

    start_step: int
    patch_size: int
    batch_size: int


@dataclass(frozen=True)
class Crop:
    """One crop to cut: the number of its photo, and the key of all its random choices."""

    photo: int
    key: int


def read_stages(
    stages: Sequence[Mapping[str, int]] | None, patch_size: int, batch_size: int
) -> tuple[Stage, ...]:
    """The stages of a run; one with the given sizes where none are named. Raises ValueError."""
    given = stages or [{"start_step": 0, "patch_size": patch_size, "batch_size": batch_size}]
    wanted = {"start_step", "patch_size", "batch_size"}
    for row in given:
        if set(row) != wanted:
            raise ValueError(f"each of data.stages needs {', '.join(sorted(wanted))}; got {dict(row)}")
    made = tuple(Stage(**row) for row in given)
    starts = [stage.start_step for stage in made]
    if starts[0] != 0 or sorted(set(starts)) != starts:
        raise ValueError(
            f"data.stages must begin at start_step 0, each later than the one before; got {starts}"
        )
    for stage in made:
        if stage.patch_size < 1 or stage.batch_size < 1:
            raise ValueError(
                f"data: patch_size and batch_size must be at least 1, got {stage.patch_size} and "
                f"{stage.batch_size}"
            )
    return made


class CropSchedule:
    """The crops of every batch, for one process of `world_size`.

    The gradients of `batches_per_step` batches make one step, and stages begin at steps. Process r takes the
    r-th contiguous part of each batch, so that the parts together are the batch that a single process would
    train on.
    """

    def __init__(
        self,
        *,
        seed: int,
        photos: int,
        stages: Sequence[Stage],
        batches_per_step: int = 1,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        assert photos > 0
        assert all(stage.batch_size % world_size == 0 for stage in stages)
        self.seed, self.photos = seed, photos
        self.stages = tuple(replace(one, start_step=one.start_step * batches_per_step) for one in stages)
        """They begin at batches here."""
        self.rank, self.world_size = rank, world_size
        self._starts = [stage.start_step for stage in self.stages]
        self._order: tuple[int, NDArray[np.intp]] = (-1, np.empty(0, np.intp))

    def stage(self, batch: int) -> Stage:
        """The stage that training batch number `batch` belongs to."""
        return self.stages[bisect_right(self._starts, batch) - 1]

    def samples_before(self, batch: int) -> int:
        """How many crops all processes together have cut before this batch."""
        ends = [*self._starts[1:], batch]
        spans = zip(self.stages, ends, strict=True)
        return sum(max(min(end, batch) - stage.start_step, 0) * stage.batch_size for stage, end in spans)

    def samples(self, batch: int) -> range:
        """The numbers of the samples of this process's part of the batch."""
        share = self.stage(batch).batch_size // self.world_size
        start = self.samples_before(batch) + self.rank * share
        return range(start, start + share)

    def crops(self, batch: int) -> list[Crop]:
        """This process's part of the batch."""
        return [self.crop(sample) for sample in self.samples(batch)]

    def crop(self, sample: int) -> Crop:
        """Sample number `sample` of the run."""
        turn, position = divmod(sample, self.photos)
        return Crop(int(self._permutation(turn)[position]), sample_key(self.seed, turn, position))

    def _permutation(self, turn: int) -> NDArray[np.intp]:
        """The order of one pass: photos sorted by random numbers that do not depend on numpy's release."""
        if self._order[0] != turn:
            key = np.uint64(sample_key(_ORDER_STREAM, self.seed, turn) & _MASK)
            self._order = turn, np.argsort(_hashed(key, self.photos), kind="stable")
        return self._order[1]


def _hashed(key: np.uint64, count: int) -> NDArray[np.uint64]:
    """`count` random 64-bit numbers: SplitMix64, as in `restora.keyed`."""
    with np.errstate(over="ignore"):
        state = key + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return state ^ (state >> np.uint64(31))


class ResumableSampler(Sampler[int]):
    """The numbers of the batches of an epoch, from the first that a run has not trained on.

    `batches_done` is called at the start of each epoch; it gives the batches of the whole run done so far.
    Numbers and length are always those of a whole epoch: Lightning counts the batches of a resumed epoch from
    its beginning, and stops taking more at its end (or at `limit_train_batches`).
    """

    def __init__(self, *, steps_per_epoch: int, batches_done: Callable[[], int]) -> None:
        self.steps_per_epoch, self.batches_done = steps_per_epoch, batches_done

    def __len__(self) -> int:
        return self.steps_per_epoch

    def __iter__(self) -> Iterator[int]:
        done = self.batches_done()
        return iter(range(done, done + self.steps_per_epoch))
