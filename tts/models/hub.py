"""Models on the Hugging Face hub: which commit a revision is now, and its files. parameter names it in messages."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from tts.errors import InputError


def resolve(name: str, revision: str, *, parameter: str) -> tuple[str, str]:
    """A hub id and the commit that revision is now; offline, the commit in the local cache."""
    import huggingface_hub

    if re.fullmatch("[0-9a-f]{40}", revision):  # a commit already: no need to ask
        return name, revision
    try:
        return name, huggingface_hub.HfApi().model_info(name, revision=revision, timeout=20).sha
    except Exception as error:
        problem = _refused(error, revision)
    if not problem:  # no network, in one of many ways
        try:
            cached = huggingface_hub.snapshot_download(
                name, revision=revision, allow_patterns=["config.json"], local_files_only=True
            )
            return name, Path(cached).name
        except Exception:
            problem = "can't be reached on the hub and is not in the local cache: go online, or give a directory"
    raise InputError(f"{parameter}={name!r} {problem}")


def download(name: str, commit: str, patterns: Sequence[str], *, parameter: str) -> Path:
    """The folder of a hub model with the files that match patterns, fetched where they are not there yet."""
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(name, revision=commit, allow_patterns=list(patterns)))
    except Exception as error:
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        problem = _refused(error, commit) or f"can't be downloaded ({line}): check the network, or give a directory"
        raise InputError(f"{parameter}={name!r} {problem}") from None


def _refused(error: Exception, revision: str) -> str:
    """What to do where the hub answers no; "" where it does not answer."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(error, GatedRepoError):  # which is a RepositoryNotFoundError
        return "is gated: accept its licence on the hub and log in (hf auth login)"
    if isinstance(error, RepositoryNotFoundError):
        return "is not on the hub, or private: check the name, or log in (hf auth login)"
    if isinstance(error, RevisionNotFoundError):
        return f"has no revision {revision!r}: check `revision`"
    return ""
