"""Networks from files, objects from configuration: corrected by the weights, refused where they are
strangers'."""

from pathlib import Path

import pytest
import torch
from run_folders import write_checkpoint, write_run

from restora.artifact.sources import from_checkpoint, from_weights
from restora.degradations.noise.gaussian_noise import GaussianNoise
from restora.evaluation.loading import trained_range
from restora.networks.dncnn import DnCNN
from restora.networks.edsr import EDSR
from restora.networks.nafnet import NAFNet
from restora.networks.vdsr import VDSR
from restora.registry import build

DNCNN = {"_target_": "dncnn", "in_channels": 1, "depth": 17, "channels": 64}


@pytest.fixture
def colour_weights(tmp_path: Path) -> str:
    torch.manual_seed(0)
    path = tmp_path / "colour.pth"
    torch.save(DnCNN(in_channels=3, depth=5, channels=8, batch_norm=False).state_dict(), path)
    return str(path)


def test_weights_correct_the_configuration(colour_weights: str) -> None:
    loaded = from_weights(DNCNN, colour_weights, name="dncnn")
    assert loaded.network.in_channels == 3
    assert loaded.changed["depth"] == 5
    assert not loaded.network.training


def test_what_the_user_chose_is_not_corrected(colour_weights: str) -> None:
    with pytest.raises(ValueError, match="network.in_channels=3"):
        from_weights(DNCNN, colour_weights, name="dncnn", chosen={"in_channels"})


def test_the_benchmarks_scale_is_taken_where_weights_do_not_tell(tmp_path: Path) -> None:
    torch.save(VDSR(scale=2, depth=3, channels=4).state_dict(), tmp_path / "vdsr.pth")
    node = {"_target_": "vdsr", "scale": 2, "depth": 3, "channels": 4}
    path = str(tmp_path / "vdsr.pth")
    assert from_weights(node, path, name="vdsr", scale=4).network.scale == 4
    assert from_weights(node, path, name="vdsr", scale=4, chosen={"scale"}).network.scale == 2


def test_weights_of_another_scale_keep_theirs(tmp_path: Path) -> None:
    torch.save(EDSR(scale=2, channels=8, blocks=1).state_dict(), tmp_path / "edsr.pth")
    node = {"_target_": "edsr", "scale": 4, "channels": 8, "blocks": 1}
    assert from_weights(node, str(tmp_path / "edsr.pth"), name="edsr", scale=4).network.scale == 2


def test_a_run_brings_its_name_its_converter_and_its_training(tmp_path: Path) -> None:
    loaded = from_checkpoint(str(write_run(tmp_path / "run")))
    assert loaded.name == "dncnn"
    assert loaded.local_converter is None
    assert trained_range(loaded.degradation, "sigma") == (25.0, 25.0)
    arguments = {"width": 4, "encoder_blocks": [1], "middle_blocks": 1, "decoder_blocks": [1]}
    network = NAFNet(**arguments)
    checkpoint = write_checkpoint(
        tmp_path / "nafnet.ckpt",
        network,
        network={"name": "nafnet", "arguments": arguments},
        evaluation={"local_converter": [64, 64]},
        name="nafnet",
    )
    assert from_checkpoint(str(checkpoint)).local_converter == (64, 64)


@pytest.mark.parametrize(
    ("degradation", "severity", "expected"),
    [
        (
            {"_target_": "gaussian_noise", "sigma": [0, 55]},
            "sigma",
            (0, 55),
        ),
        ({"_target_": "jpeg", "quality": 40}, "quality", (40, 40)),
        ({"_target_": "jpeg", "quality": 40}, "sigma", None),
        (None, "sigma", None),
        ({"_target_": "gaussian_noise", "sigma": 5}, "scale", None),
        (
            {
                "_target_": "chain",
                "stages": {
                    "blur": {
                        "_target_": "gaussian_blur",
                        "sigma": [1, 2],
                    },
                    "noise": {
                        "_target_": "gaussian_noise",
                        "sigma": 7,
                    },
                },
            },
            "sigma",
            (7, 7),
        ),
    ],
)
def test_the_trained_range_is_read_off_the_degradation(degradation, severity, expected) -> None:
    assert trained_range(degradation, severity) == expected


def test_nodes_are_built_inside_out() -> None:
    chain = build(
        {
            "_target_": "chain",
            "stages": {
                "noise": {
                    "_target_": "gaussian_noise",
                    "sigma": [0, 5],
                }
            },
        },
        "degradation",
    )
    assert isinstance(chain.stages["noise"], GaussianNoise)
    assert tuple(chain.stages["noise"].sigma) == (0, 5)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (
            {"_target_": "os.system", "command": "true"},
            r"degradation: the degradation 'os.system' is refused",
        ),
        (
            {"_target_": "restora.degradations.nothing.Nothing"},
            "restora.degradations.nothing.Nothing' is refused",
        ),
        ({"_target_": "gaussian_noise", "sgima": 1}, "sgima"),
        ({"stages": [{"_target_": "subprocess.run"}]}, r"'subprocess.run' is refused"),
    ],
)
def test_strangers_nodes_run_nothing(node: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(node, "degradation")


NOISE = {"_target_": "gaussian_noise", "sigma": [5, 20]}
STRONG = {"_target_": "gaussian_noise", "sigma": 50}
JPEG = {"_target_": "jpeg", "quality": [30, 70]}


@pytest.mark.parametrize(
    ("node", "severity", "expected"),
    [
        ({"_target_": "one_of", "stages": {"a": NOISE, "b": JPEG}}, "sigma", (5, 20)),
        ({"_target_": "one_of", "stages": {"a": NOISE, "b": STRONG}}, "sigma", (5, 50)),
        ({"_target_": "one_of", "stages": {"a": NOISE, "b": {"_target_": "identity"}}}, "sigma", (5, 20)),
        ({"_target_": "maybe", "stage": JPEG, "probability": 0.5}, "quality", (30, 70)),
        ({"_target_": "shuffled", "stages": {"a": NOISE, "b": JPEG}}, "quality", (30, 70)),
        (
            {
                "_target_": "chain",
                "stages": {
                    "inner": {"_target_": "maybe", "stage": {"_target_": "one_of", "stages": {"a": JPEG}},
                              "probability": 0.1},
                    "noise": NOISE,
                },
            },
            "quality",
            (30, 70),
        ),
        ({"_target_": "chain", "stages": {"a": NOISE, "b": STRONG}}, "sigma", None),
        ({"_target_": "downsample", "scale": 3}, "scale", (3, 3)),
        ({"_target_": "mylab.fog", "sigma": 3}, "sigma", None),
    ],
)  # fmt: skip
def test_severities_are_seen_through_compositions(node: dict, severity: str, expected: object) -> None:
    assert trained_range(node, severity) == expected


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (STRONG, ("sigma", 50, 50)),
        ({"_target_": "chain", "stages": {"noise": STRONG}}, ("sigma", 50, 50)),
        ({"_target_": "one_of", "stages": {"a": STRONG, "b": NOISE}}, ("sigma", 5, 50)),
        ({"_target_": "chain", "stages": {"noise": STRONG, "jpeg": JPEG}}, None),
        ({"_target_": "one_of", "stages": {"a": STRONG, "b": {"_target_": "identity"}}}, None),
        ({"_target_": "maybe", "stage": STRONG, "probability": 0.5}, None),
    ],
)
def test_one_number_is_said_only_where_it_says_all(node: dict, expected: object) -> None:
    assert build(node, "degradation").severity == expected
