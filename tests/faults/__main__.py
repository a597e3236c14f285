"""Everything that can go wrong, tried at random, with a count at the end: `make test-faults`.

    python tests/faults [--seed 1] [--rounds 10] [--only kills,files,disk,servers,poison,strangers,memory]

Another seed tries other moments, signals, files and bytes. `disk` mounts a small tmpfs, which takes root;
what cannot be tried on a machine is said and not counted. Ends with 1 where a round was not survived. What a
killed one has left (its folder, the tmpfs in it) goes when the next one starts.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]

from kinds import KINDS  # noqa: E402
from rounds import Rounds  # noqa: E402

_NAME = "restora-faults-"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    listed = ", ".join(f"{kind} {rounds}" for kind, (_, rounds) in KINDS.items())
    parser.add_argument("--rounds", type=int, help=f"of each kind; otherwise {listed}")
    parser.add_argument("--only", default=",".join(KINDS))
    options = parser.parse_args()
    started = time.monotonic()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    _clear()
    with tempfile.TemporaryDirectory(prefix=f"{_NAME}{os.getpid()}-") as work:
        r = Rounds(Path(work), options.seed)
        for kind in options.only.split(","):
            if kind not in KINDS:
                parser.error(f"--only knows {', '.join(KINDS)}, got {kind}")
            r.kind = kind
            attempt, rounds = KINDS[kind]
            attempt(r, options.rounds or rounds)
    tried, survived = (sum(count[i] for count in r.counts.values()) for i in (0, 1))
    for kind, (of, well) in r.counts.items():
        print(f"{kind:10} {of:3} rounds tried, {well:3} survived")
    spent = time.monotonic() - started
    print(f"faults: {tried} rounds tried, {survived} survived, seed {options.seed}, {spent:.0f} s")
    return 0 if survived == tried else 1


def _clear() -> None:
    """Removes the folders of killed ones, and what is mounted in them."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_NAME}*"):
        if Path("/proc", folder.name.removeprefix(_NAME).partition("-")[0]).exists():
            continue
        for line in Path("/proc/mounts").read_text().splitlines():
            if (place := line.split()[1]).startswith(f"{folder}/"):
                subprocess.run(["umount", "-l", place], check=False)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
