"""Model folders and checkpoints: what is written is read back, and what is wrong with one is named."""

import contextlib
import io
import json
import os
import pickle
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from run_folders import Strided, tiny_network, write_checkpoint
from safetensors.torch import load_file, save_file

from restora.apps.export import at_work
from restora.artifact.card import write_card
from restora.artifact.checkpoint import (
    checkpoint_network,
    checkpoint_weights,
    locate,
    read_checkpoint,
)
from restora.artifact.engines import OnnxEngine
from restora.artifact.export import ParityError, _clear_remains, _drafts_of, export_model
from restora.artifact.formats import FORMATS
from restora.artifact.model_folder import ModelDescription, build_network, load_model_folder
from restora.artifact.onnx_model import write_onnx
from restora.networks.base import Network
from restora.networks.weights import load_state


def copy_of(folder, target):
    target.mkdir()
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def edit_description(folder, **changes):
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.slow
def test_folder_computes_what_the_checkpoint_computes(run, model):
    description, network = load_model_folder(model)
    reference = checkpoint_network(read_checkpoint(run / "checkpoints" / "best.ckpt"), "here")
    x = torch.rand(2, 3, 41, 33)
    with torch.no_grad():
        assert torch.equal(network(x), reference(x))
    assert description.sigma == 25
    assert description.metrics["held_out"] == {
        "psnr": 28.0,
        "ssim": 0.8,
        "input_psnr": 20.2,
        "input_ssim": 0.4,
        "photos": 2,
    }


def test_averaged_weights_are_the_ones_exported(run):
    checkpoint = read_checkpoint(run / "checkpoints" / "best.ckpt")
    averaged = checkpoint_weights(checkpoint)
    assert all(torch.equal(value, tiny_network().state_dict()[name]) for name, value in averaged.items())
    for name in [name for name in checkpoint["state_dict"] if name.startswith("ema.")]:
        del checkpoint["state_dict"][name]
    raw = checkpoint_weights(checkpoint)
    assert raw.keys() == averaged.keys()
    assert not torch.equal(raw["model.0.weight"], averaged["model.0.weight"])


@pytest.mark.slow
def test_parity_is_measured_on_the_held_out_photos_and_recorded(model):
    parity = json.loads((model / "model.json").read_text())["parity"]
    assert [(photo["name"], photo["count"]) for photo in parity["photos"]] == [
        ("astronaut_degraded.png", 1),
        ("coffee_degraded.png", 1),
        ("astronaut_degraded.png", 2),
    ]
    odd = parity["photos"][-1]
    assert odd["height"] % 2
    assert odd["width"] % 2
    for which in ("checkpoint_max_difference", "onnx_max_difference"):
        assert (
            0 < parity[which] <= 1e-4
        )  # batch norm was folded: equal to the last bit would mean nothing was


def test_onnx_graph_takes_any_batch_and_size(model):
    _, network = load_model_folder(model)
    graph = OnnxEngine(model / "model.onnx")
    for shape in ((1, 3, 16, 16), (3, 3, 17, 31), (1, 3, 1, 5)):
        x = torch.rand(shape)
        with torch.no_grad():
            expected = network(x)
        torch.testing.assert_close(graph(x, None), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("padding", ["reflect", "constant"])
@pytest.mark.slow
def test_onnx_graph_pads_to_the_multiple_as_the_network_does(padding, tmp_path, monkeypatch):
    """At odd sizes and below the multiple: padding is inside the graph."""
    monkeypatch.setattr(Strided, "padding", padding)
    torch.manual_seed(0)
    network = Strided(scale=2).eval()
    write_onnx(network, tmp_path / "model.onnx")
    graph = OnnxEngine(tmp_path / "model.onnx")
    for shape in ((1, 3, 16, 16), (2, 3, 17, 31), (1, 3, 3, 70), (1, 3, 1, 1)):
        x = torch.rand(shape)
        with torch.no_grad():
            expected = network(x)
        torch.testing.assert_close(graph(x, None), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "metrics",
    [
        {"held_out": {"psnr": 18.0, "input_psnr": 20.2, "ssim": 0.5, "input_ssim": 0.4, "photos": 2}},
        {"validation": {"val/psnr": 18.0, "val/input_psnr": 20.2}},
    ],
    ids=["held-out photos", "validation photos"],
)
def test_card_says_that_a_result_is_worse_than_its_input(metrics, model, tmp_path):
    description, _ = load_model_folder(model)
    write_card(tmp_path, replace(description, metrics=metrics))
    card = (tmp_path / "README.md").read_text()
    assert "**The result is worse than its input in PSNR (18.00 dB, the degraded photos 20.20 dB).**" in card
    assert "worse than its input" not in (model / "README.md").read_text()
    write_card(tmp_path, replace(description, metrics=metrics | {"reference": "noisy"}))
    card = (tmp_path / "README.md").read_text()
    assert "All figures are against another noisy version of each photo, not against clean photos." in card
    assert "worse than its input" not in card


def test_card_of_photos_without_clean_versions_says_so(model, tmp_path):
    description, _ = load_model_folder(model)
    held_out = {"seconds": 0.1, "loss": 0.0223, "photos": 3}
    metrics = {"step": 30, "validation": {"val/loss": 0.0292}, "held_out": held_out}
    write_card(tmp_path, replace(description, metrics=metrics, degradation={"_target_": "identity"}))
    card = (tmp_path / "README.md").read_text()
    assert (
        "The 3 held-out photos have no clean versions, so PSNR and SSIM were not measured; loss 0.0223."
        in card
    )
    assert "No degradation was added: the degraded photos were used as they came." in card
    assert "restora preview" not in card


def test_card_has_the_scores_and_runs(model, tmp_path, monkeypatch):
    """The Python example of the card is executed as it stands."""
    text = (model / "README.md").read_text()
    assert "| restored | 28.00 | 0.8000 |" in text
    assert "Photos: `sample_photos`." in text
    code = text.split("```python\n")[1].split("```")[0]
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").symlink_to(model)
    Image.new("RGB", (21, 17), (200, 100, 50)).save("photo.png")
    exec(compile(code, "card", "exec"), {})
    with Image.open("restored.png") as restored:
        assert (restored.size, restored.mode) == ((21, 17), "RGB")


def test_tampered_weights_do_not_pass(run, tmp_path, monkeypatch):
    """What is compared is what was read back from disk: a change after the writing is found, and nothing is
    left."""
    import restora.artifact.export as export

    write = export.save_weights

    def write_and_tamper(network, folder, description):
        write(network, folder, description)
        weights = load_file(folder / "weights.safetensors")
        weights["model.0.bias"] = weights["model.0.bias"] + 0.01
        save_file(weights, folder / "weights.safetensors")

    monkeypatch.setattr(export, "save_weights", write_and_tamper)
    with pytest.raises(ParityError, match="differs from the checkpoint"):
        export_model(locate(run), tmp_path / "out" / "model", wanted=())
    assert list((tmp_path / "out").iterdir()) == []


def test_a_failed_export_leaves_the_older_model_folder(run, model, tmp_path, monkeypatch):
    folder = copy_of(model, tmp_path / "model")
    monkeypatch.setattr("restora.artifact.parity.TOLERANCE", 0.0)
    with pytest.raises(ParityError):
        export_model(locate(run), folder, wanted=())
    assert (folder / "model.onnx").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_takes_time_is_shown_on_a_terminal_also_where_a_converter_is_kept_quiet(monkeypatch):
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stdout", screen)
    with at_work() as begin, contextlib.redirect_stdout(io.StringIO()):
        begin("writing model.onnx")
    assert "writing model.onnx 0:00:00" in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue())


def test_an_older_model_folder_is_replaced_whole(run, model, tmp_path):
    folder = copy_of(model, tmp_path / "model")
    said: list[str] = []
    begun: list[str] = []
    export_model(locate(run), folder, wanted=(), say=said.append, begin=begun.append)
    assert begun[0] == "checking weights.safetensors"
    assert begun[-2].startswith("measuring the speed for ")
    assert begun[-1] == "trying the weights in other programs"
    assert "model.onnx" in said[-1]
    assert "removed" in said[-1]
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "model.json",
        "weights.safetensors",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert json.loads((folder / "model.json").read_text())["parity"]["onnx_max_difference"] is None


def test_files_of_the_user_in_a_model_folder_are_kept(run, model, tmp_path):
    folder = copy_of(model, tmp_path / "model")
    (folder / "notes.txt").write_text("x")
    with pytest.raises(ValueError, match=r"would be lost: notes\.txt"):
        export_model(locate(run), folder, wanted=())
    assert (folder / "model.onnx").exists()


def test_a_folder_of_something_else_is_not_replaced(run, tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match="not a model folder"):
        export_model(locate(run), tmp_path, wanted=())


def test_without_the_onnx_packages_the_rest_is_exported(run, tmp_path, monkeypatch):
    missing = replace(FORMATS["onnx"], packages=("a_package_that_is_not_installed",))
    monkeypatch.setitem(FORMATS, "onnx", missing)
    left_out = export_model(locate(run), tmp_path / "model").parity["left_out"]
    assert "a_package_that_is_not_installed not installed" in left_out["onnx"]
    assert not (tmp_path / "model" / "model.onnx").exists()
    assert load_model_folder(tmp_path / "model")[0].parity["onnx_max_difference"] is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 99}, "format 99"),
        ({"network": {"name": "os.system", "arguments": {}}}, "refused"),
        ({"network": {"name": "nothing_at_all", "arguments": {}}}, "no network"),
        ({"network": {"name": "restora.networks.layers.blocks.conv3x3", "arguments": {}}}, "refused"),
        ({"network": {"name": "dncnn", "arguments": {"deepness": 3}}}, "deepness"),
        (
            {"network": {"name": "dncnn", "arguments": {"depth": 9}}},
            "(?s)do not fit DnCNN.*missing: model",
        ),
    ],
)
def test_wrong_descriptions_are_named(model, tmp_path, changes, message):
    folder = copy_of(model, tmp_path / "model")
    edit_description(folder, **changes)
    with pytest.raises(ValueError, match=message):
        load_model_folder(folder)


def test_incomplete_folders_are_named(model, tmp_path):
    with pytest.raises(ValueError, match="no model folder"):
        load_model_folder(tmp_path / "nowhere")
    folder = copy_of(model, tmp_path / "model")
    (folder / "weights.safetensors").write_bytes((folder / "weights.safetensors").read_bytes()[:200])
    with pytest.raises(ValueError, match="damaged"):
        load_model_folder(folder)
    (folder / "weights.safetensors").unlink()
    with pytest.raises(ValueError, match=r"has no weights\.safetensors"):
        load_model_folder(folder)
    (folder / "model.json").write_text("{")
    with pytest.raises(ValueError, match="not valid JSON"):
        load_model_folder(folder)
    (folder / "model.json").write_text('{"format": 1}')
    with pytest.raises(ValueError, match="lacks name, task"):
        load_model_folder(folder)


def test_weights_that_do_not_fit_are_named():
    network = tiny_network()
    weights = dict(network.state_dict())
    weights["model.0.weight"] = weights["model.0.weight"][:, :1]
    weights["extra"] = weights.pop("model.0.bias")
    with pytest.raises(
        ValueError,
        match=r"(?s)missing: model\.0\.bias.*unexpected: extra.*: model\.0\.weight is \(8, 1, 3, 3\)",
    ):
        load_state(network, weights, "a file")


@pytest.mark.parametrize(
    ("degradation", "sigma"),
    [
        ({"_target_": "gaussian_noise", "sigma": 25}, 25),
        ({"_target_": "gaussian_noise", "sigma": [0, 55]}, None),
        ({"_target_": "gaussian_blur", "sigma": 2}, None),
        (
            {
                "_target_": "chain",
                "stages": {
                    "blur": {"_target_": "gaussian_blur", "sigma": 2},
                    "noise": {"_target_": "gaussian_noise", "sigma": 15},
                },
            },
            15,
        ),
        ({}, None),
    ],
)
def test_noise_level_is_read_from_the_degradation(degradation, sigma):
    common = {"network": {}, "scale": 1, "in_channels": 3, "out_channels": 3, "condition_channels": 1}
    described = ModelDescription(
        name="a", task="denoise", family="b", size_multiple=1, degradation=degradation, **common
    )
    assert described.sigma == sigma


@pytest.mark.parametrize(
    ("name", "channels", "expected"),
    [
        ("gaussian_noise.GaussianNoise", 0, "nothing"),
        ("gaussian_noise.GaussianNoise", 1, "noise level"),
        ("random_rectangles.RandomRectangles", 1, "mask"),
        ("brush_strokes.BrushStrokes", 1, "mask"),
        ("brush_strokes.BrushStrokes", 2, "maps"),
    ],
)
@pytest.mark.parametrize("chained", [False, True])
def test_what_a_network_is_conditioned_on_follows_from_its_degradation(name, channels, expected, chained):
    node = {"_target_": f"restora.degradations.{name}"}
    if chained:
        blur = {"_target_": "gaussian_blur", "sigma": 2}
        node = {
            "_target_": "chain",
            "stages": {"blur": blur, "own": node},
        }
    common = {"network": {}, "scale": 1, "in_channels": 3, "out_channels": 3, "size_multiple": 1}
    described = ModelDescription(
        name="a", task="b", family="c", condition_channels=channels, degradation=node, **common
    )
    assert described.conditioned_on == expected


def test_opening_a_checkpoint_runs_none_of_its_code(tmp_path):
    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"state_dict": Hostile()}, tmp_path / "hostile.ckpt")
    (tmp_path / "plain.ckpt").write_bytes(pickle.dumps(Hostile(), protocol=2))
    for name in ("hostile.ckpt", "plain.ckpt"):
        with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
            read_checkpoint(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_checkpoints_of_others_are_named(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match="not written by `restora train`"):
        read_checkpoint(tmp_path / "other.ckpt")
    write_checkpoint(tmp_path / "future.ckpt", tiny_network(), format=3)
    with pytest.raises(ValueError, match="format 3"):
        read_checkpoint(tmp_path / "future.ckpt")


def test_locate_finds_the_best_checkpoint_of_a_run(run, tmp_path):
    assert locate(run).checkpoint == run / "checkpoints" / "best.ckpt"
    assert locate(run / "checkpoints" / "best.ckpt").run == run.resolve()
    with pytest.raises(ValueError, match="not a run folder"):
        locate(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"status": "failed"}))
    with pytest.raises(ValueError, match=r"status: failed.*no checkpoint"):
        locate(tmp_path)


def test_only_networks_of_the_package_are_built():
    network = build_network("dncnn", {"depth": 4, "channels": 8})
    assert isinstance(network, Network)
    for name in ("subprocess.Popen", "restora.networks", "restora.networks.base.Network"):
        with pytest.raises(ValueError, match=r"refused|no network|not a network|does not take"):
            build_network(name, {})


class _Particular(Strided):
    """Its constructor checks its arguments in its own way."""

    def __init__(self, *, rate: float = 0.1) -> None:
        super().__init__()
        assert rate < 1, "the rate is below 1"


def test_what_a_constructor_raises_names_the_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr("restora.artifact.model_folder.network_class", lambda name, plugins=(): _Particular)
    node = {"name": "particular", "arguments": {"rate": 2.0}}
    write_checkpoint(tmp_path / "bad.ckpt", _Particular(), network=node)
    with pytest.raises(ValueError, match=r"bad\.ckpt: _Particular does not take .*: the rate is below 1"):
        checkpoint_network(read_checkpoint(tmp_path / "bad.ckpt"), "bad.ckpt")


def test_a_draft_of_a_running_export_stays_where_there_is_no_proc(tmp_path, monkeypatch):
    """As on macOS; a draft of a process that has ended goes."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    drafts = [tmp_path / f"{_drafts_of(tmp_path / 'model')}{pid}-x" for pid in (os.getppid(), ended.pid)]
    for draft in drafts:
        draft.mkdir()
    there = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: "/proc" not in str(path) and there(path))
    _clear_remains(tmp_path / "model")
    assert [draft.is_dir() for draft in drafts] == [True, False]
