"""The base class of all families.

It has the training step, averaged weights, learning rates by progress, and validation by image.

Enters: `Batch`es from the data module. Leaves: logged losses, and per-image scores of validation and test
photos whose mean is the same on any number of processes. The objectives (`objectives/`) compute the losses
of a batch; a family sums them. Note: the learning rate is a function of the share of the training that is
done (of `max_steps`, or of `max_time`), so one schedule serves a run of 400,000 steps and one of 80 seconds.
Torch's generators are reseeded at each training step (`training/callbacks.py`), so a resumed run needs no
saved random state.

Legend: B samples, C channels, H height, W width, s scale.
"""

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, TypeVar, cast

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer

from restora.artifact.restorer import Restorer
from restora.evaluation.protocol import Protocol
from restora.evaluation.scorer import DECIMALS, Scorer, means
from restora.families.as_one import act_as_one
from restora.families.checkpointing import checkpoint_blocks
from restora.families.compiling import check_mode
from restora.families.compiling_auto import FastestPass, compile_for
from restora.families.ema import Average, averaged_copy
from restora.families.one_kernel import in_one_kernel
from restora.families.parameter_groups import ParameterGroups, base_rate, check_same_parts
from restora.families.share import Share
from restora.families.step_log import StepLog
from restora.image import enlarge, to_8_bit
from restora.networks.adapters import adapt, options_of, without_adapters
from restora.networks.base import Network
from restora.objectives.base import MakeOptimizer, Objective, Opponent, Setting, Step, check_all
from restora.objectives.supervised import Loss, Supervised
from restora.types import Batch

Schedule = Callable[[float], float]
Row = dict[str, Any]
M = TypeVar("M", bound=nn.Module)


class Family(LightningModule):
    """The base training recipe of all families.

    A subclass overrides only the parts that differ in its family.

    `objective` holds the terms of the training loss by name; null is `loss` between restored and clean
    photos. An objective with parameters of its own (an `Opponent`) splits a training step into two named
    half-steps, each with the norm of its optimiser's gradients clipped to `gradient_clip` (otherwise the
    trainer clips). `optimizer` makes an optimiser from parameters. `schedule` maps the share of the training
    that is done, in [0,1], to a factor on the learning rate. `freeze` names parameters that are not trained,
    `rate_factors` multiplies the learning rate of parameters, both by name or pattern (`body`, `*.bias`).
    `adapters` {rank, names} freezes the network's weights and trains low-rank adapters beside them
    (networks/adapters.py).
    `ema_decay` null trains and evaluates the raw weights.
    `channels_last`, `compile_network` (see compiling.py, and compiling_auto.py for auto) and
    `activation_checkpointing` (see checkpointing.py) change how the same numbers are computed. `scorer`
    scores validation and held-out photos; null derives it from the network (`Protocol.of_run`).
    `validation_loss` also logs the objectives on validation photos as val/loss. `sync_batchnorm`: batch norm
    takes its statistics over all processes of a distributed run.
    """

    name: ClassVar[str]

    def __init__(
        self,
        *,
        network: Network,
        optimizer: MakeOptimizer,
        schedule: Schedule,
        objective: Mapping[str, Objective] | None = None,
        loss: Loss | None = None,
        gradient_clip: float | None = None,
        freeze: Sequence[str] = (),
        rate_factors: Mapping[str, float] | None = None,
        adapters: Mapping[str, Any] | None = None,
        ema_decay: float | None = 0.999,
        channels_last: bool = True,
        compile_network: bool | str = False,
        activation_checkpointing: bool = False,
        scorer: Scorer | None = None,
        validation_loss: bool = False,
        sync_batchnorm: bool = True,
    ) -> None:
        super().__init__()
        check_mode(compile_network)
        if ema_decay is not None and not 0 <= ema_decay < 1:
            raise ValueError(f"family.ema_decay must be in [0, 1) or null for no average, got {ema_decay}")
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.network = arranged(network, self.memory_format)
        self.ema_decay = ema_decay
        self.ema = None if ema_decay is None else averaged_copy(self.network)
        if activation_checkpointing:
            checkpoint_blocks(self.network)
        self.objectives = nn.ModuleDict(self._objectives(objective, loss))
        self.opponents = {
            name: arranged(part, self.memory_format)
            for name, part in self.objectives.items()
            if isinstance(part, Opponent)
        }
        for part in self._parts:
            part.join(dict(self.objectives.items()))  # type: ignore[arg-type]
        self.automatic_optimization = not self.opponents
        if gradient_clip is not None and not self.opponents:
            raise ValueError(
                f"family.gradient_clip={gradient_clip} is of objectives with parameters of their own: set "
                f"family.gradient_clip=null and trainer.gradient_clip_val={gradient_clip}"
            )
        if gradient_clip is not None and gradient_clip <= 0:
            raise ValueError(
                f"family.gradient_clip must be above 0, or null to clip nothing; got {gradient_clip}"
            )
        self.gradient_clip = gradient_clip
        self.groups = ParameterGroups(self.network, freeze=freeze, rate_factors=rate_factors or {})
        if adapters is not None and (freeze or rate_factors):
            raise ValueError("family.adapters freezes the network: leave family.freeze and rate_factors out")
        self.adapters = None if adapters is None else options_of(adapters)
        self.make_optimizer = optimizer
        self.schedule = schedule
        self.compile_network = compile_network
        self._compiled: bool | None = None
        """Whether the network is compiled; None until `configure_model` has run."""
        self._passes: FastestPass | None = None
        self.scorer = scorer or Scorer(
            protocol=Protocol.of_run(None, channels=network.frame_channels, scale=network.scale)
        )
        self.validation_loss = validation_loss
        self._average: Average | None = None
        self._share = Share()
        self.sync_batchnorm = sync_batchnorm
        self.step_log = StepLog()
        self.rows: list[Row] = []
        self._evaluated: tuple[Network, ...] = ()
        """The network of a validation or test; in a tuple, it is no part of the state."""
        self.scores: list[Row] = []
        """Per-image scores of the last validation or test, sorted by name, identical on every process."""

    @staticmethod
    def _objectives(objective: Mapping[str, Objective] | None, loss: Loss | None) -> dict[str, Objective]:
        if objective:
            return dict(objective)
        if loss is None:
            raise ValueError("nothing to learn from: set objective=NAME or loss=NAME")
        return {"supervised": Supervised(loss=loss)}

    @property
    def _parts(self) -> list[Objective]:
        return cast(list[Objective], list(self.objectives.values()))

    @property
    def optimizer_steps_per_batch(self) -> int:
        """How many optimisers step on one batch (Lightning's `global_step` counts them all)."""
        return 1 + len(self.opponents)

    @property
    def leaves_parameters_unused(self) -> bool:
        """Whether a backward pass leaves parameters without gradient; DDP has to know."""
        heads = 1 + int(getattr(self.network, "side_outputs", 0))
        return bool(self.opponents) or heads > max(part.scales for part in self._parts)

    def check(self, setting: Setting) -> None:
        """Raises ValueError for objectives that cannot be combined with the network or the data."""
        if setting.noisy_target and not any(part.takes_target for part in self._parts):
            raise ValueError(
                f"data.target=noisy has no effect, as objective={','.join(self.objectives)} has no target: "
                "set data.target=clean"
            )
        check_all(dict(self.objectives.items()), setting)  # type: ignore[arg-type]

    def adapt(self) -> None:
        """Adds the recipe's adapters to the network and its average, after the initial weights are loaded."""
        if self.adapters is None:
            return
        adapt(self.network, **self.adapters)
        self.groups.freeze_all()
        if self.ema is not None:
            self.ema = averaged_copy(self.network)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Renames the keys of old checkpoints, in which a GAN's discriminator belonged to the family."""
        old = {"discriminator.": "objectives.adversarial.", "perceptual.": "objectives.perceptual.loss."}
        old |= {"loss.": f"objectives.{next(iter(self.objectives))}.loss."}
        state = checkpoint["state_dict"]
        for name in list(state):
            for prefix, now in old.items():
                if name.startswith(prefix):
                    tail = name if prefix == "discriminator." else name.removeprefix(prefix)
                    state[now + tail] = state.pop(name)
        check_same_parts(self.state_dict(), state)

    def configure_model(self) -> None:
        if self.trainer.world_size > 1:
            act_as_one(self, batch_norm=self.sync_batchnorm)
        if self.compile_network and self._compiled is None:
            self._passes = compile_for(self.network, self.trainer, self.compile_network)
            self._compiled = self._passes is not None

    def configure_optimizers(self) -> Optimizer | list[Optimizer]:
        self._average = None  # the weights may have moved to another device
        own = in_one_kernel(self.groups.optimizer(self.make_optimizer, self._partners()))
        others = [in_one_kernel(opponent.make_optimizer()) for opponent in self.opponents.values()]
        return [own, *others] if others else own

    def _partners(self) -> list[nn.Parameter]:
        return [parameter for part in self._parts for parameter in part.partners()]

    # --- training
    # -------------------------------------------------------------------------------------------------

    def _on_before_batch_transfer(self, batch: Any, dataloader_idx: int = 0) -> Any:
        """As `_apply_batch_transfer_handler`: the data module's hook is called directly."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if data is None:
            return super()._on_before_batch_transfer(batch, dataloader_idx)
        return data.on_before_batch_transfer(batch, dataloader_idx)

    def _apply_batch_transfer_handler(
        self, batch: Any, device: torch.device | None = None, dataloader_idx: int = 0
    ) -> Any:
        """As in Lightning, but without the search for hooks at each batch: the data module has them all."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if data is None:
            return super()._apply_batch_transfer_handler(batch, device, dataloader_idx)
        batch = data.transfer_batch_to_device(batch, device or self.device, dataloader_idx)
        return data.on_after_batch_transfer(batch, dataloader_idx)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.network(x.contiguous(memory_format=self.memory_format), condition)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor | None:
        if self._passes is not None:
            self._passes.begin_step()
        step = self.make_step(batch)
        if self.automatic_optimization:
            loss = self.loss_of(step)
            self.step_log.write(self, samples=len(batch.names))
            return loss
        optimizers = cast(list[Optimizer], self.optimizers())
        _ = step.restored  # one forward pass for all half-steps
        self.toggle_optimizer(optimizers[0])
        self.network_step(optimizers[0], step)
        self.untoggle_optimizer(optimizers[0])
        self.update_ema()
        for (name, opponent), optimizer in zip(self.opponents.items(), optimizers[1:], strict=True):
            self.toggle_optimizer(optimizer)
            self.opponent_step(name, opponent, optimizer, step)
            self.untoggle_optimizer(optimizer)
        self.step_log.write(self, samples=len(batch.names))
        return None

    def make_step(self, batch: Batch) -> Step:
        """Wraps a batch in the `Step` that objectives take."""
        return Step(
            network=self.network,
            batch=batch,
            progress=self.training_progress(),
            number=self.steps_done(),
            record=self.step_log.record,
            scales=max(part.scales for part in self._parts),
            memory_format=self.memory_format,
        )

    def loss_of(self, step: Step) -> Tensor:
        """The sum of the objectives' terms, a scalar in float32; logs the sum and each term by its name."""
        terms: dict[str, Tensor] = {}
        for name, part in self.objectives.items():
            for own, term in part(step).items():
                terms[f"{name}/{own}" if own else name] = term
        if not terms:
            raise ValueError(
                f"no objective takes part at step {step.number}: lower the start_step or raise the weight of "
                f"one of objective={list(self.objectives)}"
            )
        values = list(terms.values())
        loss = values[0] if len(values) == 1 else torch.stack(values).sum()
        if torch.is_grad_enabled() and not loss.requires_grad:
            raise ValueError(
                f"nothing can be learnt from {', '.join(terms)}: no term depends on the network's weights"
            )
        step.record("train/loss", loss.detach())
        if max(len(self.objectives), len(terms)) > 1:
            for name, term in terms.items():
                step.record(f"objective/{name}", term.detach())
        return loss

    def network_step(self, optimizer: Optimizer, step: Step) -> None:
        """First half-step: updates the network by the sum of the objectives."""
        self._half_step(optimizer, self.loss_of(step))

    def opponent_step(self, name: str, opponent: Opponent, optimizer: Optimizer, step: Step) -> None:
        """Further half-step: updates an objective's own parameters; the restored photos are detached."""
        loss, diagnostics = opponent.own_loss(step)
        norm = self._half_step(optimizer, loss)
        for what, value in (diagnostics | {"gradient_norm": norm}).items():
            step.record(f"{name}/{what}", value)

    def _half_step(self, optimizer: Optimizer, loss: Tensor) -> Tensor:
        """One step of one of several optimisers; returns the norm of its gradients before clipping."""
        optimizer.zero_grad()
        self.manual_backward(loss)
        limit = float("inf") if self.gradient_clip is None else self.gradient_clip
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        scale = 1.0 if scaler is None else scaler.get_scale()  # gradients are scaled until the step
        learnt = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        norm = nn.utils.clip_grad_norm_(learnt, limit * scale) / scale
        with torch.autocast(self.device.type, enabled=False):  # training_step runs in it
            optimizer.step()
        return norm

    def on_train_batch_start(self, batch: Batch, batch_index: int) -> None:
        factor = self.schedule(self.training_progress())
        found = self.optimizers()
        optimizers = found if isinstance(found, list) else [found]
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor
        self.step_log.begin(
            self.trainer, steps_done=self.steps_done(), optimizers=self.optimizer_steps_per_batch
        )
        if self.step_log.now:
            self.log("train/learning_rate", base_rate(optimizers[0].param_groups), batch_size=1)

    def steps_done(self) -> int:
        """Training steps (batches after accumulation) that are done; a GAN's two half-steps are one."""
        return int(self.trainer.global_step) // self.optimizer_steps_per_batch

    def training_progress(self) -> float:
        """The share of the training done, in [0,1], the same on all processes."""
        return self._share.done(self.trainer, self.device)

    def optimizer_step(self, *args: Any, **options: Any) -> None:
        super().optimizer_step(*args, **options)
        self.update_ema()

    def update_ema(self) -> None:
        """Updates the average with the network's new weights; called after each step of its optimiser."""
        if self.ema is not None and self.ema_decay is not None:
            if self._average is None:
                self._average = Average(self.ema, self.network)
            self._average.update(decay=self.ema_decay, updates=self.steps_done())

    def train(self, mode: bool = True) -> "Family":
        super().train(mode)
        if self.ema is not None:
            self.ema.eval()
        self.groups.hold_statistics()
        return self

    # --- validation and test
    # ----------------------------------------------------------------------------------------

    def evaluation_network(self) -> Network:
        """The network that is evaluated and exported: with the averaged weights if there are any."""
        network = self.network if self.ema is None else self.ema
        return network if self.adapters is None else without_adapters(network)

    def on_validation_epoch_start(self) -> None:
        self.rows, self._evaluated = [], (self.evaluation_network(),)
        self._restore = self._evaluated[0].__call__

    def on_test_epoch_start(self) -> None:
        """Held-out photos are restored as by the exported model: in float32, with batch norm folded.

        So `restora evaluate` gives the same figures to the last digit.
        """
        self.rows, self._evaluated = [], (self.evaluation_network(),)
        with self._as_it_is():
            self._restore = Restorer(network=self._evaluated[0], device=str(self.device), tile=0)

    def validation_step(self, batch: Batch, batch_index: int) -> dict[str, Any]:
        return self._evaluate(batch)

    def test_step(self, batch: Batch, batch_index: int) -> dict[str, Any]:
        with torch.autocast(self.device.type, enabled=False):
            return self._evaluate(batch)

    def _evaluate(self, batch: Batch) -> dict[str, Any]:
        """Restores and scores photos. The degraded photos go to the network without cropping or tiling."""
        started = time.perf_counter()
        degraded = batch.degraded.contiguous(memory_format=self.memory_format)
        with self._as_it_is():
            restored = self._restore(degraded, self._evaluated[0].taken(batch.condition)).float()
        if restored.is_cuda:
            torch.cuda.synchronize(restored.device)
        seconds = (time.perf_counter() - started) / len(batch.degraded)
        given = enlarge(batch.middle, restored.shape[-2:])
        scores = self.scorer.rows(restored, given, batch.clean)
        if self.validation_loss:
            for row, photo in zip(scores, batch.photos(), strict=True):
                row["loss"] = round(self._loss_of_photo(photo), DECIMALS)
        self.rows += [
            {"name": name, "seconds": seconds, **row} for name, row in zip(batch.names, scores, strict=False)
        ]
        return {"restored": to_8_bit(restored), "scores": scores}

    def _loss_of_photo(self, photo: Batch) -> float:
        """The sum of the objectives on one photo. Terms that vary over a training are taken at progress 0.5,
        so that validations are comparable; opponents are left out. Random numbers are keyed by the photo's
        name."""
        step = Step(
            network=self._evaluated[0],
            batch=photo,
            progress=0.5,
            number=sys.maxsize,
            record=lambda *_: None,
            scales=max(part.scales for part in self._parts),
            memory_format=self.memory_format,
        )
        with self._as_it_is():
            terms = [part.validation(step) for part in self._parts]
        return math.fsum(float(value) for named in terms for value in named.values())

    def _as_it_is(self) -> AbstractContextManager[Any]:
        """Runs uncompiled: photos differ in size, and each size would compile the network again. The
        averaged network is never compiled."""
        return torch.compiler.set_stance("force_eager") if self._compiled else nullcontext()

    def on_validation_epoch_end(self) -> None:
        self._log_scores("val")

    def on_test_epoch_end(self) -> None:
        self._log_scores("test")

    def _log_scores(self, stage: str) -> None:
        rows = self.rows
        if self.trainer.world_size > 1:
            gathered: list[list[Row]] = [[] for _ in range(self.trainer.world_size)]
            torch.distributed.all_gather_object(gathered, rows)
            rows = [row for part in gathered for row in part]
        self.rows, self.scores = [], sorted(rows, key=lambda row: str(row["name"]))
        for metric, mean in means(self.scores).items():
            if metric != "seconds":  # every process computed the same sums over all photos: nothing to reduce
                shown = metric == "psnr"
                self.log(f"{stage}/{metric}", mean, batch_size=1, prog_bar=shown, rank_zero_only=False)


def arranged(module: M, memory_format: torch.memory_format) -> M:
    """The module with its convolution weights in the given memory order."""
    return module.to(memory_format=memory_format)  # type: ignore[call-overload]
