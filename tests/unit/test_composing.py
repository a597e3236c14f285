"""Short forms, groups that win over a recipe, sweeps of every form, and keys that nothing reads."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from restora import registry
from restora.apps.train import help_text
from restora.composing.loader import Loader
from restora.composing.overrides import sweeps_among
from restora.composing.writing import yaml_text
from restora.config import ConfigError, all_options, compose, jobs_of, written_out


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["loss=charbonnier"], "loss@family.loss=charbonnier"),
        (["schedule=constant"], "schedule@family.schedule=constant"),
        (
            ["objective=[supervised,perceptual]", "perceptual=lpips"],
            "perceptual@objective.perceptual.loss=lpips",
        ),
        (["family=gan", "adversarial=hinge"], "adversarial@objective.adversarial.loss=hinge"),
        (
            ["discriminator=patch", "family=gan"],
            "discriminator@objective.adversarial.discriminator=patch",
        ),
        (
            ["experiments=super_resolution/srgan", "discriminator=patch"],
            "discriminator@objective.adversarial.discriminator=patch",
        ),
        (["objective=supervised"], "objective=supervised"),
        (["loss=l1,mse"], "loss@family.loss=l1,mse"),
        (["loss@family.loss=l1"], "loss@family.loss=l1"),
        (["precision=bf16"], "trainer.precision=bf16"),
    ],
    ids=" ".join,
)
def test_the_name_of_a_group_is_enough(typed: list[str], meant: str) -> None:
    assert meant in written_out("train", typed)


def test_a_short_form_does_what_the_long_one_does() -> None:
    short = compose("train", ["loss=charbonnier", "schedule=constant"])
    assert short == compose("train", ["loss@family.loss=charbonnier", "schedule@family.schedule=constant"])
    assert short.family.loss._target_ == "charbonnier"


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["discriminator=patch"], "objective=[supervised,adversarial] or objective=[supervised,cycle] or"),
        (["perceptual=vgg19"], "it needs objective=[supervised,perceptual]"),
        (["loss@network.loss=l1"], "write loss@family.loss=l1"),
        (["loss=banana"], "there is no loss=banana"),
        (["degradation=[gaussian_blur,gaussian_noise]"], "one degradation, not a list; a file lists several"),
        (["network=[dncnn,dncnn_small]"], "there is one network, not a list"),
        (["objective=[supervised,supervised]"], "supervised is there twice, and counts once: leave one out"),
        (["schedule=cosin"], "Did you mean schedule=cosine"),
        (["network=dncnnn"], "Did you mean network=dncnn or network="),
        (["family.loss=l1"], "write loss@family.loss=l1"),
        (["family.schedule=fast"], "write schedule@family.schedule=NAME; there are constant, cosine"),
        (["network=5"], "there is no network=5"),
        (
            ["network=edsr_small", "network.depth=5"],
            "not a key of the network chosen; its keys: scale, in_channels",
        ),
        (["family.optimizer.betas=[0,1]"], "(+family.optimizer.betas=[0,1] passes its constructor"),
    ],
    ids=" ".join,
)
def test_the_right_form_is_named(typed: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose("train", typed)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("command", "typed", "said", "not_said"),
    [
        ("preview", [], "which degradation?\nSet degradation=NAME, one of anisotropic_blur, ", "\t"),
        (
            "train",
            ["network=quark"],
            "there is no network=quark.\nThere are: attention_unet, ",
            "Did you mean",
        ),
        ("train", ["network=dncnnn"], "Did you mean network=dncnn or", "There are:"),
        ("evaluate", ["benchmark=quark"], "There are: bsd100_x2, ", "testset/"),
    ],
)
def test_options_are_listed_in_lines(command: str, typed: list[str], said: str, not_said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose(command, typed)
    assert said in str(caught.value)
    assert not_said not in str(caught.value)
    listed = str(caught.value).splitlines()[1:]
    assert all(len(line) <= 80 for line in listed)


@pytest.mark.parametrize(
    ("command", "typed", "said"),
    [
        ("train", "+loss=charbonnier", "did you mean loss=charbonnier?"),
        ("train", "+weights=/nowhere", "unknown key 'weights', nothing reads it"),
        ("train", "++weights=/nowhere", "unknown key 'weights', nothing reads it"),
        ("train", "+experiment=denoise/dncnn", "did you mean experiments?"),
        ("train", "experiment=denoise/dncnn", "Did you mean experiments?"),
        ("train", "+loss@mine=l1", "unknown key 'mine', nothing reads it"),
        ("evaluate", "+weight=a.pth", "did you mean weights?"),
        ("prepare", "+testset=bsd68", "did you mean testsets?"),
        ("preview", "+degradations=jpeg", "did you mean degradation?"),
    ],
)
def test_a_key_that_nothing_reads_is_refused(command: str, typed: str, said: str) -> None:
    rest = ["degradation=jpeg"] if command == "preview" else []
    with pytest.raises(ConfigError) as caught:
        compose(command, [*rest, typed])
    assert said in str(caught.value)
    assert typed in str(caught.value) or "there is no key" in str(caught.value)


def test_a_key_that_is_read_by_another_is_taken() -> None:
    assert compose("train", ["+width=24", "network.channels=${width}"]).network.channels == 24


def chosen(*words: str):
    return compose("train", list(words))


def test_a_degradation_chosen_on_the_command_line_wins_whole() -> None:
    config = chosen("experiments=denoise/half_minute", "degradation=gaussian_noise_range")
    assert config.degradation == compose("train", ["degradation=gaussian_noise_range"]).degradation
    config = chosen("experiments=denoise/dncnn", "degradation=jpeg")
    assert "sigma" not in config.degradation
    assert config.trainer.max_steps == 80000
    for experiment in ("zoo/photo", "zoo/old_photo"):  # whose degradations are made of other options
        assert chosen(f"experiments={experiment}", "degradation=identity").degradation == {
            "_target_": "identity"
        }


def test_a_schedule_a_network_and_a_family_do_too() -> None:
    config = chosen("experiments=denoise/dncnn", "schedule=cosine")
    assert dict(config.family.schedule) == dict(chosen("schedule=cosine").family.schedule)
    assert (
        chosen("experiments=denoise/half_minute", "network=edsr_small").network
        == chosen("network=edsr_small").network
    )
    config = chosen("experiments=denoise/dncnn", "family=transformer")
    assert config.family == chosen("family=transformer").family
    assert config.network == chosen("experiments=denoise/dncnn").network


def test_what_is_set_beside_a_chosen_group_counts() -> None:
    config = chosen("experiments=denoise/dncnn", "degradation=jpeg", "degradation.quality=33")
    assert config.degradation.quality == 33


def test_other_photos_are_cut_as_the_recipe_says() -> None:
    config = chosen("experiments=denoise/dncnn", "data=sample")
    assert config.data.source == {"_target_": "sample_photos"}
    assert (config.data.patch_size, config.data.batch_size) == (50, 128)


def test_another_machine_trains_as_long_as_the_recipe_says() -> None:
    config = chosen("experiments=denoise/dncnn", "trainer=cpu")
    assert (config.trainer.accelerator, config.trainer.precision) == ("cpu", "32-true")
    assert (config.trainer.max_steps, config.trainer.val_check_interval) == (80000, 1600)


def test_a_length_chosen_by_trainer_wins() -> None:
    config = chosen("experiments=denoise/half_minute", "trainer=quick")
    assert config.trainer.max_time == chosen("trainer=quick").trainer.max_time


def test_debug_has_the_last_word() -> None:
    config = chosen("experiments=denoise/dncnn", "debug=fast", "trainer=gpu")
    assert (config.trainer.accelerator, config.trainer.max_steps) == ("cpu", 3)


@pytest.fixture
def own_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of experiments=mine, in a folder of configuration of the user's own."""
    (tmp_path / "experiments").mkdir()
    monkeypatch.setattr(registry, "_folders", [tmp_path])
    return tmp_path / "experiments" / "mine.yaml"


def test_recipes_of_the_users_own_give_way_too(own_recipe: Path) -> None:
    own_recipe.write_text(
        "# @package _global_\ndefaults:\n  - override /degradation: jpeg\n\ndegradation:\n  quality: 33\n"
    )
    assert chosen("experiments=mine").degradation.quality == 33
    config = chosen("experiments=mine", "degradation=gaussian_noise")
    assert "quality" not in config.degradation


def test_what_is_wrong_in_a_recipe_is_said_with_its_file(own_recipe: Path) -> None:
    """Its path names the group, which the command line has every right to choose."""
    own_recipe.write_text(
        "# @package _global_\ndefaults:\n  - override /degradation: jpeg\n  - /loss@other: l1\n"
    )
    with pytest.raises(ConfigError, match=r"In experiments/mine(.|\n)*end of the defaults list"):
        chosen("experiments=mine")


@pytest.mark.parametrize(
    ("word", "jobs"),
    [
        ("loss@family.loss=l1,mse", ["loss@family.loss=l1", "loss@family.loss=mse"]),
        ("schedule@family.schedule=constant,cosine", 2),
        (
            "+trainer.detect_anomaly=true,false",
            ["+trainer.detect_anomaly=True", "+trainer.detect_anomaly=False"],
        ),
        ("++seed=1,2", ["++seed=1", "++seed=2"]),
        ("network=glob(dncnn_*)", 3),
        ("seed=range(1,4)", 3),
        ("seed=choice(1,2)", 2),
        ("data.val_crop=null,64", 2),
        ("objective=[supervised],[supervised,adversarial]", 2),
        ("family.optimizer.lr=interval(0.1,0.2)", 2),
    ],
)
def test_sweeps_take_every_form_of_override(word: str, jobs: list[str] | int) -> None:
    found = [job[0] for job in jobs_of([word])]
    assert (found if isinstance(jobs, list) else len(found)) == jobs
    assert sweeps_among([word, "seed=3"]) == [word]
    for job in found:
        compose("train", [job])


@pytest.mark.parametrize(
    "typed", ["{minutes:2}", "2min", "00:02:00", "120s", "{seconds: 120}", "'00:00:02:00'", "1min60s"]
)
@pytest.mark.parametrize("base", [[], ["trainer=quick"], ["experiments=denoise/half_minute"]], ids=str)
def test_a_time_limit_is_one_thing_in_every_form(typed: str, base: list[str]) -> None:
    assert compose("train", [*base, f"trainer.max_time={typed}"]).trainer.max_time == "2min"


def test_a_time_limit_replaces_one_that_a_recipe_has_as_a_dictionary(tmp_path: Path, monkeypatch) -> None:
    folder = tmp_path / "experiments"
    folder.mkdir()
    (folder / "mine.yaml").write_text("# @package _global_\ntrainer:\n  max_time: {seconds: 25}\n")
    monkeypatch.setattr(registry, "_folders", [tmp_path])
    for typed in ("{minutes:2}", "2min"):
        assert chosen("experiments=mine", f"trainer.max_time={typed}").trainer.max_time == "2min"


def test_time_limits_are_swept() -> None:
    assert written_out("train", ["trainer.max_time={minutes:1},90s"]) == ["trainer.max_time=1min,1min30s"]


def test_what_is_no_time_is_said_before_anything_starts() -> None:
    with pytest.raises(ConfigError, match="trainer.max_time=2minutes is not a duration: write it as 90s"):
        compose("train", ["trainer.max_time=2minutes"])


def test_help_lists_every_group_with_its_options() -> None:
    text = help_text()
    listed = text.split()
    for group, names in all_options().items():
        if group not in ("benchmark", "hydra", "sweep"):
            assert f"\n  {group} " in text
            assert set(names) <= set(listed), group
    assert max(map(len, text.splitlines())) <= 80
    assert "base" not in all_options()["trainer"]


def test_options_of_the_users_own_are_listed(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "network").mkdir()
    OmegaConf.save({"_target_": "dncnn"}, tmp_path / "network" / "mine.yaml")
    monkeypatch.setattr(registry, "_folders", [tmp_path])
    assert "mine" in all_options()["network"]
    assert "mine" in help_text().split()


@pytest.mark.parametrize(
    "values",
    [
        ["seed=7", "trainer.max_steps=12", "name='a,b'"],
        ["+family.optimizer.eps=1e-6", "++data.batch_size=8", "~callbacks.last"],
        ["callbacks.last={every_n_steps:3}", "data.patch_size=24", "hydra.job.chdir=true"],
        ["trainer.max_time=90s", "network.depth=${seed}"],
    ],
    ids=" ".join,
)
def test_values_laid_over_a_kept_composition_give_what_hydra_composes(
    values: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["experiments=quickstart/dncnn", "loss@family.loss=mse", *values]
    compose("train", words[:2], hydra_node=True)
    kept = compose("train", words, hydra_node=True)
    monkeypatch.setattr(Loader, "_sets_a_value", lambda *_: False)
    anew = compose("train", words, hydra_node=True)
    assert OmegaConf.to_container(kept) == OmegaConf.to_container(anew)


@pytest.mark.parametrize(
    ("words", "task"),
    [
        ([], "denoise"),
        (["degradation=jpeg"], "jpeg"),
        (["experiments=denoise/dncnn", "degradation=motion_blur"], "deblur"),
        (["experiments=denoise/dncnn", "degradation=any_noise"], "denoise"),
        (["experiments=denoise/dncnn", "degradation=old_photo"], "restore"),
        (["experiments=super_resolution/edsr", "degradation=bsrgan_x4"], "super_resolution"),
        (["degradation=rain", "task=drizzle"], "drizzle"),
        (["experiments=jpeg/dncnn", "degradation.quality=10"], "jpeg"),
        (["data=paired_folder", "degradation=identity", "network=srresnet_small"], "super_resolution"),
        (["data=paired_folder", "degradation=identity", "network=edsr_small", "network.scale=1"], "denoise"),
        (["network=srresnet_small", "task=denoise"], "denoise"),
    ],
    ids=str,
)
def test_the_task_follows_a_degradation_that_is_typed(words: list[str], task: str) -> None:
    assert compose("train", words).task == task


@pytest.mark.parametrize(
    ("words", "of_trainer", "of_family"),
    [
        ([], 0.01, None),
        (["objective=[supervised,adversarial]"], None, 0.01),
        (["objective=[supervised,adversarial]", "family.gradient_clip=0.5"], None, 0.5),
        (["objective=[supervised,adversarial]", "family.gradient_clip=null"], None, None),
        (["objective=[supervised,adversarial]", "trainer.gradient_clip_val=0.1"], 0.1, None),
        (["objective=[supervised,adversarial]", "+trainer.gradient_clip_algorithm=value"], 0.01, None),
    ],
    ids=str,
)
def test_the_clipping_of_an_experiment_fits_its_objectives(
    words: list[str], of_trainer: float | None, of_family: float | None
) -> None:
    config = compose("train", ["experiments=denoise/nafnet", *words])
    assert (config.trainer.gradient_clip_val, config.family.gradient_clip) == (of_trainer, of_family)


def test_globs_know_options_of_sub_groups() -> None:
    jobs = jobs_of(["experiments=glob(quickstart/*,exclude=*gan)"])
    assert [job[0].rpartition("/")[2] for job in jobs] == ["dncnn", "nafnet", "restormer", "unet"]
    with pytest.raises(ConfigError, match=r"network=glob\(zz\*\): no option matches"):
        jobs_of(["network=glob(zz*)"])


@pytest.mark.parametrize("experiment", ["quickstart/dncnn", "super_resolution/esrgan", "zoo/old_photo"])
def test_configuration_is_written_as_omegaconf_writes_it(experiment: str) -> None:
    texts = {
        "sha": "1e5",
        "yes": "on",
        "zero": "007",
        "long": "word " * 40,
        "sign": "σ: × #",
        "lines": "a\nb ",
    }
    config = compose("train", [f"experiments={experiment}"], hydra_node=True)
    content = {
        **OmegaConf.to_container(config, resolve=False, enum_to_str=True),
        "texts": texts,
        "none": [None],
    }
    assert yaml_text(content) == OmegaConf.to_yaml(OmegaConf.create(content))


@pytest.mark.parametrize(
    ("words", "source"),
    [
        (["experiments=no_clean/noisy_folder", "data.source.root=photos", "debug=fast"], "folder"),
        (["debug=fast", "experiments=no_clean/noisy_folder", "data.source.root=photos"], "folder"),
        (["experiments=no_clean/cycle_gan", "data.source.root=photos", "debug=fast"], "unpaired_folder"),
        (["experiments=no_clean/noisy_folder", "debug=fast"], "sample_photos"),
        (["data=paired_folder", "data.source.root=photos", "debug=fast"], "paired_folder"),
    ],
    ids=" ".join,
)
def test_a_fast_try_keeps_the_photos_that_are_typed(words: list[str], source: str) -> None:
    config = compose("train", words)
    assert config.data.source._target_ == source
    assert config.data.patch_size == 96
    assert config.trainer.max_steps == 3


@pytest.mark.parametrize("group", ["loss", "schedule", "degradation", "discriminator", "objective"])
def test_a_registered_part_without_a_file_is_told_from_none(
    group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = type("Mine", (), {"__module__": "mylab"})
    monkeypatch.setitem(registry._parts[group], "lab_part", mine)
    words = ["family=gan"] if group == "discriminator" else []
    with pytest.raises(ConfigError, match=f"write _target_: lab_part into {group}/lab_part.yaml"):
        compose("train", [*words, f"{group}=lab_part"])
    with pytest.raises(ConfigError, match="there is no experiments=lab_part"):
        compose("train", ["experiments=lab_part"])


@pytest.mark.parametrize(("lines", "task"), [("", "inpaint"), ("task: scratches\n", "scratches")])
def test_the_task_of_a_recipe_that_names_none_is_that_of_its_degradation(
    lines: str, task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tmp_path / "experiments" / "mine.yaml"
    recipe.parent.mkdir()
    text = f"# @package _global_\ndefaults:\n  - override /degradation: inpaint_brush\nname: mine\n{lines}"
    recipe.write_text(text)
    monkeypatch.setattr(registry, "_folders", [tmp_path])
    assert compose("train", ["experiments=mine"]).task == task
