"""Chains and mixtures: order, scale, conditions, independence of the stages."""

import pytest
import torch
from photos import generator, photos
from torch import Tensor

from restora.degradations.base import Degradation, Params, Shape
from restora.degradations.blur.gaussian_blur import GaussianBlur
from restora.degradations.colour.greyscale import Greyscale
from restora.degradations.colour.keep_grey import KeepGrey
from restora.degradations.colour.sepia import Sepia
from restora.degradations.compose.composition import Chain, Maybe, OneOf
from restora.degradations.compose.shuffled import Shuffled
from restora.degradations.compression.jpeg import Jpeg
from restora.degradations.identity import Identity
from restora.degradations.missing.random_rectangles import RandomRectangles
from restora.degradations.missing.text_overlay import TextOverlay
from restora.degradations.noise.gaussian_noise import GaussianNoise
from restora.degradations.noise.poisson_noise import PoissonNoise
from restora.degradations.parameters import as_range
from restora.degradations.sampling.downsample import Downsample
from restora.degradations.weather.haze import Haze
from restora.keyed import KeyedGenerator


class Affine(Degradation):
    """y = a x + b: operations whose order can be told from the result."""

    def __init__(self, *, a: float, b: float) -> None:
        self.a, self.b = a, b

    def sample(self, shape: Shape, generator: KeyedGenerator) -> Params:
        return {"one": torch.ones(shape[0])}

    def apply(self, clean: Tensor, params: Params) -> Tensor:
        assert clean.shape[0] == params["one"].shape[0]
        return clean * self.a + self.b


def test_chain_applies_in_order_and_multiplies_scales() -> None:
    chain = Chain(stages={"double": Affine(a=2, b=0), "plus": Affine(a=1, b=1), "small": Downsample(scale=3)})
    assert chain.scale == 3
    plain = Chain(stages={"double": Affine(a=2, b=0), "plus": Affine(a=1, b=1)})
    assert torch.equal(plain(photos(2), generator(2)).image, photos(2) * 2 + 1)
    with pytest.raises(ValueError, match="multiple of the scale 3"):
        chain(photos(1, 47, 60), generator(1))


def test_chain_concatenates_conditions_at_the_size_of_the_output() -> None:
    mask = RandomRectangles(count=2, area=0.1)
    chain = Chain(stages={"mask": mask, "small": Downsample(scale=2), "noise": GaussianNoise(sigma=(0, 50))})
    assert chain.condition_channels == 2
    assert chain.undamaged == (1.0, 0.0)
    clean = photos(3)
    image, condition = chain(clean, generator(3))
    assert condition is not None
    assert condition.shape == (3, 2, 24, 30)
    own = mask.sample(tuple(clean.shape), generator(3).fork("mask"))["mask"].float()
    assert torch.allclose(condition[:, :1], torch.nn.functional.avg_pool2d(own, 2))
    assert (condition[:, 1].flatten(1).std(1) == 0).all()
    assert image.shape == (3, 3, 24, 30)


def test_a_stage_keeps_its_numbers_when_others_come_and_go() -> None:
    noise = GaussianNoise(sigma=(0, 50))
    alone = Chain(stages={"noise": noise})
    among = Chain(stages={"first": GaussianNoise(sigma=0), "noise": noise, "blur": Identity()})
    assert torch.equal(alone(photos(4), generator(4)).image, among(photos(4), generator(4)).image)


def test_one_of_draws_by_weight_and_applies_the_drawn() -> None:
    stages = {"half": Affine(a=0.5, b=0), "black": Affine(a=0, b=0), "same": Identity()}
    mixture = OneOf(stages=stages, weights={"half": 1, "black": 2, "same": 1})
    clean = photos(1).expand(400, -1, -1, -1)[..., :4, :4].contiguous()
    params = mixture.sample(tuple(clean.shape), generator(400))
    image = mixture.apply(clean, params)
    for index, stage in enumerate(stages.values()):
        rows = params["choice"] == index
        expected = stage.apply(clean[rows], {"one": torch.ones(int(rows.sum()))})
        assert torch.equal(image[rows], expected)
        assert rows.float().mean() == pytest.approx((0.25, 0.5, 0.25)[index], abs=0.09)
    with pytest.raises(ValueError, match="weights"):
        OneOf(stages=stages, weights={"half": 1})
    with pytest.raises(ValueError, match="scale"):
        OneOf(stages={"small": Downsample(scale=2), "same": Identity()})


def test_one_of_equals_selection_among_all() -> None:
    """What a device computes (all, then a selection) is what a CPU computes (the drawn samples alone)."""
    stages = {
        "blur": GaussianBlur(sigma=(1, 3)),
        "jpeg": Jpeg(quality=(5, 30)),
        "noise": PoissonNoise(photons=30),
    }
    clean = photos(7)
    for mixture in (OneOf(stages=stages), Maybe(stage=Chain(stages=stages), probability=0.5)):
        params = mixture.sample(tuple(clean.shape), generator(7))
        if isinstance(mixture, OneOf):
            every = torch.stack([s.apply(clean, params["stages"][n]) for n, s in stages.items()])
            selected = every[params["choice"], torch.arange(7)]
        else:
            applied = params["applied"].view(-1, 1, 1, 1)
            selected = torch.where(applied, mixture.stage.apply(clean, params["stage"]), clean)
        assert torch.equal(mixture.apply(clean, params), selected)


def test_conditions_of_mixtures() -> None:
    maps = OneOf(stages={"noise": GaussianNoise(sigma=(20, 30)), "none": Identity()})
    assert maps.undamaged == (0.0,)
    clean = photos(16, 8, 8)
    params = maps.sample(tuple(clean.shape), generator(16))
    condition = maps.condition(clean, params)
    assert condition is not None
    untouched = params["choice"] == 1
    assert 2 < untouched.sum() < 14
    assert (condition[untouched] == 0).all()
    assert (condition[~untouched] > 19 / 255).all()

    masked = Maybe(stage=RandomRectangles(count=1, area=0.3), probability=0.5)
    params = masked.sample(tuple(clean.shape), generator(16))
    known = masked.condition(clean, params)
    assert known is not None
    assert (known[~params["applied"]] == 1).all()
    assert (known[params["applied"]].mean((1, 2, 3)) < 0.9).all()

    # a map that some stage cannot give is given for none
    assert OneOf(stages={"a": GaussianNoise(sigma=5), "b": PoissonNoise(photons=9)}).condition_channels == 0


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_maybe_happens_that_often(probability: float) -> None:
    maybe = Maybe(stage=Affine(a=0, b=0.5), probability=probability)
    image = maybe(photos(1).expand(300, -1, -1, -1)[..., :2, :2].contiguous(), generator(300)).image
    changed = (image == 0.5).flatten(1).all(1).float().mean()
    assert changed == pytest.approx(probability, abs=0.09)


def test_a_stage_of_one_channel_gives_as_many_as_the_others() -> None:
    clean = photos(6)
    maybe = Maybe(stage=Greyscale(channels=1), probability=0.5)
    together = maybe(clean, generator(6)).image
    alone = [maybe(clean[i : i + 1], KeyedGenerator(generator(6).keys[i : i + 1])).image for i in range(6)]
    assert torch.equal(together, torch.cat(alone))
    grey = (together[:, :1] == together).flatten(1).all(1)
    assert grey.any()
    assert not grey.all()


@pytest.mark.parametrize("after", [Haze(density=1.0), TextOverlay()])
def test_a_stage_after_one_that_leaves_one_channel_draws_for_one(after: Degradation) -> None:
    chain = Chain(stages={"grey": Greyscale(channels=1), "after": after})
    assert chain(torch.rand(2, 3, 16, 16), generator(2)).image.shape == (2, 1, 16, 16)
    with pytest.raises(ValueError, match="sepia needs photos of 3 channels, got 1"):
        Chain(stages={"chain": chain, "sepia": Sepia()})(torch.rand(2, 3, 16, 16), generator(2))
    shuffled = Shuffled(stages={"grey": Greyscale(channels=1), "sepia": Sepia()})
    assert shuffled(torch.rand(8, 3, 16, 16), generator(8)).image.shape == (8, 3, 16, 16)


def test_shuffled_uses_every_order() -> None:
    stages = {"double": Affine(a=2, b=0), "plus": Affine(a=1, b=1), "square": Affine(a=-1, b=0.25)}
    shuffled = Shuffled(stages=stages)
    clean = photos(1).expand(240, -1, -1, -1)[..., :2, :2].contiguous()
    params = shuffled.sample(tuple(clean.shape), generator(240))
    image = shuffled.apply(clean, params)
    orders = {tuple(order) for order in params["order"].tolist()}
    assert len(orders) == 6
    for b in range(0, 240, 17):
        expected = clean[b : b + 1]
        for index in params["order"][b].tolist():
            expected = list(stages.values())[index].apply(expected, {"one": torch.ones(1)})
        assert torch.equal(image[b : b + 1], expected)
    with pytest.raises(ValueError, match="keep the size"):
        Shuffled(stages={"small": Downsample(scale=2)})(photos(1), generator(1))


def test_mistakes_are_explained() -> None:
    with pytest.raises(ValueError, match="at least one stage"):
        Chain(stages={})
    with pytest.raises(ValueError, match="'blur' must be a Degradation"):
        Chain(stages={"blur": 3})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        Maybe(stage=Identity(), probability=1.2)
    with pytest.raises(ValueError, match="keep the size"):
        Maybe(stage=Downsample(scale=2), probability=0.5)
    with pytest.raises(ValueError, match=r"sigma must be a number or a range .* got \[9, 3\]"):
        GaussianNoise(sigma=[9, 3])
    with pytest.raises(ValueError, match="float photos"):
        Identity()(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), generator(1))
    assert as_range("sigma", 3, least=0) == (3.0, 3.0)


def test_black_and_white_photos_stay_so() -> None:
    clean = photos(4).clone()
    clean[1] = clean[1, :1]
    noise = GaussianNoise(sigma=25)
    params = KeepGrey(stage=noise).sample(tuple(clean.shape), generator(4))
    image, plain = KeepGrey(stage=noise).apply(clean, params), noise.apply(clean, params["stage"])
    assert torch.equal(image[[0, 2, 3]], plain[[0, 2, 3]])
    assert (image[1] == image[1, :1]).all()
    luma = (plain[1] * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(0)
    torch.testing.assert_close(image[1, 0], luma)
    with pytest.raises(ValueError, match=r"set data\.channels=rgb"):
        KeepGrey(stage=noise)(photos(1)[:, :1], generator(1))
