"""A further process of a distributed run.

`python worker.py RUN_FOLDER [PLUGIN ...]`, started by the first process.

It ends with the first process, and what it fails of stands in the run folder: the first process says it.
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
    """Joins the run whose first process wrote `run.json` before it launched this one."""
    plain = read_json(folder / "run.json")["config"]
    train(OmegaConf.create(plain), RunInfo(folder=folder, config=plain))


if __name__ == "__main__":
    end_with_first_process()
    use_plugins(sys.argv[2:])
    try:
        main(Path(sys.argv[1]))
    except Exception:  # noted in the run folder
        sys.exit(1)
