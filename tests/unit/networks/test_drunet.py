"""DRUNet against spandrel's with the same random weights, and its scaling law."""

import pytest
import torch
import torch.nn.functional as F

from restora.artifact.onnx_model import AnySize
from restora.networks.cost import count_parameters
from restora.networks.drunet import DRUNet
from restora.networks.filling_drunet import FillingDRUNet

SMALL = {"channels": [8, 12, 16, 20], "blocks": 2}


@pytest.mark.parametrize(("channels", "map_channels"), [(3, 1), (1, 1), (3, 0)])
@pytest.mark.parametrize("size", [(32, 40), (17, 30)])
def test_the_numbers_are_those_of_kair(channels: int, map_channels: int, size: tuple[int, int]) -> None:
    from spandrel.architectures.DRUNet import DRUNet as Reference

    torch.manual_seed(1)
    reference = Reference(in_nc=channels + map_channels, out_nc=channels, nc=SMALL["channels"], nb=2).eval()
    network = DRUNet(in_channels=channels, condition_channels=map_channels, **SMALL).eval()  # type: ignore[arg-type]
    network.load_state_dict(reference.state_dict(), strict=True)
    x, condition = torch.rand(2, channels, *size), torch.rand(2, map_channels, *size)
    both = torch.cat((x, condition), 1)
    below, right = -size[0] % 8, -size[1] % 8
    with torch.no_grad():
        # its photos come padded to a multiple of 8, by their border as in KAIR's test_pad
        expected = reference(torch.nn.functional.pad(both, (0, right, 0, below), mode="replicate"))
        got = network(x, condition if map_channels else None)
    torch.testing.assert_close(got, expected[..., : size[0], : size[1]], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("channels", "parameters"), [(3, 32_640_960), (1, 32_638_656)])
def test_the_size_is_the_published_one(channels: int, parameters: int) -> None:
    with torch.device("meta"):
        assert count_parameters(DRUNet(in_channels=channels)) == parameters


def test_without_biases_it_scales_with_its_input() -> None:
    torch.manual_seed(1)
    network = DRUNet(**SMALL)  # type: ignore[arg-type]
    x, sigma = torch.rand(1, 3, 16, 24), torch.full((1, 1, 16, 24), 0.1)
    torch.testing.assert_close(network(3 * x, 3 * sigma), 3 * network(x, sigma), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "arguments", [{}, {"in_channels": 1}, {"condition_channels": 0, "residual": True, **SMALL}]
)
def test_a_checkpoint_tells_what_it_was_made_with(arguments: dict[str, object]) -> None:
    with torch.device("meta"):
        network = DRUNet(**arguments)  # type: ignore[arg-type]
    expected = {"in_channels": 3, "condition_channels": 1, "channels": [64, 128, 256, 512], "blocks": 4}
    assert DRUNet.infer_arguments(network.state_dict()) == expected | arguments
    assert DRUNet.infer_arguments({}) is None


def test_a_residual_network_adds_its_input() -> None:
    plain, residual = (DRUNet(**SMALL, residual=wanted) for wanted in (False, True))  # type: ignore[arg-type]
    residual.load_state_dict(plain.state_dict() | {"residual_output": torch.ones(())})
    x, sigma = torch.rand(1, 3, 17, 30), torch.full((1, 1, 17, 30), 0.1)
    torch.testing.assert_close(residual(x, sigma), x + plain(x, sigma))
    with pytest.raises(RuntimeError, match="residual_output"):
        plain.load_state_dict(residual.state_dict())


def test_four_scales_are_asked_for() -> None:
    with pytest.raises(ValueError, match="four network.channels"):
        DRUNet(channels=[8, 16, 24])


@pytest.mark.parametrize("padding", ["replicate", "reflect"])
def test_photos_and_their_conditions_are_filled_up_alike(padding: str) -> None:
    network = DRUNet(channels=(8, 8, 8, 8), blocks=1, padding=padding)
    x, mask = torch.rand(1, 3, 13, 21), (torch.rand(1, 1, 13, 21) > 0.5).float()
    with torch.no_grad():
        answer = network(x, mask)
        filled = [F.pad(each, (0, 3, 0, 3), mode=padding) for each in (x, mask)]
        assert torch.equal(answer, network.restore(*filled)[..., :13, :21])
        exported = AnySize(network)(x, mask)
    torch.testing.assert_close(exported, answer)
    with pytest.raises(ValueError, match=r"network\.padding"):
        DRUNet(padding="constant")


@pytest.mark.parametrize("sweeps", [0, 4])
def test_its_weights_differ_from_those_of_drunet(sweeps: int) -> None:
    network = FillingDRUNet(channels=(8, 12, 16, 24), sweeps=sweeps)
    assert DRUNet.infer_arguments(network.state_dict()) is None
    assert FillingDRUNet.infer_arguments(DRUNet(channels=(8, 12, 16, 24)).state_dict()) is None
    found = FillingDRUNet.infer_arguments(network.state_dict())
    assert found == {"in_channels": 3, "channels": [8, 12, 16, 24], "blocks": 1} | (
        {"sweeps": sweeps} if sweeps else {}
    )
