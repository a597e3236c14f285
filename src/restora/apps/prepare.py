"""`restora prepare`: downloads, verifies and packs data sets and test sets."""

import difflib
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from restora.data.module import PhotoData

HELP = """usage: restora prepare [data=NAME [TRACK ...]] [testsets=NAME,...]
                       [KEY=VALUE ...]

  restora prepare data=div2k                 the photos of DIV2K (4.0 GB)
  restora prepare data=div2k bicubic_x4 mild and low-resolution tracks of it
  restora prepare data=div2k_lr data.source.scale=2
                                             pairs of the bicubic track, packed
  restora prepare data=free_photos           165 free photos (0.24 GB)
  restora prepare data=folder data.source.root=PATH
                                             your own photos
  restora prepare data=paired_folder data.source.root=PATH
                                             your own pairs
  restora prepare --verify data=div2k        every packed pixel compared with
                                             its checksum
  restora prepare testsets=bsd68,set12       test sets, for restora evaluate
  restora prepare testsets=all               all that can be downloaded

An interrupted download resumes where it stopped. data_dir=PATH (or
RESTORA_DATA) is where all data is kept.
tracks: bicubic_x2 bicubic_x3 bicubic_x4 bicubic_x8 unknown_x2 unknown_x3
unknown_x4 mild difficult wild
test sets, an archive a line (archive=URL is another address of it):
  bsd68 classic5 live1 set12
  cbsd68 kodak24 mcmaster
  bsd100 set14 set5 urban100
  div2k_valid comes with data=div2k
"""
_TESTSETS = "benchmark/testset"
log = logging.getLogger(__name__)


def main(argv: list[str]) -> int:
    """Raises ValueError if a data set cannot be prepared.

    Photos that cannot be used are named and left out, and the exit status is 1.
    """
    if not argv or any(flag in argv for flag in ("-h", "--help")):
        print(HELP)
        return 0 if argv else 2
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        return _prepare(argv)
    except KeyboardInterrupt:
        print("\nrestora prepare: stopped; the same command continues", file=sys.stderr)
        raise


def _prepare(argv: list[str]) -> int:
    from restora.composing.path_values import with_quoted_paths
    from restora.config import ConfigError, compose
    from restora.data.archives import disk_of_data

    verify, argv = "--verify" in argv, [word for word in argv if word != "--verify"]
    tracks = [word for word in argv if "=" not in word]
    if options := [word for word in tracks if word.startswith("-")]:
        raise ConfigError(
            f"there is no option {options[0]}: the only one is --verify (restora prepare --help)"
        )
    overrides = [_as_list(word) for word in with_quoted_paths(argv) if "=" in word]
    if tracks:
        overrides.append(f"tracks=[{','.join(tracks)}]")
    config = compose("prepare", overrides)
    if "data" not in config and not config.testsets:
        raise ConfigError("prepare what? Set data=NAME, such as div2k, or testsets=NAME,…, such as bsd68")
    if "data" not in config and config.tracks:
        raise ConfigError(f"{' '.join(tracks)}: only DIV2K has tracks (data=div2k); testsets=a,b has commas")
    with disk_of_data(Path(config.data_dir)):
        if config.testsets:
            _prepare_testsets(config, overrides)
        return _prepare_data(config, verify=verify) if "data" in config else 0


def _prepare_data(config: "DictConfig", *, verify: bool) -> int:
    """Downloads and packs a data set; returns 1 if photos are left out, else 0."""
    from restora.data.sources import SPLITS

    data = _made(config.data)
    data.source.obtain(tracks=list(config.tracks), keep_archives=config.keep_archives)
    for split in SPLITS:
        data.stores(split)  # packs; `_show` lists what is left out
    if verify:
        _verify(data)
    return _show(data)


def _verify(data: "PhotoData") -> None:
    """Packs again every store whose pixels are not those that were packed."""
    import shutil

    from restora.data.sources import SPLITS
    from restora.data.store import DamagedStore

    for split in SPLITS:
        for store in data.stores(split).values():
            try:
                store.verify(whole=True)
                log.info("%s: %d photos are as they were packed", store.folder.name, len(store))
            except DamagedStore as damage:
                log.warning("%s: the photos are packed again", damage)
                shutil.rmtree(store.folder)
        data.stores(split)


def _as_list(word: str) -> str:
    """`testsets=a,b` in Hydra's grammar of lists."""
    key, _, value = word.partition("=")
    return f"{key}=[{value}]" if key == "testsets" and not value.startswith("[") else word


def _prepare_testsets(config: "DictConfig", overrides: list[str]) -> None:
    from restora.config import build, compose
    from restora.evaluation.testsets import obtain_testsets

    names = _known_testsets([str(name) for name in config.testsets])
    added = [f"+{_TESTSETS}@nodes.{name}={name}" for name in names]
    nodes = compose("prepare", [*overrides, *added], extra=["nodes"]).nodes
    testsets = [build(nodes[name], "testset") for name in names]
    if "all" in config.testsets:
        for testset in testsets:
            if testset.archive is None:
                log.info("%s is %s", testset.name, testset.source)
        testsets = [testset for testset in testsets if testset.archive is not None]
    obtain_testsets(testsets, url=config.archive, keep_archives=config.keep_archives)


def _known_testsets(wanted: list[str]) -> list[str]:
    """The names in lower case, each once; every name for `all`. Raises `ConfigError` for unknown ones."""
    from restora.config import ConfigError, options

    known = [name for name in options(_TESTSETS) if name != "folder"]
    if "all" in wanted:
        return known
    for name in wanted:
        if name.lower() not in known:
            near = difflib.get_close_matches(name.lower(), known, n=3)
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            raise ConfigError(f"there is no test set {name}.{hint}\nThere are: {', '.join(known)}, all")
    return list(dict.fromkeys(name.lower() for name in wanted))


def _made(node: "DictConfig") -> "PhotoData":
    """The data module of a configuration node."""
    from restora.config import build
    from restora.degradations.identity import Identity

    data: PhotoData = build(node, "data", degradation=Identity())
    return data


def _show(data: "PhotoData") -> int:
    """Prints a table of the packed photos and a list of those left out; returns 1 if any were, else 0."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from restora.data.sources import SPLITS

    table = Table("split", "photos", "megapixels", "left out", "store", box=None)
    named = {str(path): reason for path, reason in data.source.left_out().items()}
    for split in SPLITS:
        for store in data.stores(split).values():
            named |= {gone.path: gone.reason for gone in data.left_out(store, split)}
            pixels = sum(entry.clean.height * entry.clean.width for entry in store.entries)
            gone = len(data.left_out(store, split))
            table.add_row(split, str(len(store)), f"{pixels / 1e6:.1f}", str(gone), escape(store.folder.name))
    console = Console()
    console.print(table)
    console.print(f"packed in {data.store_dir}", markup=False, soft_wrap=True, highlight=False)
    if named:
        print(f"restora prepare: {len(named)} left out:", file=sys.stderr)
    for path, reason in named.items():
        print(f"restora prepare: {path}: {reason}", file=sys.stderr)
    return 1 if named else 0
