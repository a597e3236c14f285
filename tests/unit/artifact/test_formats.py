"""Each format computes what the checkpoint computes, or is left out; each engine is the same restorer."""

import copy
import io
import json
import os
import shutil
import signal
import zipfile
from dataclasses import replace
from types import MappingProxyType

import pytest
import torch
from run_folders import Strided, photo, tiny_network
from safetensors.torch import load_file

from restora import vocabulary
from restora.apps.export import main as export
from restora.apps.export import measured_on, parity_table
from restora.artifact import engine_choice, measuring, quantised, writing
from restora.artifact.card import write_card
from restora.artifact.engines import available
from restora.artifact.formats import FORMATS, chosen
from restora.artifact.model_folder import read_description
from restora.artifact.onnx_model import write_onnx
from restora.artifact.restorer import Restorer
from restora.artifact.sources import open_source

ENGINES = [
    pytest.param(name, marks=pytest.mark.skipif(not available(name), reason=f"{name} is not installed"))
    for name in ("onnxruntime", "openvino")
]


def real(height=60, width=84):
    return torch.from_numpy(photo(height, width)).permute(2, 0, 1)[None] / 255


@pytest.fixture
def copied(model, tmp_path):
    return shutil.copytree(model, tmp_path / "copied")


def parity_of(folder):
    return json.loads((folder / "model.json").read_text())["parity"]


def pretend(folder, paces, by_side=MappingProxyType({}), **machine):
    """The folder's table says that these are the engines' paces, and where they were measured."""
    described = json.loads((folder / "model.json").read_text())
    for row in described["parity"]["formats"].values():
        row["seconds_per_megapixel"] = paces.get(row["engine"], 9.0)
        row["seconds_per_megapixel_by_side"] = {
            side: table.get(row["engine"], 9.0) for side, table in by_side.items()
        }
    described["parity"]["machine"] |= machine
    (folder / "model.json").write_text(json.dumps(described))


def test_every_format_is_measured_and_written_down(model):
    parity = parity_of(model)
    assert parity["left_out"] == {}
    assert parity["formats"].keys() == {
        "safetensors",
        *(n for n, made in FORMATS.items() if not made.missing),
    }
    figure = parity["formats"]["safetensors"]["psnr"]
    described = json.loads((model / "model.json").read_text())
    card = (model / "README.md").read_text()
    for name, row in parity["formats"].items():
        allowed = FORMATS[name].loss if name in FORMATS else 1e-3
        assert abs(row["psnr"] - figure) - 1e-5 <= row["loss"] <= allowed
        assert 0 < row["seconds_per_megapixel"] < 60
        assert 0 <= row["peak_megabytes"] < 1000
        assert described["sha256"].keys() >= set(row["files"])
        assert f"| {name} | `{row['files'][0]}` | {row['psnr']:.2f} |" in card
    assert parity["formats"]["onnx-fp16"]["max_difference"] > 1e-5  # not float32 under another name
    assert parity["formats"]["onnx-int8"]["max_difference"] > 1e-3


def test_the_table_fits_80_columns(model):
    from rich.console import Console

    console = Console(width=200, record=True, file=io.StringIO())
    console.print(parity_table(parity_of(model)), *measured_on(parity_of(model)), sep="\n")
    text = console.export_text()
    assert "onnx-int8" in text
    assert max(map(len, map(str.rstrip, text.splitlines()))) <= 80


@pytest.mark.slow
def test_what_computes_something_else_or_fails_is_left_out_and_said(run, tmp_path, monkeypatch, capsys):
    other = tmp_path / "other.onnx"

    def fail(*_):
        raise RuntimeError("\x1b[96mstep 1/3\x1b[0m of exporting") from ValueError(
            "no such operation\nand more"
        )

    def write_another(graph, target):
        write_onnx(tiny_network(3), other)
        target.write_bytes(other.read_bytes())

    monkeypatch.setattr(writing, "write_half", write_another)
    monkeypatch.setattr(writing, "write_int8", fail)
    words = [str(run), str(tmp_path / "model"), "--format", "onnx-fp16,onnx-int8"]
    assert export(words) == 1
    said = capsys.readouterr().out
    assert "left out: onnx-fp16: it loses" in said
    assert "left out: onnx-int8: ValueError: no such operation\n" in said
    files = sorted(path.name for path in (tmp_path / "model").iterdir())
    assert files == ["README.md", "model.json", "weights.safetensors"]
    assert "Left out: onnx-fp16" in (tmp_path / "model" / "README.md").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "other.onnx"]


def test_an_export_that_is_ended_leaves_nothing(run, tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "sides_for", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit):
        export([str(run), str(tmp_path / "out" / "model"), "--no-onnx"])
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("words", ["onxx", "onnx,,gguf", ""])
def test_unknown_formats_are_named(words):
    with pytest.raises(ValueError, match="--format must be a list"):
        chosen(words)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_is_the_same_restorer(engine, model):
    """In tiles of several sizes, and for photos one after another."""
    torch_one = Restorer.load(model, device="cpu", tile=48, overlap=16, engine="torch")
    other = Restorer.load(model, tile=48, overlap=16, engine=engine)
    assert other.engine == engine
    for x in (real(), real(31, 47), torch.cat([real(20, 20), real(20, 20).flip(-1)])):
        torch.testing.assert_close(other(x), torch_one(x), atol=1e-5, rtol=0)


class Conditioned(Strided):
    """Takes a map, and enlarges."""

    condition_channels = 1

    def restore(self, x, condition):
        return super().restore(x + condition, None)


@pytest.mark.slow
def test_an_engine_runs_what_has_no_model_folder():
    """A graph is exported for it: scale, condition and padding are the network's."""
    torch.manual_seed(0)
    network = Conditioned(scale=2).eval()
    options = {"network": network, "device": "cpu", "tile": 40, "overlap": 12, "sigma": 25}
    x = real(45, 61)
    expected = Restorer(**options)(x)
    restored = Restorer(**options, engine="onnxruntime")(x)
    assert restored.shape == (1, 3, 90, 122)
    torch.testing.assert_close(restored, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_fastest_of_the_folders_table_is_taken(engine, copied):
    here = {"cpu": measuring.processor(), "threads": torch.get_num_threads()}
    pretend(copied, {"torch": 2.0, engine: 1.0}, **here)
    assert Restorer.load(copied, device="cpu").engine == engine
    assert Restorer.load(copied, device="cpu", engine="torch").engine == "torch"
    assert Restorer.load(copied, device="cpu", precision="bfloat16").engine == "torch"
    pretend(copied, {"torch": 1.0, engine: 2.0}, **here)
    assert Restorer.load(copied, device="cpu").engine == "torch"


def test_small_and_large_tiles_each_get_the_engine_that_is_faster_for_them(copied):
    here = {"cpu": measuring.processor(), "threads": torch.get_num_threads()}
    pretend(
        copied,
        {},
        {256: {"torch": 2.0, "onnxruntime": 1.0}, 512: {"torch": 1.0, "onnxruntime": 2.0}},
        **here,
    )
    restorer = Restorer.load(copied, device="cpu", tile=512)
    assert restorer.engine == "torch"  # as most tiles are large
    for height, engine in ((100, "onnxruntime"), (600, "torch"), (90, "onnxruntime")):
        restorer(real(height, 500 if height > 500 else 100))
        assert restorer.engine == engine


def test_on_another_machine_engines_are_measured_once_that_pays(copied, monkeypatch):
    pretend(copied, {"torch": 1.0, "onnxruntime": 2.0}, cpu="a CPU of elsewhere")
    measured = []

    def paces(computes, _, side):
        measured.append((side, set(computes)))
        return {name: 1.0 if name == "onnxruntime" else 2.0 for name in computes}

    monkeypatch.setattr(engine_choice.measuring, "paces", paces)
    monkeypatch.setattr(engine_choice.measuring, "sides_for", lambda *_: (32, 64))
    restorer = Restorer.load(copied, device="cpu")
    engines = {"torch", "onnxruntime", *(["openvino"] if available("openvino") else [])}
    costs = measuring.FEWEST * len(engines) * 64**2  # pixels
    for seen in range(costs // 64**2 - 1):
        restorer(torch.rand(1, 3, 64, 64))
        assert (seen, restorer.engine, measured) == (seen, "torch", [])
    for _ in range(2):  # copies, as with_sigma makes them, share what was found
        copy.copy(restorer)(torch.rand(1, 3, 64, 64))
    assert restorer.engine == "onnxruntime"
    assert measured == [(64, engines)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "abacus"}, "no engine 'abacus'"),
        ({"engine": "onnxruntime", "precision": "bfloat16"}, "float32: leave out"),
    ],
)
def test_wrong_engines_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        Restorer(network=tiny_network(), **options)


def test_precision_auto_beside_a_named_engine_is_the_engines_own(monkeypatch):
    monkeypatch.setattr(vocabulary, "has_bfloat16", lambda device: True)
    network = tiny_network()
    assert Restorer(network=network, device="cpu", precision="auto").precision == "bfloat16"
    assert Restorer(network=network, engine="onnxruntime", precision="auto").precision == "float32"


@pytest.mark.parametrize(
    ("file", "tolerance", "engine"),
    [("model.onnx", 1e-5, "auto"), ("model.fp16.onnx", 2e-3, "auto"), ("model.pt2", 1e-5, "torch")],
)
def test_a_file_of_a_model_folder_is_a_source(file, tolerance, engine, model):
    source = open_source(model / file)
    assert source.description.sigma == 25
    restored = Restorer.load(model / file, device="cpu", engine=engine)(real())
    expected = Restorer.load(model, device="cpu", engine="torch")(real())
    torch.testing.assert_close(restored, expected, atol=tolerance, rtol=0)
    assert torch.equal(restored, expected) == (file == "model.pt2")  # whose weights stand for it


def test_a_changed_graph_of_a_folder_is_found(copied):
    with (copied / "model.int8.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(ValueError, match=r"model\.int8\.onnx is damaged or was changed"):
        open_source(copied / "model.int8.onnx")


def test_a_strangers_graph_is_a_source(tmp_path):
    """Its scale and the multiple of its sides are found out."""
    torch.manual_seed(0)
    network = Strided(scale=2).eval()
    sizes = {0: "batch", 2: "height", 3: "width"}
    raw = RawStrided(network)
    torch.onnx.export(
        raw,
        (torch.rand(2, 3, 20, 28),),
        tmp_path / "any.onnx",
        dynamo=False,
        dynamic_axes={"x": sizes, "y": sizes},
        input_names=["x"],
        output_names=["y"],
    )
    restorer = Restorer.load(tmp_path / "any.onnx", device="cpu", tile=40, overlap=12)
    assert (restorer.scale, restorer.network.size_multiple) == (2, 4)
    assert restorer.description.task == "super_resolution"
    expected = Restorer(network=network, device="cpu", tile=40, overlap=12)(real(45, 61))
    torch.testing.assert_close(restorer(real(45, 61)), expected, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="is an exported graph"):
        export([str(tmp_path / "any.onnx"), str(tmp_path / "model")])


class RawStrided(torch.nn.Module):
    """Without the padding: as others export theirs."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network.restore(x, None)


def graph_of(path, *shapes):
    import onnx
    from onnx import TensorProto, helper

    made = [
        helper.make_tensor_value_info(f"x{place}", TensorProto.FLOAT, shape)
        for place, shape in enumerate(shapes)
    ]
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, shapes[0])
    graph = helper.make_graph([helper.make_node("Identity", ["x0"], ["y"])], "g", made, [result])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([(1, 3, 256, 256)], "photos of any size"),
        ([("n", "h", "w", 3)], "channels first"),
        ([("n", 3)], "expected a photo"),
        ([("n", 3, "h", "w")] * 3, "expected a photo"),
    ],
)
def test_graphs_that_do_not_take_photos_are_named(shapes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        open_source(graph_of(tmp_path / "x.onnx", *shapes))


@pytest.mark.parametrize(
    ("name", "tool"),
    [
        ("a.param", "ncnn"),
        ("a.bin", "ncnn"),
        ("a.PB", "tf2onnx"),
        ("a.t7", "another library"),
        ("a.pt2", "torch.export"),
        ("a.engine", "TensorRT"),
        ("a.onnx", "cannot open"),
    ],
)
def test_what_is_not_read_is_answered_with_what_is(name, tool, tmp_path):
    (tmp_path / name).write_bytes(b"7767517")
    with pytest.raises(ValueError, match=tool):
        open_source(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\n<!DOCTYPE html><html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"PK\x03\x04cut short", "damaged or not a torch file"),
        (b"Repository not found", "is a text file, not weights; it starts with: Repository not found"),
        (b"hello", "is a text file"),
        (b'{"format": 3}', "name the folder"),
        (b"hell\xff", "damaged or not a torch file"),
        (b"this is \x00 not a photo", "damaged or not a torch file"),
    ],
)
def test_what_was_downloaded_in_the_place_of_weights_is_named(content, words, tmp_path):
    (tmp_path / "model.pth").write_bytes(content)
    with pytest.raises(ValueError, match=words):
        open_source(tmp_path / "model.pth")


def test_a_folder_that_is_no_model_names_what_in_it_may_be_one(tmp_path):
    with pytest.raises(
        ValueError, match=r"is neither a model folder \(model\.json\) nor a run \(run\.json\)$"
    ):
        open_source(tmp_path)
    with zipfile.ZipFile(tmp_path / "pytorch_model.bin", "w") as program:
        program.writestr("model/constants.pkl", b"")
    with pytest.raises(ValueError, match=r"name .*pytorch_model\.bin"):
        open_source(tmp_path)
    with pytest.raises(ValueError, match="TorchScript"):
        open_source(tmp_path / "pytorch_model.bin")
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(ValueError, match="tf2onnx"):
        open_source(tmp_path)


def test_weights_of_before_have_no_table(copied):
    """A model folder that was exported before formats were measured."""
    described = json.loads((copied / "model.json").read_text())
    for key in ("formats", "left_out", "machine"):
        del described["parity"][key]
    (copied / "model.json").write_text(json.dumps(described))
    assert Restorer.load(copied, device="cpu").engine == "torch"
    assert replace(open_source(copied).description).sigma == 25
    assert load_file(copied / "weights.safetensors")
    write_card(copied, read_description(copied))
    card = (copied / "README.md").read_text()
    assert "from the training checkpoint" in card.partition("## Checked at export")[2]


def test_a_layer_norm_that_gives_its_mean_has_a_half(tmp_path):
    """As Restormer's without bias, which add the mean again."""
    onnx, engine = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    made, real_number = onnx.helper, onnx.TensorProto.FLOAT
    graph = made.make_graph(
        [
            made.make_node("LayerNormalization", ["x", "scale"], ["normed", "mean"], "norm"),
            made.make_node("Add", ["normed", "mean"], ["restored"], "add"),
        ],
        "graph",
        [made.make_tensor_value_info("x", real_number, ["rows", 4])],
        [made.make_tensor_value_info("restored", real_number, ["rows", 4])],
        [made.make_tensor("scale", real_number, [4], [1.0, 2.0, 3.0, 4.0])],
    )
    whole = made.make_model(graph, opset_imports=[made.make_opsetid("", 20)], ir_version=9)
    onnx.save(whole, tmp_path / "whole.onnx")
    quantised.write_half(tmp_path / "whole.onnx", tmp_path / "half.onnx")
    x = torch.rand(5, 4).numpy()
    whole, half = (
        engine.InferenceSession(tmp_path / name).run(None, {"x": x})[0]
        for name in ("whole.onnx", "half.onnx")
    )
    assert 0 < abs(whole - half).max() < 1e-2


def test_a_value_that_two_operators_read_in_float32_is_cast_once(tmp_path):
    """As in the filling of zoo:inpaint."""
    onnx, engine = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    made, real_number = onnx.helper, onnx.TensorProto.FLOAT
    graph = made.make_graph(
        [
            made.make_node("Mul", ["x", "x"], ["square"], "mul"),
            made.make_node("CumSum", ["square", "rows"], ["down"], "down"),
            made.make_node("CumSum", ["square", "columns"], ["across"], "across"),
            made.make_node("Add", ["down", "across"], ["restored"], "add"),
        ],
        "graph",
        [made.make_tensor_value_info("x", real_number, [5, 4])],
        [made.make_tensor_value_info("restored", real_number, [5, 4])],
        [
            made.make_tensor(name, onnx.TensorProto.INT64, [], [at])
            for at, name in enumerate(("rows", "columns"))
        ],
    )
    whole = made.make_model(graph, opset_imports=[made.make_opsetid("", 20)], ir_version=9)
    onnx.save(onnx.shape_inference.infer_shapes(whole), tmp_path / "whole.onnx")
    quantised.write_half(tmp_path / "whole.onnx", tmp_path / "half.onnx")
    x = torch.rand(5, 4).numpy()
    results = (
        engine.InferenceSession(tmp_path / name).run(None, {"x": x})[0]
        for name in ("whole.onnx", "half.onnx")
    )
    assert abs(next(results) - next(results)).max() < 1e-2
