"""Numbers that are not finite, and memory that does not suffice."""

import json
import shutil
from collections.abc import Iterator

import torch
from PIL import Image
from rounds import QUICK, Rounds, refused, tail

# --- numbers ---


def poison(r: Rounds, rounds: int) -> None:
    """NaN or infinity in photos, loss or gradients at random steps: left out and named, or one message."""
    for number in range(rounds):
        folder = r.work / f"poison{number}"
        what = r.random.choice(("degraded", "clean", "loss", "gradient"))
        value = r.random.choice(("nan", "inf", "-inf"))
        then, patience = r.random.choice(("back", "stop")), r.random.randint(2, 5)
        first = r.random.randint(2, 100)
        steps = sorted(
            {first + offset for offset in range(r.random.randint(1, 6))}
            | {r.random.randrange(150) for _ in range(r.random.randint(0, 4))}
        )
        given = "" if value == "nan" else f"value:{value},"  # the default is not taken from a configuration
        fault = f"+callbacks.fault={{_target_:fault_callbacks.Poison,what:{what},{given}steps:{steps}}}"
        words = [*QUICK, fault.replace(" ", ""), f"callbacks.non_finite.patience={patience}"]
        gan = r.random.random() < 0.3
        if gan:
            words = [word for word in words if not word.startswith("network.depth")]
            words += [
                "network=msrresnet_small", "network.scale=1", "network.blocks=1", "family=gan",
                "discriminator@objective.adversarial.discriminator=patch_small", "data.patch_size=32",
            ]  # fmt: skip
        code, output = r.run("train", *words, f"callbacks.non_finite.then={then}", f"hydra.run.dir={folder}")
        runs = max(_runs_of(steps, 150))
        path = folder / "poison.jsonl"
        named = [json.loads(line)["step"] for line in path.read_text().splitlines()] if path.exists() else []
        if runs >= patience and then == "stop":
            problem = refused(code, output, "in a row were not finite")
        elif code:
            problem = tail(output)
        else:
            problem = None if named == steps else f"named {named}, poisoned {steps}"
        for checkpoint in folder.rglob("*.ckpt"):
            state = torch.load(checkpoint, weights_only=True)["state_dict"]
            if not all(v.isfinite().all() for v in state.values() if v.is_floating_point()):
                problem = f"{checkpoint.name} is not finite"
        what = f"{what} {value} at {steps}, {then} after {patience}{', GAN' if gan else ''}"
        r.round(f"{what} (exit {code})", problem)
        shutil.rmtree(folder, ignore_errors=True)


def _runs_of(steps: list[int], end: int) -> Iterator[int]:
    length = 0
    for step in range(end + 1):
        length = length + 1 if step in steps else 0
        yield length


# --- memory ---


def memory(r: Rounds, rounds: int) -> None:
    """Limits on addresses: a training says what to lower; a photo of 100 megapixels is restored in tiles."""
    r.reference()
    photo = r.work / "large.png"
    for number in range(rounds):
        if number % 2 == 0:
            batch, limit = r.random.randint(300, 900), r.random.randint(5, 7)
            words = [
                "data.patch_size=256",
                f"data.batch_size={batch}",
                f"hydra.run.dir={r.work}/large{number}",
            ]
            code, output = r.run_limited(limit << 30, "train", *QUICK, *words)
            r.round(f"a batch of {batch} in {limit} GiB", refused(code, output, "data.batch_size"))
            continue
        if not photo.exists():
            Image.effect_noise((10_000, 10_000), 40).convert("RGB").save(photo, compress_level=1)
        tile, limit = r.random.choice((256, 384, 512)), r.random.randint(10, 14)
        restored = r.work / f"restored{number}.png"
        words = ["restore", r.model(), photo, restored, "--tile", tile]
        code, output = r.run_limited(limit << 30, *words)
        problem = tail(output) if code else None
        if problem is None:
            Image.MAX_IMAGE_PIXELS = None  # it is ours
            with Image.open(restored) as found:
                problem = None if found.size == (10_000, 10_000) else "another size"
        restored.unlink(missing_ok=True)
        r.round(f"100 megapixels in tiles of {tile} in {limit} GiB", problem)
