"""The photos that a benchmark scores, in a fixed order, and where to get the field's sets of them."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from restora.data.photos import list_photos


@dataclass(frozen=True, kw_only=True)
class TestSet:
    """A named set of test photos: its usual folder, how many there are, and where they come from."""

    __test__ = False  # not a test case, whatever pytest makes of the name

    name: str
    root: str | None = None
    images: int | None = None
    source: str | None = None


def find_photos(root: str, testset: TestSet | None = None) -> list[Path]:
    """The photos directly in `root`, sorted; else those of the only subfolder that has any.

    Raises ValueError that says how to get the set, or which subfolder to choose.
    """
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder} (benchmark.root). {_how_to_get(testset)}")
    found = list_photos(folder)
    direct = [path for path in found if path.parent == folder]
    subfolders = sorted({path.parent for path in found})
    if direct or len(subfolders) == 1:
        return direct or found
    if not found:
        raise ValueError(f"{folder} (benchmark.root) holds no photos. {_how_to_get(testset)}")
    choice = ", ".join(str(path) for path in subfolders[:5])
    raise ValueError(f"{folder} holds photos only in subfolders; set benchmark.root to one of {choice}")


def photo_names(photos: list[Path]) -> list[str]:
    """File names without suffix, with it where two photos would share a name."""
    stems = Counter(path.stem for path in photos)
    return [path.stem if stems[path.stem] == 1 else path.name for path in photos]


def _how_to_get(testset: TestSet | None) -> str:
    if testset is None or testset.source is None:
        return "Set benchmark.root to a folder of photos."
    count = "" if testset.images is None else f" ({testset.images} photos)"
    return (
        f"{testset.name}{count} is {testset.source} It belongs into that folder; or set "
        "benchmark.root=FOLDER to where it is, or data_dir (RESTORA_DATA) to the folder that holds testsets/."
    )
