"""What a training step logs.

Enters: scalars by name, from objectives and half-steps. Leaves: Lightning's log, only at steps whose figures
are used, as logging a scalar takes 0.1 ms on the host and at least one copy of it.
"""

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from restora import processes


class StepLog:
    """Scalars of one step, kept until it is over."""

    def __init__(self) -> None:
        self.now = False
        """Whether the figures of this step are used: the first, the last, or one that goes to the loggers."""
        self._recorded: dict[str, Tensor] = {}

    def begin(self, trainer: Trainer, *, steps_done: int, optimizers: int) -> None:
        """Sets `now` before a step; `optimizers` is how many optimisers step on one batch."""
        ends = trainer.max_steps > 0 and trainer.global_step + optimizers >= trainer.max_steps
        self.now = steps_done == 0 or ends or trainer._logger_connector.should_update_logs

    def record(self, name: str, value: Tensor) -> None:
        self._recorded[name] = value

    def write(self, module: LightningModule, *, samples: int) -> None:
        """Logs the recorded scalars; with several processes, their mean, the figure of the whole batch."""
        if self.now:
            values = processes.averaged_scalars(self._recorded.values())
            for name, value in zip(self._recorded, values, strict=True):
                module.log(name, value, prog_bar=name == "train/loss", batch_size=samples)
        self._recorded.clear()
