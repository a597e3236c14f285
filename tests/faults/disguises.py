"""Archives that write elsewhere, texts that are markup, and secrets that would come to light."""

import io
import json
import stat
import tarfile
import warnings
import zipfile
from pathlib import Path

from rounds import QUICK, Rounds, stopped, tail


def _archive(r: Rounds, folder: Path) -> tuple[str, str | None]:
    """An archive that would write elsewhere, make links, or swell."""
    from restora.data.archives import Archive, unpack
    from restora.photos.errors import DataError

    folder.mkdir()
    path, out = folder / "a", folder / "data" / "photos"
    member = r.random.choice(
        ("../../x.png", "/tmp/x.png", "a/../../../x.png", "..\\x.png", "x.png", "n" * 240 + ".png")
    )
    trick = r.random.choice(("plain", "link", "device", "swelling", "claims", "twice", "encrypted"))
    if r.random.random() < 0.5:
        _hostile_zip(path, member, trick)
    else:
        _hostile_tar(path, member, trick)
    problem = None
    try:
        unpack(Archive("a", "photos"), path, out)
    except (DataError, OSError):
        pass
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
    wrong = [
        at
        for at in folder.rglob("*")
        if at.is_symlink() or (at.is_file() and at != path and at.parent != out)
    ]
    if wrong or (r.work / "x.png").exists() or Path("/tmp/x.png").exists():
        problem = f"written elsewhere, or a link: {wrong}"
    return f"an archive, {trick}, of {member[:30]}", problem


def _hostile_zip(path: Path, member: str, trick: str) -> None:
    content = bytes(1 << 29) if trick == "swelling" else b"pixels" * 100
    info = zipfile.ZipInfo(member)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = {"link": stat.S_IFLNK, "device": stat.S_IFBLK}.get(trick, stat.S_IFREG) << 16
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as file:
        warnings.simplefilter("ignore")
        file.writestr(info, content)
        if trick == "twice":
            file.writestr(info, content)
        if trick == "claims":
            file.infolist()[0].file_size = 1 << 50
        if trick == "encrypted":
            file.infolist()[0].flag_bits |= 1


def _hostile_tar(path: Path, member: str, trick: str) -> None:
    kinds = {"link": tarfile.SYMTYPE, "device": tarfile.BLKTYPE}
    info = tarfile.TarInfo(member)
    info.type, info.linkname = kinds.get(trick, tarfile.REGTYPE), "/etc/passwd"
    content = bytes(1 << 29) if trick == "swelling" else b"pixels" * 100
    info.size = 0 if trick in kinds else len(content)
    with tarfile.open(path, "w:gz" if trick == "swelling" else "w") as file:
        if trick == "claims":
            info.size = 1 << 50
            file.addfile(info)
        else:
            for _ in range(2 if trick == "twice" else 1):
                file.addfile(info, io.BytesIO(content[: info.size]))


HOSTILE = (
    "<img src=x onerror=alert(1)>", "</script><script>alert(1)</script>", "'\"><svg onload=alert(1)>",
    "[bold red]x[/raw]", "=1+1", "@SUM(A1)", "${oc.env:HOME}", "\x1b]0;owned\x07", "{{7*7}}", "a\nb,c",
    "%s%n", "\u202egnp.exe",
)  # fmt: skip


def _markup(r: Rounds, folder: Path) -> tuple[str, str | None]:
    """Names and texts of a run that a page, a terminal or a spreadsheet would take for something else."""
    record = stopped(r, folder)
    text = r.random.choice(HOSTILE)
    where = r.random.choice(("name", "experiment", "network", "error", "command", "task", "photo", "config"))
    if where == "photo":
        record["test"]["images"][0]["name"] = text
    elif where == "config":
        record["config"]["degradation"] = {"_target_": text, text: text}
    else:
        record[where] = text
    (folder / "run.json").write_text(json.dumps(record))
    page = folder / "report.html"
    code, output = r.run("report", folder, "--output", page)
    problem = "a traceback" if "Traceback (most" in output else None if code in (0, 2) else f"exit {code}"
    if "\x1b" in output:
        problem = "control characters on the terminal"
    if page.exists() and text.startswith(("<", "'")) and text in page.read_text():
        problem = "markup in the page"
    return f"{where} is {text[:30]!r} (exit {code})", problem


def _secret(r: Rounds, folder: Path) -> tuple[str, str | None]:
    """A key in the environment, an address or a setting: in no file that is written, and not printed."""
    secret = f"{r.random.getrandbits(96):024x}"
    variable = r.random.choice(
        ("WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "DB_PASSWORD", "MY_LAB_PASSPHRASE")
    )
    train = [
        *("train", *QUICK, "trainer.max_steps=2", "trainer.val_check_interval=2", f"hydra.run.dir={folder}")
    ]
    place = "data.source.url=https://"
    what, words, environment = r.random.choice(
        (
            (f"{variable} in a tag", [*train, f"logger.tags=[{secret}]"], {variable: secret}),
            (f"{variable} and W&B", [*train, "logger.mode=offline"], {variable: secret}),
            (f"{variable} that is read", [*train, f"name=${{oc.env:{variable}}}"], {variable: secret}),
            ("a setting", [*train, f"+logger.api_key={secret}"], {}),
            ("an address", ["prepare", "data=div2k", f"{place}me:{secret}@127.0.0.1:9/x.zip"], {}),
            ("a query", ["prepare", "data=div2k", f"{place}127.0.0.1:9/x.zip?token={secret}"], {}),
        )
    )
    code, output = r.run(*words, **environment)
    found = [path for path in folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
    problem = f"in {found[0].name}" if found else "printed" if secret in output else None
    if "Traceback (most" in output:
        problem = problem or f"a traceback: {tail(output)}"
    return f"{what} (exit {code})", problem


DISGUISES = (_archive, _markup, _secret)
