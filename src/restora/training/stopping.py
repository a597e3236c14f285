"""Ending a run by a signal: SIGTERM, SIGINT (Ctrl-C) and SIGHUP (a lost connection) are treated alike.

During training, the run ends after the current step and its gradient accumulation are complete and saved;
otherwise it ends at once. A second signal ends the process immediately. Processes of a distributed run agree
on stopping every ten steps.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from restora.training.callbacks import LastCheckpoint, whole_accumulation

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_ASKED_EVERY = 10
_PATIENCE_SECONDS = 20.0
"""How long a validation may continue after the signal, to save the weights when it ends; its last photo never
ends it."""


class Stopped(BaseException):
    """The run was asked to end. Not an Exception, so that no handler treats it as a failure."""

    def __init__(self, signum: int) -> None:
        self.signum = signum
        super().__init__(signal.Signals(signum).name)

    @property
    def exit_code(self) -> int:
        return 128 + self.signum


class StopAtSignal(Checkpoint):
    """Ends a run in an orderly way; `listening()` installs its signal handlers.

    It is a Checkpoint, so that Lightning calls it after other callbacks.
    """

    def __init__(self) -> None:
        self.process = os.getpid()
        self.signum: int | None = None
        self.asked_at = 0.0
        self.stepping = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handles the signals in a `with` block; does nothing outside the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in SIGNALS}
        self._install()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _install(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) != signal.SIG_IGN:  # nohup
                    signal.signal(number, self._handle)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self.process:  # a forked worker: its trainer ends it
            return
        if self.signum is not None:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
            return
        self.signum, self.asked_at = signum, time.monotonic()
        if not self.stepping:
            raise Stopped(signum)

    # Lightning installs its own SIGTERM handler when it starts

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._install()

    def on_validation_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._install()

    def on_test_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._install()

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.stepping = True

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_index: int
    ) -> None:
        if self._all_asked(trainer, batch_index) and whole_accumulation(trainer):
            saver = next((c for c in trainer.callbacks if isinstance(c, LastCheckpoint)), None)  # type: ignore[attr-defined]
            if saver is not None and not saver.save_before_stop(trainer, module):
                return  # validation follows, after which the weights are saved
            # Lightning would log this step after this hook, and a resumed run does not repeat it
            trainer._logger_connector.on_batch_end()
            trainer._logger_connector.update_train_step_metrics()
            self._stop()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_index: int,
        *more: Any,
    ) -> None:
        late = time.monotonic() - self.asked_at > _PATIENCE_SECONDS
        last = batch_index + 1 >= sum(trainer.num_val_batches)  # the weights are saved right after it
        if self.signum is not None and late and not last and trainer.world_size == 1:
            self._stop()

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        if self.stepping and whole_accumulation(trainer) and self._all_asked(trainer, -1):
            self._stop()

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.stepping = False

    def _all_asked(self, trainer: Trainer, batch_index: int) -> bool:
        if trainer.world_size == 1:
            return self.signum is not None
        if (batch_index + 1) % _ASKED_EVERY:
            return False
        asked = trainer.strategy.reduce_boolean_decision(self.signum is not None, all=False)
        if asked and self.signum is None:
            self.signum = signal.SIGTERM
        return bool(asked)

    def _stop(self) -> None:
        assert self.signum is not None
        self.stepping = False
        raise Stopped(self.signum)
