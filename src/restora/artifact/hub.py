"""Uploads a model folder to the Hugging Face hub (extra `restora[hub]`), in one commit.

The card gets the metadata header that the hub reads. HF_ENDPOINT sets another hub, HF_TOKEN the access token.
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
    """Raises ValueError for a name that is not USER/NAME, or if the package is not installed."""
    if not _NAME.fullmatch(repository):
        raise ValueError(f"--push must be USER/NAME, got {repository!r}")
    if importlib.util.find_spec("huggingface_hub") is None:
        raise ValueError("--push needs huggingface_hub: pip install 'restora[hub]'")


def push(folder: Path, repository: str, description: "ModelDescription") -> str:
    """Uploads the files of `folder` as one commit; a missing repository is created, private.

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
    except Exception as error:  # from httpx, the hub or the file system
        first = " ".join(str(error).split())[:200]
        answered = getattr(error, "response", None) is not None
        fix = (
            "set HF_TOKEN to a token that may write there"
            if answered
            else "the hub did not answer; give the command again when the network is back"
        )
        raise ValueError(
            f"{repository} was not pushed ({first}): {fix}; the model folder is {folder}"
        ) from error
    return str(made.commit_url)


def _head(description: "ModelDescription") -> str:
    """The metadata header for the hub; without a licence, as that of training photos is not known here."""
    tags = ["restora", "image-restoration", description.task.replace("_", "-")]
    lines = ["library_name: restora", "pipeline_tag: image-to-image", "tags:", *(f"- {tag}" for tag in tags)]
    return "\n".join(["---", *lines, "---", "", ""])
