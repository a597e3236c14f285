"""Every file in experiments/ and every training preset composes, fits together, and trains for a few
steps."""

import json
import os
import re
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from restora.apps.experiments import cost_of, experiments, machine_of
from restora.config import compose, config_root, missing_keys, options, parts

ROOT = config_root()
EXPERIMENTS = options("experiments")
GROUPS = ("trainer", "callbacks", "logger", "debug", "family", "data")
PRESETS = [f"{group}={name}" for group in GROUPS for name in options(group)]


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_full_size_parts_fit_together(experiment: str) -> None:
    """Built on the meta device, so that 60 million parameters cost nothing; the data set need not be
    there."""
    from restora.config import build as build_node
    from restora.training.build import build_on_meta, check_together

    config = compose("train", [f"experiments={experiment}"])
    network = build_on_meta(config.network)
    data = build_node(config.data, "data", degradation=build_node(config.degradation, "degradation"))
    check_together(network, data)
    assert set(missing_keys(config)) <= {"run_dir", "init.source"}
    if experiment != "adhoc":
        said = {item.name: item for item in experiments()}[experiment]
        assert (said.machine, said.cost) == (machine_of(config), cost_of(config)), (
            "correct its opening comment"
        )


def test_every_folder_says_its_question_with_experiments_that_there_are() -> None:
    for task in {name.partition("/")[0] for name in EXPERIMENTS if "/" in name}:
        text = (ROOT / "experiments" / task / "README.md").read_text(encoding="utf-8")
        assert "**Question.**" in text
        assert {*re.findall(rf"{task}/\w+", text)} <= {*EXPERIMENTS}


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
    twins = [node for name, node in parts("network").items() if name.endswith("_small")]
    twins = [twin for twin in twins if twin["_target_"] == network._target_]
    twin = max(twins, key=lambda twin: sum(twin.get(key) == network.get(key) for key in KIND))
    network.update({key: value for key, value in twin.items() if key not in KIND})


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_debug_fast_trains_it(experiment: str, tmp_path: Path, shared_data_dir: Path) -> None:
    """Three real steps of its small twin through the real training function, ending in a complete run
    folder."""
    from restora.training.record import RunInfo
    from restora.training.run import train

    os.environ["RESTORA_DATA"] = str(shared_data_dir)
    config = compose("train", [f"experiments={experiment}", "debug=fast", "name=test"])
    OmegaConf.set_struct(config, False)
    config.run_dir = str(tmp_path)
    make_small(config.network)
    plain = OmegaConf.to_container(config, resolve=True)
    train(config, RunInfo(folder=tmp_path, config=plain, experiment=experiment, network_name="n"))
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["cost"]["steps"] == 3
    assert record["test"]["images"]
    assert (tmp_path / "checkpoints" / "best.ckpt").exists()
    assert "train/loss" in (tmp_path / "metrics.csv").read_text().splitlines()[0]
