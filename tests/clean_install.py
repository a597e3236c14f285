"""A new environment with the wheel and what it depends on, from the package index, and nothing of this one:
restores, evaluates, trains, exports and serves as the README says.

    python tests/clean_install.py [--venv FOLDER]       (minutes; a FOLDER stays, and is used again)

Note: the lines that need an extra are tried before it is installed too: they have to name it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
CONSTRAINTS = ["-c", str(REPOSITORY / "constraints.txt")]

OURS = """
import torch
from restora.networks.dncnn import DnCNN
torch.manual_seed(0)
network = DnCNN(in_channels=3, depth=3, channels=8)
weights = {f"module.{name}": value for name, value in network.state_dict().items()}
torch.save({"params_ema": weights}, "ours.pth")
"""
THEIRS = """
import torch
from restora.artifact import foreign
foreign._spandrel()
from spandrel.architectures.Compact import Compact
torch.manual_seed(0)
torch.save({"params": Compact(num_feat=8, num_conv=2, upscale=2).state_dict()}, "theirs.pth")
"""
PHOTOS = """
import os
from PIL import Image
from skimage import data
os.makedirs("photos/trip", exist_ok=True)
Image.fromarray(data.chelsea()[:120, :160]).save("photos/cat.png")
Image.fromarray(data.astronaut()[:90, :96]).save("photos/trip/pilot.jpg", quality=92)
"""
SIZES = """
import sys
from PIL import Image
for folder in sys.argv[1:]:
    print(folder, *(Image.open(f"{folder}/{name}").size for name in ("cat.png", "trip/pilot.jpg")))
"""


class Clean:
    """The environment at `venv`, used from the folder `work`."""

    def __init__(self, venv: Path, work: Path) -> None:
        self.bin, self.work, self.count = venv / "bin", work, 0
        kept = ("PATH", "HOME", "LANG", "TMPDIR", "OMP_NUM_THREADS", "PIP_CONFIG_FILE", "SSL_CERT_FILE")
        self.environment = {name: os.environ[name] for name in kept if name in os.environ}
        self.environment |= {"NO_ALBUMENTATIONS_UPDATE": "1", "WANDB_MODE": "offline"}

    def run(self, *words: str | Path, code: int = 0, says: str = "") -> str:
        """What a command printed; it has to end with `code` and to say `says`."""
        started = time.perf_counter()
        done = subprocess.run(
            [str(self.bin / words[0]), *map(str, words[1:])],
            cwd=self.work,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        said = done.stdout + done.stderr
        shown = " ".join(str(word) for word in words[:6] if "\n" not in str(word))
        if done.returncode != code or says not in " ".join(said.split()) or "Traceback" in said:
            sys.exit(f"{said}\n{shown}: exit code {done.returncode}, wanted {code} and {says!r}")
        print(f"{time.perf_counter() - started:6.1f} s  {shown}", flush=True)
        self.count += 1
        return done.stdout

    def install(self, wheel: Path, extra: str = "") -> None:
        self.run("python", "-m", "pip", "install", "--quiet", *CONSTRAINTS, f"{wheel}{extra}")


def lines(clean: Clean, wheel: Path) -> None:
    """Every line that a newcomer types, in a folder without anything else of restora."""
    for script in (PHOTOS, OURS):
        clean.run("python", "-c", script)
    clean.run("restora", "restore", "ours.pth", "photos/", "restored/", says="restored 2 of 2 photos")
    clean.run("restora", "restore", "photos/", "everyday/", says="restored 2 of 2 photos")
    clean.run("restora", "restore", "zoo:denoise", "photos/", "clean/", "--sigma", "auto", says="estimated")
    clean.run("restora", "restore", "zoo:denoise", "photos/cat.png", "again.webp", "--sigma", "15")
    benchmark = ["benchmark=denoise", "benchmark.sigma=25", "benchmark.root=photos", "output=figures"]
    clean.run("restora", "evaluate", "model=zoo:denoise", *benchmark, says="input")
    figures = json.loads((clean.work / "figures" / "summary.json").read_text())
    assert figures, "no figures"
    train = ["experiments=quickstart/dncnn", "debug=fast", "data_dir=data"]
    clean.run("restora", "train", *train, "hydra.run.dir=run")
    network = json.loads((folder_of(clean, "denoise") / "model.json").read_text())["network"]
    starting = [f"network={network['name']}"] + [
        f"network.{name}={json.dumps(value, separators=(',', ':'))}"
        for name, value in network["arguments"].items()
    ]
    data = ["degradation=gaussian_noise", "debug=fast", "data_dir=data", "data.channels=rgb"]
    clean.run(
        "restora", "train", *starting, *data, "init=zoo:denoise", "hydra.run.dir=more", says="starts from"
    )
    clean.run("restora", "export", "run", "model/", says="model folder: model")
    clean.run("restora", "restore", "model/", "photos/", "exported/", says="restored 2 of 2 photos")
    sizes = clean.run("python", "-c", SIZES, "restored", "clean", "exported")
    assert sizes.count("(160, 120) (96, 90)") == 3, sizes

    clean.run(
        "restora", "restore", "model/", "photos/", "o/", "--engine", "openvino", code=2, says="pip install"
    )
    clean.run("restora", "serve", "model/", code=2, says="pip install 'restora[serve]'")
    clean.install(wheel, "[any]")
    clean.run("python", "-c", THEIRS)
    clean.run("restora", "restore", "theirs.pth", "photos/", "twice/", says="Compact")
    assert "(320, 240) (192, 180)" in clean.run("python", "-c", SIZES, "twice")
    clean.run("restora", "export", "theirs.pth", "their_model/", says="the same output")
    clean.install(wheel, "[serve]")
    served(clean)


def folder_of(clean: Clean, name: str) -> Path:
    code = f"from restora.zoo.index import folder_of; print(folder_of({name!r}))"
    return Path(clean.run("python", "-c", code).strip())


def served(clean: Clean) -> None:
    """The page and one photo through the API, on a port that is free."""
    command = [str(clean.bin / "restora"), "serve", "zoo:denoise", "their_model", "--port", "0"]
    with subprocess.Popen(
        command, cwd=clean.work, env=clean.environment, stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            url = next(line.split("page: ")[1].strip() for line in server.stdout if "page: " in line)
            until_ready(url)
            with urllib.request.urlopen(url) as page:
                assert b"<title>" in page.read()
            photo = (clean.work / "photos" / "cat.png").read_bytes()
            parts = [("photo", photo), ("model", b"denoise"), ("sigma", b"25")]
            body = b"".join(
                b'--x\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
                % (name.encode(), b'; filename="cat.png"' if name == "photo" else b"", value)
                for name, value in parts
            )
            request = urllib.request.Request(
                f"{url.rstrip('/')}/v1/restorations?wait=60",
                data=body + b"--x--\r\n",
                headers={"Content-Type": "multipart/form-data; boundary=x"},
            )
            with urllib.request.urlopen(request) as answer:
                assert answer.read(4) == b"\x89PNG", answer.headers
            print(f"        serve: {url} answers with the page and a photo")
        finally:
            server.terminate()
    assert server.returncode == 0, server.returncode


def until_ready(url: str, seconds: float = 120) -> None:
    """The models warm up first; until then the server answers 503."""
    for _ in range(int(seconds * 2)):
        try:
            urllib.request.urlopen(f"{url.rstrip('/')}/readyz").close()
            return
        except urllib.error.HTTPError:
            time.sleep(0.5)
    sys.exit(f"{url} was not ready after {seconds:.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description="The README's lines in a clean environment.")
    parser.add_argument("--venv", type=Path, help="an environment of a run before, or where to leave one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        subprocess.run(
            [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
            cwd=REPOSITORY,
            check=True,
            capture_output=True,
        )
        (wheel,) = folder.glob("*.whl")
        venv = options.venv or folder / "venv"
        if not (venv / "bin" / "python").exists():
            subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        work = folder / "work"
        work.mkdir()
        clean = Clean(venv.resolve(), work)
        extras = [
            "spandrel",
            "torchvision",
            "fastapi",
            "uvicorn",
            "onnx",
            "onnxruntime",
            "openvino",
            "restora",
        ]
        clean.run("python", "-m", "pip", "uninstall", "--quiet", "--yes", *extras)
        clean.install(wheel)
        lines(clean, wheel)
        print(f"{clean.count} commands in a clean environment did what the pages say")


if __name__ == "__main__":
    main()
