"""DnCNN and FDnCNN: the authors' weights give their figure, and folding batch norm changes nothing."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from restora.networks.dncnn import DnCNN, FDnCNN
from restora.networks.ffdnet import FFDNet
from restora.networks.vdsr import VDSR


def randomised(network: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """The network in evaluation mode with batch norms that do something."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                tensor.data = torch.rand(tensor.shape, generator=generator) + 0.5
            for tensor in (module.bias, module.running_mean):
                tensor.data = torch.randn(tensor.shape, generator=generator) * 0.1
    return network.eval()


@pytest.mark.parametrize("bias", [True, False])
def test_folding_batch_norm_keeps_the_output(bias: bool) -> None:
    network = randomised(DnCNN(in_channels=3, depth=5, channels=8, bias=bias))
    folded = network.fold_batch_norm()
    x = torch.rand(2, 3, 19, 23)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    with torch.no_grad():
        torch.testing.assert_close(folded(x), network(x), atol=1e-5, rtol=0)


def test_a_bias_that_batch_norm_cancels_is_not_trained() -> None:
    network = DnCNN(depth=4, channels=8, batch_norm=True, bias=True)
    still = [name for name, parameter in network.named_parameters() if not parameter.requires_grad]
    assert still == ["model.2.bias", "model.5.bias"]
    plain = DnCNN(depth=4, channels=8, batch_norm=False, bias=True)
    assert all(parameter.requires_grad for parameter in plain.parameters())


def test_folding_a_network_without_batch_norm_copies_it() -> None:
    network = DnCNN(depth=4, channels=8, batch_norm=False)
    folded = network.fold_batch_norm()
    x = torch.rand(1, 1, 9, 9)
    assert torch.equal(folded(x), network(x))
    assert folded.model[0].weight.data_ptr() != network.model[0].weight.data_ptr()


@pytest.mark.parametrize("size", [(17, 23), (40, 33)])
@pytest.mark.parametrize("batch_norm", [True, False])
def test_equals_spandrel(batch_norm: bool, size: tuple[int, int]) -> None:
    spandrel = pytest.importorskip("spandrel.architectures.DnCNN")
    network = randomised(DnCNN(in_channels=3, depth=17, channels=16, batch_norm=batch_norm))
    theirs = spandrel.DnCNNArch().load(network.state_dict()).model.eval()
    x = torch.rand(2, 3, *size)
    with torch.no_grad():
        torch.testing.assert_close(network(x), theirs(x), atol=1e-4, rtol=0)


def test_fdncnn_equals_spandrel() -> None:
    spandrel = pytest.importorskip("spandrel.architectures.DnCNN")
    network = FDnCNN(in_channels=3, depth=20, channels=8).eval()
    theirs = spandrel.DnCNNArch().load(network.state_dict()).model.eval()
    x, noise_map = torch.rand(1, 3, 21, 18), torch.full((1, 1, 21, 18), 15 / 255)
    with torch.no_grad():
        torch.testing.assert_close(
            network(x, noise_map), theirs(torch.cat((x, noise_map), 1)), atol=1e-4, rtol=0
        )


@pytest.mark.parametrize(
    ("cls", "arguments"),
    [
        (DnCNN, {"in_channels": 3, "depth": 20, "channels": 8, "batch_norm": False, "bias": True}),
        (DnCNN, {"in_channels": 1, "depth": 6, "channels": 12, "batch_norm": True, "bias": False}),
        (FDnCNN, {"in_channels": 3, "depth": 5, "channels": 8}),
    ],
)
def test_arguments_are_read_off_a_state_dict(cls: type[DnCNN], arguments: dict[str, int]) -> None:
    state = cls(**arguments).state_dict()
    assert cls.infer_arguments(state) == arguments
    other = FDnCNN if cls is DnCNN else DnCNN
    assert other.infer_arguments(state) is None


@pytest.mark.slow
def test_published_weights_give_the_published_noise_reduction(development_data: Path) -> None:
    """Sigma 25 on BSD68: the paper's 29.23 dB is the mean of 68 photos; the first two have 28.12 dB."""
    state = torch.load(development_data / "weights" / "dncnn_gray_sigma25.pth", weights_only=True)
    network = DnCNN(**DnCNN.infer_arguments(state))
    network.load_state_dict(state)
    network.eval().to(memory_format=torch.channels_last)
    scores = []
    for path in sorted((development_data / "testsets" / "BSD68").iterdir())[:2]:
        clean = np.asarray(Image.open(path).convert("L")) / 255
        # the denoising papers' code seeds numpy's old generator before each photo
        noisy = clean + np.random.RandomState(0).normal(0, 25 / 255, clean.shape)
        with torch.no_grad():
            restored = network(torch.from_numpy(noisy).float()[None, None]).squeeze().numpy()
        restored = (restored.clip(0, 1) * 255).round() / 255
        scores.append(-10 * np.log10(np.mean((restored - clean) ** 2)))
    assert np.mean(scores) == pytest.approx(28.12, abs=0.01)


@pytest.mark.parametrize(("cls", "depth"), [(DnCNN, 2), (FDnCNN, 2), (FFDNet, 2), (VDSR, 1)])
def test_a_depth_without_both_ends_is_refused(cls: type[torch.nn.Module], depth: int) -> None:
    with pytest.raises(ValueError, match=rf"network\.depth must be . or more .*got {depth}"):
        cls(depth=depth)
