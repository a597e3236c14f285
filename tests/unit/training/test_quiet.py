"""Warnings of other packages that have a line of ours, or say what is intended, are not shown."""

import warnings
from types import SimpleNamespace

from torch.utils.data import DataLoader

from restora.data.packing import cores
from restora.training.run import quieten


def test_torchs_warning_on_many_workers_is_left_to_the_line_that_names_the_setting() -> None:
    photos = [1, 2]
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        DataLoader(photos, num_workers=cores() + 1)  # type: ignore[arg-type]
        assert [str(one.message) for one in shown if "worker processes" in str(one.message)]
        shown.clear()
        quieten(SimpleNamespace(threads=None))  # type: ignore[arg-type]
        DataLoader(photos, num_workers=cores() + 1)  # type: ignore[arg-type]
        assert not shown
