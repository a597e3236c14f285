"""Non-finite steps are skipped and logged; after too many in a row the run goes back to a checkpoint.

Enters: the loss and gradients of a backward pass. Leaves: weights, optimiser and batch norms unchanged by a
step whose loss or gradient holds a NaN or an infinity; `poison.jsonl` in the run folder, with the data to
replay the step (batch, photos, keys, degradation parameters; `restora preview poison=RUN` shows it); and,
after too many such steps, the weights of an earlier checkpoint with a smaller learning rate, or the end of
the run.

Note: on a GPU, Adam, SGD and Muon need no host/device synchronisation here. The flag stays on the GPU and
makes the fused optimiser kernel do nothing. The host reads the flags of `_WINDOW` steps at once, after it has
queued as many further steps. On a CPU, and for optimisers without such a kernel, the flag is read at each
step. All processes of a distributed run share the flag, so they skip the same steps and go back at the same
step.
"""

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from restora.data.mixture import MixtureData
from restora.data.module import PhotoData
from restora.degradations.compose.composition import OnDemand
from restora.families.base import Family
from restora.files import json_text, read_json_lines, write_whole
from restora.keyed import KeyedGenerator
from restora.registry import register
from restora.training.callbacks import LastCheckpoint, NonFinite, Settling, batches_done
from restora.training.poison_cause import explained, first_of, sums_of
from restora.training.statistics import Statistics
from restora.types import Batch

log = logging.getLogger(__name__)
FILE = "poison.jsonl"
Then = Literal["back", "stop"]
_WINDOW = 16
_NAMED = 5
"""Skipped steps that are logged one by one; further ones are only counted."""
_LONGEST = 64
"""Longest tensor of a degradation parameter that is written out."""
_BEFORE = ("last", "previous", "best")
"""Checkpoints to go back to: the first time, the second time, later."""


@dataclass
class _Seen:
    """The data kept of a step until its flag is read; no pixels."""

    step: int
    batches: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    keys: list[Tensor] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)


@register("callback", "skip_non_finite")
class SkipNonFinite(Settling):
    """Skips the update of a step whose loss or gradient is not finite, and logs its photos.

    After `patience` such steps in a row the run goes `back` to its last checkpoint with learning rates
    multiplied by `factor`, at most `returns` times, or it ends (`then` stop). Skipped steps count as steps,
    so a resumed run is the same as an uninterrupted one.
    """

    def __init__(
        self,
        *,
        directory: str | Path,
        patience: int = 10,
        then: Then = "back",
        factor: float = 0.5,
        returns: int = 3,
    ) -> None:
        if then not in get_args(Then) or not 0 < factor <= 1 or patience < 1 or returns < 0:
            raise ValueError(
                "callbacks.non_finite: then must be back or stop, factor in (0, 1], patience at least 1, "
                "returns "
                f"at least 0; got {then}, {factor}, {patience}, {returns}"
            )
        self.path = Path(directory) / FILE
        self.patience, self.then, self.factor, self.returns = patience, then, factor, returns
        self.in_a_row = self.skipped = self.returned = 0
        self._seen: _Seen | None = None
        self._loss: Tensor | None = None
        self._flag: Tensor | None = None
        """(5,) of the current step: loss, gradient norm, 1 if skipped, sums of the degraded and clean photos,
        finite if the photos are. None if already known to be finite."""
        self._photos: list[Tensor] = []
        """(2,) for each batch of the current step, by `sums_of`."""
        self._batch: Batch | None = None
        self._first = ""
        """What was the first not finite in the first of the steps in a row."""
        self._looked = False
        self._statistics: Statistics | None = None
        self._unread: list[tuple[_Seen, Tensor]] = []
        self._copied: tuple[list[_Seen], Tensor, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        return {"in_a_row": self.in_a_row, "skipped": self.skipped, "returned": self.returned}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name in self.state_dict():
            setattr(self, name, int(state_dict[name]))

    # --- a step ---------------------------------------------------------------------------------------------

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._statistics = Statistics(module)
        if trainer.is_global_zero:
            _drop_from(self.path, _step(module))

    def on_train_batch_start(
        self, trainer: Trainer, module: LightningModule, batch: Batch, batch_index: int
    ) -> None:
        if self._seen is None:  # the first batch of an accumulation
            self._seen, self._loss, self._flag, self._looked = _Seen(_step(module)), None, None, False
            self._photos = []
            if self._statistics is not None:
                self._statistics.keep()
        self._photos.append(sums_of(batch))
        self._batch = batch
        self._seen.batches.append(batches_done(trainer, batch_index) - 1)
        self._seen.names += batch.names
        if batch.keys is not None and batch.clean is not None:
            self._seen.keys.append(batch.keys)
            self._seen.shapes.append(tuple(batch.clean.shape))

    def on_before_backward(self, trainer: Trainer, module: LightningModule, loss: Tensor) -> None:
        loss = loss.detach()
        self._loss = loss if self._loss is None else self._loss + loss

    @torch.no_grad()
    def on_before_optimizer_step(
        self, trainer: Trainer, module: LightningModule, optimizer: Optimizer
    ) -> None:
        gradients = [
            p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None
        ]
        if not gradients:
            return
        self._looked = True
        if self._reads_late(trainer, optimizer):
            self._flag = self._flagged(trainer, gradients)
            optimizer.found_inf = self._flag[2]  # type: ignore[attr-defined]
            if self._statistics is not None:
                self._statistics.put_back_where(self._flag[2] > 0)
        elif self._is_lost(trainer, gradients):
            optimizer.zero_grad(set_to_none=True)  # optimisers skip parameters without a gradient
            if self._statistics is not None:
                self._statistics.put_back()
        self._loss = None

    def _flagged(self, trainer: Trainer, gradients: list[Tensor]) -> Tensor:
        """(5,), as `_flag`; earlier half-steps of the step included."""
        norm = self._norm(trainer, gradients)
        loss = norm if self._loss is None else self._loss.float().mean()
        flag = torch.stack((loss.float(), norm.float(), (~(norm + loss).isfinite()).float()))
        photos = self._photos[0] if len(self._photos) == 1 else torch.stack(self._photos).sum(0)
        flag = torch.cat((flag, photos.to(flag.device)))
        if trainer.world_size > 1:  # gradients are all-reduced, losses are per process
            torch.distributed.all_reduce(flag[2:3], op=torch.distributed.ReduceOp.MAX)
        return flag if self._flag is None else torch.where(self._flag[2] > 0, self._flag, flag)

    def _is_lost(self, trainer: Trainer, gradients: list[Tensor]) -> bool:
        """Whether the step is skipped, read at once; on a CPU finite numbers are found without a flag."""
        if self._flag is None and trainer.world_size == 1 and gradients[0].device.type == "cpu":
            norm = float(self._norm(trainer, gradients))
            if math.isfinite(norm + (0.0 if self._loss is None else float(self._loss))):
                return False
        self._flag = self._flagged(trainer, gradients)
        return bool(self._flag[2])

    @staticmethod
    def _norm(trainer: Trainer, gradients: list[Tensor]) -> Tensor:
        if getattr(trainer.precision_plugin, "scaler", None) is not None:  # the scaler checks
            return gradients[0].new_zeros(())
        return torch.stack(torch._foreach_norm(gradients)).norm()

    def _reads_late(self, trainer: Trainer, optimizer: Optimizer) -> bool:
        """Whether the optimiser's fused kernel skips a step by itself on a GPU, without synchronisation."""
        scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
        fused = all(group.get("fused") for group in optimizer.param_groups)
        return trainer.strategy.root_device.type == "cuda" and fused and not scaled

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_index: int
    ) -> None:
        if not self._looked or self._seen is None:  # in the middle of an accumulation
            return
        seen, self._seen = self._seen, None
        if self._flag is None:
            self.in_a_row = 0
            return
        self._unread.append((seen, self._flag))
        if all(self._reads_late(trainer, optimizer) for optimizer in trainer.optimizers):
            if len(self._unread) < _WINDOW:
                return
            self._read(trainer, module)
            self._copy()
        else:
            self.settle(trainer, module)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.settle(trainer, module)
        if not self.skipped:
            return
        if trainer.is_global_zero:
            log.warning("%d steps were not finite and were skipped: %s", self.skipped, self.path)
        if self.skipped == _step(module):
            raise NonFinite("every step was not finite", None, self._explained(module))

    def on_validation_start(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self.settle(trainer, module)

    # --- reading flags --------------------------------------------------------------------------------------

    def settle(self, trainer: Trainer, module: LightningModule) -> None:
        """Reads all pending flags: before weights are saved, and where synchronising costs nothing."""
        self._read(trainer, module)
        self._copy()
        self._read(trainer, module)

    def _copy(self) -> None:
        """Copies the flags of the steps since the last copy to the host, asynchronously."""
        if not self._unread:
            return
        flags = torch.stack([flag for _, flag in self._unread])
        done = None
        if flags.is_cuda:
            flags = torch.empty(flags.shape, pin_memory=True).copy_(flags, non_blocking=True)
            done = torch.cuda.Event()
            done.record()
        self._copied, self._unread = ([seen for seen, _ in self._unread], flags, done), []

    def _read(self, trainer: Trainer, module: LightningModule) -> None:
        """Reads the copied flags: logs the skipped steps, and goes back if there are too many."""
        if self._copied is None:
            return
        (steps, flags, done), self._copied = self._copied, None
        if done is not None:
            done.synchronize()
        too_many = ""
        for seen, (loss, norm, lost, degraded, aim) in zip(steps, flags.tolist(), strict=True):
            self.in_a_row = self.in_a_row + 1 if lost else 0
            if lost:
                first = first_of(loss, not math.isfinite(degraded), not math.isfinite(aim))
                self._first = first if self.in_a_row == 1 or not self._first else self._first
                self._name(trainer, seen, loss, norm, first)
            if self.in_a_row >= self.patience:
                span = f"{seen.step - self.in_a_row + 1} to {seen.step}"
                too_many = f"{self.in_a_row} steps in a row were not finite, steps {span}"
        if too_many:
            self._go_back(trainer, module, too_many)

    def _name(self, trainer: Trainer, seen: _Seen, loss: float, norm: float, first: str) -> None:
        self.skipped += 1
        row: dict[str, Any] = {
            "step": seen.step,
            "batches": seen.batches,
            "loss": loss,
            "gradient_norm": norm,
            "first": first,
            "photos": seen.names,
            "keys": [key for keys in seen.keys for key in keys.tolist()],
            "degradation": [
                _parameters(trainer, shape, keys) for shape, keys in zip(seen.shapes, seen.keys, strict=True)
            ],
        }
        if (shares := _shares(trainer)) is not None:
            row["shares"] = shares
        if trainer.world_size > 1:
            row = _of_all(row, trainer.world_size)
        if not trainer.is_global_zero:
            return
        with self.path.open("a") as file:
            file.write(json_text(row, indent=None) + "\n")
        if self.skipped <= _NAMED:
            names = ", ".join(dict.fromkeys(row["photos"]))
            log.warning(
                "step %d is skipped, %s not finite: loss %g, gradient %g; photos %s "
                "(restora preview poison=%s shows them)",
                seen.step, first, row["loss"], norm, names, self.path.parent,
            )  # fmt: skip

    # --- going back -----------------------------------------------------------------------------------------

    def _go_back(self, trainer: Trainer, module: LightningModule, what: str) -> None:
        saver = next((c for c in trainer.callbacks if isinstance(c, LastCheckpoint)), None)  # type: ignore[attr-defined]
        path = None if saver is None else self._checkpoint(saver.path.parent)
        path = trainer.strategy.broadcast(path)
        if self.then == "stop" or self.returned >= self.returns or path is None:
            raise NonFinite(what, saver, self._explained(module))
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        module.load_state_dict(checkpoint["state_dict"])
        for optimizer, state in zip(trainer.optimizers, checkpoint["optimizer_states"], strict=True):
            rates = [group["initial_lr"] * self.factor for group in optimizer.param_groups]
            optimizer.load_state_dict(state)
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["initial_lr"] = rate
        self.returned, self.in_a_row = self.returned + 1, 0
        if trainer.is_global_zero:
            log.warning(
                "%s: back to the weights of %s (step %s), with %g of the learning rate",
                what, path.name, checkpoint["restora"]["step"], self.factor**self.returned,
            )  # fmt: skip

    def _explained(self, module: LightningModule) -> str:
        assert isinstance(module, Family)
        fresh = self.skipped == _step(module)
        # an output may be too large for float16 and not for float32
        with module.trainer.precision_plugin.forward_context():
            return explained(self._first, module.network, self._batch, fresh=fresh, folder=self.path.parent)

    def _checkpoint(self, folder: Path) -> Path | None:
        """The checkpoint to go back to; each time an older one."""
        names = _BEFORE[min(self.returned, len(_BEFORE) - 1) :] + _BEFORE
        return next((path for name in names if (path := folder / f"{name}.ckpt").is_file()), None)


def reduced_rate(trainer: Trainer, rate: float) -> float:
    """A configured learning rate as it is after the run's returns to earlier checkpoints."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, SkipNonFinite):
            for _ in range(callback.returned):
                rate *= callback.factor
    return rate


def _step(module: LightningModule) -> int:
    assert isinstance(module, Family)
    return module.steps_done()


def _of_all(row: dict[str, Any], processes: int) -> dict[str, Any]:
    """Joins the rows of the processes whose own loss was not finite, or of all if there is none."""
    rows: list[Any] = [None] * processes
    torch.distributed.all_gather_object(rows, row)
    rows = [other for other in rows if not math.isfinite(other["loss"])] or rows
    joined = {
        key: [value for other in rows for value in other[key]] for key in ("photos", "keys", "degradation")
    }
    return row | joined | {"loss": rows[0]["loss"]}


def _parameters(trainer: Trainer, shape: tuple[int, ...], keys: Tensor) -> Any:
    """The parameters that the degradation drew for a batch, as plain values; None if it drew none.

    None also for a mixture, whose parts draw with degradations of their own.
    """
    data: Any = getattr(trainer, "datamodule", None)
    if not isinstance(data, PhotoData) or isinstance(data, MixtureData) or data.comes_degraded:
        return None
    degradation = data.degradation
    if isinstance(degradation, OnDemand):
        degradation = degradation.in_training
    try:
        drawn = degradation.sample(shape, KeyedGenerator(keys))  # type: ignore[arg-type]
        return json.loads(json_text(_plain(drawn), indent=None))
    except (ValueError, TypeError, RuntimeError) as error:
        return str(error)


def _shares(trainer: Trainer) -> dict[str, float] | None:
    """The shares with which an `OnDemand` degradation draws its stages now; None for any other."""
    degradation = getattr(getattr(trainer, "datamodule", None), "degradation", None)
    return degradation.shares if isinstance(degradation, OnDemand) else None


def _plain(value: Any) -> Any:
    """Tensors as lists, long ones as their shape: they can be drawn again from the keys."""
    if isinstance(value, Tensor):
        return value.tolist() if value.numel() <= _LONGEST else f"tensor of shape {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value if isinstance(value, str | bool | int | float | None) else repr(value)


def _drop_from(path: Path, step: int) -> None:
    """Removes the rows of steps that will be computed again."""
    if path.exists():
        rows = [row for row in read_json_lines(path) if row.get("step", step) < step]
        write_whole(path, "".join(json_text(row, indent=None) + "\n" for row in rows))
