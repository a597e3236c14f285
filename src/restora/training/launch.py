"""How further processes of a distributed run come up, whatever started the first one.

Lightning starts process 1, 2, ... by running this process's own command line again. Inside a sweep, under a
launcher (joblib, submitit) or behind a console script with sub-commands that line is not the run. So for the
time of the launch the command line is `worker.py RUN_FOLDER`, which reads the run's recorded configuration
and joins in.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def relaunching_as_worker(folder: Path, plugins: Sequence[str] = ()) -> Iterator[None]:
    """Within it, Lightning's subprocess launcher starts `worker.py FOLDER [PLUGIN ...]`."""
    import __main__

    script = Path(__file__).with_name("worker.py")
    arguments, spec = sys.argv, getattr(__main__, "__spec__", None)
    sys.argv, __main__.__spec__ = [str(script), str(folder.resolve()), *plugins], None
    try:
        yield
    finally:
        sys.argv, __main__.__spec__ = arguments, spec
