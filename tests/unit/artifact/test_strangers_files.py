"""What a stranger's model folder, checkpoint or run record may not do: run code, leave its folder, take the
machine's memory, or pass for whole when it is damaged."""

import json
import pickle
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from run_folders import ARGUMENTS, tiny_network, write_checkpoint, write_run

from restora.artifact.checkpoint import checkpoint_network, locate, read_checkpoint
from restora.artifact.export import export_model
from restora.artifact.model_folder import load_model_folder
from restora.artifact.restorer import Restorer


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    export_model(locate(write_run(folder / "job")), folder / "model", wanted=())
    return folder / "model"


def copied(model: Path, target: Path) -> Path:
    target.mkdir()
    for path in model.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


@pytest.mark.parametrize("where", [0.3, 0.6, 0.999], ids=["early", "middle", "last byte"])
def test_a_flipped_bit_in_the_weights_is_recognised(model: Path, tmp_path: Path, where: float) -> None:
    folder = copied(model, tmp_path / "model")
    path = folder / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[int(len(content) * where)] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"weights\.safetensors is damaged"):
        load_model_folder(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"network": []},
        {"network": {"name": "dncnn", "arguments": ARGUMENTS | {"depth": 1_000_000_000}}},
        {"network": {"name": "dncnn", "arguments": ARGUMENTS | {"depth": 900_000}}},
        {"network": {"name": "dncnn", "arguments": ARGUMENTS | {"channels": 400_000}}},
        {"network": {"name": "dncnn", "arguments": ARGUMENTS | {"channels": "many"}}},
        {"network": {"name": "dncnn", "arguments": ARGUMENTS | {"channels": -3}}},
        {"network": {"name": "dncnn", "arguments": ARGUMENTS | {"channels": float("nan")}}},
        {"network": {"name": "nafnet", "arguments": {"encoder_blocks": [1] * 100_000}}},
        {"network": {"name": "restora.cli.main", "arguments": {"argv": ["train"]}}},
        {"network": {"name": "os.system", "arguments": {"command": "touch owned"}}},
        {"scale": "two"},
        {"name": ["a"]},
        {"evaluation": 3},
    ],
    ids=lambda value: str(value)[:60],
)
@pytest.mark.slow
def test_an_absurd_description_is_one_message_within_seconds(
    model: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    folder = copied(model, tmp_path / "model")
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    started = time.monotonic()
    with pytest.raises(ValueError, match=r".") as caught:
        load_model_folder(folder)
    assert time.monotonic() - started < 20
    assert str(folder) in str(caught.value) or "refused" in str(caught.value)


@pytest.mark.parametrize("recorded", ["../../secret.ckpt", "/etc/passwd", "checkpoints/../../x", "a\0b"])
def test_a_record_cannot_name_files_outside_its_folder(tmp_path: Path, recorded: str) -> None:
    write_checkpoint(tmp_path / "secret.ckpt", tiny_network())
    run = write_run(tmp_path / "sweep" / "job", checkpoints={"best": recorded, "last": None})
    with pytest.raises(ValueError, match="outside the folder"):
        locate(run)


class Runs:
    """An object whose unpickling runs code."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return exec, (f"open({str(self.marker)!r}, 'w')",)


def test_a_pickled_object_in_a_checkpoint_is_refused_not_run(tmp_path: Path) -> None:
    path, marker = tmp_path / "a.ckpt", tmp_path / "ran"
    write_checkpoint(path, tiny_network())
    content = torch.load(path, weights_only=False)
    torch.save(content | {"extra": Runs(marker)}, path)
    with pytest.raises(ValueError, match="never loaded from a file"):
        read_checkpoint(path)
    assert not marker.exists()
    path.write_bytes(pickle.dumps(Runs(marker)))
    with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
        read_checkpoint(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    "network",
    [
        {"name": "restora.cli.main", "arguments": {"argv": ["--version"]}},
        {"class": "restora.networks.dncnn.DnCNN.__init__", "arguments": {}},
        {"class": "subprocess.run", "arguments": {"args": "id"}},
        {"name": "dncnn", "arguments": {"_target_": "os.getcwd"}},
        None,
        [],
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_checkpoint_can_only_name_registered_networks(tmp_path: Path, network: Any) -> None:
    path = write_checkpoint(tmp_path / "a.ckpt", tiny_network(), network=network)
    with pytest.raises(ValueError, match=r"."):
        checkpoint_network(read_checkpoint(path), str(path))


def test_weights_that_do_not_fit_take_no_memory_before_that_is_known(tmp_path: Path) -> None:
    arguments = ARGUMENTS | {"channels": 20_000, "depth": 11}  # 130 GB
    path = write_checkpoint(
        tmp_path / "a.ckpt", tiny_network(), network={"name": "dncnn", "arguments": arguments}
    )
    with pytest.raises(ValueError, match="refused|do not fit"):
        checkpoint_network(read_checkpoint(path), str(path))


def test_what_killed_exports_left_is_cleared(tmp_path: Path) -> None:
    import platform

    run = write_run(tmp_path / "job")
    dead = tmp_path / f".model.{platform.node()}-999999999-abc"
    dead.mkdir()
    (dead / "weights.safetensors").write_bytes(b"half")
    alive = tmp_path / f".model.{platform.node()}-1-abc"
    alive.mkdir()
    export_model(locate(run), tmp_path / "model", wanted=())
    assert not dead.exists()
    assert alive.exists()


@pytest.mark.parametrize(
    ("entry", "value", "said"),
    [
        (("evaluation", "local_converter"), 3, r"evaluation\.local_converter must be"),
        (("evaluation", "local_converter"), [64], r"evaluation\.local_converter must be"),
        (("parity", "machine"), -1, r"parity\.machine must be"),
        (("parity", "machine", "side"), "x", r"parity\.machine\.side must be"),
        (("parity", "formats"), [[1]], r"parity\.formats must be"),
        (("parity", "formats", "safetensors"), None, r"parity\.formats must be"),
        (("parity", "formats", "safetensors"), {}, r"parity\.formats\.safetensors\.files must be"),
        (("parity", "formats", "safetensors", "seconds_per_megapixel_by_side"), 3, r"by_side must be"),
    ],
)
def test_a_damaged_entry_of_a_description_is_named(
    model: Path, tmp_path: Path, entry: tuple[str, ...], value: Any, said: str
) -> None:
    folder = copied(model, tmp_path / "model")
    description = json.loads((folder / "model.json").read_text())
    node = description
    for key in entry[:-1]:
        node = node[key]
    node[entry[-1]] = value
    (folder / "model.json").write_text(json.dumps(description))
    with pytest.raises(ValueError, match=rf"model\.json: .*{said}"):
        Restorer.load(folder, device="cpu")
