"""Perceptual losses with random weights against torchvision's networks and torchmetrics' LPIPS."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from restora.losses.backbones import ARCHITECTURES, Backbone
from restora.losses.perceptual import LPIPSLoss, VGGLoss, feature_matching


def torchvision_features(name: str) -> nn.Sequential:
    from torchvision.models import alexnet, vgg

    if name == "alexnet":
        with torch.device("meta"):
            features = alexnet().features
    else:
        with torch.device("meta"):
            features = vgg.make_layers(vgg.cfgs[{"vgg16": "D", "vgg19": "E"}[name]])
    return features


def random_weights(name: str, convolutions: int) -> dict[str, Tensor]:
    """Torchvision's names for the first convolutions of a backbone, values that keep the signal's size."""
    generator = torch.Generator().manual_seed(3)
    state = {}
    for index, layer in enumerate(torchvision_features(name)):
        if isinstance(layer, nn.Conv2d) and convolutions:
            convolutions -= 1
            fan_in = layer.weight[0].numel()
            state[f"features.{index}.weight"] = (
                torch.randn(layer.weight.shape, generator=generator) * (2 / fan_in) ** 0.5
            )
            state[f"features.{index}.bias"] = 0.1 * torch.randn(layer.bias.shape, generator=generator)
    return state


@pytest.fixture(scope="module")
def vgg19_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "vgg19.pth"
    torch.save({**random_weights("vgg19", 6), "classifier.0.weight": torch.zeros(1)}, path)
    return path


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_every_layer_is_torchvisions(name: str) -> None:
    features = torchvision_features(name)
    for index, step in enumerate(ARCHITECTURES[name].steps):
        layer = features[index]
        if step.index is not None:
            assert step.index == index
            assert isinstance(layer, nn.Conv2d)
            assert (layer.stride[0], layer.padding[0]) == (step.stride, step.padding)
        elif step.name.startswith("relu"):
            assert isinstance(layer, nn.ReLU)
        else:
            assert isinstance(layer, nn.MaxPool2d)
            assert (layer.kernel_size, layer.stride) == (step.pool, 2)


def test_features_before_and_after_the_activation(vgg19_file: Path) -> None:
    backbone = Backbone(name="vgg19", layers=["conv2_1", "relu2_1", "conv3_2"], weights=vgg19_file)
    layers = torchvision_features("vgg19")[:13].to_empty(device="cpu")
    state = torch.load(vgg19_file, weights_only=True)
    layers.load_state_dict({k.removeprefix("features."): v for k, v in state.items() if "features" in k})
    x = torch.rand(2, 3, 16, 20)
    normal = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(3, 1, 1)
    got = backbone(x)
    with torch.no_grad():
        torch.testing.assert_close(got["conv2_1"], layers[:6](normal), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(got["relu2_1"], layers[:6](normal).relu(), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(got["conv3_2"], layers(normal), atol=1e-5, rtol=1e-4)
    assert (got["conv2_1"] < 0).any()


def test_the_vgg_loss_is_the_weighed_distance_of_the_features(vgg19_file: Path) -> None:
    loss = VGGLoss(layers={"conv1_2": 0.5, "conv2_2": 2.0}, weights=vgg19_file)
    restored, clean = torch.rand(2, 1, 3, 16, 16)
    x, y = loss.backbone(restored), loss.backbone(clean)
    expected = (
        0.5 * (x["conv1_2"] - y["conv1_2"]).abs().mean() + 2 * (x["conv2_2"] - y["conv2_2"]).abs().mean()
    )
    torch.testing.assert_close(loss(restored, clean), expected)
    assert loss(clean, clean) == 0
    squared = VGGLoss(layers={"conv1_2": 1.0}, criterion="mse", weights=vgg19_file)
    torch.testing.assert_close(squared(restored, clean), (x["conv1_2"] - y["conv1_2"]).square().mean())


def test_grey_photos_are_seen_as_grey_colour_photos(vgg19_file: Path) -> None:
    loss = VGGLoss(layers={"conv1_2": 1.0}, weights=vgg19_file)
    restored, clean = torch.rand(2, 1, 1, 16, 16)
    torch.testing.assert_close(
        loss(restored, clean), loss(restored.expand(1, 3, 16, 16), clean.expand(1, 3, 16, 16))
    )


def test_nothing_is_trained_or_saved_and_the_gradient_goes_to_the_restored_photo(vgg19_file: Path) -> None:
    loss = VGGLoss(layers={"conv2_2": 1.0}, weights=vgg19_file)
    assert loss.state_dict() == {}
    loss.load_state_dict({})  # a checkpoint without them fits
    assert sum(p.numel() for p in loss.parameters()) > 100_000
    assert not any(p.requires_grad for p in loss.parameters())
    restored, clean = torch.rand(2, 1, 3, 16, 16).unbind()
    restored.requires_grad_()
    clean.requires_grad_()
    value = loss(restored, clean)
    value.backward()
    assert clean.grad is None
    assert loss(restored - 1e-2 * restored.grad / restored.grad.abs().max(), clean) < value


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_lpips_is_that_of_torchmetrics(net: str, tmp_path: Path) -> None:
    from torchmetrics.functional.image import lpips

    name = {"alex": "alexnet", "vgg": "vgg16"}[net]
    state = random_weights(name, 13)
    save_file(state, tmp_path / "backbone.safetensors")
    backbone = torchvision_features(name).to_empty(device="cpu")
    backbone.load_state_dict({k.removeprefix("features."): v for k, v in state.items()})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lpips, "_get_tv_model_features", lambda *_args, **_kwargs: backbone)
        reference = lpips._LPIPS(net=net, use_dropout=True).eval()
    restored, clean = torch.rand(2, 2, 3, 64, 48).unbind()
    loss = LPIPSLoss(net=net, weights=tmp_path / "backbone.safetensors")  # type: ignore[arg-type]
    with torch.no_grad():
        expected = reference(restored, clean, normalize=True).mean()
    torch.testing.assert_close(loss(restored, clean), expected, atol=1e-6, rtol=1e-4)
    assert loss(clean, clean) == 0
    assert loss.state_dict() == {}


def test_missing_weights_are_an_error_that_says_where_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    message = r"not found at .*checkpoints/vgg19-dcbb9e9d\.pth .*download\.pytorch\.org.*feature_matching"
    with pytest.raises(ValueError, match=message):
        VGGLoss(layers={"conv5_4": 1.0})
    with pytest.raises(ValueError, match=r"nowhere\.pth \(there is no such file\)"):
        LPIPSLoss(weights=tmp_path / "nowhere.pth")


def test_the_cache_of_torchvision_is_used_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vgg19_file: Path
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "vgg19-dcbb9e9d.pth").symlink_to(vgg19_file)
    x, y = torch.rand(2, 1, 3, 8, 8)
    layers = {"conv1_2": 1.0}
    assert torch.equal(VGGLoss(layers=layers)(x, y), VGGLoss(layers=layers, weights=vgg19_file)(x, y))


def test_what_is_not_a_vgg_is_named(vgg19_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"vgg19 has the layers conv1_1, .*; got conv6_1"):
        VGGLoss(layers={"conv6_1": 1.0}, weights=vgg19_file)
    with pytest.raises(ValueError, match=r"have no 'features\.14\.weight'"):
        VGGLoss(layers={"conv5_4": 1.0}, weights=vgg19_file)
    (tmp_path / "damaged.pth").write_bytes(b"<html>not found</html>")
    with pytest.raises(ValueError, match=r"damaged\.pth is damaged, or more than a file of tensors"):
        VGGLoss(layers={"conv1_1": 1.0}, weights=tmp_path / "damaged.pth")
    with pytest.raises(ValueError, match='"l1" or "mse"'):
        VGGLoss(layers={"conv1_1": 1.0}, criterion="l2", weights=vgg19_file)  # type: ignore[arg-type]


def test_feature_matching_by_hand() -> None:
    fake = [torch.ones(2, 3, 4, 4, requires_grad=True), torch.zeros(2, 1, requires_grad=True)]
    real = [torch.full((2, 3, 4, 4), 0.5), torch.tensor([[2.0], [-4.0]], requires_grad=True)]
    loss = feature_matching(fake, real)
    assert loss.item() == pytest.approx((0.5 + 3) / 2)
    loss.backward()
    assert real[1].grad is None
    assert (fake[0].grad > 0).all()  # type: ignore[operator]
    assert fake[1].grad.flatten().sign().tolist() == [-1, 1]  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="2 of restored and 1 of clean"):
        feature_matching(fake, real[:1])


@pytest.mark.parametrize(("name", "layer", "least"), [("vgg19", "conv2_2", 2), ("alexnet", "conv2", 15)])
def test_the_smallest_photo_is_known(name: str, layer: str, least: int, tmp_path: Path) -> None:
    save_file(random_weights(name, 4), tmp_path / "weights.safetensors")
    backbone = Backbone(name=name, layers=[layer], weights=tmp_path / "weights.safetensors")
    assert backbone.minimum_size == least
    assert min(backbone(torch.rand(1, 3, least, least))[layer].shape[-2:]) == 1
    with pytest.raises(RuntimeError):
        backbone(torch.rand(1, 3, least - 1, least - 1))


def test_autocast_changes_neither_the_loss_nor_its_gradient(vgg19_file: Path) -> None:
    """Similar photos have features that differ by less than bfloat16 resolves."""
    loss = VGGLoss(layers={"conv2_2": 1.0}, weights=vgg19_file)
    clean = torch.rand(1, 3, 16, 16)
    found = []
    for mixed in (False, True):
        restored = (clean + 0.01).requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
            value = loss(restored, clean)
        value.backward()
        found.append((value.item(), restored.grad))
    assert found[0][0] == found[1][0]
    assert torch.equal(found[0][1], found[1][1])
