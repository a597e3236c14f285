"""Mistakes in the configuration are named, with the near match."""

import pytest

from restora.config import ConfigError, compose


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("network=dncn", "network=dncnn"),
        ("experiments=denoise/dncn", "experiments=denoise/dncnn"),
        ("trainer.max_step=4", "trainer.max_steps"),
        ("optimizer.lr=3", "family.optimizer.lr"),
        ("netwrok.depth=3", "network.depth"),
    ],
)
def test_near_matches_are_suggested(override: str, hint: str) -> None:
    with pytest.raises(ConfigError, match="Did you mean") as caught:
        compose("train", [override])
    assert hint in str(caught.value)
    assert "Config search path" not in str(caught.value)


def test_any_key_can_be_overridden_and_added() -> None:
    config = compose("train", ["seed=7", "family.optimizer.lr=0.5", "+callbacks.extra._target_=a.B"])
    assert config.seed == 7
    assert config.family.optimizer.lr == 0.5
    assert config.callbacks.extra._target_ == "a.B"


def test_debug_turns_any_experiment_into_a_few_cpu_steps() -> None:
    config = compose("train", ["experiments=denoise/restormer", "debug=fast"])
    assert config.trainer.accelerator == "cpu"
    assert config.trainer.max_steps == 3
    assert config.data.stages is None
    assert config.data.source._target_ == "sample_photos"
