"""A model folder to the Hugging Face hub (extra `restora[hub]`), in one commit.

The card gets the head that the hub reads. HF_ENDPOINT names another hub, HF_TOKEN who asks.
"""

import importlib.util
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from restora.artifact.model_folder import ModelDescription

_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_CARD = "README.md"


def check(repository: str) -> None:
    """Raises ValueError for what is no USER/NAME, and where the package is not installed."""
    if not _NAME.fullmatch(repository):
        raise ValueError(f"--push is USER/NAME, got {repository!r}")
    if importlib.util.find_spec("huggingface_hub") is None:
        raise ValueError("--push needs huggingface_hub: pip install 'restora[hub]'")


def push(folder: Path, repository: str, description: "ModelDescription") -> str:
    """Upload the files of `folder` as one commit; a repository that is not there is made, private.

    Returns the address of the commit. Raises ValueError where the hub refuses; `folder` stays as it is.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=os.environ.get("HF_TOKEN"))
    files: list[Any] = []
    for path in sorted(folder.iterdir()):
        content: bytes | str = str(path)
        if path.name == _CARD:
            content = (_head(description) + path.read_text(encoding="utf-8")).encode()
        files.append(CommitOperationAdd(path_in_repo=path.name, path_or_fileobj=content))
    try:
        api.create_repo(repository, exist_ok=True, private=True)
        made = api.create_commit(repository, operations=files, commit_message=f"restora: {description.name}")
    except Exception as error:  # of httpx, of the hub, of the file system
        first = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{repository} was not pushed ({first}): set HF_TOKEN to a token that may write there; the model "
            f"folder is {folder}"
        ) from error
    return str(made.commit_url)


def _head(description: "ModelDescription") -> str:
    """What the hub reads of a card; the licence of weights is that of the photos, which nobody here knows."""
    tags = ["restora", "image-restoration", description.task.replace("_", "-")]
    lines = ["library_name: restora", "pipeline_tag: image-to-image", "tags:", *(f"- {tag}" for tag in tags)]
    return "\n".join(["---", *lines, "---", "", ""])
