"""Small real run folders for tests: a tiny DnCNN with its checkpoint and run record, as `restora train`
leaves them."""

import copy
import functools
import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from restora.networks.base import Network
from restora.networks.dncnn import DnCNN
from restora.reporting.runs import Group, group_runs, read_runs

HOSTILE = "</script><script>alert(1)</script>"
"""The text of an error that a page must not run."""
ARGUMENTS = {"in_channels": 3, "depth": 4, "channels": 8}


def tiny_network(seed: int = 0, **arguments: Any) -> DnCNN:
    """A DnCNN whose batch-norm statistics are not the initial ones, so that folding them wrongly shows."""
    torch.manual_seed(seed)
    network = DnCNN(**{**ARGUMENTS, **arguments})
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.05)
            module.running_var.uniform_(0.5, 2)
    # a restorer changes a photo a little: an untrained network's residual is far larger than the photo
    last = [module for module in network.modules() if isinstance(module, nn.Conv2d)][-1]
    last.weight.data.mul_(0.1)
    return network.eval()


class Strided(Network):
    """Two strided stages and a skip: its output depends on where the photo's corner lies, unlike a plain
    stack's."""

    tasks: ClassVar[tuple[str, ...]] = ("denoise", "super_resolution")
    in_channels = out_channels = 3
    size_multiple = 4

    def __init__(self, *, scale: int = 1) -> None:
        super().__init__()
        self.scale = scale
        self.down = nn.Sequential(nn.Conv2d(3, 8, 2, 2), nn.ReLU(), nn.Conv2d(8, 16, 2, 2), nn.ReLU())
        self.body = nn.Conv2d(16, 16, 3, padding=1)
        self.up = nn.ConvTranspose2d(16, 3 * scale * scale, 4, 4)

    def restore(self, x: Tensor, condition: Tensor | None) -> Tensor:
        detail = F.pixel_shuffle(self.up(self.body(self.down(x))), self.scale)
        return F.interpolate(x, scale_factor=self.scale) + 0.1 * detail


def write_checkpoint(path: Path, network: nn.Module, /, **entries: Any) -> Path:
    """A Lightning checkpoint: averaged weights are the network's, raw weights are other ones."""
    state = {f"ema.{name}": value.clone() for name, value in network.state_dict().items()}
    state |= {f"network.{name}": value.clone() + 0.01 for name, value in network.state_dict().items()}
    ours = {
        "format": 1,
        "network": {"name": "dncnn", "arguments": ARGUMENTS},
        "family": "residual_cnn",
        "task": "denoise",
        "name": "dncnn",
        "degradation": {"_target_": "gaussian_noise", "sigma": 25},
        "evaluation": {"local_converter": None},
        "step": 10,
        "metrics": {"val/psnr": 27.1},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": state, "restora": ours | entries, "global_step": 10}, path)
    return path


def record(name: str = "dncnn", psnr: float = 28.0, **entries: Any) -> dict[str, Any]:
    """run.json of a finished denoising run that was tested on two photos."""
    images = [
        {
            "name": photo,
            "psnr": psnr + step,
            "ssim": 0.8,
            "input_psnr": 20.2,
            "input_ssim": 0.4,
            "seconds": 0.05,
        }
        for photo, step in (("astronaut", 0.5), ("coffee", -0.5))
    ]
    made: dict[str, Any] = {
        "format": 1,
        "name": name,
        "experiment": "quickstart/all",
        "task": "denoise",
        "family": "residual_cnn",
        "network": "dncnn_small",
        "status": "finished",
        "error": None,
        "command": "restora train experiments=quickstart",
        "started": "2026-01-02T03:04:05+00:00",
        "finished": "2026-01-02T03:05:25+00:00",
        "seed": 1,
        "git": {"commit": None, "dirty": None},
        "versions": {"python": "3.11", "torch": "2.13.0", "restora": "0.1.0"},
        "machine": {"cpu": "a CPU", "cores": 2, "gpu": None},
        "config": {
            "seed": 1,
            "data": {"source": {"_target_": "sample_photos"}, "channels": "rgb"},
            "degradation": {
                "_target_": "gaussian_noise",
                "sigma": 25,
            },
            "network": {"depth": 4, "channels": 8},
            "trainer": {"max_steps": 100},
        },
        "parameters": 1234,
        "macs_256": 8.1e7,
        "cost": {"fit_seconds": 80.0, "steps": 100, "samples": 800, "step_ms": 12.5},
        "metrics": {
            "best": {"val/psnr": psnr - 0.2, "val/ssim": 0.79, "step": 90},
            "last": {"val/psnr": psnr - 0.3},
        },
        "test": {"images": images, "psnr": psnr, "ssim": 0.8, "input_psnr": 20.2, "input_ssim": 0.4},
        "checkpoints": {"best": "checkpoints/best.ckpt", "last": "checkpoints/last.ckpt"},
        "sweep": None,
        "wandb": None,
    }
    return made | entries


def photo(height: int = 60, width: int = 84, seed: int = 0) -> np.ndarray:
    """A part of a natural photo, (H,W,3) uint8."""
    top, left = 100 + 17 * seed, 60 + 23 * seed
    return _astronaut()[top : top + height, left : left + width].copy()


@functools.cache
def _astronaut() -> np.ndarray:
    """Decoded once."""
    import skimage.data

    return skimage.data.astronaut()


def write_run(run: Path, *, psnr: float = 28.0, seed: int = 0, **entries: Any) -> Path:
    """A finished run: record, curve, checkpoint and held-out photos."""
    write_checkpoint(run / "checkpoints" / "best.ckpt", tiny_network(seed))
    (run / "run.json").write_text(json.dumps(record(psnr=psnr, **entries)))
    rows = ["step,epoch,seconds,train/loss,val/psnr"]
    rows += [f"{step},0,{step * 0.8},0.1," for step in (10, 20, 30)]
    rows += [f"{step},0,{step * 0.8},,{psnr - 3 / step:.3f}" for step in (10, 20, 30)]
    (run / "metrics.csv").write_text("\n".join(rows) + "\n")
    (run / "images").mkdir()
    generator = np.random.default_rng(seed)
    for index, name in enumerate(("astronaut", "coffee")):
        clean = photo(seed=index)
        for kind, sigma in (("clean", 0), ("restored", 8), ("degraded", 25)):
            noisy = clean + generator.normal(0, sigma, clean.shape) if sigma else clean.astype(float)
            if kind == "degraded":
                np.save(run / "images" / f"{name}_degraded.npy", (noisy / 255).astype(np.float32))
            Image.fromarray(noisy.clip(0, 255).round().astype(np.uint8)).save(
                run / "images" / f"{name}_{kind}.png"
            )
    return run


def put(folder: Path, **entries: Any) -> Path:
    """A run folder with nothing but its record."""
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(record(**entries)))
    return folder


def configured(**changes: Any) -> dict[str, Any]:
    """The configuration of `record` with other values: network__depth=9."""
    config = copy.deepcopy(record()["config"])
    for path, value in changes.items():
        node, (*parents, last) = config, path.split("__")
        for key in parents:
            node = node.setdefault(key, {})
        node[last] = value
    return config


def scored(psnr: float, photos: int, spread: float = 0.05, seed: int = 0) -> dict[str, Any]:
    """The held-out scores of a run: photos of 25 to 33 dB around the mean, with the run's own scatter."""
    random = np.random.default_rng(seed)
    scores = np.linspace(-4, 4, photos) + psnr + random.normal(0, spread, photos)
    images = [
        {"name": f"photo{i}", "psnr": float(v), "ssim": 0.8, "input_psnr": 20.2, "input_ssim": 0.4}
        for i, v in enumerate(scores)
    ]
    mean = float(scores.mean())
    return {"images": images, "psnr": mean, "ssim": 0.8, "input_psnr": 20.2, "input_ssim": 0.4}


def one_group(root: Path) -> Group:
    """The runs below a folder, which are of one group."""
    (group,) = group_runs(read_runs(root)[0], root)
    return group
