"""Models of video networks: exported, loaded, tiled and run by engines as others; photos are refused."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from restora.artifact.card import write_card
from restora.artifact.export import export_model
from restora.artifact.model_folder import read_description
from restora.artifact.parity import read_samples, sample_photos
from restora.artifact.photo_pixels import restore_photo
from restora.artifact.prepared import guard_precision, prepare_network
from restora.artifact.restorer import Restorer
from restora.artifact.sources import open_source
from restora.degradations.noise.gaussian_noise import GaussianNoise
from restora.networks.fastdvdnet import FastDVDnet
from restora.photos.files import read_photo
from restora.serving.models import load_models


def network() -> FastDVDnet:
    torch.manual_seed(0)
    made = FastDVDnet(channels=(4, 6, 8), frame_features=2)
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    return made.eval()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model that was exported from a weights file, with its graph."""
    place = tmp_path_factory.mktemp("video")
    save_file(network().state_dict(), place / "weights.safetensors")
    export_model(open_source(place / "weights.safetensors"), place / "model", wanted=("onnx",))
    return place / "model"


def clip(height: int = 40, width: int = 52, batch: int = 1) -> torch.Tensor:
    return torch.rand(batch, 15, height, width, generator=torch.Generator().manual_seed(1))


def expected(x: torch.Tensor, sigma: float) -> torch.Tensor:
    level = torch.full((len(x), 1, *x.shape[2:]), sigma / 255)
    with torch.no_grad():
        return network()(x, level).clamp(0, 1)


def test_a_model_folder_says_how_many_frames_it_takes(model: Path) -> None:
    described = json.loads((model / "model.json").read_text())
    assert (described["frames"], described["in_channels"], described["out_channels"]) == (5, 15, 3)
    assert set(described["parity"]["formats"]) == {"safetensors", "onnx"}
    assert Restorer.load(model, device="cpu", sigma=25).network.frames == 5
    assert Restorer.load(model / "model.onnx", device="cpu", sigma=25).network.frames == 5


def test_older_folders_are_of_photos(model: Path, tmp_path: Path) -> None:
    described = json.loads((model / "model.json").read_text())
    del described["frames"]
    (tmp_path / "model.json").write_text(json.dumps(described))
    assert read_description(tmp_path).frames == 1
    (tmp_path / "model.json").write_text(json.dumps(described | {"frames": "five"}))
    with pytest.raises(ValueError, match="frames must be a whole number, got 'five'"):
        read_description(tmp_path)


@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
@pytest.mark.parametrize("tile", [0, 96])
def test_a_restorer_takes_frames_at_any_size(engine: str, tile: int, model: Path) -> None:
    restorer = Restorer.load(model, device="cpu", sigma=25, engine=engine, tile=tile, overlap=48)
    x = clip(121, 130, batch=2)
    restored = restorer(x)
    assert restored.shape == (2, 3, 121, 130)
    difference = (restored - expected(x, 25)).abs()
    assert difference.max() < (0.01 if tile else 1e-5)
    assert difference.mean() < 2e-4, "tiles blend beyond most of the receptive field"
    torch.testing.assert_close(restorer.with_sigma(50)(clip()), expected(clip(), 50), atol=1e-4, rtol=0)


def test_a_photo_is_refused_with_the_reason(model: Path, tmp_path: Path) -> None:
    restorer = Restorer.load(model, device="cpu", sigma=25)
    with pytest.raises(ValueError, match=r"middle one of 5 frames of a video, 15 channels in all, got 3"):
        restorer(clip()[:, :3])
    Image.fromarray(np.zeros((20, 24, 3), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"each frame from 5 of them, and a photo has no other frames"):
        restore_photo(read_photo(tmp_path / "a.png"), restorer)
    with pytest.raises(ValueError, match="serve models of photos"):
        load_models([str(model)], device="cpu", precision="float32", tile=0)


def test_parity_is_measured_on_clips_with_noise_of_their_own_in_each_frame() -> None:
    made = read_samples(sample_photos()[:1], network(), GaussianNoise(sigma=25))
    sample = made[0]
    assert sample.clean is not None
    assert sample.x.shape[1] == 15
    frames = sample.x.unflatten(1, (5, 3))
    noise = frames[:, 2] - sample.clean
    assert 24 < float(noise.std()) * 255 < 26
    moved = frames[..., 2:, 2:][:, 3] - sample.clean[..., :-2, :-2]
    assert 24 < float(moved.std()) * 255 < 26, "the next frame is not the photo, moved"
    assert abs(float((moved * noise[..., 2:, 2:]).mean())) * 255**2 < 20, "two frames share their noise"


def test_noisy_frames_are_not_rounded_in_bfloat16() -> None:
    prepared = prepare_network(network(), None)
    guard_precision(prepared, torch.bfloat16)
    seen: list[torch.dtype] = []
    for block in (prepared.temp1, prepared.temp2):
        first, last = block.inc.convblock[0], block.upc2.convblock[1]
        for layer in (first, last):
            layer.register_forward_hook(lambda _, __, y: seen.append(y.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        prepared(clip(), torch.full((1, 1, 40, 52), 0.1))
    assert seen[::2] == [torch.float32] * 4, "the convolution that reads the frames"


def test_the_card_shows_how_frames_are_joined(model: Path, tmp_path: Path, monkeypatch: Any) -> None:
    card = (model / "README.md").read_text()
    assert "It takes 5 RGB frames of a video, folded into channels, and gives the middle one." in card
    assert "restora restore model photos/" not in card
    assert "restora restore model clip.mp4 restored.mp4 --sigma 25\n" in card
    (tmp_path / "frames").mkdir()
    for number in range(5):
        pixels = (clip()[0, :3].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        Image.fromarray(np.roll(pixels, number, axis=1)).save(tmp_path / f"frames/{number}.png")
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert code is not None
    (tmp_path / "model").symlink_to(model)
    monkeypatch.chdir(tmp_path)
    exec(code[1], {})
    with Image.open("restored.png") as restored:
        assert restored.size == (52, 40)
    write_card(tmp_path, read_description(model))
