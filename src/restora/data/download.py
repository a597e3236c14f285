"""Downloads of large archives: resumed, verified, and their photos unpacked.

Enters: a URL and what is known of the file. Leaves: the file, or a folder of photos. An interrupted download
resumes where it stopped, also in a later command: the bytes so far lie in `NAME.part`, and
`NAME.part.version` holds the server's identifier of their version (sent as If-Range, so the download starts
over if the file has changed on the server). What is known of the file (size, SHA-256 or MD5) is checked
before it gets its name. A downloaded file that is damaged, or turns out wrong when it is unpacked, is removed
and fetched once more; after a second failure the command gives up. A web page (of a proxy, or a network's
login) is never an archive: it is refused before the bytes so far are touched.
"""

import base64
import hashlib
import http.client
import logging
import os
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.filesize import decimal

from restora.data.archives import Archive, CorruptArchive, check_disk, disk_of_data, unpack
from restora.data.progress import progress
from restora.files import sync
from restora.photos.errors import DataError
from restora.redaction import redacted

log = logging.getLogger(__name__)
_CHUNK = 1 << 20
_PASSING = (408, 425, 429, 500, 502, 503, 504)
"""HTTP status codes of errors that may be temporary."""


class Interrupted(Exception):
    """A connection that broke or could not be made; another attempt may succeed."""


@dataclass(frozen=True)
class Patience:
    """The timeout of a read in seconds, and how many attempts in a row without a new byte end a download.

    Pauses are 1, 2, 4, … times `pause` seconds.
    """

    timeout: float = 30.0
    attempts: int = 6
    pause: float = 1.0


def obtain(
    archive: Archive,
    *,
    url: str,
    root: Path,
    keep: bool | None = False,
    placed: bool | None = None,
    patience: Patience | None = None,
) -> Path:
    """The folder `root/archive.folder` with the archive's photos, downloaded unless it is there.

    The downloaded file is `root/archive.name`, removed afterwards unless `keep`; null leaves that to the
    caller (`release`). A file that is there already is used, and never removed unless an interrupted command
    fetched it, because the user may have `placed` it. Raises `DataError`.
    """
    folder, target = root / archive.folder, root / archive.name
    if folder.is_dir():
        return folder
    root.mkdir(parents=True, exist_ok=True)
    placed = is_placed(target) if placed is None else placed
    for last in (False, True):
        try:
            if not target.exists():
                fetch(archive, url=url, target=target, patience=patience)
                mark_as_fetched(target)
            unpack(archive, target, folder)
            break
        except CorruptArchive as error:
            if placed:
                raise CorruptArchive(
                    f"{error}. {target} was there already: move it away, and the same command fetches it"
                ) from error
            release(target, keep=False)
            if last:
                raise CorruptArchive(
                    f"{error}. It was downloaded twice and is removed: the same command downloads it again"
                ) from error
            log.warning("%s: downloading it once more", error)
    if keep is not None and not placed:
        release(target, keep=keep)
    return folder


def is_placed(target: Path) -> bool:
    """Whether the file is there and no command has fetched it, so that it is the user's own."""
    return target.exists() and not _fetched_mark(target).exists()


def mark_as_fetched(target: Path) -> None:
    """Notes that a command fetched the file, for a later one, should this one be interrupted."""
    _fetched_mark(target).touch()


def release(target: Path, *, keep: bool) -> None:
    """Removes a fetched file, or leaves it to the user."""
    if not keep:
        target.unlink(missing_ok=True)
    _fetched_mark(target).unlink(missing_ok=True)


def _fetched_mark(target: Path) -> Path:
    return target.with_name(f"{target.name}.fetched")


# --- the network ----------------------------------------------------------------------------------------


def fetch(archive: Archive, *, url: str, target: Path, patience: Patience | None = None) -> None:
    """Downloads `url` to `target`, resuming an earlier attempt, and verifies it.

    Raises `CorruptArchive` for a file that is not the known one, `DataError` if the server does not send it.
    """
    patience = patience or Patience()
    part = target.with_name(f"{target.name}.part")
    failures = 0
    while True:
        before = _length(part)
        try:
            with disk_of_data(part.parent):
                _transfer(url, part, archive, patience.timeout)
            break
        except Interrupted as cut:
            failures = 1 if _length(part) > before else failures + 1
            if failures >= patience.attempts:
                raise DataError(
                    f"{redacted(url)}: {cut}; {_next_command(part)}; or put the file at {target} yourself"
                ) from cut
            pause = patience.pause * 2 ** (failures - 1)
            kept = f"{decimal(_length(part))} are kept, " if _can_resume(part) else ""
            log.warning("%s: %s; %strying again in %.0f s", archive.name, cut, kept, pause)
            time.sleep(pause)
    try:
        _verify(part, archive)
    except CorruptArchive:
        _discard(part)
        raise
    with part.open("rb+") as handle:
        os.fsync(handle.fileno())
    part.replace(target)
    _version_file(part).unlink(missing_ok=True)
    sync(target.parent)


def _transfer(url: str, part: Path, archive: Archive, timeout: float) -> None:
    """One connection: appends to `part` what the server sends. Raises `Interrupted` if bytes are missing."""
    response = _open(url, part, archive.url_key, timeout)
    if response is None:
        return
    with response:
        _refuse_page(response, url, part, archive)
        start, total = _start_and_total(response, part)
        if archive.size is not None and total is not None and total != archive.size:
            raise DataError(
                f"{redacted(url)} has {total} bytes, the known file has {archive.size}: it is another file "
                f"(check {archive.url_key})"
                + (f"; {archive.verify_key}=false takes it as it is" if archive.verify_key else "")
            )
        check_disk(part.parent, (total or 0) - start)
        part.touch()
        os.truncate(part, start)
        _version_file(part).write_text(_version(response))
        label = f"downloading {archive.name}"
        with part.open("ab") as handle, progress(label, total, done=start, in_bytes=True) as advance:
            for chunk in _chunks(response):
                handle.write(chunk)
                advance(len(chunk))
    if total is not None and _length(part) < total:
        raise Interrupted(f"the connection ended after {decimal(_length(part))} of {decimal(total)}")


def _open(url: str, part: Path, url_key: str, timeout: float) -> http.client.HTTPResponse | None:
    """Requests the bytes that `part` lacks; None if it lacks none.

    Raises `Interrupted`, or for a final refusal `DataError`, which names the key that sets the URL.
    """
    headers = {"User-Agent": "restora", "Accept-Encoding": "identity"}
    done = _length(part)
    if _can_resume(part):
        headers |= {"Range": f"bytes={done}-", "If-Range": _version_file(part).read_text()}
    try:
        return urllib.request.urlopen(_request(url, headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            if error.headers.get("Content-Range") == f"bytes */{done}":
                return None
            _discard(part)
            raise Interrupted("the server has fewer bytes than are here: starting over") from error
        if error.code in _PASSING:
            raise Interrupted(f"the server says {error.code} {error.reason}") from error
        reason = str(error.reason).partition("\n")[0].rstrip(".")
        raise DataError(f"{redacted(url)}: {error.code} {reason}: check {url_key}") from error
    except ValueError as error:
        raise DataError(
            f"{redacted(url)} is not a URL: check {url_key} (a file of this machine is file:///FOLDER/NAME)"
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise _no_connection(error, url, url_key) from error


def _no_connection(error: Exception, url: str, url_key: str) -> Exception:
    """`Interrupted`, or `DataError` where another attempt would end in the same way."""
    reason = getattr(error, "reason", None) or error
    if url.startswith("file:"):
        return DataError(f"{redacted(url)}: {getattr(reason, 'strerror', None) or reason}: check {url_key}")
    if isinstance(reason, ssl.SSLCertVerificationError):
        return DataError(
            f"{redacted(url)}: its certificate is not trusted ({getattr(reason, 'verify_message', reason)}): "
            "behind a proxy that reads encrypted traffic, set SSL_CERT_FILE to its certificate's file"
        )
    return Interrupted(f"no connection ({redacted(str(reason))}): check the network, or https_proxy")


def _refuse_page(response: http.client.HTTPResponse, url: str, part: Path, archive: Archive) -> None:
    if response.headers.get_content_type() in ("text/html", "application/xhtml+xml"):
        raise DataError(
            f"{redacted(url)} sends a web page instead of {archive.name} (a proxy, or a network's login?): "
            f"open it in a browser, or check {archive.url_key}; {_next_command(part)}"
        )


def _request(url: str, headers: dict[str, str]) -> urllib.request.Request:
    """The request; user and password of the URL become a header for its own server alone.

    urllib would not send them at all.
    """
    parts = urllib.parse.urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    request = urllib.request.Request(parts._replace(netloc=host).geturl(), headers=headers)
    if at:
        word = base64.b64encode(urllib.parse.unquote(user).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {word}")
    return request


def _start_and_total(response: http.client.HTTPResponse, part: Path) -> tuple[int, int | None]:
    """The offset in the file where the response begins, and the file's size if the server gives it."""
    if response.status == http.client.PARTIAL_CONTENT:
        unit, _, span = response.headers.get("Content-Range", "").partition(" ")
        start, _, total = span.partition("-")[0], None, span.rpartition("/")[2]
        if unit == "bytes" and start.isdigit() and int(start) <= _length(part):
            return int(start), int(total) if total.isdigit() else None
        raise Interrupted(f"the server answers with the range {span!r}")
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() else None


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """The bytes as they arrive: waiting for a full chunk would lose the bytes before a stall."""
    while True:
        try:
            chunk = response.read1(_CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise Interrupted(f"the connection broke ({error or type(error).__name__})") from error
        if not chunk:
            return
        yield chunk


def _version(response: http.client.HTTPResponse) -> str:
    """The value for If-Range: a strong ETag or a date; empty if the server gives neither."""
    mark = response.headers.get("ETag", "")
    return mark if mark.startswith('"') else response.headers.get("Last-Modified", "")


def _version_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.version")


def _can_resume(part: Path) -> bool:
    """Whether there are bytes, and the server's identifier of the version that they belong to."""
    version = _version_file(part)
    return _length(part) > 0 and version.exists() and version.stat().st_size > 0


def _next_command(part: Path) -> str:
    if _can_resume(part):
        return f"{decimal(_length(part))} are kept, and the same command resumes from there"
    return "the same command starts the download again"


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _version_file(part).unlink(missing_ok=True)


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _verify(path: Path, archive: Archive) -> None:
    """Raises `CorruptArchive` if the file is not of the known size and SHA-256 (or MD5)."""
    size = _length(path)
    if archive.size is not None and size != archive.size:
        raise CorruptArchive(f"{archive.name} has {size} bytes, expected {archive.size}")
    known, name = archive.sha256 or archive.md5, "SHA-256" if archive.sha256 else "MD5"
    if known is None:
        return
    digest = hashlib.sha256() if archive.sha256 else hashlib.md5(usedforsecurity=False)
    with path.open("rb") as handle, progress(f"checking {archive.name}", size, in_bytes=True) as advance:
        while chunk := handle.read(_CHUNK):
            digest.update(chunk)
            advance(len(chunk))
    if digest.hexdigest() != known:
        raise CorruptArchive(
            f"{archive.name} is damaged: its {name} is {digest.hexdigest()}, expected {known}"
        )
