"""Checks in seconds, without W&B's own code, whether W&B's server can be reached."""

import netrc
import os
import socket
from pathlib import Path
from urllib.parse import urlparse

_CONNECT_SECONDS = 3.0


def wandb_obstacle() -> str | None:
    """Why nothing can be sent to W&B, in words; None if it can."""
    url = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai"))
    host = url.hostname or "api.wandb.ai"
    if not os.environ.get("WANDB_API_KEY") and not _has_netrc_key(host):
        return f"no API key for {host} (run `wandb login` or set WANDB_API_KEY)"
    try:
        port = url.port or (443 if url.scheme == "https" else 80)
        socket.create_connection((host, port), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        return f"{host} cannot be reached ({error})"
    return None


def _has_netrc_key(host: str) -> bool:
    for name in (".netrc", "_netrc"):
        path = Path.home() / name
        if path.exists():
            try:
                if netrc.netrc(str(path)).authenticators(host):
                    return True
            except (netrc.NetrcParseError, OSError):
                continue
    return False
