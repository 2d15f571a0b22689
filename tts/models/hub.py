"""Models on the Hugging Face hub. `parameter` is the notebook parameter that messages name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from tts.errors import InputError, first_line


def resolve(name: str, revision: str, *, parameter: str) -> tuple[str, str]:
    """(name, the commit that revision is now). Offline it is the commit in the local cache."""
    import huggingface_hub

    if re.fullmatch("[0-9a-f]{40}", revision):  # already a commit
        return name, revision
    try:
        return name, huggingface_hub.HfApi().model_info(name, revision=revision, timeout=20).sha
    except Exception as error:
        problem = _refused(error, revision)
    if not problem:  # the network failed
        try:
            cached = huggingface_hub.snapshot_download(
                name, revision=revision, allow_patterns=["config.json"], local_files_only=True
            )
            return name, Path(cached).name
        except Exception:
            problem = "can't be reached on the hub and is not in the local cache: go online, or give a directory"
    raise InputError(f"{parameter}={name!r} {problem}")


def download(name: str, commit: str, patterns: Sequence[str], *, parameter: str) -> Path:
    """The folder of a hub model with the files that match patterns, which are fetched if they are missing."""
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(name, revision=commit, allow_patterns=list(patterns)))
    except Exception as error:
        failed = f"can't be downloaded ({first_line(error)}): check the network, or give a directory"
        problem = _refused(error, commit) or failed
        raise InputError(f"{parameter}={name!r} {problem}") from None


def _refused(error: Exception, revision: str) -> str:
    """What is wrong and what to do if the hub refused; "" if it did not answer."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(error, GatedRepoError):  # which is a RepositoryNotFoundError
        return "is gated: accept its licence on the hub and log in (hf auth login)"
    if isinstance(error, RepositoryNotFoundError):
        return "is not on the hub, or private: check the name, or log in (hf auth login)"
    if isinstance(error, RevisionNotFoundError):
        return f"has no revision {revision!r}: check `revision`"
    return ""
