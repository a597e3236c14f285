"""A further process of a distributed run.

`python worker.py RUN_FOLDER [PLUGIN ...]`, started by the first process.

Whatever else is on the command line (Lightning adds Hydra overrides) is about folders that the first process
looks after.
"""

import sys
from pathlib import Path

from omegaconf import OmegaConf

from restora.files import read_json
from restora.registry import use_plugins
from restora.training.record import RunInfo
from restora.training.run import train


def main(folder: Path) -> None:
    """Joins the run whose first process wrote `run.json` before it launched this one."""
    plain = read_json(folder / "run.json")["config"]
    train(OmegaConf.create(plain), RunInfo(folder=folder, config=plain))


if __name__ == "__main__":
    use_plugins(word for word in sys.argv[2:] if "=" not in word)
    main(Path(sys.argv[1]))
