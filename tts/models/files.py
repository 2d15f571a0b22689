"""The files of a model: which ones count, whether all are there, what they hash to."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from tts.errors import InputError

# The files that determine a model's samples.
WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
SMALL = (
    *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("added_tokens.json", "vocab.json", "merges.txt", "tokenizer.model", "chat_template.jinja", "chat_template.json"),
    *("model.safetensors.index.json", "pytorch_model.bin.index.json"),
)
_POINTER = b"version https://git-lfs.github.com/"  # how the pointer begins that Git LFS leaves in place of a file


def read_json(path: Path) -> dict:
    """The JSON object in a file; {} if the file is missing."""
    try:
        return json.loads(path.read_text(encoding="utf-8"), object_hook=_plain)
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}): is the file cut off?") from None


def _plain(value: dict) -> dict | float:
    """A JSON object, or the float that transformers writes as {"__float__": "Infinity"}."""
    return float(value["__float__"]) if value.keys() == {"__float__"} else value


def read_template(path: Path) -> str:
    """The source of the chat template; "" if there is none."""
    file = path / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    for file in ("chat_template.json", "tokenizer_config.json"):
        template = read_json(path / file).get("chat_template")
        if isinstance(template, list):  # several, by name
            template = next((entry["template"] for entry in template if entry.get("name") == "default"), None)
        if template:
            return template
    return ""


def check_directory(path: Path, named: str, *, weights: bool, chat: bool) -> dict:
    """The config of a model directory. Raises InputError if anything is missing; named is the model in the message."""

    def wrong(what: str, todo: str) -> InputError:
        return InputError(f"{named}: {path} has no {what}: {todo}")

    for file in _files(path):
        with file.open("rb") as stream:
            if stream.read(len(_POINTER)) == _POINTER:
                raise InputError(
                    f"{named}: {file} is a Git LFS pointer, not the file itself: run `git lfs pull` in that folder"
                )
    config = read_json(path / "config.json")
    if not config:
        raise wrong("config.json", "give a directory in the format of the Hugging Face hub")
    if not any((path / file).is_file() for file in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise wrong("tokenizer", "save the tokenizer beside the weights")
    if chat and not read_template(path):
        raise wrong("chat template", "use an instruct model, or put a chat_template.jinja beside the tokenizer")
    if weights and not any(file for pattern in WEIGHTS for file in path.glob(pattern)):
        raise wrong("weights (*.safetensors)", "is the download complete?")
    for index in path.glob("*.index.json"):
        shards = sorted(set(read_json(index).get("weight_map", {}).values()))
        if weights and (missing := [shard for shard in shards if not (path / shard).is_file()]):
            raise wrong(f"{missing[0]}, one of {len(shards)} files of weights", "is the download complete?")
    return config


def _files(path: Path) -> list[Path]:
    """The files of a directory that determine what the model does."""
    return sorted({file for pattern in (*SMALL, *WEIGHTS) for file in path.glob(pattern)})


def hash_directory(path: Path) -> str:
    """SHA-256 over the names and contents of _files."""
    total = hashlib.sha256()
    for file in _files(path):
        total.update(f"{file.name}\0{_hash_file(file)}\n".encode())
    return f"sha256:{total.hexdigest()}"


def _hash_file(file: Path) -> str:
    """SHA-256 of a file; for one above 64 MiB it is remembered by path, size and time of change."""
    status = file.stat()
    if status.st_size < 64 << 20:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # a user id without an account has no home: nothing is remembered
        cache = Path(os.devnull)
    memory = cache / "tts" / "sha256.json"
    key = f"{file}:{status.st_size}:{status.st_mtime_ns}"
    try:
        known = json.loads(memory.read_text())
    except (OSError, ValueError):
        known = {}
    if key not in known:
        with file.open("rb") as stream:
            known[key] = hashlib.file_digest(stream, "sha256").hexdigest()
        try:
            memory.parent.mkdir(parents=True, exist_ok=True)
            part = memory.with_suffix(f".{os.getpid()}")
            part.write_text(json.dumps(known))
            part.replace(memory)
        except OSError:
            pass  # with a read-only home the file is hashed again next time
    return known[key]
