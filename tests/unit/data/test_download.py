"""Downloads that break off or meet a damaged file."""

import hashlib
import random
import ssl
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from archive_server import ArchiveServer, Plan, zipped
from rich.console import Console

from restora.data.archives import Archive, CorruptArchive, disk_of_data
from restora.data.download import Patience, fetch, obtain
from restora.data.locking import sole_process
from restora.data.progress import Lines
from restora.photos.errors import DataError

NAME = "photos.zip"
IMPATIENT = Patience(timeout=0.5, attempts=3, pause=0.01)
BODY = zipped({f"photos/{index:04}.png": random.Random(index).randbytes(100_000) for index in range(20)})


@pytest.fixture
def server():
    with ArchiveServer({NAME: BODY}) as server:
        yield server


def known(body: bytes = BODY) -> Archive:
    return Archive(NAME, "photos", len(body), hashlib.sha256(body).hexdigest())


def get(server: ArchiveServer, folder: Path, archive: Archive | None = None) -> Path:
    target = folder / NAME
    fetch(archive or known(), url=f"{server.url}/{NAME}", target=target, patience=IMPATIENT)
    return target


def test_a_download(server: ArchiveServer, tmp_path: Path) -> None:
    assert get(server, tmp_path).read_bytes() == BODY
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_a_connection_that_is_cut_goes_on_where_it_stopped(server: ArchiveServer, tmp_path: Path) -> None:
    server.plans = [Plan(cut=300_000), Plan(cut=500_001), Plan(cut=0), Plan()]
    assert get(server, tmp_path).read_bytes() == BODY
    ranges = [request.range for request in server.requests]
    assert ranges == [None, "bytes=300000-", "bytes=800001-", "bytes=800001-"]
    assert all(request.if_range for request in server.requests[1:])
    assert sum(request.sent for request in server.requests) == len(BODY), "bytes were sent twice"


def test_a_later_command_goes_on_too(server: ArchiveServer, tmp_path: Path) -> None:
    server.plans = [Plan(cut=700_000), Plan(status=503), Plan(status=503), Plan(status=503)]
    with pytest.raises(DataError, match=r"503.*700.0 kB are kept, and the same command resumes from there"):
        get(server, tmp_path)
    assert not (tmp_path / NAME).exists()
    assert get(server, tmp_path).read_bytes() == BODY
    assert server.requests[-1].range == "bytes=700000-"


def test_a_stalled_connection_is_given_up_and_resumed(server: ArchiveServer, tmp_path: Path) -> None:
    server.plans = [Plan(cut=1_000_000, stall=3.0)]
    assert get(server, tmp_path).read_bytes() == BODY
    assert server.requests[-1].range == "bytes=1000000-"


def test_a_busy_server_is_asked_again(server: ArchiveServer, tmp_path: Path) -> None:
    server.plans = [Plan(status=503), Plan(status=429)]
    assert get(server, tmp_path).read_bytes() == BODY
    assert len(server.requests) == 3


def test_a_file_that_changed_meanwhile_starts_over(server: ArchiveServer, tmp_path: Path) -> None:
    server.plans = [Plan(cut=400_000), *[Plan(status=500)] * 3]
    with pytest.raises(DataError):
        get(server, tmp_path)
    newer = bytes(len(BODY) - 5) + b"newer"
    server.files[NAME] = newer
    assert get(server, tmp_path, known(newer)).read_bytes() == newer


def test_a_server_without_ranges_starts_over(server: ArchiveServer, tmp_path: Path) -> None:
    server.plans = [Plan(cut=400_000), Plan(whole=True)]
    assert get(server, tmp_path).read_bytes() == BODY


def test_a_shorter_file_on_the_server_starts_over(server: ArchiveServer, tmp_path: Path) -> None:
    server.plans = [Plan(cut=900_000), *[Plan(status=500)] * 3]
    with pytest.raises(DataError):
        get(server, tmp_path)
    (tmp_path / f"{NAME}.part").write_bytes(BODY + b"and more")
    assert get(server, tmp_path).read_bytes() == BODY


def test_killed_after_the_last_byte(server: ArchiveServer, tmp_path: Path) -> None:
    server.plans = [Plan(cut=len(BODY) - 1), *[Plan(status=500)] * 3]
    with pytest.raises(DataError):
        get(server, tmp_path)
    with (tmp_path / f"{NAME}.part").open("ab") as part:
        part.write(BODY[-1:])
    assert get(server, tmp_path).read_bytes() == BODY
    assert server.requests[-1].sent == 0


def test_a_missing_file_fails_at_once(server: ArchiveServer, tmp_path: Path) -> None:
    server.files.clear()
    with pytest.raises(DataError, match=r"404.*check data\.source\.url"):
        get(server, tmp_path)
    assert len(server.requests) == 1


def test_no_server(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no connection"):
        fetch(known(), url="http://127.0.0.1:9/x", target=tmp_path / NAME, patience=IMPATIENT)
    with pytest.raises(DataError, match="is not a URL"):
        fetch(known(), url="photos", target=tmp_path / NAME, patience=IMPATIENT)


def test_a_web_page_does_not_replace_the_bytes_so_far(server: ArchiveServer, tmp_path: Path) -> None:
    server.plans = [Plan(cut=700_000), Plan(page=True)]
    with pytest.raises(DataError, match=r"web page instead of photos\.zip.*700\.0 kB are kept"):
        get(server, tmp_path)
    assert get(server, tmp_path).read_bytes() == BODY
    assert server.requests[-1].range == "bytes=700000-"


def test_without_a_version_of_the_file_nothing_is_promised(server: ArchiveServer, tmp_path: Path) -> None:
    server.plans = [Plan(cut=700_000, marked=False), *[Plan(status=503)] * 3]
    with pytest.raises(DataError, match="the same command starts the download again"):
        get(server, tmp_path)


def test_what_no_other_attempt_can_change_fails_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patience = Patience(timeout=0.5, attempts=3, pause=1000.0)
    with pytest.raises(DataError, match=r"nothing\.zip: No such file or directory: check data\.source\.url"):
        fetch(known(), url=f"file://{tmp_path}/nothing.zip", target=tmp_path / NAME, patience=patience)

    def untrusted(*_: object, **__: object) -> None:
        raise urllib.error.URLError(ssl.SSLCertVerificationError(1, "unknown issuer"))

    monkeypatch.setattr(urllib.request, "urlopen", untrusted)
    with pytest.raises(DataError, match="SSL_CERT_FILE"):
        fetch(known(), url="https://photos", target=tmp_path / NAME, patience=patience)


def test_an_archive_that_an_interrupted_command_fetched_is_removed(
    server: ArchiveServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("restora.data.download.unpack", stopped)
        with pytest.raises(KeyboardInterrupt):
            obtain(known(), url=f"{server.url}/{NAME}", root=tmp_path)
    assert (tmp_path / NAME).exists()
    obtain(known(), url=f"{server.url}/{NAME}", root=tmp_path)
    assert len(server.requests) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_a_disk_that_becomes_full_is_named_with_its_setting(tmp_path: Path) -> None:
    with (
        pytest.raises(DataError, match=rf"{tmp_path}: No space left.*data_dir"),
        disk_of_data(tmp_path),
        open("/dev/full", "wb", buffering=0) as full,
    ):
        full.write(b"x")


def test_a_folder_that_cannot_be_written_is_named_with_its_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(DataError, match=r"file cannot be written to.*data_dir"),
        sole_process(tmp_path / "file" / ".lock", doing="nothing"),
    ):
        pass


def test_the_lines_of_a_download_of_unknown_length(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines(Console(stderr=True), "downloading", None, in_bytes=True)
    lines.drawn_at = -100.0
    lines(3_000_000)
    assert capsys.readouterr().err == "downloading · 3 MB\n"


def test_another_file_is_refused_before_it_is_loaded(server: ArchiveServer, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is another file.*data\.source\.verify=false"):
        get(server, tmp_path, Archive(NAME, "photos", len(BODY) + 1))


def test_a_full_disk_is_noticed_before(server: ArchiveServer, tmp_path: Path) -> None:
    server.plans = [Plan(announce=10**16)] * 3  # the first connections may time out
    with pytest.raises(DataError, match=r"10.0 PB are needed.*are left"):
        get(server, tmp_path, Archive(NAME, "photos"))


def test_a_damaged_file_is_fetched_once_more(server: ArchiveServer, tmp_path: Path) -> None:
    server.plans = [Plan(flip=1_234_567)]
    folder = obtain(known(), url=f"{server.url}/{NAME}", root=tmp_path, patience=IMPATIENT)
    assert len(server.requests) == 2
    assert len(list(folder.iterdir())) == 20
    assert not (tmp_path / NAME).exists()


@pytest.mark.parametrize("checksum", [True, False])
def test_a_file_that_stays_damaged_is_removed_and_named(
    server: ArchiveServer, tmp_path: Path, checksum: bool
) -> None:
    """Without a checksum it is the CRC of a photo in the archive that tells."""
    server.plans = [Plan(flip=1_234_567)] * 2
    archive = known() if checksum else Archive(NAME, "photos")
    with pytest.raises(CorruptArchive, match=r"photos.zip is damaged.*the same command downloads it again"):
        obtain(archive, url=f"{server.url}/{NAME}", root=tmp_path, patience=IMPATIENT)
    assert list(tmp_path.iterdir()) == []
    assert (
        obtain(archive, url=f"{server.url}/{NAME}", root=tmp_path, patience=IMPATIENT) == tmp_path / "photos"
    )


def test_what_is_there_is_not_fetched_again(server: ArchiveServer, tmp_path: Path) -> None:
    obtain(known(), url=f"{server.url}/{NAME}", root=tmp_path, keep=True)
    assert (tmp_path / NAME).read_bytes() == BODY
    obtain(known(), url=f"{server.url}/{NAME}", root=tmp_path)
    assert len(server.requests) == 1
