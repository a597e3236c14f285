"""Mistakes in the configuration are named, with the near match."""

from pathlib import Path

import pytest

from restora import registry
from restora.composing.batch_rule import in_words
from restora.config import ConfigError, compose


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("network=dncn", "network=dncnn"),
        ("experiments=denoise/dncn", "experiments=denoise/dncnn"),
        ("trainer.max_step=4", "trainer.max_steps"),
        ("epochs=4", "trainer.max_epochs"),
        ("optimizer.lr=3", "family.optimizer.lr"),
        ("netwrok.depth=3", "network.depth"),
        ("objective=[supervised,adverserial]", "objective=adversarial"),
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


def test_rates_and_steps_follow_another_batch_than_the_recipes() -> None:
    recipe = compose("train", ["experiments=super_resolution/esrgan"])
    more = compose("train", ["experiments=super_resolution/esrgan", "data.batch_size=64"])
    assert (recipe.data.batch_size, more.recipe_batch) == (16, 16)
    for of in (lambda c: c.family.optimizer.lr, lambda c: c.objective.adversarial.optimizer.lr):
        assert of(more) == pytest.approx(2 * of(recipe))  # the square root of 4, of Adam
    assert more.trainer.max_steps * 4 == recipe.trainer.max_steps
    assert "batch 64, the recipe's is 16" in in_words(more)


@pytest.mark.parametrize(
    "held",
    [
        ["experiments=denoise/dncnn", "data.batch_size=32", "trainer.accumulate_grad_batches=4"],  # 128
        ["experiments=denoise/dncnn", "data.batch_size=32", "recipe_batch=null"],
        ["experiments=denoise/restormer", "data.stages=null", "data.batch_size=64"],
    ],
)
def test_rates_and_steps_stay_with_the_recipes_batch(held: list[str]) -> None:
    recipe, config = compose("train", held[:1]), compose("train", held)
    assert config.family.optimizer.lr == recipe.family.optimizer.lr
    assert config.trainer.max_steps == recipe.trainer.max_steps
    assert in_words(config) == ""


@pytest.mark.parametrize("word", ["data.batch_size=4", "data.patch_size=64"])
def test_sizes_that_stages_replace_are_refused(word: str, tmp_path: Path) -> None:
    words = ["experiments=denoise/restormer", word]
    with pytest.raises(ConfigError, match=f"{word} has no effect") as caught:
        compose("train", words)
    assert "data.stages=null" in str(caught.value)
    assert "data.stages=[{start_step:0,patch_size:128,batch_size:64},…]" in str(caught.value)
    compose("train", [*words, "data.stages=null"])
    compose("train", [*words, f"resume={tmp_path}"])  # a run from before


@pytest.mark.parametrize("word", ["loss=l1", "loss@family.loss=l1", "+family.loss.eps=1"])
def test_a_loss_that_no_objective_takes_is_refused(word: str) -> None:
    words = ["experiments=no_clean/small", word]
    with pytest.raises(ConfigError, match=r"loss.* has no effect, as objective=neighbor2neighbor takes no"):
        compose("train", words)
    with pytest.raises(ConfigError, match=r"set objective\.noise2noise\.norm=l1, or add supervised"):
        compose("train", [*words, "objective=noise2noise"])
    compose("train", [*words, "objective=[supervised,neighbor2neighbor]"])


def test_an_objective_without_the_one_it_goes_with_is_refused() -> None:
    fix = r"goes with adversarial: set objective=\[supervised,feature_matching,adversarial\]"
    with pytest.raises(ConfigError, match=fix):
        compose("train", ["objective=[supervised,feature_matching]"])


@pytest.mark.parametrize(("batch", "batches"), [(16, 4), (4, 4), (64, 1)])
def test_validations_come_after_as_many_crops(batch: int, batches: int) -> None:
    recipe = compose("train", ["experiments=super_resolution/esrgan"]).trainer.val_check_interval * 16
    words = [f"data.batch_size={batch}", f"trainer.accumulate_grad_batches={batches}"]
    config = compose("train", ["experiments=super_resolution/esrgan", *words])
    assert config.trainer.val_check_interval * batch == recipe


def test_rates_and_steps_that_are_set_hold_at_any_batch() -> None:
    words = ["experiments=denoise/dncnn", "data.batch_size=32", "trainer.max_steps=70"]
    config = compose("train", [*words, "family.optimizer={_target_:sgd,_partial_:true,lr:0.4}"])
    assert config.trainer.max_steps == 70
    assert "unless they are set" in in_words(config)
    assert config.family.optimizer.lr == pytest.approx(0.1)  # SGD's, by a quarter
    assert compose("train", [*words, "family.optimizer.lr=0.4"]).family.optimizer.lr == 0.4


def test_a_family_without_the_objective_that_an_experiment_sets_is_named_with_the_fix() -> None:
    words = ["experiments=quickstart/srgan", "family=unet"]
    with pytest.raises(ConfigError) as caught:
        compose("train", words)
    message = str(caught.value)
    assert message.startswith("family=unet: experiments/quickstart/srgan sets discriminator@objective.")
    assert "\n" not in message
    for fix in ("objective=[supervised,adversarial]", "objective=[supervised]"):
        assert fix in message
        assert list(compose("train", [*words, fix]).objective) == fix[len("objective=[") : -1].split(",")


def test_an_override_of_an_experiment_that_nothing_takes_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /loss@family.second: l1\n"
    )
    monkeypatch.setattr(registry, "_folders", [tmp_path])
    with pytest.raises(ConfigError, match="experiments/mine sets .* remove 'override /loss@family.second'"):
        compose("train", ["experiments=mine"])
