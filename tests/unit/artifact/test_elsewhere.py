"""What spandrel knows is a source; what is exported is the same output there, or it is said."""

import re

import pytest
import torch
from PIL import Image
from run_folders import ARGUMENTS, photo

from restora import registry
from restora.apps.evaluate import main as evaluate
from restora.apps.export import main as export
from restora.artifact import foreign
from restora.artifact.foreign import opened_elsewhere
from restora.artifact.model_folder import save_weights
from restora.artifact.parity import Sample
from restora.artifact.restorer import Restorer
from restora.artifact.sources import open_source
from restora.networks import recognition
from restora.networks.layers.local_converter import convert
from restora.serving.models import load_models

RCAN = {"scale": 2, "channels": 16, "groups": 2, "blocks": 2, "reduction": 4}
HAT = {
    "channels": 24,
    "depths": [2],
    "heads": [2],
    "window": 4,
    "squeeze": 6,
    "scale": 2,
    "head_channels": 16,
}
SERVED = {"device": "cpu", "precision": "float32", "tile": 64}
NAFNET = {"width": 8, "middle_blocks": 1, "encoder_blocks": [1], "decoder_blocks": [1]}


def lively(name, arguments):
    torch.manual_seed(0)
    network = registry.find("network", name)(**arguments).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return network


def sample_for(network):
    x = torch.from_numpy(photo(40, 53)).permute(2, 0, 1)[None] / 255
    maps = torch.full((1, 1, 40, 53), 0.1) if network.condition_channels else None
    return Sample("photo", x[:, : network.in_channels], maps)


@torch.no_grad()
def elsewhere(network, folder, reference=None, **options):
    sample = sample_for(network)
    save_weights(network, folder)
    expected = (reference or network)(sample.x, sample.condition)
    return opened_elsewhere(folder / "weights.safetensors", [expected], [sample], **options)


@pytest.mark.parametrize(
    ("name", "arguments", "published"),
    [
        ("rcan", RCAN | {"rgb_range": 1.0}, {"rgb_range": 255.0}),
        ("hat", HAT | {"conv_scale": 0.1}, {"conv_scale": 0.01}),
        ("dncnn", {"in_channels": 3, "depth": 7, "channels": 8, "bias": False}, {"bias": True}),
    ],
)
@torch.no_grad()
def test_our_own_parametrisation_is_exported_as_the_authors(name, arguments, published, tmp_path):
    pytest.importorskip("spandrel", reason="spandrel is not installed")
    network = lively(name, arguments)
    equal, given = network.as_published(arguments)
    assert given == arguments | published
    x = sample_for(network).x
    torch.testing.assert_close(equal(x), network(x), atol=2e-6, rtol=0)
    found = elsewhere(equal, tmp_path)
    assert (found["same"], found["max_difference"] <= 2e-6) == (True, True)
    assert not elsewhere(network, tmp_path)["same"]  # which the check finds


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("fdncnn", {"in_channels": 1, "depth": 8, "channels": 8}, "passes it no noise level or mask"),
        ("srresnet", {}, "does not know these weights"),
        ("nafnet", NAFNET, r"its output differs.*\(it has no test-time local converter\)"),
    ],
)
def test_what_is_something_else_there_is_said(name, arguments, words, tmp_path):
    pytest.importorskip("spandrel", reason="spandrel is not installed")
    network = lively(name, arguments)
    converted = name == "nafnet"
    reference = convert(network, train_size=(16, 16)) if converted else None
    found = elsewhere(network, tmp_path, reference, converted=converted)
    assert not found["same"]
    assert re.search(words, found["words"])


def test_export_and_card_say_how_it_opens_elsewhere(run, tmp_path, capsys):
    pytest.importorskip("spandrel", reason="spandrel is not installed")
    assert export([str(run), str(tmp_path / "model"), "--no-onnx"]) == 0
    words = f"{foreign.version()} reads DnCNN: the same output, to "
    assert f"in other programs: {words}" in capsys.readouterr().out
    assert f"In other programs: {words}" in (tmp_path / "model" / "README.md").read_text()


@pytest.fixture
def compact(tmp_path):
    """Weights of an architecture that only spandrel knows, wrapped as they are published."""
    architecture = pytest.importorskip("spandrel.architectures.Compact", reason="spandrel is not installed")
    torch.manual_seed(0)
    network = architecture.Compact(num_feat=8, num_conv=2, upscale=2).eval()
    torch.save({"params_ema": network.state_dict()}, tmp_path / "compact.pth")
    return tmp_path / "compact.pth", network


@pytest.mark.slow
def test_an_architecture_that_only_spandrel_knows_is_a_source(compact, tmp_path, capsys):
    path, network = compact
    x = torch.from_numpy(photo(40, 53)).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        expected = network(x).clamp(0, 1)
    source = open_source(path)
    assert (source.description.task, source.description.scale) == ("super_resolution", 2)
    assert "Compact" in source.said
    assert "noise level and training are unknown" in source.said
    assert export([str(path), str(tmp_path / "model")]) == 0
    assert "the same output" in capsys.readouterr().out.replace("\n", " ")
    assert "ForeignNetwork" not in (tmp_path / "model" / "README.md").read_text()
    for place in (path, tmp_path / "model", tmp_path / "model" / "model.onnx"):
        restored = Restorer.load(place, device="cpu", tile=32, overlap=12)(x)
        assert (restored - expected).abs().max() < 0.02  # tiles
        whole = Restorer.load(place, device="cpu", tile=0)(x)
        torch.testing.assert_close(whole, expected, atol=1e-5, rtol=0)
    assert list(load_models([str(path)], **SERVED)) == ["compact"]
    (tmp_path / "clean").mkdir()
    Image.fromarray(photo(40, 52)).save(tmp_path / "clean" / "a.png")
    scored = ["benchmark=super_resolution", "benchmark.scale=2", f"benchmark.root={tmp_path / 'clean'}"]
    assert evaluate([f"weights={path}", *scored, "processes=1", f"output={tmp_path / 'scores'}"]) == 0
    assert "compact" in (tmp_path / "scores" / "summary.json").read_text()
    with pytest.raises(ValueError, match=r"photo a: expected .*\(40, 52\) pixels, got \(80, 104\)"):
        evaluate([f"weights={path}", "benchmark=denoise", "benchmark.sigma=5", *scored[2:], "processes=1"])


def test_what_weights_do_not_say_of_their_purpose_is_asked_for(tmp_path, capsys):
    """Also where it decides what a model is conditioned on."""
    architecture = pytest.importorskip("spandrel.architectures.Compact", reason="spandrel is not installed")
    path = tmp_path / "one.pth"
    torch.save(architecture.Compact(num_feat=8, num_conv=1, upscale=1).state_dict(), path)
    for words, task, purpose in (
        ([], "unknown", "of unknown task (the weights do not state it): "),
        (["--task", "jpeg"], "jpeg", "that removes JPEG artefacts: "),
    ):
        assert export([str(path), str(tmp_path / "m"), "--no-onnx", *words]) == 0
        assert open_source(tmp_path / "m").description.task == task
        assert purpose in (tmp_path / "m" / "README.md").read_text()
    assert load_models([str(path)], **SERVED, task="jpeg")["one"].words[0] == "Blocky"
    served = [str(tmp_path / "m"), str(path)]
    assert [model.words[0] for model in load_models(served, **SERVED, task="jpeg").values()] == ["Blocky"] * 2
    with pytest.raises(ValueError, match="--task deblur: each source states a task of its own"):
        load_models([str(tmp_path / "m")], **SERVED, task="deblur")
    with pytest.raises(ValueError, match="states its task: leave out --task deblur"):
        export([str(tmp_path / "m"), str(tmp_path / "n"), "--no-onnx", "--task", "deblur"])
    with pytest.raises(ValueError, match="there is no task 'sharpen'"):
        open_source(path, task="sharpen")
    torch.save(
        registry.find("network", "fdncnn")(in_channels=3, depth=3, channels=4).state_dict(),
        tmp_path / "filler.pth",
    )
    assert open_source(tmp_path / "filler.pth").description.conditioned_on == "noise level"
    assert open_source(tmp_path / "filler.pth", task="inpaint").description.conditioned_on == "mask"


def test_without_spandrel_the_way_to_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(foreign, "installed", lambda: False)
    monkeypatch.setattr(recognition, "_by_order", lambda _: [])  # seconds of other tests
    torch.save({"features.0.weight": torch.rand(3, 5)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"no network of restora recognises.*pip install 'restora\[any\]'"):
        open_source(tmp_path / "other.pth")
    network = lively("dncnn", ARGUMENTS)
    assert elsewhere(network, tmp_path)["words"].startswith("not tried: spandrel is not installed")
