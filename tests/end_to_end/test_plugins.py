"""A package of one's own goes from training to a restored photo: network, degradation, loss and objective."""

import json
from pathlib import Path

import pytest
from PIL import Image
from warm_start import run_code

CODE = """
import torch
from torch import nn

from restora.degradations.base import Degradation
from restora.networks.base import Network
from restora.objectives.base import Objective
from restora.registry import register


@register("network", "lab_net")
class LabNet(Network):
    tasks = ("denoise",)

    def __init__(self, *, in_channels: int = 3, width: int = 8) -> None:
        super().__init__()
        self.in_channels = self.out_channels = in_channels
        self.first = nn.Conv2d(in_channels, width, 3, padding=1)
        self.last = nn.Conv2d(width, in_channels, 3, padding=1)

    def restore(self, x, condition):
        return x - 0.1 * self.last(self.first(x).relu())

    @classmethod
    def infer_arguments(cls, state):
        if set(state) != {"first.weight", "first.bias", "last.weight", "last.bias"}:
            return None
        width, channels = state["first.weight"].shape[:2]
        return {"width": width, "in_channels": channels}


@register("degradation", "lab_stripes")
class Stripes(Degradation):
    def __init__(self, *, strength: float = 0.1) -> None:
        self.strength = strength

    def sample(self, shape, generator):
        return {"phase": generator.uniform()}

    def apply(self, clean, params):
        x = torch.arange(clean.shape[-1], device=clean.device)
        wave = torch.sin(x + 6.28 * params["phase"].view(-1, 1, 1, 1))
        return (clean + self.strength * wave).clamp(0, 1)


@register("loss", "lab_cubic")
class Cubic(nn.Module):
    def forward(self, restored, clean):
        return (restored - clean).abs().pow(3).mean()


@register("objective", "lab_flat")
class Flat(Objective):
    needs_clean = False

    def terms(self, step):
        return {"": step.restored.diff(dim=-1).abs().mean()}
"""
TWINS = {
    "network/lab_net": "_target_: lab_net\nin_channels: 3\nwidth: 8\n",
    "degradation/lab_stripes": "_target_: lab_stripes\nstrength: 0.1\n",
    "loss/lab_cubic": "_target_: lab_cubic\n",
    "objective/lab_flat": "lab_flat:\n  _target_: lab_flat\n  weight: 0.01\n  start_step: 0\n",
}
CHOSEN = [
    "network=lab_net",
    "degradation=lab_stripes",
    "loss@family.loss=lab_cubic",
    "objective=[supervised,lab_flat]",
    "debug=fast",
    "leakage.check=false",
    "logger.mode=disabled",
]


SCRIPT = """
import json, sys
from restora.cli import main

for expected, words in json.loads(sys.argv[1]):
    print("$", *words, flush=True)
    code = main(words)
    assert code == expected, f"{words} ended with {code}"
"""


def restora(*commands: list[str], cwd: Path, expected: int = 0) -> str:
    """Runs commands one after the other in a process of their own."""
    listed = json.dumps([[expected, words] for words in commands])
    done = run_code(SCRIPT, listed, cwd=cwd, RESTORA_DATA=str(cwd / "data"))
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module", params=["package", "module"])
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A folder to work in, and the words that make its parts known to a command that composes: a package
    brings its configuration, a plain module has it beside it."""
    folder = tmp_path_factory.mktemp("work")
    if request.param == "package":
        code, conf, words = folder / "mylab" / "__init__.py", folder / "mylab" / "conf", ["plugins=[mylab]"]
    else:
        conf = folder / "myconf"
        code, words = folder / "mylab.py", ["--plugin", "mylab", "--config-dir", str(conf)]
    code.parent.mkdir(exist_ok=True)
    code.write_text(CODE)
    for name, text in TWINS.items():
        (conf / name).parent.mkdir(parents=True, exist_ok=True)
        (conf / name).with_suffix(".yaml").write_text(text)
    return folder, words


def test_from_training_to_a_restored_photo(lab: tuple[Path, list[str]]) -> None:
    folder, words = lab
    said = restora(
        ["train", *words, *CHOSEN, "hydra.run.dir=run"],
        ["train", "-m", *words, *CHOSEN, "network.width=4,6", "hydra.sweep.dir=sweep"],
        ["bench", *words, *CHOSEN, "output=cost.json"],
        ["networks", "lab_net", "--time", "none", *words],
        cwd=folder,
    )
    record = json.loads((folder / "run" / "run.json").read_text())
    assert record["config"]["network"]["_target_"] == "lab_net"
    assert record["config"]["degradation"]["_target_"] == "lab_stripes"
    assert record["config"]["objective"]["supervised"]["loss"]["_target_"] == "lab_cubic"
    assert record["config"]["plugins"] == ["mylab"]
    assert "lab_net" in said.partition("$ networks")[2].partition("\n")[2]
    jobs = [json.loads(path.read_text()) for path in sorted((folder / "sweep").rglob("run.json"))]
    assert [job["config"]["network"]["width"] for job in jobs] == [4, 6]
    assert (folder / "cost.json").is_file()
    if "--config-dir" not in words:
        _to_a_restored_photo(folder)


def _to_a_restored_photo(folder: Path) -> None:
    """By the name alone, which is imported in the same way whatever it is."""
    plugin = ["--plugin", "mylab"]
    Image.new("RGB", (40, 30), (200, 100, 50)).save(folder / "photo.png")
    scored = ["benchmark=degraded", f"benchmark.root={folder}", "benchmark.testset=null", "output=scores"]
    said = restora(
        ["export", "run", "model", "--no-onnx", *plugin],
        ["restore", "model", "photo.png", "out.png", "--plugin=mylab"],
        ["evaluate", "checkpoint=run", *plugin, *scored],
        ["report", "run", *plugin],
        cwd=folder,
    )
    with Image.open(folder / "out.png") as restored:
        assert restored.size == (40, 30)
    assert json.loads((folder / "scores" / "summary.json").read_text())["images"] >= 1
    assert "lab_net" in said.partition("$ report")[2]

    refused = restora(  # in a process that does not know the module
        ["export", "run", "again", "--no-onnx"],
        ["restore", "model", "photo.png", "again.png"],
        ["evaluate", "checkpoint=run", *scored],
        ["train", "resume=run", "trainer.max_steps=4"],
        cwd=folder,
        expected=2,
    )
    assert refused.count("add --plugin mylab if you trust it") == 3
    assert "add plugins=[mylab] if you trust it" in refused
    restora(["train", "resume=run", "trainer.max_steps=4", "plugins=[mylab]"], cwd=folder)
    assert json.loads((folder / "run" / "run.json").read_text())["cost"]["steps"] == 4


def test_its_weights_are_recognised(lab: tuple[Path, list[str]]) -> None:
    folder, _ = lab
    script = (
        "import sys; sys.path.insert(0, '.')\n"
        "import torch, mylab\n"
        "from restora.artifact.sources import open_source\n"
        "torch.save({'params': mylab.LabNet(width=5).state_dict()}, 'weights.pth')\n"
        "loaded = open_source('weights.pth')\n"
        "assert loaded.name == 'lab_net' and loaded.changed['width'] == 5, loaded\n"
    )
    done = run_code(script, cwd=folder)
    assert done.returncode == 0, done.stdout
