"""The restorer computes what the network computes, at any size, tiled or not, and says what it cannot do."""

import copy
import pickle
import re
from contextlib import nullcontext
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from run_folders import Strided, photo, tiny_network
from torch import Tensor, nn

from restora.artifact.restorer import Restorer
from restora.artifact.tiles import check_tile, fade, grid, spans
from restora.networks.base import Network
from restora.networks.blind_drunet import BlindDRUNet
from restora.networks.dncnn import FDnCNN
from restora.networks.layers.restormer_blocks import TransposedAttention
from restora.networks.restormer import Restormer


def strided(scale: int = 1) -> Strided:
    torch.manual_seed(1)
    return Strided(scale=scale).eval()


def real(height: int, width: int) -> Tensor:
    """A natural photo (1,3,H,W) in [0,1]."""
    return torch.from_numpy(photo(height, width)).permute(2, 0, 1)[None].float() / 255


@pytest.mark.parametrize("multiple", [1, 8])
@pytest.mark.parametrize(
    ("length", "tile", "overlap"), [(100, 32, 8), (97, 32, 16), (33, 32, 16), (1000, 64, 0), (84, 32, 6)]
)
def test_fades_of_neighbouring_tiles_sum_to_one(length, tile, overlap, multiple):
    for scale in (1, 3):
        total = torch.zeros(length * scale)
        for span in spans(length, tile, overlap, multiple):
            assert span.start % multiple == 0
            assert span.stop - span.start <= tile
            total[span.start * scale : span.stop * scale] += fade(span, overlap, scale)
        torch.testing.assert_close(total, torch.ones(length * scale), atol=1e-6, rtol=0)


def test_the_second_gpu_is_the_current_one_while_it_restores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton launches on the current device of the thread, which is the first one in a new thread."""
    current = []
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext(current.append(device)))
    restorer = Restorer(network=strided(), device="cpu")
    monkeypatch.setattr(restorer, "device", torch.device("cuda", 1))
    monkeypatch.setattr(restorer, "_restore", lambda x, condition, progress: x)
    restorer(real(16, 16))
    assert current == [torch.device("cuda", 1)]


def test_neighbours_share_at_least_the_overlap():
    for length in range(65, 400, 7):
        made = spans(length, 64, 24, 8)
        assert made[0].start == 0
        assert made[-1].stop == length
        assert all(first.stop - second.start >= 24 for first, second in pairwise(made))


@pytest.mark.parametrize("multiple", [1, 8, 13])
def test_tiles_are_as_few_and_as_small_as_can_be(multiple):
    for length in range(65, 400, 7):
        made = spans(length, 64, 24, multiple)
        sides = [span.stop - span.start for span in made]
        assert max(sides) - min(sides) < multiple
        assert sum(sides) < length + (len(made) - 1) * 24 + 2 * multiple * len(made)
        tile = -(-64 // multiple) * multiple
        assert tile + (len(made) - 2) * ((tile - 24) // multiple * multiple) < length


@pytest.mark.parametrize(
    "network", [tiny_network(), strided(), strided(scale=2)], ids=["dncnn", "strided", "x2"]
)
@pytest.mark.parametrize("size", [(180, 211), (96, 330), (97, 97)])
def test_tiles_leave_no_seams(network, size):
    x = real(*size)
    whole = Restorer(network=network, device="cpu", tile=0)(x)
    tiled = Restorer(network=network, device="cpu", tile=96, overlap=32)(x)
    assert len(grid(*size, tile=96, overlap=32)) > 1
    assert (whole - tiled).abs().max() <= 1 / 255


def test_tiles_that_share_nothing_would_show():
    """The overlap is what hides the seams: the same tiles without one differ visibly, so the test above can
    fail."""
    x = real(180, 211)
    network = tiny_network()
    whole = Restorer(network=network, device="cpu", tile=0)(x)
    torn = Restorer(network=network, device="cpu", tile=96, overlap=0)(x)
    assert (whole - torn).abs().max() > 1 / 255


@pytest.mark.parametrize("size", [(1, 1), (1, 37), (5, 3), (64, 64), (33, 70)])
@pytest.mark.parametrize("scale", [1, 3])
def test_any_size(size, scale):
    restored = Restorer(network=strided(scale), device="cpu", tile=32)(real(*size))
    assert restored.shape == (1, 3, size[0] * scale, size[1] * scale)
    assert restored.min() >= 0
    assert restored.max() <= 1


def test_computes_what_the_network_computes_and_leaves_it_alone():
    network = tiny_network().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    x = real(40, 50)
    restored = Restorer(network=network, device="cpu")(x)
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    with torch.no_grad():
        expected = network.eval()(x).clamp(0, 1)
    torch.testing.assert_close(restored, expected, atol=1e-5, rtol=0)


def test_photos_are_restored_one_by_one():
    x = torch.cat([real(70, 90), real(70, 90).flip(-1)])
    restorer = Restorer(network=tiny_network(), device="cpu", tile=48, overlap=16)
    together = restorer(x)
    torch.testing.assert_close(together[1:], restorer(x[1:]), atol=1e-6, rtol=0)


def test_noise_level_is_given_by_number_or_map():
    torch.manual_seed(0)
    network = FDnCNN(in_channels=3, depth=4, channels=8).eval()
    x = real(40, 50)
    by_number = Restorer(network=network, device="cpu", sigma=25)(x)
    by_map = Restorer(network=network, device="cpu")(x, torch.full((1, 1, 40, 50), 25 / 255))
    torch.testing.assert_close(by_number, by_map)
    assert not torch.equal(by_number, Restorer(network=network, device="cpu", sigma=50)(x))
    with pytest.raises(ValueError, match="noise level"):
        Restorer(network=network, device="cpu")(x)


def test_condition_map_is_cut_like_the_photo():
    torch.manual_seed(0)
    network = FDnCNN(in_channels=3, depth=4, channels=8).eval()
    x, levels = real(120, 150), torch.linspace(0, 1, 150).expand(1, 1, 120, 150)
    whole = Restorer(network=network, device="cpu", tile=0)(x, levels)
    tiled = Restorer(network=network, device="cpu", tile=64, overlap=24)(x, levels)
    assert (whole - tiled).abs().max() <= 1 / 255


class TwoConvolutions(Network):
    """A 1x1 convolution that reads the photo, and one behind it."""

    in_channels = out_channels = 1

    def __init__(self) -> None:
        super().__init__()
        self.read = torch.nn.Conv2d(1, 4, 1, bias=False)
        self.write = torch.nn.Conv2d(4, 1, 1)

    def restore(self, x, condition):
        return self.write(self.read(x))


def test_low_precision_rounds_neither_the_photo_nor_the_biases():
    """A product and a bias that nearly cancel: what is left is less than bfloat16 rounds off the bias."""
    network = TwoConvolutions()
    with torch.no_grad():
        network.read.weight.copy_(torch.tensor([1.0, 0, 0, 0]).view(4, 1, 1, 1))
        network.write.weight.copy_(torch.tensor([-1.0, 0, 0, 0]).view(1, 4, 1, 1))
        network.write.bias.fill_(1 / 3)
    x = torch.full((1, 1, 8, 8), 0.33203125)  # a bfloat16 number
    exact = 1 / 3 - 0.33203125
    assert abs(torch.tensor(1 / 3).bfloat16().item() - 1 / 3) > exact / 3
    for precision in ("float32", "bfloat16"):
        restored = Restorer(network=network, device="cpu", precision=precision)(x)
        torch.testing.assert_close(restored, torch.full_like(x, exact), rtol=5e-3, atol=0)
    reader = Restorer(network=network, device="cpu", precision="bfloat16").network.read
    photo = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(reader(photo)[:, :1], photo, rtol=0, atol=1e-7)


def test_low_precision_stays_close():
    x = real(60, 60)
    full = Restorer(network=tiny_network(), device="cpu")(x)
    low = Restorer(network=tiny_network(), device="cpu", precision="bfloat16")(x)
    assert low.dtype == torch.float32
    assert 0 < (full - low).abs().max() < 0.02


def test_progress_counts_every_tile():
    seen: list[tuple[int, int]] = []
    restorer = Restorer(network=tiny_network(), device="cpu", tile=48, overlap=16)
    restorer(real(100, 100), progress=lambda done, total: seen.append((done, total)))
    tiles = len(grid(100, 100, tile=48, overlap=16))
    assert seen == [(count + 1, tiles) for count in range(tiles)]


def test_not_a_number_is_an_error_rather_than_a_black_photo():
    network = tiny_network()
    next(network.parameters()).data.fill_(float("nan"))
    with pytest.raises(ValueError, match="not finite"):
        Restorer(network=network, device="cpu")(real(20, 20))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_photo_that_is_not_finite_is_not_blamed_on_the_network(value):
    x = real(20, 20)
    x[0, 1, 5, 5] = value
    with pytest.raises(ValueError, match=r"expected photos in \[0,1\], got values that are not finite"):
        Restorer(network=tiny_network(), device="cpu")(x)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_float32_is_advised_only_where_it_is_not_used(precision):
    restorer = Restorer(network=tiny_network(), device="cpu", precision=precision, engine="torch")
    restorer.network.forward = lambda x, condition=None: x * float("nan")
    with pytest.raises(ValueError, match="not finite") as caught:
        restorer(real(20, 20))
    assert ("use precision float32" in str(caught.value)) == (precision != "float32")


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "uint8"),
        (torch.zeros(3, 8, 8), "shape"),
        (torch.zeros(1, 1, 8, 8), r"takes 3 channels, .*use photo\.expand\(-1, 3, -1, -1\)"),
        (torch.zeros(1, 4, 8, 8), r"photo\[:, :3\], without alpha"),
        (torch.zeros(8, 8), r"use photo\[None, None\]"),
        (torch.zeros(2, 1, 3, 8, 8), r"use photo\.flatten\(0, -4\) for frames"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint16), "65535 for 16-bit photos"),
        (torch.zeros(1, 3, 8, 8, device="meta"), "has no pixels"),
        (torch.zeros(1, 3, 8, 8).to_sparse(), "to_dense"),
        (torch.zeros(1, 3, 0, 8), "shape"),
        ("photo.png", r"got str: for a file, pixels = restora\.photos\.reading\.read_photo\(path\)"),
        (Image.new("RGB", (8, 8)), "got Image: "),
    ],
)
def test_wrong_input_is_named(x, message):
    with pytest.raises(ValueError, match=message):
        Restorer(network=tiny_network(), device="cpu")(x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "cuda:97"}, "not available"),
        ({"device": "abacus"}, "no device"),
        ({"device": None}, "no device None"),
        ({"device": "meta"}, "not available"),
        ({"device": "hip"}, "not available"),
        ({"device": "xpu"}, "not available"),
        ({"sigma": 0.1}, "sigma is on the 8-bit scale, .* 25.5"),
        ({"network": nn.Conv2d(3, 3, 3)}, "Conv2d is not a network"),
        ({"precision": "int4"}, "precision"),
        ({"sigma": "auto"}, r"estimated_sigma estimates it"),
        ({"sigma": 999}, "a number from 0 to 255"),
        ({"sigma": -1.0}, "a number from 0 to 255"),
        ({"tile": -1}, "tile must be a whole number of pixels, 0 or more, got -1"),
        ({"tile": "large"}, "tile must be a whole number"),
        ({"overlap": -4}, "overlap must be a whole number"),
        ({"overlap": 8.0}, "overlap must be a whole number"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        Restorer(**{"network": tiny_network(), **options})


def test_a_level_of_torch_or_numpy_is_a_number():
    assert Restorer(network=tiny_network(), sigma=torch.tensor(25.0)).sigma == 25
    assert type(Restorer(network=tiny_network(), sigma=np.array(7)).sigma) is int


def test_a_condition_that_has_no_effect_is_refused():
    restorer, x = Restorer(network=tiny_network(), device="cpu"), real(8, 8)
    with pytest.raises(ValueError, match="takes neither a noise level nor a mask"):
        restorer(x, torch.ones(1, 1, 8, 8))


def test_an_array_as_the_condition_is_named_and_not_printed():
    with pytest.raises(ValueError, match=r"a tensor \(B,1,H,W\), got ndarray: "):
        Restorer.load("zoo:inpaint", device="cpu")(real(8, 8), np.ones((1, 1, 8, 8)))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("photo", "comes with restora is zoo:photo"),
        ("https://example.org/a.pth", "an address: download the file first"),
        ("", "a path or zoo:NAME, got ''"),
        (tiny_network(), r"got \w+: for a network use Restorer\(network=…\)"),
    ],
)
def test_what_is_no_source_of_a_model_is_named(source, message):
    with pytest.raises(ValueError, match=message):
        Restorer.load(source)


def test_what_a_conditioned_model_needs_is_named():
    photo = torch.rand(1, 3, 32, 32)
    restorer = Restorer.load("zoo:denoise", device="cpu")
    with pytest.raises(ValueError, match=r"Restorer\.load\(…, sigma=25\)"):
        restorer(photo)
    with pytest.raises(ValueError, match=r"got 25.0: for a noise level use Restorer\.load"):
        restorer(photo, 25.0)
    with pytest.raises(ValueError, match="1 where a pixel is known and 0 where it is missing"):
        Restorer.load("zoo:inpaint", device="cpu")(photo)


@pytest.mark.parametrize("name", ["photo", "inpaint"])
def test_a_noise_level_that_a_model_does_not_take_is_refused(name):
    with pytest.raises(ValueError, match="not conditioned on a noise level, leave it out"):
        Restorer.load(f"zoo:{name}", device="cpu", sigma=25)


def test_a_tile_without_room_beside_the_overlap_is_refused():
    """Before any photo, with the numbers that were given."""
    with pytest.raises(
        ValueError, match="a tile of 32 .* overlap of 30: .* tile of 60 or more, .* 16 or less"
    ):
        Restorer(network=tiny_network(), device="cpu", tile=32, overlap=30)
    with pytest.raises(
        ValueError, match="a tile of 100 .* overlap of 100 .*: use a tile of 200 .* 52 or less"
    ):
        check_tile(100, 100, 8)


@pytest.mark.parametrize(
    ("tile", "overlap", "multiple"), [(100, 100, 8), (7, 30, 1), (20, 20, 64), (65, 50, 16)]
)
def test_the_tile_and_the_overlap_that_are_advised_work(tile, overlap, multiple):
    with pytest.raises(ValueError, match="too small") as refused:
        check_tile(tile, overlap, multiple)
    least, most = map(int, re.findall(r"(?:tile|overlap) of (\d+) or", str(refused.value)))
    for good in ((least, overlap), (tile, most)):
        check_tile(*good, multiple)
        assert len(spans(5000, *good, multiple)) > 1
    with pytest.raises(ValueError, match="too small"):
        check_tile(least - multiple, overlap, multiple)


@pytest.mark.slow
def test_tiles_that_see_the_statistics_of_the_whole_photo_are_nearer_to_it():
    """Of patches from all over it; a photo of one tile and the next photo are computed as ever."""
    torch.manual_seed(0)
    network = Restormer(channels=8, blocks=(1, 1, 1, 1), refinement_blocks=1, heads=(1, 1, 1, 1)).eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, TransposedAttention):
                module.temperature.fill_(2)  # attention that depends on the photo, as after training
        network.output.weight.mul_(0.2)
    x = torch.cat([real(256, 384), 0.5 * real(256, 384).flip(-1)])
    options = {"network": network, "device": "cpu"}
    whole = Restorer(**options, tile=0)(x)
    apart = Restorer(**options, tile=128, overlap=32)(x)
    restorer = Restorer(**options, tile=128, overlap=32, global_statistics=True)
    seen = []
    together = restorer(x, progress=lambda done, tiles: seen.append((done, tiles)))
    assert (together - whole).abs().mean() < 0.7 * (apart - whole).abs().mean()
    assert seen == [(count + 1, len(seen)) for count in range(len(seen))]
    assert torch.equal(restorer(x[:, :, :96, :96]), Restorer(**options)(x[:, :, :96, :96]))
    torch.testing.assert_close(restorer(x[1:]), together[1:])


def test_tiles_of_a_blind_network_use_the_means_of_the_whole_photo():
    """Photos in one call have means of their own, and the network stays as it was."""
    torch.manual_seed(0)
    network = BlindDRUNet(channels=(4, 4, 4, 4), balance=True).eval()
    for parameter in (network.balance.of_photo[-1].weight, network.scales.of_photo[-1].weight):
        torch.nn.init.normal_(parameter, std=1)
    network.m_tail.weight.data.mul_(0.2)
    dark, light = 0.2 * real(384, 256), real(384, 256)
    x = torch.cat([torch.cat([dark, light], 2), torch.cat([light, light], 2).flip(-1)])  # (2,3,768,256)
    options = {"network": network, "device": "cpu"}
    whole = Restorer(**options, tile=0)(x)
    restorer = Restorer(**options, tile=256, overlap=64)
    tiled = restorer(x)
    torch.testing.assert_close(restorer(x[1:]), tiled[1:])
    alone = Restorer(**options, tile=0)(x[:, :, :256])
    difference = (alone - whole[:, :, :256]).abs().mean()  # of a tile that has means of its own
    assert difference > 0.02
    assert (tiled - whole).abs().mean() < 0.15 * difference


def test_an_engine_that_does_not_know_the_whole_photo_is_refused_for_tiles():
    network = BlindDRUNet(channels=(4, 4, 4, 4), balance=True).eval()
    restorer = Restorer(network=network, device="cpu", engine="onnxruntime", tile=128, overlap=32)
    assert restorer(real(96, 96)).shape == (1, 3, 96, 96)
    with pytest.raises(ValueError, match="use engine torch, or tile 0"):
        restorer(real(96, 200))


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [
        (tiny_network(), {}, "DnCNN has no attention across channels"),
        (Restormer(channels=8), {"engine": "onnxruntime"}, "computed by torch only"),
    ],
)
def test_statistics_that_there_are_none_of_are_refused(network, options, message):
    with pytest.raises(ValueError, match=message):
        Restorer(network=network, global_statistics=True, **options)


def test_conditions_that_no_map_can_be_are_refused_with_the_fix():
    restorer, x = Restorer.load("zoo:inpaint", device="cpu"), real(24, 24)
    for value, said in ((255.0, "a mask, .* from 255 to 255: divide"), (float("nan"), "not finite")):
        with pytest.raises(ValueError, match=f"the condition.*{said}"):
            restorer(x, torch.full((1, 1, 24, 24), value))
    with pytest.raises(ValueError, match="a path or zoo:NAME, got None"):
        Restorer.load(None)


def test_a_restorer_can_be_copied_and_sent_to_another_process(tmp_path):
    restorer = Restorer(network=tiny_network(), device="cpu", tile=16, overlap=4)
    x = real(20, 24)
    for other in (copy.deepcopy(restorer), pickle.loads(pickle.dumps(restorer))):
        assert torch.equal(other(x), restorer(x))
    restorer._engine.take("onnxruntime", restorer.network)
    with pytest.raises(TypeError, match="engine onnxruntime cannot be copied"):
        pickle.dumps(restorer)


def test_photos_with_the_channels_last_are_refused_with_how_to_turn_them():
    restorer = Restorer(network=tiny_network(), device="cpu")
    x = real(20, 24)
    with pytest.raises(ValueError, match=re.escape("photo.permute(0, 3, 1, 2)")):
        restorer(x.permute(0, 2, 3, 1))
    with pytest.raises(ValueError, match=re.escape("photo.permute(2, 0, 1)")):
        restorer((x[0].permute(1, 2, 0) * 255).byte())
    with pytest.raises(ValueError, match=re.escape("photo[None]")) as plain:
        restorer(x[0])
    assert "permute" not in str(plain.value)


def test_a_noise_level_without_effect_is_refused_by_with_sigma_too():
    with pytest.raises(ValueError, match="not conditioned on a noise level"):
        Restorer(network=tiny_network(), device="cpu").with_sigma(25)


def test_a_restorer_is_shown_with_its_network_and_device():
    shown = repr(Restorer(network=strided(scale=2), device="cpu"))
    assert shown.startswith("Restorer(Strided, 3 to 3 channels, x2, cpu, float32")


def test_a_device_of_torch_is_a_device():
    assert Restorer(network=tiny_network(), device=torch.device("cpu")).device.type == "cpu"
