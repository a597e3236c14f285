"""What files of conf/ need not say: constructors' defaults, variants, products, networks without a file."""

import importlib
import inspect
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from restora import registry
from restora.composing import constructors
from restora.composing.sources import RECIPES_PROVIDER, ConfFolder
from restora.config import ConfigError, compose, config_root, options, parts


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of configuration of the user's own."""
    monkeypatch.setattr(registry, "_folders", [tmp_path])
    (tmp_path / "network").mkdir()
    return tmp_path


@pytest.mark.parametrize("group", ["network", "discriminator", "degradation"])
def test_an_option_has_every_argument_of_its_constructor(group: str) -> None:
    for name, node in parts(group).items():
        cls = registry.find(group, node["_target_"])
        assert {*node} == {"_target_", *inspect.signature(cls).parameters}, name


@pytest.mark.parametrize("kind", ["network", "discriminator", "degradation", "schedule"])
def test_defaults_read_from_source_are_those_of_the_class(kind: str) -> None:
    own = constructors.own_parts(kind)
    assert {*own} == {n for n, c in registry.classes(kind).items() if c.__module__.startswith("restora.")}
    for name in own:
        expected = {
            p.name: "???" if p.default is p.empty else _plain(p.default)
            for p in inspect.signature(registry.find(kind, name)).parameters.values()
        }
        assert list(constructors.defaults(kind, name).items()) == list(expected.items()), name


def _plain(value: object) -> object:
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def test_every_network_and_discriminator_is_an_option() -> None:
    for group in ("network", "discriminator"):
        served = {node["_target_"] for node in parts(group).values()}
        assert served >= {*constructors.own_parts(group)}, group


def test_variants_say_what_differs() -> None:
    nodes = parts("network")
    assert nodes["dncnn"]["depth"] == 17
    assert nodes["dncnn_small"] == nodes["dncnn"] | {"in_channels": 3, "depth": 7, "channels": 32}
    assert len(nodes) >= 93
    assert len(parts("degradation")) >= 56


def test_ready_benchmarks_are_test_sets_times_severities() -> None:
    names = {*options("benchmark")}
    for sets, severities in (
        ("bsd68 set12 cbsd68 kodak24 mcmaster", "sigma15 sigma25 sigma50 blind"),
        ("set5 set14 bsd100 urban100 div2k_valid", "x2 x3 x4"),
        ("classic5 live1", "q10 q20 q30 q40"),
        ("set5 set14 cbsd68 kodak24", "inpaint"),
    ):
        assert {f"{s}_{severity}" for s in sets.split() for severity in severities.split()} <= names
    made = compose("evaluate", ["benchmark=live1_q20"]).benchmark
    assert (made.testset.name, made.quality, made.color, made.y_rounded) == ("LIVE1", 20, "y", True)
    assert not {"testsets", "severities", "variants"} & {*made}
    made = compose("evaluate", ["benchmark=div2k_valid_x3"]).benchmark
    assert (made.scale, made.color, made.border) == (3, "rgb", 9)


def test_a_variant_of_data_keeps_the_rest_of_the_file() -> None:
    plain, low = (compose("prepare", [f"data={name}"]).data for name in ("div2k", "div2k_lr"))
    assert (plain.source.track, low.source.track, low.source.scale) == (None, "bicubic", 4)
    assert (low.source.val_photos, low.patch_size) == (plain.source.val_photos, plain.patch_size)
    assert {*low} == {*plain}


def test_the_users_own_files_may_say_as_little(folder: Path) -> None:
    text = "_target_: dncnn\ndepth: 9\nvariants:\n  mine_wide: {channels: 99}\n"
    (folder / "network" / "mine.yaml").write_text(text)
    mine, wide = (compose("train", [f"network={name}"]).network for name in ("mine", "mine_wide"))
    assert (mine.depth, mine.channels, wide.depth, wide.channels) == (9, 64, 9, 99)
    assert {"mine", "mine_wide"} <= {*options("network")}


def test_a_network_of_ones_own_needs_no_file(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "source_lab.py").write_text(
        "from restora.networks.base import Network\nfrom restora.registry import register\n\n\n"
        "@register('network', 'source_lab_net')\nclass Net(Network):\n"
        "    def __init__(self, *, in_channels: int = 3, width: int = 8) -> None:\n"
        "        super().__init__()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(registry._parts, "network", dict(registry._parts["network"]))
    importlib.import_module("source_lab")
    expected = {"_target_": "source_lab_net", "in_channels": 3, "width": 8}
    assert compose("train", ["network=source_lab_net"]).network == expected
    (folder / "network" / "source_lab_net.yaml").write_text("_target_: source_lab_net\nwidth: 5\n")
    assert compose("train", ["network=source_lab_net"]).network == expected | {"width": 5}


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"_target_: dncnn\ndepth: 3\n  channels: 9\n", r"broken\.yaml: line 3, column 11: mapping values"),
        (
            b"_target_: dncnn\ndepth: 3\ndepth: 4\n",
            r"broken\.yaml: line 3, column 1: the key depth is given twice",
        ),
        (b"_target_: dncnn # \xff\n", r"broken\.yaml: not a text in UTF-8"),
        (b"_target_: \x07\n", r"broken\.yaml: unacceptable character"),
    ],
    ids=["syntax", "a key twice", "bytes", "a control character"],
)
def test_a_file_that_cannot_be_read_is_named(folder: Path, content: bytes, named: str) -> None:
    (folder / "network" / "broken.yaml").write_bytes(content)
    for read in (lambda: options("network"), lambda: compose("train", ["network=broken"])):
        with pytest.raises(ValueError, match=named):
            read()


@pytest.mark.parametrize("text", ["", "depth: 3\n", "- _target_: dncnn\n", "dncnn\n"])
def test_a_file_without_the_name_of_a_part_is_named(folder: Path, text: str) -> None:
    (folder / "network" / "nameless.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"nameless\.yaml has no _target_"):
        compose("train", ["network=nameless"])


def test_an_objective_of_ones_own_needs_no_name_in_its_file(folder: Path) -> None:
    (folder / "objective").mkdir()
    (folder / "objective" / "flat.yaml").write_text("_target_: noise2noise\nweight: 0.5\n")
    (folder / "objective" / "nested.yaml").write_text("nested:\n  _target_: noise2noise\n")
    made = compose("train", ["objective=[supervised,flat,nested]", "objective.flat.weight=2"]).objective
    assert [*made] == ["supervised", "flat", "nested"]
    assert made.flat == {"_target_": "noise2noise", "weight": 2}


def test_a_key_of_an_application_is_not_taken_for_a_table() -> None:
    assert "severities" in OmegaConf.load(config_root() / "conf" / "evaluate.yaml")
    assert "severities" in compose("evaluate", ["benchmark=set5_x2"])


def test_folders_beside_the_recipes_are_no_groups() -> None:
    """In a wheel the recipes lie in the package, whose folders have names of settings (`metrics`)."""
    package = Path(registry.__file__).parent
    beside = ConfFolder(RECIPES_PROVIDER, f"restora://{package}")
    assert (package / "metrics").is_dir()
    assert not beside.is_group("metrics")
    assert ConfFolder("command-line", f"restora://{package}").is_group("metrics")
    recipes = ConfFolder(RECIPES_PROVIDER, f"restora://{config_root()}")
    assert recipes.is_group("experiments/denoise")
    assert recipes.is_config("experiments/denoise/dncnn")
