"""The photos that a benchmark scores, in a fixed order, and the sources of the field's test sets.

The addresses and folders in conf/benchmark/testset are those that public repositories give, and have not
been tested: benchmark.tar and its folders from EDSR-PyTorch's README and torchSR's data sets; BSD68, Set12,
classic5 and LIVE1 from the listing of cszn/DnCNN and the links of KAIR and SwinIR to it; CBSD68, Kodak24 and
McMaster from cszn/FFDNet's demos and its listing. Numbers of photos are the literature's.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from restora.data.archives import Archive
from restora.data.download import is_placed, obtain, release
from restora.data.locking import sole_process
from restora.photos.errors import DataError
from restora.photos.reading import list_photos
from restora.registry import register

log = logging.getLogger(__name__)


@register("testset", "testset")
@dataclass(frozen=True, kw_only=True)
class TestSet:
    """A named set of test photos.

    It has a usual folder, the number of photos, and their origin: the address of an `archive` and the
    `folder` in it, or the words of `source`.
    """

    __test__ = False  # not a test case, despite the name

    name: str
    root: str | None = None
    images: int | None = None
    archive: str | None = None
    folder: str | None = None
    source: str | None = None

    def __post_init__(self) -> None:
        if self.archive is not None and None in (self.root, self.images, self.folder):
            raise ValueError(
                f"{self.name}: archive={self.archive} also needs root (where the photos go), images (how "
                "many there are) and folder (where they are in the archive)"
            )


def find_photos(root: str, testset: TestSet | None = None, *, key: str = "benchmark.root") -> list[Path]:
    """The photos directly in `root`, sorted; else those of the only subfolder that has any.

    Raises ValueError that says how to get the set, or which subfolder to choose; `key` is the setting of the
    folder.
    """
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder} ({key}). {_how_to_get(testset, key)}")
    found = list_photos(folder)
    direct = [path for path in found if path.parent == folder]
    subfolders = sorted({path.parent for path in found})
    if direct or len(subfolders) == 1:
        return direct or found
    if not found:
        raise ValueError(f"{folder} ({key}) holds no photos. {_how_to_get(testset, key)}")
    choice = ", ".join(str(path) for path in subfolders[:5])
    raise ValueError(f"{folder} holds photos only in subfolders; set {key} to one of {choice}")


def obtain_testsets(
    testsets: Sequence[TestSet], *, url: str | None = None, keep_archives: bool = False
) -> None:
    """Downloads the archives of missing sets, each archive once, and unpacks them.

    `url` is another address of the one archive that holds them. Raises `DataError`, after the others were
    fetched if an archive cannot be; before anything is downloaded if a folder holds another number of photos.
    """
    missing = [testset for testset in testsets if not _is_there(testset)]
    archives: dict[str | None, list[TestSet]] = {}
    for testset in missing:
        archives.setdefault(testset.archive, []).append(testset)
    if url is not None and len(archives) > 1:
        groups = " and ".join(",".join(each.name.lower() for each in group) for group in archives.values())
        raise DataError(
            f"archive={url} is one archive, these sets are in {len(archives)}: prepare {groups} separately"
        )
    failed = []
    for address, group in archives.items():
        try:
            _obtain_group(group, url=url or str(address), keep=keep_archives)
        except DataError as error:
            names = ",".join(testset.name.lower() for testset in group)
            failed.append(error if len(archives) == 1 else DataError(f"{names}: {error}"))
    if failed:
        raise failed[0] if len(failed) == 1 else DataError("\n".join(map(str, failed)))


def _is_there(testset: TestSet) -> bool:
    """Whether the set is there. Raises `DataError` if it cannot be downloaded, or the folder is not it."""
    if testset.root is None or testset.archive is None:
        raise DataError(f"{testset.name} is {testset.source or 'not a set that can be downloaded'}")
    folder = Path(testset.root).expanduser()
    if not folder.is_dir():
        return False
    found = len(list_photos(folder))
    if found != testset.images:
        raise DataError(
            f"{folder} holds {found} photos, {testset.name} has {testset.images}: move the folder away and "
            "repeat the command to fetch the set"
        )
    log.info("%s is already there: %d photos in %s", testset.name, found, folder)
    return True


def _obtain_group(group: Sequence[TestSet], *, url: str, keep: bool) -> None:
    """Obtains the sets of one archive.

    No checksum is compared, because GitHub regenerates its zip files: a set counts as fetched when its number
    of photos is right and every one of them decodes.
    """
    places = [Path(str(testset.root)).expanduser() for testset in group]
    name = archive_name(archive=str(group[0].archive), folder=str(group[0].folder))
    file = places[0].parent / name
    with sole_process(file.with_name(".download.lock"), doing=f"downloading into {file.parent}"):
        placed = is_placed(file)
        for testset, place in zip(group, places, strict=True):
            archive = Archive(
                name, place.name, inside=testset.folder, photos=testset.images, url_key="archive"
            )
            obtain(archive, url=url, root=place.parent, keep=None, placed=placed)
            log.info("%s: %d photos in %s", testset.name, testset.images, place)
        if not placed:
            release(file, keep=keep)


def archive_name(*, archive: str, folder: str) -> str:
    """The file that an archive is kept in, named by its top folder: GitHub calls them all master.zip."""
    return PurePosixPath(folder).parts[0] + PurePosixPath(archive).suffix


def _how_to_get(testset: TestSet | None, key: str) -> str:
    if testset is None or (testset.archive is None and testset.source is None):
        return f"Set {key} to a folder of photos."
    count = "" if testset.images is None else f" ({testset.images} photos)"
    get = testset.source
    if testset.archive is not None:
        get = f"fetched by `restora prepare testsets={testset.name.lower()}` into {testset.root}"
    return (
        f"{testset.name}{count} is {get}; or set {key}=FOLDER to where it is, or data_dir "
        "(RESTORA_DATA; the same for both commands) to the folder that holds testsets/."
    )
