"""What cannot work is refused before training, with the setting that mends it."""

import pytest
import torch
from PIL import Image

from restora.apps import train
from restora.cli import main
from restora.config import ConfigError, compose
from restora.training.build import build_network, build_parts, build_trainer, check_before_training
from restora.training.callbacks import ExactProducts

EARLY = ["+callbacks.stop._target_=lightning.pytorch.callbacks.EarlyStopping"]


@pytest.mark.parametrize(
    ("overrides", "fix"),
    [
        (["network=srresnet_small", "network.scale=4", "degradation=bicubic_x2"], "network.scale=2"),
        (["degradation=bicubic_x2"], "such as network=edsr_baseline network.scale=2"),
        (["network=fdncnn_small", "network.in_channels=3", "degradation=greyscale"], "noise level or a mask"),
        (["data.channels=gray"], "set network.in_channels=1, or data.channels=rgb"),
        (["network=unet", "data.channels=gray"], "network.in_channels=1 network.out_channels=1, or"),
        (["family=gan", "data.channels=gray"], "objective.adversarial.discriminator.in_channels=1, or"),
        (
            ["experiments=colourise/pix2pix", "data=sample", "trainer=cpu", "data.channels=gray"],
            "network.out_channels=1 objective.adversarial.discriminator.in_channels=2, or",
        ),
        (
            [
                "family=gan",
                "discriminator@objective.adversarial.discriminator=patch_small",
                "trainer.gradient_clip_val=1",
            ],
            "gradient_clip",
        ),
        (["family=gan", "trainer.accumulate_grad_batches=2"], "accumulate_grad_batches=1"),
        (
            ["family.adjustable_clip=0.01", "trainer.gradient_clip_val=1"],
            "family.adjustable_clip=0.01 clips in place of trainer.gradient_clip_val=1: set one",
        ),
        (["family=unet", "objective=multi_scale"], "side outputs"),
        (["data=div2k"], "restora prepare data=div2k"),
        (["data=folder"], "data.source.root"),
        (["data=folder", "data.source.root=/nowhere/at/all"], "does not exist"),
        (["family.ema_decay=2"], "family.ema_decay"),
        (["data.target=noisy", "objective=[noise2void,sure]"], "objective=noise2void,sure has no target"),
        (["callbacks.last.every_n_steps=0"], "every_n_steps must be at least 1"),
        ([*EARLY, "+callbacks.stop.monitor=val/psnr"], "set +callbacks.stop.mode=max"),
        (
            [*EARLY, "+callbacks.stop.monitor=val/lpips"],
            "is not what validation logs: set one of val/psnr, val/ssim",
        ),
        (
            [
                *EARLY,
                "+callbacks.stop.monitor=val/loss",
                "monitor.metric=val/loss",
                "+callbacks.stop.mode=max",
            ],
            "mode=min",
        ),
        (["data.patch_size=0"], "patch_size"),
        (["network.depth=1"], "depth"),
        (["leakage=null"], "leakage.check=false"),
        (["~logger"], "logger.mode=disabled"),
        (["~callbacks"], "callbacks.NAME=null"),
        (["experiments=quickstart/dncnn", "~data"], "data cannot be left out"),
        (["experiments=quickstart/dncnn", "~degradation"], "degradation cannot be left out"),
        (["experiments=quickstart/dncnn", "~network"], "network cannot be left out"),
        (["logger=none"], "W&B is switched off by logger.mode=disabled"),
        (["trainer.strategy=fsdp"], "trainer.strategy=ddp"),
        (["trainer.strategy=FSDP2"], "splits the weights"),
        (["trainer.strategy=model_parallel"], "splits the weights"),
        (["trainer.strategy=ddp_spawn"], "trainer.strategy=ddp"),
        (["trainer.num_nodes=2", "trainer.strategy=ddp"], "torchrun --nnodes 2"),
        (["logger=null"], "choose one of wandb\nW&B is switched off by logger.mode=disabled"),
        (["family=null"], "family cannot be left out; choose one of gan"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_conflicts_name_the_fix(overrides: list[str], fix: str, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("RESTORA_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=".") as caught:
        check_before_training(compose("train", overrides))
    assert fix in str(caught.value)


@pytest.mark.parametrize(
    ("network", "fix"),
    [("dncnn_small", "such as network=edsr_baseline network.scale=2"), ("edsr_small", "set network.scale=2")],
)
def test_the_scale_of_pairs_is_named(network: str, fix: str, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("RESTORA_DATA", str(tmp_path))
    for half, side in (("clean", 64), ("degraded", 32)):
        (tmp_path / "pairs" / half).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (side, side)).save(tmp_path / "pairs" / half / f"{number}.png")
    words = [f"network={network}", "data=paired_folder", f"data.source.root={tmp_path / 'pairs'}"]
    with pytest.raises(ValueError, match="the pairs differ ×2 in size") as caught:
        check_before_training(compose("train", [*words, "degradation=identity"]))
    assert fix in str(caught.value)
    assert "or pairs with scale" in str(caught.value)


def test_the_defaults_have_no_conflict(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("RESTORA_DATA", str(tmp_path))
    check_before_training(compose("train", []))


def test_a_network_starts_with_its_own_weights_unless_a_recipe_replaces_them() -> None:
    config = compose("train", ["network=srresnet_small", "network.scale=1"])
    torch.manual_seed(1)
    alone = build_network(config.network).state_dict()
    torch.manual_seed(1)
    parts = build_parts(config)
    assert all(torch.equal(value, alone[name]) for name, value in parts.network.state_dict().items())


@pytest.mark.parametrize(("objective", "exact"), [("sure", True), ("supervised", False)])
def test_objectives_that_are_exact_train_without_tf32(objective: str, exact: bool) -> None:
    config = compose("train", ["network=dncnn_small", f"objective={objective}", "run_dir=."])
    trainer = build_trainer(config, build_parts(config).family, [], [])
    assert any(isinstance(callback, ExactProducts) for callback in trainer.callbacks) == exact


@pytest.mark.parametrize("experiment", ["denoise/nafnet", "denoise/restormer", "denoise/cvt"])
def test_a_recipe_that_clips_takes_an_adversarial_objective(experiment: str, tmp_path, monkeypatch) -> None:
    """As README.md and docs/how-to/objectives.md have it, with photos that are there."""
    monkeypatch.setenv("RESTORA_DATA", str(tmp_path))
    words = [f"experiments={experiment}", "objective=[supervised,adversarial]", "data=sample", "trainer=cpu"]
    check_before_training(compose("train", words))


def test_the_command_says_it_in_one_message_and_starts_nothing(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "network=srresnet_small", "network.scale=4", "degradation=bicubic_x2"]) == 2
    message = capsys.readouterr().err
    assert "set network.scale=2" in message
    assert "Traceback" not in message
    assert list(tmp_path.iterdir()) == []


def test_each_job_of_a_sweep_is_checked_before_the_first_starts(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "-m", "family.ema_decay=0.9,3"]) == 2
    assert "family.ema_decay=3" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_several_values_are_named_as_they_were_typed(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"^loss=l1,mse has several values: add -m"):
        train.main(["loss=l1,mse"])


def test_several_values_without_m_are_explained(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="add -m"):
        train.main(["seed=1,2"])


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("command", ["train", "bench"])
def test_a_gpu_that_is_not_there_is_said_with_the_fix(
    command: str, tmp_path, shared_data_dir, monkeypatch, capsys
) -> None:
    monkeypatch.setenv("RESTORA_DATA", str(shared_data_dir))
    monkeypatch.chdir(tmp_path)
    words = [command, "network=dncnn_small", "network.in_channels=3", "trainer=gpu", "compile=false"]
    words += ["logger.mode=disabled"] if command == "train" else ["steps=2"]
    try:
        code: object = main(words)
    except SystemExit as stop:
        code = stop.code
    assert code
    said = capsys.readouterr().err
    assert "this machine has no GPU: set trainer=cpu" in said


def test_a_queued_job_has_a_task_for_each_device(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    words = ["train", "-m", "hydra/launcher=submitit_slurm", "trainer.strategy=ddp", "trainer.devices=2"]
    assert main([*words, "seed=1,2"]) == 2
    assert "set hydra.launcher.tasks_per_node=2 (it is 1)" in capsys.readouterr().err
