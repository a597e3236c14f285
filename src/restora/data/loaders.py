"""DataLoaders over data sets of whole batches; that of training notices other data in a resumed run."""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol

from torch.utils.data import DataLoader, Dataset

from restora.data.ahead import OneAhead
from restora.data.packing import cores
from restora.data.schedule import ResumableSampler

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

Workers = int | Literal["auto"]
_MOST = 8
"""The largest number of worker processes for one device: a batch is a copy out of a memory-mapped file."""

log = logging.getLogger(__name__)


class Described(Protocol):
    """A data set that describes what its crops are drawn from."""

    def described(self) -> dict[str, Any]: ...


EvaluationLoader = DataLoader[Any]
"""Yields whole photos: a `PhotoBatch`, or in a mixture several by the names of their parts."""


class TrainingLoader(DataLoader[Any]):
    """Batches of crops.

    A checkpoint records what the crops are drawn from, so that a run resumed with other data warns of it; the
    run's position is its batch count. With `ahead`, the next batch is prepared on the device during a step.
    """

    def __init__(
        self,
        batches: Any,
        sampler: ResumableSampler,
        *,
        workers: int,
        pin_memory: bool,
        ahead: OneAhead | None = None,
    ) -> None:
        super().__init__(
            batches,
            batch_size=None,
            sampler=sampler,
            num_workers=workers,
            persistent_workers=workers > 0,
            collate_fn=_as_it_is,
            pin_memory=pin_memory,
        )
        self.batches: Described = batches
        self.ahead = ahead

    def __iter__(self) -> Any:
        batches = super().__iter__()
        return batches if self.ahead is None else self.ahead(batches)

    def state_dict(self) -> dict[str, Any]:
        """The plain values that determine the stream of crops."""
        return self.batches.described()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Warns where the crops of this run are drawn differently from those of the checkpoint's run."""
        for key, now in self.state_dict().items():
            if key in state and state[key] != now:
                log.warning(
                    "this run continues with other crops: data %s was %s, is %s", key, state[key], now
                )


def evaluation_loader(photos: Dataset[Any], *, pin_memory: bool) -> EvaluationLoader:
    """Whole photos, read in this process: a copy out of the memory-mapped file takes hardly any time."""
    return DataLoader(photos, batch_size=None, collate_fn=_as_it_is, pin_memory=pin_memory)


def _as_it_is(batch: Any) -> Any:
    """No collating: the data sets give whole batches."""
    return batch


def workers_of(workers: Workers, trainer: "Trainer | None") -> int:
    """How many processes cut crops.

    `auto` is none on a CPU, where training uses the cores; elsewhere it is the number of cores per device
    less one for the training process, from one to eight. Warns of a number that exceeds the cores.
    """
    if workers != "auto":
        if workers > cores() and (trainer is None or trainer.is_global_zero):
            log.warning(
                "data.workers=%d exceeds the cores of this process (%d), and may slow the training down: set "
                "data.workers=auto",
                workers,
                cores(),
            )
        return workers
    if trainer is None or trainer.strategy.root_device.type == "cpu":
        return 0
    return min(max(cores() // max(trainer.num_devices, 1) - 1, 1), _MOST)
