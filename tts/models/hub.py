"""Models on the Hugging Face hub. `parameter` is the notebook parameter that messages name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from errno import ENOSPC
from pathlib import Path

from tts.errors import InputError, first_line

SECOND_COPIES = (
    "original/*",
    "consolidated*.safetensors",
)  # the same weights as Meta's and Mistral's own code has them


def resolve(name: str, revision: str, *, parameter: str) -> tuple[str, str]:
    """(name, the commit that revision is now). Offline it is the commit in the local cache."""
    import huggingface_hub

    if re.fullmatch("[0-9a-f]{40}", revision):  # already a commit
        return name, revision
    try:
        return name, huggingface_hub.HfApi().model_info(name, revision=revision, timeout=20).sha
    except Exception as error:
        problem = _refused(error, name, revision)
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
    """The folder of a hub model with the files that match patterns, which are fetched if they are missing.

    Weights that some models have twice, in the form of their makers' own code, are left out.
    """
    import huggingface_hub

    try:
        folder = huggingface_hub.snapshot_download(
            name, revision=commit, allow_patterns=list(patterns), ignore_patterns=list(SECOND_COPIES)
        )
    except Exception as error:
        failed = f"can't be downloaded ({first_line(error)}): check the network, or give a directory"
        problem = _refused(error, name, commit) or failed
        raise InputError(f"{parameter}={name!r} {problem}") from None
    return Path(folder)


def _refused(error: Exception, name: str, revision: str) -> str:
    """What is wrong and what to do if the hub refused; "" if it did not answer."""
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RevisionNotFoundError

    if isinstance(error, OSError) and error.errno == ENOSPC:
        return "can't be stored, the disk is full: free some space, or name another folder as HF_HOME"
    causes = [error, *_causes(error)]  # snapshot_download wraps what the hub said
    refusal = next((one for one in causes if isinstance(one, HfHubHTTPError)), None)
    if refusal is None or refusal.response is None:
        return ""
    page, status = f"{constants.ENDPOINT}/{name}", refusal.response.status_code
    words = " ".join(refusal.response.headers.get("X-Error-Message", "").split())
    if isinstance(refusal, GatedRepoError):
        if get_token() is None:
            return f"is gated: accept its licence at {page}, then set HF_TOKEN or log in (hf auth login)"
        return f"is gated, and your token has no access yet: accept its licence at {page} with that token's account"
    if status == 401 and get_token() is not None:
        return "was refused, because your token is wrong or has expired: set HF_TOKEN anew, or log in (hf auth login)"
    if status == 403:
        return f"is not yours to read ({words or 'forbidden'}): give HF_TOKEN the right to read {page}"
    if isinstance(refusal, RevisionNotFoundError):
        return f"has no revision {revision!r}: check `revision`"
    if status in (401, 404):
        return f"is not on the hub, or private: check the name ({page}), or set HF_TOKEN or log in (hf auth login)"
    if status == 429:
        return "was refused, too many requests: wait some minutes, or set HF_TOKEN, which allows more of them"
    return ""  # the hub's own trouble: what is in the cache will do


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error that this one was raised from, the one behind that, and so on."""
    while (error := error.__cause__ or error.__context__) is not None:
        yield error
