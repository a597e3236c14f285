"""Stable names: given once, stored instead of paths, and the only thing that a file can build."""

import importlib
import sys
from pathlib import Path

import pytest

from restora import registry
from restora.networks.dncnn import DnCNN
from restora.registry import UnknownPart, build, find, name_of, names, register, stored, use_plugins


@pytest.mark.parametrize("kind", registry.PACKAGES)
def test_every_part_is_found_by_its_name_and_tells_it(kind: str) -> None:
    assert names(kind)
    for name in names(kind):
        assert name_of(find(kind, name)) == name
        assert "." not in name


def test_a_name_is_given_once() -> None:
    with pytest.raises(ValueError, match=r"the network 'dncnn': restora\.networks\.dncnn\.DnCNN has"):
        register("network", "dncnn")(type("Other", (DnCNN,), {}))
    with pytest.raises(ValueError, match="the loss 'sum' is a class, got the builtin_function"):
        register("loss", "sum")(sum)  # type: ignore[type-var]
    with pytest.raises(ValueError, match="no kind 'netwrok'"):
        register("netwrok", "mine")
    with pytest.raises(ValueError, match="no dots"):
        register("network", "my.net")


def test_paths_of_the_first_edition_mean_the_same_parts() -> None:
    for kind, path, name in (
        ("network", "restora.networks.dncnn.DnCNN", "dncnn"),
        ("degradation", "restora.degradations.gaussian_noise.GaussianNoise", "gaussian_noise"),
        ("degradation", "restora.degradations.composition.OneOf", "one_of"),
        ("loss", "torch.nn.L1Loss", "l1"),
        ("loss", "restora.losses.adversarial.VanillaLoss", "vanilla"),
        ("optimizer", "torch.optim.AdamW", "adamw"),
        ("optimizer", "restora.training.muon.Muon", "muon"),
        ("source", "restora.data.sources.PairedFolder", "paired_folder"),
        ("callback", "restora.training.callbacks.BestCheckpoint", "best_checkpoint"),
    ):
        assert name_of(find(kind, path)) == name


def test_what_is_stored_holds_names_at_any_depth() -> None:
    config = {
        "network": {"_target_": "restora.networks.dncnn.DnCNN", "depth": 4},
        "family": {
            "_target_": "restora.families.gan.GanFamily",
            "adversarial": {"_target_": "restora.losses.adversarial.HingeLoss"},
            "optimizer": {"_target_": "torch.optim.Adam", "_partial_": True, "betas": (0.9, 0.99)},
        },
        "objective": {"supervised": {"_target_": "supervised", "loss": {"_target_": "torch.nn.MSELoss"}}},
        "degradation": {
            "_target_": "restora.degradations.composition.Chain",
            "stages": {"loss": {"_target_": "restora.degradations.jpeg.Jpeg", "quality": 40}},
        },
        "callbacks": {"mine": {"_target_": "mylab.callbacks.Mine"}},
    }
    plain = stored(config)
    assert plain["network"] == {"_target_": "dncnn", "depth": 4}
    assert plain["family"]["adversarial"]["_target_"] == "hinge"
    assert plain["family"]["optimizer"] == {"_target_": "adam", "_partial_": True, "betas": [0.9, 0.99]}
    assert plain["objective"]["supervised"]["loss"]["_target_"] == "mse"
    assert plain["degradation"]["stages"]["loss"]["_target_"] == "jpeg"
    assert plain["callbacks"]["mine"]["_target_"] == "mylab.callbacks.Mine"  # it has no name


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "restora.cli.main",
        "restora.training.run.train",
        "restora.networks.weights.load_weights",
        "restora.networks.dncnn.DnCNN",  # a network where a degradation belongs
        "subprocess.Popen",
        "builtins.exec",
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_a_file_builds_registered_parts_of_the_kind_asked_for_and_nothing_else(
    target: str, nested: bool
) -> None:
    node: dict = {"_target_": target, "argv": ["train"]}
    if nested:
        node = {"_target_": "chain", "stages": {"blur": node}}
    with pytest.raises(UnknownPart, match="is refused: only registered parts"):
        build(node, "degradation")


def test_a_name_that_is_not_known_lists_the_near_ones() -> None:
    with pytest.raises(UnknownPart, match=r"no network 'dncn'; did you mean dncnn"):
        find("network", "dncn")
    with pytest.raises(UnknownPart, match=r"plugins=\[MODULE\]"):
        find("objective", "my_own_objective")


def test_naming_a_module_imports_it_and_nothing_else_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "imported_lab.py").write_text("raise RuntimeError('it ran')\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownPart):
        find("network", "imported_lab.Net")
    assert "imported_lab" not in sys.modules
    with pytest.raises(ValueError, match="RuntimeError: it ran"):
        use_plugins(["imported_lab"])
    with pytest.raises(ValueError, match="not the name of a module"):
        use_plugins(["../imported_lab.py"])
    with pytest.raises(ValueError, match="nowhere_lab"):
        use_plugins(["nowhere_lab"])


def test_installed_packages_bring_parts_by_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A distribution on the path, as pip installs one; imported when a part of it is asked for."""
    package = tmp_path / "installed_lab"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "nets.py").write_text(
        "from restora.networks.dncnn import DnCNN\n\n\nclass Net(DnCNN):\n    pass\n"
    )
    (package / "conf" / "network").mkdir(parents=True)
    info = tmp_path / "installed_lab-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: installed-lab\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[restora.networks]\ninstalled_net = installed_lab.nets:Net\nlost = installed_lab.nets:Lost\n"
        "broken = installed_lab.broken:Net\nfunction = os:getcwd\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    registry._installed.cache_clear()
    try:
        assert "installed_net" in names("network")
        assert ("plugin", package / "conf") in registry.configuration_folders()
        assert "installed_lab.nets" not in sys.modules
        assert name_of(find("network", "installed_net")) == "installed_net"
        broken = {
            "lost": r"'lost' of the installed package installed-lab \(installed_lab\.nets:Lost\) cannot be "
            "imported: AttributeError",
            "broken": "cannot be imported: ModuleNotFoundError",
            "function": "cannot be imported: ValueError: the network 'function' is a class, got the builtin",
        }
        for name, message in broken.items():
            with pytest.raises(UnknownPart, match=message):
                find("network", name)
        classes = registry.classes("network")  # by which weights are recognised
        assert {"installed_net", "dncnn"} <= {*classes}
        assert not {*broken} & {*classes}
    finally:
        registry._parts["network"].pop("installed_net", None)
        registry._installed.cache_clear()
