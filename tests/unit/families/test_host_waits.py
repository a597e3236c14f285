"""A training step never waits for the device: nothing in it asks for a number that is not computed yet."""

import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Checkpoint
from omegaconf import OmegaConf
from torch.utils._python_dispatch import TorchDispatchMode

from restora import keyed
from restora.config import compose
from restora.training.build import build_parts, build_trainer
from restora.training.callbacks import StepSeed
from restora.training.poison import SkipNonFinite
from restora.training.run import quieten

aten = torch.ops.aten
WAITS = {
    *(aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default),
    *(aten.is_nonzero.default, aten.equal.default, aten.repeat_interleave.Tensor),
    *(aten._unique2.default, aten.unique_dim.default),
}
"""What on a GPU waits for the result: numbers for the host, and sizes that depend on values."""
COPIES = ("cpu", "numpy", "tolist")
PATCH_SMALL = "discriminator@objective.adversarial.discriminator=patch_small"
TINY = ["family=residual_cnn", "network=dncnn_small", "network.depth=3"]
CASES = {
    "residual CNN": TINY,
    "U-Net": ["family=unet", "network=unet_small", "degradation=inpaint_brush", "objective=masked"],
    "NAFNet": ["family=nafnet", "network=nafnet_small", "degradation=jpeg"],
    "transformer": ["family=transformer", "network=swinir_denoise_small", "network.drop_path=0.2"],
    "GAN": ["experiments=quickstart/srgan", "data.patch_size=32", "data.batch_size=2", PATCH_SMALL],
    "noise2void": ["network=dncnn_small", "objective=noise2void"],
    "SGD": [*TINY, "family.optimizer._target_=sgd", "+family.optimizer.momentum=0.9"],
    "Muon": [*TINY, "family.optimizer._target_=muon"],
    "neighbor2neighbor": ["network=dncnn_small", "objective=neighbor2neighbor"],
    "cycle": [
        *("family=gan", "network=resnet_generator_small", "objective=cycle", "objective.cycle.history=1"),
        "discriminator@objective.cycle.clean_discriminator=patch_small",
        "discriminator@objective.cycle.degraded_discriminator=patch_small",
    ],
    "fastcut": [
        *("network=dncnn_small", "objective=fastcut"),
        "discriminator@objective.fastcut.discriminator=patch_small",
    ],
}


class Waits(TorchDispatchMode):
    """Counts them, by where in restora they are."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def note(self, what: str) -> None:
        own = [f for f in traceback.extract_stack() if "/restora/" in f.filename]
        place = f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else "elsewhere"
        self.found[f"{what} in {place}"] += 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        masks = func is aten.index.Tensor and any(i is not None and i.dtype == torch.bool for i in args[1])
        if func in WAITS or masks:
            self.note(str(func))
        return func(*args, **(kwargs or {}))


class LastStep(Checkpoint):
    """Watches the last of three steps, from the batch on the device to the end of all callbacks."""

    def __init__(self, data: Any) -> None:
        self.waits, self.copies = Waits(), pytest.MonkeyPatch()
        self.degrade, self.batches = data.on_after_batch_transfer, 0
        data.on_after_batch_transfer = self.arrived

    def arrived(self, batch: Any, loader: int) -> Any:
        self.batches += 1
        if self.batches == 3:
            for name in COPIES:
                original = getattr(torch.Tensor, name)
                self.copies.setattr(torch.Tensor, name, self._noting(name, original))
            self.waits.__enter__()
        return self.degrade(batch, loader)

    def _noting(self, name: str, original: Any) -> Any:
        def noted(tensor: torch.Tensor, *args: Any, **options: Any) -> Any:
            self.waits.note(f"Tensor.{name}")
            return original(tensor, *args, **options)

        return noted

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if self.batches == 3:
            self.waits.__exit__(None, None, None)
            self.copies.undo()


@pytest.mark.parametrize("name", CASES)
def test_a_step_waits_for_nothing(
    name: str, shared_data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["data.batch_size=2", "data.patch_size=32", *CASES[name], "data.workers=0", "trainer.max_steps=3"]
    words += ["trainer.max_time=null", "trainer.val_check_interval=1000", f"data_dir={shared_data_dir}"]
    config = compose("train", [*words, "compile=false", "threads=1", "trainer.log_every_n_steps=50"])
    OmegaConf.set_struct(config, False)
    config.run_dir, config.trainer.enable_progress_bar = str(tmp_path), False
    quieten(config)
    monkeypatch.setattr(keyed, "_FEW", -1)  # a few numbers on a CPU are made by numpy
    parts = build_parts(config)
    watch = LastStep(parts.data)
    callbacks = [StepSeed(seed=1), SkipNonFinite(directory=tmp_path), watch]
    monkeypatch.setattr(SkipNonFinite, "_reads_late", lambda *_: True)  # as on a GPU
    trainer = build_trainer(config, parts.family, callbacks, [])
    trainer.limit_val_batches = 0
    trainer.fit(parts.family, parts.data)
    assert watch.batches == 3
    assert not watch.waits.found
    # what the flag of a step that is not finite is given to, instead of a wait
    assert all(group["fused"] for optimizer in trainer.optimizers for group in optimizer.param_groups)
    with watch.waits:
        assert float(torch.ones(1)) == 1.0  # it would have been seen
    assert watch.waits.found
