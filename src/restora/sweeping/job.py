"""A job of a sweep, from nothing but its folder: `python -m restora.sweeping.job FOLDER`.

Whoever starts it (the server of local jobs, SLURM, Ray) has it write to `train.log` in the folder, traceback
included; its exit code says how it ended, and `run.json` why.
"""

import argparse
import logging
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path


def main(
    folder: Path,
    *,
    jobs: int = 1,
    threads: int | None = None,
    retry: bool = False,
    plugins: Sequence[str] = (),
) -> int:
    """Trains what is left to train in the folder. Leaves by `SystemExit` where the run was stopped."""
    logging.basicConfig(
        level=logging.INFO, format="[%(asctime)s][%(name)s][%(levelname)s] - %(message)s", stream=sys.stderr
    )
    from restora.registry import use_plugins
    from restora.sweeping.ending import failed
    from restora.training.starting import start_folder

    try:
        use_plugins(plugins)
        start_folder(folder, jobs=jobs, threads=threads, retry=retry)
    except Exception as error:
        traceback.print_exc()
        failed(folder, f"{type(error).__name__}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Runs one job of a sweep.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--retry", action="store_true")
    parser.add_argument("--plugin", action="append", default=[])
    words = parser.parse_args()
    code = main(words.folder, jobs=words.jobs, threads=words.threads, retry=words.retry, plugins=words.plugin)
    sys.exit(code)
