"""A model's files, without any engine: where they are, what they hash to, how a problem becomes token ids and back.

Opening a model reads a few small JSON files; the tokenizer is loaded at the first prompt. Nothing here imports torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path

from tts.errors import InputError
from tts.models.config import read_setting
from tts.models.flops import Size, count_size
from tts.models.hub import download, resolve

EMBEDDED = Path(__file__).parent.parent / "tiny" / "models"  # a model in here is known by its folder's name
DATE = "26 Jul 2024"  # what every chat template sees as today (the date that the Llama 3 templates fall back to)
LONGEST = 4096  # tokens of context unless max_context asks for more: MATH solutions stay below, caches stay small
MARKS = tuple(chr(0xE000 + i) * 3 for i in range(3))  # private-use characters, to be found in a rendered template

# What determines a model's samples; a README or an optimizer state beside them does not.
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
_SMALL = (
    *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("added_tokens.json", "vocab.json", "merges.txt", "tokenizer.model", "chat_template.jinja", "chat_template.json"),
    *("model.safetensors.index.json", "pytorch_model.bin.index.json"),
)
_POINTER = b"version https://git-lfs.github.com/"  # what Git LFS leaves where it did not fetch a file


@dataclass(frozen=True)
class Checkpoint:
    """A causal language model with a tokenizer and a chat template, as files."""

    name: str  # what figures and records call it
    path: Path  # the directory (for a hub id the snapshot that holds config and tokenizer, the weights perhaps not yet)
    fingerprint: str  # "sha256:…" of a directory's content, "owner/name@commit" of a hub model
    context: int  # tokens a prompt and its completion may have together
    hub: tuple[str, str] | None = None  # (id, commit)
    parameter: str = field(default="policy_model", compare=False)  # which parameter named it, for error messages
    config: dict = field(default_factory=dict, repr=False, hash=False, compare=False)

    def download(self) -> Path:
        """The directory with the weights in it, fetched from the hub if they are not there yet."""
        if self.hub is None:
            return self.path
        return download(*self.hub, (*_SMALL, "*.safetensors"), parameter=self.parameter)

    @property
    def label(self) -> str:
        """How error messages call it."""
        return f"{self.parameter}={self.name}"

    def check_numbers(self, results: Iterable[float], dtype: str) -> None:
        """Raise InputError where a result of the model is not a number."""
        if not all(map(math.isfinite, results)):
            raise InputError(
                f"{self.label}: its results are not numbers (NaN) with dtype {dtype}: "
                "try dtype='float32', or check the weights"
            )

    @cached_property
    def is_small(self) -> bool:
        """Whether one CPU thread is faster than several: up to 64 MiB of weights."""
        sizes = [file.stat().st_size for pattern in _WEIGHTS for file in self.path.glob(pattern)]
        return self.hub is None and sum(sizes) <= 64 << 20

    @cached_property
    def size(self) -> Size | None:
        """What its FLOPs follow from; None where they aren't known, as of a mixture of experts."""
        for count in (Size.of, count_size):
            with contextlib.suppress(InputError):
                return count(self.config)
        return None

    @cached_property
    def ends(self) -> tuple[int, ...]:
        """The ids that end the assistant's turn: the eos tokens of config, generation config and tokenizer, and the
        token that the chat template writes after what the assistant said, which none of these may name.

        Where the template writes none, one line on stderr says where samples end.
        """
        found: set[int] = set()
        text_config = self.config.get("text_config") or {}
        for source in (self.config, text_config, _read(self.path / "generation_config.json")):
            ids = source.get("eos_token_id")
            found.update([ids] if isinstance(ids, int) else ids or [])
        turn_end = self._turn_end()
        for token in (self.special_tokens.get("eos_token"), turn_end):
            if token is not None and (number := self.tokenizer.token_to_id(token)) is not None:
                found.add(number)
        ends = tuple(sorted(found))
        if turn_end is None:
            where = " or ".join(self.tokenizer.id_to_token(i) or str(i) for i in ends) or "max_tokens alone"
            print(
                f"{self.label}: its chat template has no token after the assistant's words: samples end at {where}",
                file=sys.stderr,
            )
        return ends

    def _turn_end(self) -> str | None:
        """The added token that follows the assistant's words in the chat template; None where other text does."""
        messages = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": MARKS[0]}]
        try:
            _, found, rest = self.render(messages).rpartition(MARKS[0])
        except InputError:  # the template is not for whole dialogues
            return None
        tokens = [token.content for token in self.tokenizer.get_added_tokens_decoder().values()]
        following = [token for token in tokens if token.strip() and rest.lstrip().startswith(token.strip())]
        return max(following, key=len, default=None) if found else None

    @cached_property
    def tokenizer(self):
        """The tokenizers.Tokenizer of tokenizer.json, or of what transformers converts to one."""
        import tokenizers

        file = self.path / "tokenizer.json"
        try:
            if file.is_file():
                tokenizer = tokenizers.Tokenizer.from_file(str(file))
            else:
                from transformers import AutoTokenizer  # slow to import, so only where the conversion is needed

                tokenizer = AutoTokenizer.from_pretrained(self.path).backend_tokenizer
        except Exception as error:  # tokenizers raises a bare one
            raise InputError(
                f"{self.label}: the tokenizer in {self.path} can't be read ({_first_line(error)}): the file is damaged "
                f"or of a format newer than tokenizers {tokenizers.__version__}: save it with this version"
            ) from None
        # A file may hold what was set for training: no prompt may be cut, padded or split at random.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        if getattr(tokenizer.model, "dropout", None):
            tokenizer.model.dropout = None
        return tokenizer

    @cached_property
    def special_tokens(self) -> dict[str, str]:
        """bos_token, eos_token, … as strings, for the template."""
        settings = {**_read(self.path / "special_tokens_map.json"), **_read(self.path / "tokenizer_config.json")}
        tokens = {key: value for key, value in settings.items() if key.endswith("_token") and value is not None}
        named = {key: value["content"] if isinstance(value, dict) else value for key, value in tokens.items()}
        return {key: value for key, value in named.items() if isinstance(value, str)}

    def prompt(self, problem: str, *, system_prompt: str = "") -> tuple[int, ...]:
        """The chat prompt of a problem as token ids, up to where the assistant begins to speak.

        The date is DATE, never today. Text of the problem (or the system prompt) that spells a special token, such as
        "<|eot_id|>", is encoded as the ordinary characters it is: only the template's own special tokens are special.
        Raises InputError where the template can't be rendered or drops the problem.
        """
        contents = [text for text in (system_prompt, problem) if text]
        text = self._render(system_prompt, problem)
        special = {token.content for token in self.tokenizer.get_added_tokens_decoder().values() if token.special}
        if not any(token in content for content in contents for token in special):
            return tuple(self.tokenizer.encode(text, add_special_tokens=False).ids)
        # Put private-use marks where the contents go: what is left around them is the template's own text.
        marks = MARKS[: len(contents)]
        frame = self._render(*(marks if system_prompt else ["", *marks]))
        for forms in (contents, [content.strip() for content in contents]):  # many templates trim
            whole = frame
            for mark, content in zip(marks, forms, strict=True):
                whole = whole.replace(mark, content)
            if whole == text:
                return self._encode_around(frame, dict(zip(marks, forms, strict=True)), special)
        raise InputError(
            f"{self.label}: its chat template changes the problem's text, which spells a special token: "
            "remove the token from the problem"
        )

    def _encode_around(self, frame: str, contents: dict[str, str], special: Iterable[str]) -> tuple[int, ...]:
        """Encode frame, special tokens as such, its marks replaced by contents, which are ordinary text throughout."""
        longest_first = sorted(special, key=len, reverse=True)
        ids: list[int] = []
        # Between two special tokens the template's text and the content are encoded together, as one piece of text.
        for piece in re.split("(" + "|".join(map(re.escape, longest_first)) + ")", frame):
            if piece in special:
                ids.append(self.tokenizer.token_to_id(piece))
                continue
            for mark, content in contents.items():
                piece = piece.replace(mark, content)
            self.tokenizer.encode_special_tokens = True  # "encode" here means: as ordinary text
            try:
                ids += self.tokenizer.encode(piece, add_special_tokens=False).ids
            finally:
                self.tokenizer.encode_special_tokens = False
        return tuple(ids)

    def _render(self, system_prompt: str, problem: str) -> str:
        messages = [{"role": "system", "content": system_prompt}] if system_prompt else []
        messages.append({"role": "user", "content": problem})
        rendered = self.render(messages, add_generation_prompt=True)
        if problem.strip() not in rendered:
            raise InputError(f"{self.label}: its chat template leaves the problem out: use another model")
        return rendered

    def render(self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool = False) -> str:
        """A dialogue in the chat template, special tokens written out; "" where there is no template. Today is DATE.

        Raises InputError where the template can't be rendered.
        """
        from transformers.utils.chat_template_utils import render_jinja_template

        template = read_template(self.path)
        if not template:
            return ""
        today = datetime.strptime(DATE, "%d %b %Y")
        try:
            rendered, _ = render_jinja_template(
                [list(messages)],
                chat_template=template,
                add_generation_prompt=add_generation_prompt,
                date_string=DATE,
                strftime_now=today.strftime,  # shadows the function through which a template would see the clock
                **self.special_tokens,
            )
        except Exception as error:  # a template may raise anything; the user needs the one line
            without = "leave system_prompt empty or " if add_generation_prompt and len(messages) > 1 else ""
            raise InputError(
                f"{self.label}: its chat template can't be rendered ({_first_line(error)}): "
                f"{without}use a model with a working template"
            ) from None
        return rendered[0]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of sampled ids, special tokens written out, no clean-up; a step's text follows the text before it.

        (A tokenizer that marks words by a leading space drops that space where a text begins, which a step does not.)
        """
        if self._anchor is None:
            return self.tokenizer.decode(ids, skip_special_tokens=False)
        anchor, text = self._anchor
        return self.tokenizer.decode([anchor, *ids], skip_special_tokens=False)[len(text) :]

    @cached_property
    def _anchor(self) -> tuple[int, str] | None:
        """(an id, its text) to decode behind, where the first token of a text loses its leading space."""
        ids = self.tokenizer.encode("a b", add_special_tokens=False).ids
        whole, first, rest = (
            self.tokenizer.decode(part, skip_special_tokens=False) for part in (ids, ids[:1], ids[1:])
        )
        return None if first + rest == whole else (ids[0], first)

    @cached_property
    def _token_texts(self) -> list[str]:
        size = self.tokenizer.get_vocab_size(with_added_tokens=True)
        return [self.decode([i]) for i in range(size)]

    @cached_property
    def _stop_ids(self) -> dict[str, tuple[frozenset[int], frozenset[int]]]:
        return {}

    def stop_ids(self, stop: str) -> tuple[frozenset[int], frozenset[int]]:
        """(the ids whose own text contains stop, the ids after which a text may newly contain it)."""
        if stop not in self._stop_ids:
            # "\ufffd" is part of a character: which one shows only with its neighbours.
            self._stop_ids[stop] = (
                frozenset(i for i, text in enumerate(self._token_texts) if stop in text),
                frozenset(i for i, text in enumerate(self._token_texts) if stop[-1] in text or "\ufffd" in text),
            )
        return self._stop_ids[stop]

    def stop_position(self, ids: Sequence[int], stop: str | None) -> int | None:
        """How many of ids it takes for their text to contain stop; None where it does not."""
        if not stop or stop not in self.decode(ids):
            return None
        if stop not in self.decode(ids[:-1]):
            return len(ids)
        low, high = 1, len(ids) - 1  # more ids never lose the stop string again, so halve
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if stop in self.decode(ids[:middle]) else (middle + 1, high)
        return low


def open_checkpoint(
    model: str,
    *,
    parameter: str = "policy_model",
    revision: str = "main",
    max_context: int = 0,
    name: str = "",
    chat: bool = True,
) -> Checkpoint:
    """Find and check a model: an embedded one's short name, a directory, or a hub id. Loads no weights.

    A hub id may carry its revision, a commit, branch or tag: "owner/name@revision".
    Raises InputError (parameter, what is wrong, what to do) for a directory without config, tokenizer, weights or chat
    template (which only chat models need), and for a hub id that does not exist or can't be reached.
    """
    here = Path(model).expanduser()
    if not model:
        raise InputError(f"{parameter} is empty: give {_choices()}, a directory or a hub id owner/name")
    if "/" not in model and (EMBEDDED / model / "config.json").is_file():
        here = EMBEDDED / model
    hub = None
    owner_and_name, _, pinned = model.partition("@")  # a directory may have one in its path, so that comes first
    if here.is_dir():
        fingerprint = ""
    elif here.is_absolute() or model.startswith((".", "~")) or owner_and_name.count("/") > 1:
        raise InputError(f"{parameter}={model!r}: there is no such directory: check the path")
    elif owner_and_name.count("/") == 1:
        if pinned and revision not in ("main", pinned):
            raise InputError(f"{parameter}={model!r} has another revision than revision={revision!r}: give one of them")
        hub = resolve(owner_and_name, pinned or revision, parameter=parameter)
        here, fingerprint = download(*hub, _SMALL, parameter=parameter), "@".join(hub)
    else:
        raise InputError(f"{parameter}={model!r} is unknown: give {_choices()}, a directory or a hub id owner/name")
    config = _check(here, f"{parameter}={model!r}", weights=hub is None, chat=chat)
    limit = read_setting(config, "max_position_embeddings") or read_setting(config, "max_seq_len")  # MPT's name
    if max_context < 0 or (limit and max_context > limit):
        raise InputError(
            f"max_context={max_context}, but {model} reads 1 to {limit or 'any number of'} tokens: give that or less"
        )
    return Checkpoint(
        name=name or (hub[0].split("/")[-1] if hub else here.resolve().name),
        path=here.resolve(),
        fingerprint=fingerprint or _hash_directory(here.resolve()),
        context=max_context or min(limit or LONGEST, LONGEST),
        hub=hub,
        parameter=parameter,
        config=config,
    )


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _choices() -> str:
    names = sorted(folder.parent.name for folder in EMBEDDED.glob("*/config.json"))
    return "one of " + ", ".join(names) if names else "an embedded model's name"


def _read(path: Path) -> dict:
    """A JSON object, {} where the file is missing."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}): is the file cut off?") from None


def read_template(path: Path) -> str:
    """The chat template's source, "" where there is none."""
    file = path / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    for file in ("chat_template.json", "tokenizer_config.json"):
        template = _read(path / file).get("chat_template")
        if isinstance(template, list):  # several, by name
            template = next((entry["template"] for entry in template if entry.get("name") == "default"), None)
        if template:
            return template
    return ""


def _check(path: Path, named: str, *, weights: bool, chat: bool) -> dict:
    """The config of a model directory that has everything needed."""

    def wrong(what: str, todo: str) -> InputError:
        return InputError(f"{named}: {path} has no {what}: {todo}")

    for file in _files(path):
        with file.open("rb") as stream:
            if stream.read(len(_POINTER)) == _POINTER:
                raise InputError(
                    f"{named}: {file} is a Git LFS pointer, not the file itself: run `git lfs pull` in that folder"
                )
    config = _read(path / "config.json")
    if not config:
        raise wrong("config.json", "give a directory in the format of the Hugging Face hub")
    if not any((path / file).is_file() for file in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise wrong("tokenizer", "save the tokenizer beside the weights")
    if chat and not read_template(path):
        raise wrong("chat template", "use an instruct model, or put a chat_template.jinja beside the tokenizer")
    if weights and not any(file for pattern in _WEIGHTS for file in path.glob(pattern)):
        raise wrong("weights (*.safetensors)", "is the download complete?")
    for index in path.glob("*.index.json"):
        shards = sorted(set(_read(index).get("weight_map", {}).values()))
        if weights and (missing := [shard for shard in shards if not (path / shard).is_file()]):
            raise wrong(f"{missing[0]}, one of {len(shards)} files of weights", "is the download complete?")
    return config


def _files(path: Path) -> list[Path]:
    """The files of a directory that determine what the model does."""
    return sorted({file for pattern in (*_SMALL, *_WEIGHTS) for file in path.glob(pattern)})


def _hash_directory(path: Path) -> str:
    """SHA-256 over the names and contents of _files."""
    total = hashlib.sha256()
    for file in _files(path):
        total.update(f"{file.name}\0{_hash_file(file)}\n".encode())
    return f"sha256:{total.hexdigest()}"


def _hash_file(file: Path) -> str:
    """SHA-256 of a file; of one above 64 MiB it is remembered by path, size and time of change."""
    status = file.stat()
    if status.st_size < 64 << 20:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    memory = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tts" / "sha256.json"
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
            pass  # a read-only home costs the time to hash again, nothing else
    return known[key]
