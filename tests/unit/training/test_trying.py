"""Parts of one's own that break their contract are refused before training."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from restora import registry
from restora.config import ConfigError, compose
from restora.degradations.base import Degradation
from restora.keyed import KeyedGenerator
from restora.networks.base import Network
from restora.networks.cost import count_macs
from restora.registry import register
from restora.training.build import check_before_training
from restora.training.trying import try_degradation, try_schedule


class Plain(Network):
    tasks = ("denoise",)

    def __init__(self, *, in_channels: int = 3) -> None:
        super().__init__()
        self.in_channels = self.out_channels = in_channels
        self.layer = nn.Conv2d(in_channels, in_channels, 3, padding=1)

    def restore(self, x: Tensor, condition: Tensor | None) -> Any:
        return self.layer(x)


class Valid(Plain):
    def restore(self, x: Tensor, condition: Tensor | None) -> Any:
        return super().restore(x, condition)[..., 1:-1, 1:-1]


class Grey(Plain):
    def restore(self, x: Tensor, condition: Tensor | None) -> Any:
        return super().restore(x, condition)[:, :1]


class Pair(Plain):
    def restore(self, x: Tensor, condition: Tensor | None) -> Any:
        return super().restore(x, condition), x


class Blocks(Plain):
    """Needs multiples of 8: its output has them, or it fails."""

    added = False

    def restore(self, x: Tensor, condition: Tensor | None) -> Any:
        y = nn.functional.avg_pool2d(self.layer(x), 8).repeat_interleave(8, -1).repeat_interleave(8, -2)
        return x + y if self.added else y


class AddedBlocks(Blocks):
    added = True


class PaddedBlocks(AddedBlocks):
    size_multiple = 8


class HostOnly(Plain):
    """Cannot run on the meta device."""

    def restore(self, x: Tensor, condition: Tensor | None) -> Any:
        return super().restore(x * max(1.0, float(x.max())), condition)


class NumpyOnly(Plain):
    """Cannot run on the meta device either, and fails there in another way."""

    def restore(self, x: Tensor, condition: Tensor | None) -> Any:
        return super().restore(x + torch.from_numpy(x.numpy() * 0), condition)


class InPlace(Plain):
    def restore(self, x: Tensor, condition: Tensor | None) -> Any:
        return super().restore(x.sub_(0.5), condition)


class PaddedInPlace(InPlace):
    size_multiple = 4


class Listed(Plain):
    def __init__(self, *, in_channels: int = 3) -> None:
        super().__init__(in_channels=in_channels)
        self.body = [nn.Conv2d(3, 3, 3, padding=1) for _ in range(2)]


class ByName(Plain):
    def __init__(self, *, in_channels: int = 3) -> None:
        super().__init__(in_channels=in_channels)
        self.layer = nn.Sequential(self.layer)
        self.layer.heads = {"a": nn.Conv2d(3, 3, 1)}


class Lazy(Plain):
    def __init__(self, *, in_channels: int = 3) -> None:
        super().__init__(in_channels=in_channels)
        self.layer = nn.LazyConv2d(3, 3, padding=1)


class Fixed(Plain):
    def __init__(self, *, in_channels: int = 3) -> None:
        super().__init__(in_channels=in_channels)
        self.requires_grad_(False)


class Linked(Plain):
    """Keeps what is registered in a list too."""

    def __init__(self, *, in_channels: int = 3) -> None:
        super().__init__(in_channels=in_channels)
        self.order = [self.layer]


class NoChannels(Network):
    def __init__(self, *, in_channels: int = 3) -> None:
        super().__init__()
        self.layer = nn.Conv2d(in_channels, in_channels, 3)

    def restore(self, x: Tensor, condition: Tensor | None) -> Any:
        return x


class NoSuper(NoChannels):
    def __init__(self, *, in_channels: int = 3) -> None:
        self.layer = nn.Conv2d(in_channels, in_channels, 3)


class NoNetwork(nn.Module):
    def __init__(self, *, in_channels: int = 3) -> None:
        super().__init__()
        self.layer = nn.Conv2d(in_channels, in_channels, 3)


class Mine(Degradation):
    def __init__(self, *, how: str = "right") -> None:
        self.how = how

    def sample(self, shape: Any, generator: Any) -> Mapping[str, Any]:
        return {}

    def apply(self, clean: Tensor, params: Mapping[str, Any]) -> Any:
        return {
            "right": lambda: clean * 0.5,
            "none": lambda: None,
            "double": lambda: clean.double(),
            "half": lambda: clean[..., ::2, ::2],
            "bytes": lambda: (clean * 255).round(),
            "nan": lambda: clean * float("nan"),
            "in place": lambda: clean.mul_(0.5),
            "random": lambda: clean + 0.1 * torch.rand_like(clean),
        }[self.how]()


NETWORKS = (
    Plain,
    Valid,
    Grey,
    Pair,
    Blocks,
    AddedBlocks,
    PaddedBlocks,
    HostOnly,
    NumpyOnly,
    InPlace,
    PaddedInPlace,
    Listed,
    ByName,
    Lazy,
    Fixed,
    Linked,
    NoChannels,
    NoSuper,
    NoNetwork,
)


@pytest.fixture(scope="module")
def composed() -> Iterator[DictConfig]:
    for kind in registry.PACKAGES:
        registry.names(kind)  # imports this package's own
    parts, known = {kind: dict(found) for kind, found in registry._parts.items()}, dict(registry._named)
    for cls in NETWORKS:
        register("network", f"trying_{cls.__name__}")(cls)
    register("degradation", "trying_mine")(Mine)
    yield compose("train", ["debug=fast", "leakage.check=false", "network=dncnn_small", "data.patch_size=32"])
    for kind, found in parts.items():
        registry._parts[kind].clear()
        registry._parts[kind].update(found)
    registry._named.clear()
    registry._named.update(known)


@pytest.fixture
def check(composed: DictConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Checks a configuration with other parts."""
    monkeypatch.setenv("RESTORA_DATA", str(tmp_path))

    def run(**parts: Any) -> None:
        config = composed.copy()
        OmegaConf.set_struct(config, False)
        for name, node in parts.items():
            config[name] = node
        check_before_training(config)

    return run


def network(name: str) -> dict[str, Any]:
    return {"_target_": f"trying_{name}", "in_channels": 3}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Valid", r"Valid returned the shape \(2, 3, 31, 33\) for an input of \(2, 3, 33, 35\), expected"),
        ("Grey", "Grey returned .*out_channels is the number of channels that restore"),
        ("Pair", "Pair returned a tuple for"),
        ("Blocks", "Blocks returned .*multiples of 8: set size_multiple = 8"),
        ("AddedBlocks", "AddedBlocks cannot compute .*multiples of 8: set size_multiple = 8"),
        ("InPlace", "InPlace changes the photos that it gets"),
        ("PaddedInPlace", "PaddedInPlace changes the photos that it gets"),
        ("Listed", "Listed keeps layers in the list body, .* nor stored: use nn.ModuleList"),
        ("ByName", r"ByName keeps layers in the dict layer\.heads, .*use nn.ModuleDict"),
        ("Lazy", "Lazy has layers without a size"),
        ("Fixed", "Fixed has no parameters to train"),
        ("NoChannels", "NoChannels has no in_channels"),
        ("NoSuper", "cannot be made of in_channels=3: cannot assign module before Module.__init__"),
        ("NoNetwork", "NoNetwork is not a network: make it a subclass"),
    ],
)
def test_a_network_that_breaks_its_contract_is_refused_with_the_fix(
    name: str, message: str, check: Callable[..., None]
) -> None:
    with pytest.raises(ConfigError, match=message):
        check(network=network(name))


@pytest.mark.parametrize("name", ["dncnn", "fdncnn", "espcn"])
def test_a_network_without_channels_is_refused(name: str, check: Callable[..., None]) -> None:
    with pytest.raises(ConfigError, match=r"network: \w+'s \S+weight has no elements \(0x.*1 or more"):
        check(network={"_target_": name, "in_channels": 3, "channels": 0})


@pytest.mark.parametrize("name", ["Plain", "PaddedBlocks", "HostOnly", "NumpyOnly", "Linked"])
def test_a_network_that_keeps_it_is_not(name: str, check: Callable[..., None]) -> None:
    check(network=network(name))


@pytest.mark.parametrize("cls", [HostOnly, NumpyOnly])
def test_a_network_that_reads_values_has_no_count_and_no_error(cls: type[Network]) -> None:
    assert count_macs(cls(), height=8, width=8) is None


def test_a_network_built_for_one_size_says_so_at_another() -> None:
    Blocks()(torch.rand(1, 3, 16, 24))
    with pytest.raises(ValueError, match=r"for an input of \(1, 3, 20, 24\).*size_multiple = N"):
        Blocks()(torch.rand(1, 3, 20, 24))


FAULTS = {
    "none": r"Mine returned None .*expected torch.float32 of shape \(2, 3, 32, 32\)",
    "double": "Mine returned torch.float64",
    "half": r"Mine returned torch.float32 of shape \(2, 3, 16, 16\).*set scale",
    "bytes": "Mine returned values up to 255.*divide by 255",
    "nan": "not finite",
    "in place": "Mine changes the clean photos",
    "random": r"Mine gives other photos for the same keys.*generator\.next_keys",
}


@pytest.mark.parametrize("how", FAULTS)
def test_a_degradation_that_breaks_its_contract_is_refused(how: str, check: Callable[..., None]) -> None:
    node = {"_target_": "trying_mine", "how": how}
    with pytest.raises(ConfigError, match=FAULTS[how]):
        check(degradation=node)
    with pytest.raises(ConfigError, match=FAULTS[how].replace("Mine", "(Mine|Chain)")):
        check(degradation={"_target_": "chain", "stages": {"first": node}})


def test_a_degradation_that_keeps_it_is_not(check: Callable[..., None]) -> None:
    check(degradation={"_target_": "trying_mine"})


@pytest.mark.parametrize(
    "name", ["fading", "greyscale", "keep_grey", "old_photo", "sepia", "damaged", "real_esrgan_x4"]
)
def test_grey_photos_are_refused_before_training_by_what_needs_colours(name: str) -> None:
    config = compose("train", [f"degradation={name}", "data.channels=gray"])
    degradation = registry.build(OmegaConf.to_container(config.degradation), "degradation", foreign=True)
    clean = torch.rand(2, 1, 8 * degradation.scale, 8 * degradation.scale)
    data = registry.build(
        OmegaConf.to_container(config.data, resolve=True), "data", foreign=True, degradation=degradation
    )
    try:
        degradation(clean, KeyedGenerator(torch.tensor([1, 2])))
    except ValueError:
        with pytest.raises(ConfigError, match="needs photos in colour"):
            try_degradation(data)
    else:
        try_degradation(data)


def test_colour_photos_of_one_grey_channel_are_refused_with_the_setting(check: Callable[..., None]) -> None:
    grey = {"_target_": "greyscale", "channels": 1}
    for node in (grey, {"_target_": "chain", "stages": {"first": grey}}):
        with pytest.raises(ConfigError, match=r"gives 1 channel.*set degradation\.channels=3"):
            check(degradation=node)
    check(
        degradation={"_target_": "maybe", "stage": grey, "probability": 0.5}
    )  # in all channels of the photo


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (lambda share: "soon", "fails when it is called with the share of the training done, 0 .ValueError"),
        (lambda: 1.0, r"fails when it is called .*TypeError"),
        (lambda share: None, r"fails when it is called .*TypeError"),
        (lambda share: float("nan"), "multiplied by nan when a share of 0 is done"),
        (lambda share: 0.5 - share, "multiplied by -0.5 when a share of 1 is done"),
    ],
)
def test_a_schedule_that_gives_no_factor_is_refused(schedule: Callable[..., Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        try_schedule(schedule)


def test_a_schedule_that_gives_factors_is_not() -> None:
    try_schedule(lambda share: torch.tensor(1 - share))  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["network=unet_small", "network.channels=[0,4]"], r"UNet's \S+ has no elements"),
        (
            ["experiments=denoise/gan", "objective.adversarial.discriminator.channels=0"],
            r"discriminator \w+'s \S+ has no elements",
        ),
    ],
)
def test_layers_without_channels_are_refused(words: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_before_training(compose("train", [*words, "leakage.check=false"]))
