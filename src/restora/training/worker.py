"""A worker process (rank above 0) of a distributed run.

`python worker.py RUN_FOLDER [PLUGIN ...]`, started by process 0.

It ends with process 0. Its failure is noted in the run folder and reported by process 0.
"""

import sys
from pathlib import Path

from omegaconf import OmegaConf

from restora.files import read_json
from restora.registry import use_plugins
from restora.training.launch import end_with_first_process
from restora.training.record import RunInfo
from restora.training.run import train


def main(folder: Path) -> None:
    """Joins the run whose process 0 wrote `run.json` before it started this process."""
    plain = read_json(folder / "run.json")["config"]
    train(OmegaConf.create(plain), RunInfo(folder=folder, config=plain))


if __name__ == "__main__":
    end_with_first_process()
    use_plugins(sys.argv[2:])
    try:
        main(Path(sys.argv[1]))
    except Exception:  # noted in the run folder
        sys.exit(1)
