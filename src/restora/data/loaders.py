"""DataLoaders whose data sets give whole batches, and the one that a resumed run recognises."""

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
"""Of processes that cut crops for one device: a batch is a copy out of a mapped file."""

log = logging.getLogger(__name__)


class Described(Protocol):
    """A data set that can say what its crops are drawn from."""

    def described(self) -> dict[str, Any]: ...


EvaluationLoader = DataLoader[Any]
"""Whole photos: `PhotoBatch`es, or several by name where parts are mixed."""


class TrainingLoader(DataLoader[Any]):
    """Batches of crops.

    What is saved in a checkpoint is not where the run was, which its batch count says, but what its
    crops are drawn from, so that a run that goes on with other data says so. With `ahead`, a batch is begun
    on the device before it is wanted.
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
        """What the stream of crops is a function of, in plain values."""
        return self.batches.described()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Compares the stream of the run that goes on with that of the run that was stopped."""
        for key, now in self.state_dict().items():
            if key in state and state[key] != now:
                log.warning("this run goes on with other crops: data %s was %s, is %s", key, state[key], now)


def evaluation_loader(photos: Dataset[Any], *, pin_memory: bool) -> EvaluationLoader:
    """Whole photos, read in this process: a copy out of the mapped file takes no time."""
    return DataLoader(photos, batch_size=None, collate_fn=_as_it_is, pin_memory=pin_memory)


def _as_it_is(batch: Any) -> Any:
    """No collating: the data sets give whole batches."""
    return batch


def workers_of(workers: Workers, trainer: "Trainer | None") -> int:
    """How many processes cut crops.

    `auto` is none on a CPU, whose cores the training has, and on other devices the cores that are there for
    each, less the one that steps, at most eight.
    """
    if workers != "auto":
        return workers
    if trainer is None or trainer.strategy.root_device.type == "cpu":
        return 0
    return min(max(cores() // max(trainer.num_devices, 1) - 1, 1), _MOST)
