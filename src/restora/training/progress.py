"""The progress display of a training: run number, share done, time left, loss and score.

On a terminal it is a progress bar; elsewhere (a log file, CI, a dumb terminal) a line every ten seconds. Both
fit the terminal, or 80 columns: long names are cut before figures. It is drawn with rich.
"""

import math
import time
from collections.abc import Callable, Iterable
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar, Timer
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column

from restora.families.base import Family
from restora.families.share import share_here
from restora.monitor import Monitor
from restora.words import counted

_LINE_SECONDS = 10.0
_NAME_CELLS = 14
"""Minimum cells of the name; below, the loss is left out first."""
_BAR_CELLS = 8


class TrainingProgress(ProgressBar):
    """A progress bar over the share of the training done, in steps or time, whichever is further.

    `best_before` gives a resumed run's best validation score so far.
    """

    def __init__(
        self,
        *,
        label: str,
        monitor: Monitor | None = None,
        job: int = 1,
        jobs: int = 1,
        best_before: Callable[[], float | None] = lambda: None,
    ) -> None:
        super().__init__()
        self.label = f"run {job} of {jobs} · {label}" if jobs > 1 else label
        self.console = Console(stderr=True)
        self.bar: Progress | None = None
        self.task: TaskID | None = None
        self.monitor = monitor or Monitor()
        self.score: float | None = None
        self.best: float | None = None
        self.best_before = best_before
        self.validated_at: int | None = None
        self.trained_for: float | None = None
        """Seconds of a training that has ended, until its last line is written."""
        self.steps_before = 0
        self.fit_started = self.drawn_at = time.monotonic()
        self.share_at_start = 0.0

    def disable(self) -> None:
        self.console = Console(stderr=True, quiet=True)

    def enable(self) -> None:
        self.console = Console(stderr=True)

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        assert isinstance(module, Family)
        self.fit_started = time.monotonic()
        self.share_at_start = min(share_here(trainer), 0.999)
        self.validated_at = self.trained_for = None
        self.best, self.steps_before = self.best_before(), module.steps_done()
        if not trainer.is_global_zero:
            self.disable()
        if self.console.is_terminal and not self.console.is_dumb_terminal:
            whole = Column(no_wrap=True)
            columns = (
                TextColumn("{task.description}", markup=False, table_column=whole),
                BarColumn(bar_width=None),
                TextColumn("{task.fields[state]}", markup=False, table_column=whole),
            )
            self.bar = Progress(*columns, console=self.console, expand=True)
            self.task = self.bar.add_task(cut(self.label, self.console.width // 2), total=1.0, state="")
            self.bar.start()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_index: int,
    ) -> None:
        now = time.monotonic()
        if now - self.drawn_at >= (0.2 if self.bar else _LINE_SECONDS):
            self.drawn_at = now
            self._draw(trainer, module)

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        assert isinstance(module, Family)
        if trainer.sanity_checking:
            return
        value = trainer.callback_metrics.get(self.monitor.metric)
        if value is not None:
            self.score = float(value)
            if not math.isnan(self.score) and self.monitor.better(self.score, self.best):
                self.best = self.score
        self.validated_at = module.steps_done()
        if self.trained_for is not None:  # the validation after the last step
            self._say_end(trainer, module)
        elif value is not None:
            self._draw(trainer, module)

    def _draw(self, trainer: Trainer, module: LightningModule) -> None:
        assert isinstance(module, Family)
        share = share_here(trainer)
        loss = trainer.callback_metrics.get("train/loss")
        facts = {
            "share": f"{share:4.0%}",
            "step": f"step {module.steps_done()}",
            "loss": "" if loss is None else f"loss {float(loss):.3g}",
            "score": "" if self.score is None else self._in_words(self.score),
            "left": self._time_left(trainer, share),
        }
        if self.bar is not None and self.task is not None:
            name, state = fitted(self.label, facts, self.console.width - _BAR_CELLS - 2)
            self.bar.update(self.task, description=name, completed=share, state=state)
        else:
            self._say(" · ".join(fitted(self.label, facts, self.console.width - 3)))

    def _time_left(self, trainer: Trainer, share: float) -> str:
        """Until the last step or the end of the time, whichever comes first."""
        timers = [callback for callback in trainer.callbacks if isinstance(callback, Timer)]  # type: ignore[attr-defined]
        left = [max(seconds, 0.0) for timer in timers if (seconds := timer.time_remaining()) is not None]
        if (done := share - self.share_at_start) > 0:
            left.append((time.monotonic() - self.fit_started) * (1 - share) / done)
        return f"{_clock(min(left))} left" if left else "…"

    def _in_words(self, score: float) -> str:
        words = self.monitor.in_words(score)
        return f"val/{words}" if self.monitor.name == "loss" else words  # beside the loss of training

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        assert isinstance(module, Family)
        self._close()
        self.trained_for = time.monotonic() - self.fit_started
        if module.steps_done() in (self.validated_at, self.steps_before):
            self._say_end(trainer, module)

    def _say_end(self, trainer: Trainer, module: Family) -> None:
        """The last line, which needs the validation of the last weights."""
        best = "" if self.best is None else f" · best validation {self.monitor.in_words(self.best)}"
        done, spent = module.steps_done(), _clock(self.trained_for or 0.0)
        steps = counted(done, "step") + (f", {done - self.steps_before} of them" if self.steps_before else "")
        if trainer.is_global_zero:
            state = f" · {steps} in {spent}{best}"
            self._say(f"{cut(self.label, self.console.width - cell_len(state))}{state}")
        self.trained_for = None

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        self._close()

    def _say(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


def fitted(name: str, facts: dict[str, str], cells: int) -> tuple[str, str]:
    """The name and the facts, shortened to fit one line of `cells` cells.

    First the end of a long name is cut, then the loss, then more of the name.
    """
    state = _listed(facts.values())
    if cells - cell_len(state) - 1 < min(_NAME_CELLS, cell_len(name)):
        state = _listed(fact for key, fact in facts.items() if key != "loss")
    return cut(name, cells - cell_len(state) - 1), state


def _listed(facts: Iterable[str]) -> str:
    return " · ".join(fact for fact in facts if fact)


def cut(text: str, cells: int) -> str:
    """Cuts text to `cells` terminal cells (a Chinese character takes two), with … for what was cut."""
    if cell_len(text) <= cells:
        return text
    return f"{set_cell_size(text, cells - 1).rstrip()}…" if cells > 1 else ""


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
