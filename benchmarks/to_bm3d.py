"""From nothing to BM3D's quality on a CPU: `experiments=denoise/half_minute` against a plain PyTorch loop.

    python benchmarks/to_bm3d.py --train FOLDER --test FOLDER [--seconds 25] [--threads 2] [--quick]

BM3D has 28.57 dB on BSD68 at sigma 25 (grey; Zhang et al., TIP 2017, table II). --train is a folder of photos
(that paper's 400 are BSDS500's train and test), --test is BSD68. Each way is a process of its own; its
minutes are those of its whole life, from the start of Python over the first decoding of the photos to the
saved weights. Both are evaluated by `restora evaluate`.

The plain loop is what one writes on a first day: the same network, batch, patch and loss; a DataLoader with
two workers that opens, crops and degrades each photo anew; torch's default memory format; Adam of 1e-3 with a
cosine to zero. It gets 2, 4 and 8 times the training time, until it reaches BM3D; --quick stops at twice.
The target is met where twice the time is not enough for it.

With a GPU also DnCNN and a grey NAFNet for --gpu-minutes of training each, against the 29.23 dB of DnCNN's
paper (the same table). These two recipes have not been run yet.
"""

import json
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
from timing import Row, console, machine, not_measured, parser, print_table, save_rows
from torch import Tensor

BM3D, DNCNN = 28.57, 29.23
SIGMA = 25
NETWORK: dict[str, Any] = {"in_channels": 1, "channels": [16, 24, 32, 32], "blocks": 1}
BATCH, PATCH = 16, 32
WHAT = (
    (f"minutes from nothing to BM3D's {BM3D} dB on a CPU", "as few as possible"),
    ("training time of a plain PyTorch loop for the same", "> 2 x"),
)
ON_GPU = {
    "dncnn_gray": (f"GPU: from nothing to {DNCNN} dB, DnCNN", []),
    "nafnet": (
        f"GPU: NAFNet past {DNCNN} dB in the same time",
        ["network.in_channels=1", "data.patch_size=128", "data.batch_size=32"],
    ),
}
GPU_MINUTES = 10


def main() -> None:
    options = _options()
    if options.plain is not None:
        train_plainly(options)
        return
    why = None
    if options.train is None or options.test is None:
        why = "needs photos: benchmarks/to_bm3d.py --train FOLDER --test BSD68"
        console().print(f"not measured: {why}")
    torch.set_num_threads(options.threads)
    console().print(machine())
    with tempfile.TemporaryDirectory() as folder:
        rows = not_measured(WHAT, why) if why else compare(options, Path(folder))
        save_rows([*rows, *on_gpu(options, Path(folder), why)], options.rows)


def on_gpu(options: Namespace, folder: Path, why: str | None) -> list[Row]:
    """The rows of results on a GPU; `why` is a reason, other than a missing GPU, not to measure."""
    target = f"<= {GPU_MINUTES} min"
    if not torch.cuda.is_available():
        why = "no CUDA device"
    if why:
        return not_measured([(what, target) for what, _ in ON_GPU.values()], why)
    rows = []
    for name, (what, words) in ON_GPU.items():
        run, seconds = folder / name, 60 * options.gpu_minutes
        words = ["data=folder", "data.channels=gray", "degradation.sigma=25", "trainer.max_steps=-1", *words]
        spent = _timed(_restora(options, f"denoise/{name}", run, folder / "data", seconds, words)) / 60
        psnr = _psnr([f"checkpoint={run}"], options, folder)
        met = psnr >= DNCNN and spent <= GPU_MINUTES
        rows.append(Row(what, f"{spent:.2f} min: {psnr:.2f} dB", target, met))
    return rows


def _options() -> Namespace:
    made = parser(__doc__)
    made.add_argument("--train", type=Path, help="a folder of photos to train on")
    made.add_argument("--test", type=Path, help="BSD68")
    made.add_argument("--seconds", type=float, default=25, help="of training; starting comes on top")
    made.add_argument("--threads", type=int, default=2)
    made.add_argument("--gpu-minutes", type=float, default=9, help="of training on a GPU, each")
    made.add_argument("--plain", type=Path, help="(inside) train plainly and save the weights here")
    return made.parse_args()


def compare(options: Namespace, folder: Path) -> list[Row]:
    """Trains both ways, prints their results, and returns the rows of the table of targets."""
    seconds = options.seconds
    table = []
    run = folder / "run"
    words = [f"threads={options.threads}"]
    ours = _timed(_restora(options, "denoise/half_minute", run, folder / "data", seconds, words))
    psnr = _psnr([f"checkpoint={run}"], options, folder)
    table.append(
        ["restora, experiments=denoise/half_minute", f"{seconds:g}", f"{ours / 60:.2f}", f"{psnr:.3f}"]
    )
    plainly: dict[int, float] = {}
    for factor in (2,) if options.quick else (2, 4, 8):
        weights = folder / "plain.pt"
        minutes = _timed(_plainly(options, factor * seconds, weights)) / 60
        arguments = [f"network.{name}={value}".replace(" ", "") for name, value in NETWORK.items()]
        plain = _psnr(["network=drunet", *arguments, f"weights={weights}"], options, folder)
        table.append(
            [f"plain loop, {factor} x the time", f"{factor * seconds:g}", f"{minutes:.2f}", f"{plain:.3f}"]
        )
        plainly[factor] = plain
        if plain >= BM3D:
            break
    print_table(
        f"narrow DRUNet, grey, sigma {SIGMA}: {options.test}",
        ["", "training s", "minutes in all", "PSNR dB"],
        table,
    )
    return _rows(ours / 60, psnr, plainly)


def _rows(minutes: float, psnr: float, plainly: dict[int, float]) -> list[Row]:
    """The rows of targets; `plainly` is the plain loop's PSNR in dB by the multiple of the training time."""
    said = ", ".join(f"{plain:.2f} dB after {factor} x" for factor, plain in plainly.items())
    reached = psnr >= BM3D
    return [
        Row(WHAT[0][0], f"{minutes:.2f} min: {psnr:.2f} dB", WHAT[0][1], reached),
        Row(WHAT[1][0], said, WHAT[1][1], reached and plainly[2] < BM3D),
    ]


def _restora(
    options: Namespace, experiment: str, run: Path, data: Path, seconds: float, words: list[str]
) -> list[str]:
    return [
        *(sys.executable, "-m", "restora.cli", "train", f"experiments={experiment}", *words),
        f"data.source.root={options.train}",
        *("data.source.val_fraction=0.02", "data.source.test_fraction=0.0"),
        f"data_dir={data}",
        f"hydra.run.dir={run}",
        f"trainer.max_time={seconds:g}s",
    ]


def _plainly(options: Namespace, seconds: float, weights: Path) -> list[str]:
    return [
        *(sys.executable, __file__, "--plain", str(weights), "--train", str(options.train)),
        *("--seconds", f"{seconds:g}", "--threads", str(options.threads)),
    ]


def _timed(command: list[str]) -> float:
    """The seconds that a process took from start to end; its progress goes to the terminal."""
    started = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - started


def _psnr(what: list[str], options: Namespace, folder: Path) -> float:
    """The mean PSNR in dB by `restora evaluate`."""
    scores = folder / "scores"
    command = [sys.executable, "-m", "restora.cli", "evaluate", *what, "benchmark=denoise"]
    command += [f"benchmark.sigma={SIGMA}", "benchmark.color=gray", f"benchmark.root={options.test}"]
    subprocess.run([*command, f"output={scores}"], check=True, stdout=subprocess.DEVNULL)
    return float(json.loads((scores / "summary.json").read_text())["psnr"])


# --- the plain loop


class Photos(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    """Noisy and clean patches; each opens its photo anew."""

    def __init__(self, folder: Path, length: int) -> None:
        self.files = sorted(path for path in folder.iterdir() if path.is_file())
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        import numpy as np
        from PIL import Image

        photo = Image.open(self.files[index % len(self.files)]).convert("L")
        top = int(torch.randint(photo.height - PATCH + 1, ()))
        left = int(torch.randint(photo.width - PATCH + 1, ()))
        patch = np.array(photo.crop((left, top, left + PATCH, top + PATCH)), dtype=np.float32)
        if torch.rand(()) < 0.5:
            patch = patch[:, ::-1].copy()
        clean = torch.from_numpy(patch)[None] / 255
        return clean + torch.randn_like(clean) * (SIGMA / 255), clean


def train_plainly(options: Namespace) -> None:
    """Trains in the plain loop for a fixed time; saves a state dict."""
    from restora.networks.drunet import DRUNet

    torch.set_num_threads(options.threads)
    torch.manual_seed(1)
    network = DRUNet(**NETWORK)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    photos = Photos(options.train, 10**9)
    loader: Any = torch.utils.data.DataLoader(photos, batch_size=BATCH, num_workers=2)
    started = time.perf_counter()
    for step, (noisy, clean) in enumerate(loader):
        share = (time.perf_counter() - started) / options.seconds
        if share >= 1:
            print(f"plain loop: {step} steps in {options.seconds:g} s", flush=True)
            break
        for group in optimiser.param_groups:
            group["lr"] = 1e-3 * 0.5 * (1 + float(torch.cos(torch.tensor(torch.pi * share))))
        level = torch.full_like(noisy, SIGMA / 255)
        loss = torch.nn.functional.mse_loss(network(noisy, level), clean)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    torch.save(network.state_dict(), options.plain)


if __name__ == "__main__":
    main()
