"""Every file in experiments/ and every training preset composes and fits together, and every part trains
for a few steps."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf
from torch.nn.modules.batchnorm import _BatchNorm

from restora.apps.experiments import Experiment, cost_of, experiments, machine_of
from restora.config import compose, config_root, missing_keys, options, parts

ROOT = config_root()
EXPERIMENTS = options("experiments")
GROUPS = ("trainer", "callbacks", "logger", "debug", "family", "data")
SMALL = [node for name, node in parts("network").items() if name.endswith("_small")]
PRESETS = [f"{group}={name}" for group in GROUPS for name in options(group)]


TRAINED = (
    *("colourise/pix2pix", "deblur/nafnet_gopro_div2k", "denoise/mwcnn", "denoise/nafnet_sidd_div2k"),
    "denoise/on_demand",
    *("inpaint/dcgan", "jpeg/swinir", "quickstart/unet", "super_resolution/esrgan"),
    *("super_resolution/srresnet", "supervision/poisson", "supervision/unpaired", "zoo/deblur"),
    *("video/denoise", "zoo/inpaint", "zoo/old_photo", "zoo/photo"),
    *("no_clean/blind2unblind", "no_clean/cycle_gan", "no_clean/fastcut", "no_clean/neighbor2neighbor"),
    *("no_clean/noise2noise", "no_clean/noise2void", "no_clean/recorrupted", "no_clean/sure"),
)
"""Together they have every part but the networks, each of which takes its steps in test_networks."""


@cache
def listed() -> dict[str, Experiment]:
    return {item.name: item for item in experiments()}


@cache
def composed(experiment: str) -> DictConfig:
    return compose("train", [f"experiments={experiment}"])


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_full_size_parts_fit_together(experiment: str) -> None:
    """Built on the meta device, so that 60 million parameters cost nothing; the data set need not be
    there."""
    from restora.config import build as build_node
    from restora.training.build import build_on_meta, check_together

    config = composed(experiment)
    network = build_on_meta(config.network)
    data = build_node(config.data, "data", degradation=build_node(config.degradation, "degradation"))
    check_together(network, data)
    normed = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    assert config.data.batch_size > 1 or not normed, "running averages are not those of one photo"
    assert set(missing_keys(config)) <= {"run_dir"}
    if experiment != "adhoc":
        said = listed()[experiment]
        assert (said.machine, said.cost) == (machine_of(config), cost_of(config)), (
            "correct its opening comment"
        )


RATES = {
    "colourise/pix2pix": {0.0: 2e-4, 1.0: 2e-4},
    "denoise/gan": {0.49: 1e-4, 0.5: 1e-5, 1.0: 1e-5},
    "denoise/mwcnn": {0.0: 1e-3, 0.5: 1e-3 / 10**0.5, 1.0: 1e-4},
    "denoise/nafnet": {0.0: 1e-3, 1.0: 1e-7},
    "denoise/restormer": {0.306: 3e-4, 1.0: 1e-6},
    "inpaint/dcgan": {0.0: 2e-4, 1.0: 2e-4},
    "jpeg/dncnn": {0.59: 1e-3, 0.6: 2e-4},
    "no_clean/cycle_gan": {0.5: 2e-4, 0.75: 1e-4, 1.0: 0.0},
    "no_clean/neighbor2neighbor": {0.19: 3e-4, 0.2: 1.5e-4, 0.8: 3e-4 / 16},
    "no_clean/noise2noise": {0.69: 3e-4, 1.0: 3e-7},
}
"""The learning rate of the cited paper, or its authors' code, at shares of the training."""


@pytest.mark.parametrize("experiment", RATES)
def test_learning_rates_are_those_of_the_paper(experiment: str) -> None:
    from restora.config import build as build_node

    family = composed(experiment).family
    schedule = build_node(family.schedule, "schedule")
    rates = {share: family.optimizer.lr * schedule(share) for share in RATES[experiment]}
    assert rates == pytest.approx(RATES[experiment], rel=0.02)


def test_every_folder_says_its_question_with_experiments_that_there_are() -> None:
    for task in {name.partition("/")[0] for name in EXPERIMENTS if "/" in name}:
        text = (ROOT / "experiments" / task / "README.md").read_text(encoding="utf-8")
        assert "**Question.**" in text
        assert {*re.findall(rf"{task}/\w+\b(?!\.)", text)} <= {*EXPERIMENTS}


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_composes(preset: str) -> None:
    from restora.training.settings import check_settings

    check_settings(compose("train", [preset]))


KIND = {
    *("in_channels", "out_channels", "scale", "unshuffle", "value_range", "rgb_range", "drop_path"),
    *("upsampler", "upsampling", "connection", "skips", "modulator", "side_outputs", "condition_channels"),
}
"""What a network's arguments say besides its size."""


def make_small(network: DictConfig) -> None:
    """Gives a network the widths and depths of the small twin that is most like it."""
    twins = [twin for twin in SMALL if twin["_target_"] == network._target_]
    twin = max(twins, key=lambda twin: sum(twin.get(key) == network.get(key) for key in KIND))
    network.update({key: value for key, value in twin.items() if key not in KIND})


def parts_in(node: Any, place: str = "") -> set[tuple[str, str]]:
    """Where a configuration has which part, a chain's stages without their names; networks are left out."""
    if isinstance(node, list):
        return set().union(*(parts_in(each, place) for each in node))
    if not isinstance(node, dict):
        return set()
    here = {(place, node["_target_"])} if "_target_" in node else set()
    below = {key: place if place == "degradation" else f"{place}.{key}".lstrip(".") for key in map(str, node)}
    return here.union(*(parts_in(node[key], below[key]) for key in below if key != "network"))


def test_together_the_trained_ones_have_every_part() -> None:
    has = {name: parts_in(OmegaConf.to_container(composed(name))) for name in EXPERIMENTS}
    trained = set().union(*(has[name] for name in TRAINED))
    for name, found in has.items():
        assert found <= trained, f"add {name} to TRAINED"
    assert {composed(name).data.channels for name in TRAINED} == {"rgb", "gray"}


@pytest.mark.parametrize("experiment", TRAINED)
def test_debug_fast_trains_it(
    experiment: str, tmp_path: Path, shared_data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three real steps of its small twin through the real training function, ending in a complete run
    folder."""
    from restora.training.record import RunInfo
    from restora.training.run import train

    monkeypatch.setenv("RESTORA_DATA", str(shared_data_dir))
    config = compose("train", [f"experiments={experiment}", "debug=fast", "name=test"])
    OmegaConf.set_struct(config, False)
    config.run_dir = str(tmp_path)
    make_small(config.network)
    config.init.source = None  # of the full size
    plain = OmegaConf.to_container(config, resolve=True)
    train(config, RunInfo(folder=tmp_path, config=plain, experiment=experiment, network_name="n"))
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["cost"]["steps"] == 3
    assert record["test"]["images"]
    assert (tmp_path / "checkpoints" / "best.ckpt").exists()
    assert "train/loss" in (tmp_path / "metrics.csv").read_text().splitlines()[0]
