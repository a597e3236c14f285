"""What the trainer or this machine would refuse is found before anything is packed, by key and value."""

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from restora import registry
from restora.cli import main
from restora.config import compose
from restora.training.build import check_before_training
from restora.training.opening import opening_line
from restora.training.settings import no_gpu, step_seconds, trainer_options

TINY = ["network=dncnn_small", "network.in_channels=3", "network.channels=4", "data.patch_size=16"]


@pytest.fixture(autouse=True)
def _nothing_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESTORA_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("data.batch_size=abc", "data.batch_size=abc: expected a whole number"),
        ("seed=abc", "seed=abc: expected a whole number"),
        ("channels_last=1", "channels_last=1: expected true or false"),
        ("compile=3", "compile=3: expected true or false or text"),
        ("threads=0", "threads=0: expected a whole number of 1 or more"),
        ("leakage.max_seconds=long", "leakage.max_seconds=long: expected a number"),
        ("+leakage.chek=true", "leakage.chek: nothing reads it"),
        ("logger.mode=onlin", "logger.mode=onlin: expected one of offline, online, disabled"),
        ("+logger.projekt=x", "did you mean project?"),
        ("logger.project=lab/denoise", "logger.project=lab/denoise: W&B's projects have none of"),
        ("logger.photos=-1", "logger.photos=-1: expected a whole number from 0 up"),
        ("+callbacks.mine=3", "callbacks.mine=3 is not a callback"),
        ("+callbacks.mine.width=3", "is not a callback"),
        ("+callbacks.best.widht=3", "callbacks.best.widht=3 is not an argument of best_checkpoint"),
        ("+network.dilation=3", "network.dilation=3 is not an argument of dncnn"),
        ("family.optimizer.lr=fast", "family.optimizer.lr=fast: expected a number"),
        ("+family.optimizer.momentum=0.9", "family.optimizer.momentum=0.9 is not an argument of adam"),
        ("trainer.max_steps=many", "trainer.max_steps=many: expected a whole number"),
        ("trainer.max_steps=0", "trains nothing"),
        ("trainer.max_time=2minutes", "write it as 90s, 2min"),
        ("trainer.precision=bf17", "trainer.precision=bf17: expected one of float32"),
        ("precision=64-true", "expected one of float32"),
        ("precision=float16", "set precision=bf16 or precision=float32"),
        ("trainer.strategy=banana", "invalid strategy name"),
        ("+trainer.max_step=3", "did you mean max_steps?"),
        ("+trainer.logger=true", "is not a setting"),
        ("+trainer.enable_checkpointing=false", "is not a setting"),
        ("trainer.limit_val_batches=0", "trainer.limit_val_batches=0 leaves nothing to validate on"),
        ("trainer.limit_val_batches=0.0", "leaves nothing"),
        ("+trainer.limit_train_batches=0", "leaves nothing"),
        ("+trainer.limit_test_batches=0", "leaves nothing"),
        ("+trainer.overfit_batches=1", "data.source.root=FOLDER"),
        ("+trainer.barebones=true", "barebones"),
        ("+trainer.reload_dataloaders_every_n_epochs=1", "crops are a function of the step"),
        ("trainer.val_check_interval=0.5", "val_check_interval"),
        ("trainer.val_check_interval=0", "trainer.val_check_interval=0: expected 1 or more"),
        ("trainer.gradient_clip_val=-1", "trainer.gradient_clip_val=-1: expected a number above 0"),
        ("task=dennoise", "task=dennoise: did you mean task=denoise?"),
        (
            "monitor=val/ssim",
            "monitor=val/ssim: it has keys of its own: the metric is monitor.metric=val/psnr",
        ),
        ("leakage=false", "leakage=false: it has keys of its own: the comparison is off with leakage.check"),
        ("seed=-1", "seed=-1: expected a whole number from 0 to 4294967295"),
        ("network.channels=-3", "network.channels=-3: expected 0 or more"),
        ("recipe_batch=0", "recipe_batch=0: expected a whole number of 1 or more, auto or null"),
        ("recipe_batch=many", "recipe_batch=many: expected"),
        ("family.optimizer.lr=-1", "family.optimizer: Invalid learning rate: -1"),
        ("trainer.accelerator=tpu", "torch_xla"),
        ("trainer.devices=7", "is shared by 7 processes: set a multiple of 7"),
    ],
)
def test_a_setting_that_cannot_work_is_found(override: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=".") as caught:
        check_before_training(compose("train", [*TINY, override]))
    assert said in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_key_that_an_experiment_has_left_over_is_named_with_its_file(tmp_path, monkeypatch, capsys) -> None:
    own = tmp_path / "own" / "experiments"
    own.mkdir(parents=True)
    text = "# @package _global_\ndefaults:\n  - override /degradation: jpeg\n\ndegradation:\n  sigma: 25\n"
    (own / "mine.yaml").write_text(f"{text}variants:\n  grey: {{seed: 2}}\n")
    monkeypatch.setattr(registry, "_folders", [own.parent])
    for name in ("mine", "grey"):
        assert main(["train", f"experiments={name}"]) == 2
        said = capsys.readouterr().err
        assert "degradation.sigma=25 is not an argument of jpeg" in said
        assert "experiments/mine.yaml sets it" in said


def test_validation_once_an_epoch_needs_an_interval_within_one() -> None:
    words = [*TINY, "trainer.check_val_every_n_epoch=1", "data.steps_per_epoch=100"]
    with pytest.raises(ValueError, match="is more than the 100 batches of an epoch"):
        check_before_training(compose("train", words))
    check_before_training(compose("train", [*words, "trainer.val_check_interval=50"]))


def test_words_become_the_trainers() -> None:
    options = trainer_options(compose("train", ["precision=bfloat16", "trainer.max_time=1h30min"]))
    assert options["precision"] == "bf16-mixed"
    assert options["max_time"].total_seconds() == 5400
    stored = compose("train", ["trainer.max_time=90s"])
    OmegaConf.update(stored, "trainer.max_time", {"minutes": 3})  # as runs of before have it
    assert trainer_options(stored)["max_time"].total_seconds() == 180


def test_without_a_gpu_the_cost_on_this_cpu_is_said(monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    words = ["experiments=denoise/dncnn", "data=sample", "network.depth=3", "network.channels=4"]
    assert main(["train", *words]) == 2
    said = capsys.readouterr().err
    assert "this machine has no GPU: set trainer=cpu" in said
    assert "80,000 steps at about " in said
    assert "experiments=quickstart/" in said
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words", [[], ["precision=float16"], ["precision=float16", "trainer.accelerator=auto"]]
)
def test_a_run_for_another_machine_is_checked_without_its_gpu(words: list[str], monkeypatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    config = compose("train", [*TINY, "trainer=gpu", *words])
    check_before_training(config, here=False)
    with pytest.raises(ValueError, match="no GPU|float16 does not work on a CPU"):
        check_before_training(config)


def test_the_cost_grows_with_batch_stages_and_time(monkeypatch) -> None:
    config = compose("train", [*TINY, "trainer=gpu", "data.batch_size=8", "trainer.max_steps=1000"])
    monkeypatch.setattr("restora.training.settings.step_seconds", lambda _config: 2.0)
    assert "1,000 steps at about 2 s here take 33 min" in no_gpu(config)
    stages = "[{start_step:0,patch_size:16,batch_size:8},{start_step:500,patch_size:32,batch_size:8}]"
    staged = compose("train", [*TINY, "data.batch_size=8", "trainer.max_steps=1000", f"data.stages={stages}"])
    assert "at about 5 s here" in no_gpu(staged)
    timed = compose("train", [*TINY, "trainer.max_steps=-1", "trainer.max_time=60s"])
    assert "a step takes about 2 s here" in no_gpu(timed)


def test_a_step_is_measured_for_any_network_and_condition() -> None:
    for words in (
        TINY,
        ["network=fdncnn_small", "network.in_channels=1", "data.channels=gray", "data.patch_size=16"],
        ["network=srresnet_small", "degradation=bicubic_x4", "data.patch_size=32"],
    ):
        once = step_seconds(compose("train", [*words, "data.batch_size=2"]))
        assert 0 < once < 20


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "sample_photos degraded by gaussian_noise (sigma 25); net learns supervised mse; 20,000 steps"),
        (
            ["degradation=gaussian_noise_range", "loss=charbonnier"],
            "(sigma 0 to 55); net learns supervised ch",
        ),
        (["degradation=blur_noise_jpeg"], "degraded by chain of "),
        (["objective=[supervised,adversarial]"], "learns supervised mse + adversarial vanilla"),
        (["trainer.max_time=90s"], "; 20,000 steps or 1min30s"),
        (["data=folder", "data.source.root=x"], "folder degraded by"),
        (["degradation=identity"], "degraded already"),
        (
            ["experiments=denoise/restormer", "trainer.max_steps=92001"],
            "; 92,001 steps; 4 of 6 data.stages are not reached, the first begins at step 156,000",
        ),
    ],
    ids=str,
)
def test_the_first_line_says_what_degrades_and_what_is_learnt(words: list[str], said: str) -> None:
    config = compose("train", ["name=n", "run_dir=r", *words])
    assert said in opening_line(config, "net")


def test_an_optimiser_of_an_objective_is_named_as_its_own() -> None:
    words = ["objective=[supervised,adversarial]", "discriminator=patch_small", "data.patch_size=32"]
    with pytest.raises(ValueError, match=r"^objective\.adversarial\.optimizer: Invalid learning rate: -1"):
        check_before_training(compose("train", [*TINY, *words, "objective.adversarial.optimizer.lr=-1"]))
