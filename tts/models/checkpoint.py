"""A model as files, without an engine: how a problem becomes token ids, and token ids become text.

Opening a model reads a few small JSON files. The tokenizer is loaded at the first prompt.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import sys
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from tts.errors import InputError, first_line
from tts.models.config import read_setting
from tts.models.files import SMALL, WEIGHTS, check_directory, hash_directory, read_json, read_template
from tts.models.flops import Size, count_size
from tts.models.hub import download, resolve

if TYPE_CHECKING:
    from tokenizers import Encoding

EMBEDDED = Path(__file__).parent.parent / "tiny" / "models"  # these models are known by their folders' names
DATE = "26 Jul 2024"  # "today" for every chat template; it is the date that Llama 3's templates fall back to
LONGEST = 4096  # tokens of context unless max_context asks for more; solutions of MATH are shorter
LONGEST_PRM = 8192  # of a PRM: RLHFlow's format adds 11 tokens to each step
MARKS = tuple(chr(0xE000 + i) * 3 for i in range(3))  # private-use characters, to mark a place in a template


@dataclass(frozen=True)
class Checkpoint:
    """A causal language model with a tokenizer and a chat template, as files."""

    name: str  # what figures and records call it
    path: Path  # the directory; a hub model's snapshot may not hold the weights yet
    fingerprint: str  # "sha256:…" of a directory's content, "owner/name@commit" of a hub model
    context: int  # tokens a prompt and its completion may have together
    hub: tuple[str, str] | None = None  # (id, commit)
    parameter: str = field(default="policy_model", compare=False)  # which parameter named it, for error messages
    config: dict = field(default_factory=dict, repr=False, hash=False, compare=False)

    def download(self) -> Path:
        """The directory with the weights, which are fetched from the hub if they are missing."""
        if self.hub is None:
            return self.path
        return download(*self.hub, (*SMALL, "*.safetensors"), parameter=self.parameter)

    @property
    def label(self) -> str:
        """What error messages call it."""
        return f"{self.parameter}={self.name}"

    def check_numbers(self, results: Iterable[float], dtype: str) -> None:
        """Raise InputError if a result of the model is not a number."""
        if not all(map(math.isfinite, results)):
            raise InputError(
                f"{self.label}: its results are not numbers (NaN) with dtype {dtype}: "
                "try dtype='float32', or check the weights"
            )

    @cached_property
    def is_small(self) -> bool:
        """Whether one CPU thread is faster than several: up to 64 MiB of weights."""
        sizes = [file.stat().st_size for pattern in WEIGHTS for file in self.path.glob(pattern)]
        return self.hub is None and sum(sizes) <= 64 << 20

    @cached_property
    def size(self) -> Size | None:
        """The numbers that its FLOPs follow from; None where they are unknown, as for a mixture of experts."""
        for count in (Size.of, count_size):
            with contextlib.suppress(InputError):
                return count(self.config)
        return None

    @cached_property
    def ends(self) -> tuple[int, ...]:
        """The ids that end the assistant's turn.

        They are the eos tokens of config, generation config and tokenizer, and the token that the chat template writes
        after the assistant's words. If the template writes no token there, a line on stderr says where samples end.
        """
        found: set[int] = set()
        text_config = self.config.get("text_config") or {}
        for source in (self.config, text_config, read_json(self.path / "generation_config.json")):
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
        """The added token that follows the assistant's words in the chat template; None if there is none."""
        messages = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": MARKS[0]}]
        try:
            _, found, rest = self.render(messages).rpartition(MARKS[0])
        except InputError:  # the template can't render a whole dialogue
            return None
        tokens = [token.content for token in self.tokenizer.get_added_tokens_decoder().values()]
        following = [token for token in tokens if token.strip() and rest.lstrip().startswith(token.strip())]
        return max(following, key=len, default=None) if found else None

    @cached_property
    def tokenizer(self):
        """The tokenizers.Tokenizer of tokenizer.json, or the one that transformers converts from older files."""
        import tokenizers

        file = self.path / "tokenizer.json"
        try:
            if file.is_file():
                tokenizer = tokenizers.Tokenizer.from_file(str(file))
            else:
                from transformers import AutoTokenizer  # slow to import, so only for a conversion

                tokenizer = AutoTokenizer.from_pretrained(self.path).backend_tokenizer
        except Exception as error:  # tokenizers raises a bare Exception
            raise InputError(
                f"{self.label}: the tokenizer in {self.path} can't be read ({first_line(error)}): the file is damaged "
                f"or of a format newer than tokenizers {tokenizers.__version__}: save it with this version"
            ) from None
        # The file may hold settings from training. None of them may cut, pad or randomly split a prompt.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        if getattr(tokenizer.model, "dropout", None):
            tokenizer.model.dropout = None
        return tokenizer

    @cached_property
    def special_tokens(self) -> dict[str, str]:
        """bos_token, eos_token, … as strings, for the template."""
        settings = read_json(self.path / "special_tokens_map.json") | read_json(self.path / "tokenizer_config.json")
        tokens = {key: value for key, value in settings.items() if key.endswith("_token") and value is not None}
        named = {key: value["content"] if isinstance(value, dict) else value for key, value in tokens.items()}
        return {key: value for key, value in named.items() if isinstance(value, str)}

    def prompt(self, problem: str, *, system_prompt: str = "") -> tuple[int, ...]:
        """The chat prompt of a problem as token ids, up to where the assistant begins to speak.

        The date is DATE, never today. Text of the problem (or the system prompt) that spells a special token, such as
        "<|eot_id|>", is encoded as the ordinary characters it is: only the template's own special tokens are special.
        Raises InputError if the template can't be rendered or drops the problem.
        """
        contents = [text for text in (system_prompt, problem) if text]
        text = self._render(system_prompt, problem)
        if not any(token in content for content in contents for token in self.special_ids):
            return tuple(self.tokenizer.encode(text, add_special_tokens=False).ids)
        # Render the template with marks in place of the contents. All text around the marks is the template's own.
        marks = MARKS[: len(contents)]
        frame = self._render(*(marks if system_prompt else ["", *marks]))
        for forms in (contents, [content.strip() for content in contents]):  # many templates trim
            whole = frame
            for mark, content in zip(marks, forms, strict=True):
                whole = whole.replace(mark, content)
            if whole == text:
                return self._encode_around(frame, dict(zip(marks, forms, strict=True)))
        raise InputError(
            f"{self.label}: its chat template changes the problem's text, which spells a special token: "
            "remove the token from the problem"
        )

    def _encode_around(self, frame: str, contents: dict[str, str]) -> tuple[int, ...]:
        """Encode a rendered template (frame), in which contents (mark: text) replace the marks as ordinary text."""
        ids: list[int] = []
        # The template's text and the content between two special tokens are encoded together.
        for piece in self.split(frame):
            if piece in self.special_ids:
                ids.append(self.special_ids[piece])
                continue
            for mark, content in contents.items():
                piece = piece.replace(mark, content)
            ids += self.encode_plain(piece).ids
        return tuple(ids)

    @cached_property
    def special_ids(self) -> dict[str, int]:
        """The ids of all special tokens."""
        added = self.tokenizer.get_added_tokens_decoder().items()
        return {token.content: number for number, token in added if token.special}

    def split(self, text: str) -> list[str]:
        """Template text as [text, special token, text, …, text]."""
        longest_first = sorted(self.special_ids, key=len, reverse=True)
        return re.split("(" + "|".join(map(re.escape, longest_first)) + ")", text) if longest_first else [text]

    def encode_plain(self, text: str, *, add_special_tokens: bool = False) -> Encoding:
        """Encode a text as ordinary characters, even if it spells special tokens."""
        self.tokenizer.encode_special_tokens = True
        try:
            return self.tokenizer.encode(text, add_special_tokens=add_special_tokens)
        finally:
            self.tokenizer.encode_special_tokens = False

    def _render(self, system_prompt: str, problem: str) -> str:
        messages = [{"role": "system", "content": system_prompt}] if system_prompt else []
        messages.append({"role": "user", "content": problem})
        rendered = self.render(messages, add_generation_prompt=True)
        if problem.strip() not in rendered:
            raise InputError(f"{self.label}: its chat template leaves the problem out: use another model")
        return rendered

    def render(self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool = False) -> str:
        """A dialogue in the chat template, with special tokens written out; "" without a template. Today is DATE.

        Raises InputError if the template can't be rendered.
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
        except Exception as error:  # a template may raise anything
            without = "leave system_prompt empty or " if add_generation_prompt and len(messages) > 1 else ""
            raise InputError(
                f"{self.label}: its chat template can't be rendered ({first_line(error)}): "
                f"{without}use a model with a working template"
            ) from None
        return rendered[0]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of sampled ids, with special tokens written out and without clean-up.

        Some tokenizers drop the leading space of a text's first word. A step continues a text, so it keeps that space.
        """
        if self._anchor is None:
            return self.tokenizer.decode(ids, skip_special_tokens=False)
        anchor, text = self._anchor
        return self.tokenizer.decode([anchor, *ids], skip_special_tokens=False)[len(text) :]

    @cached_property
    def _anchor(self) -> tuple[int, str] | None:
        """(an id, its text) to decode in front of sampled ids; None for a tokenizer that drops no leading space."""
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
        """(ids whose own text contains stop, ids that may complete stop at the end of a text)."""
        if stop not in self._stop_ids:
            # "\ufffd" stands for a part of a character, which the tokens around it complete.
            self._stop_ids[stop] = (
                frozenset(i for i, text in enumerate(self._token_texts) if stop in text),
                frozenset(i for i, text in enumerate(self._token_texts) if stop[-1] in text or "\ufffd" in text),
            )
        return self._stop_ids[stop]

    def stop_position(self, ids: Sequence[int], stop: str | None) -> int | None:
        """The smallest number of ids whose text contains stop; None if the text of all of them does not."""
        if not stop or stop not in self.decode(ids):
            return None
        if stop not in self.decode(ids[:-1]):
            return len(ids)
        # A text that contains stop keeps it when it grows.
        return bisect_left(range(len(ids)), True, 1, len(ids) - 1, key=lambda count: stop in self.decode(ids[:count]))


def open_checkpoint(
    model: str,
    *,
    parameter: str = "policy_model",
    revision: str = "main",
    max_context: int = 0,
    longest: int = LONGEST,
    name: str = "",
    chat: bool = True,
) -> Checkpoint:
    """Find and check a model: the short name of an embedded one, a directory, or a hub id. Loads no weights.

    A hub id may name its revision (a commit, branch or tag): "owner/name@revision". longest: tokens of context unless
    max_context says something else.
    Raises InputError for a directory without config, tokenizer, weights or, with chat=True, chat template, and for a
    hub id that does not exist or can't be reached.
    """
    here = Path(os.path.expanduser(model))  # an unknown home stays ~
    if not model:
        raise InputError(f"{parameter} is empty: give {_choices()}, a directory or a hub id owner/name")
    if "/" not in model and (EMBEDDED / model / "config.json").is_file():
        here = EMBEDDED / model
    hub = None
    owner_and_name, _, pinned = model.partition("@")  # a directory's path may have an "@", so it is tried first
    if here.is_dir():
        fingerprint = ""
    elif here.is_absolute() or model.startswith((".", "~")) or owner_and_name.count("/") > 1:
        raise InputError(f"{parameter}={model!r}: there is no such directory: check the path")
    elif owner_and_name.count("/") == 1:
        if pinned and revision not in ("main", pinned):
            raise InputError(f"{parameter}={model!r} has another revision than revision={revision!r}: give one of them")
        hub = resolve(owner_and_name, pinned or revision, parameter=parameter)
        here, fingerprint = download(*hub, SMALL, parameter=parameter), "@".join(hub)
    else:
        raise InputError(f"{parameter}={model!r} is unknown: give {_choices()}, a directory or a hub id owner/name")
    config = check_directory(here, f"{parameter}={model!r}", weights=hub is None, chat=chat)
    try:
        limit = read_setting(config, "max_position_embeddings") or read_setting(config, "max_seq_len")  # MPT's name
    except InputError as error:
        raise InputError(f"{parameter}={model!r}: {error}: correct it, or use another model") from None
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise InputError(
            f"{parameter}={model!r}: its config.json gives {limit!r} as the context: write a whole number, 1 or more"
        )
    if max_context < 0 or (limit and max_context > limit):
        raise InputError(
            f"max_context={max_context}, but {model} reads 1 to {limit or 'any number of'} tokens: give that or less"
        )
    return Checkpoint(
        name=name or (hub[0].split("/")[-1] if hub else here.resolve().name),
        path=here.resolve(),
        fingerprint=fingerprint or hash_directory(here.resolve()),
        context=max_context or min(limit or longest, longest),
        hub=hub,
        parameter=parameter,
        config=config,
    )


def _choices() -> str:
    names = sorted(folder.parent.name for folder in EMBEDDED.glob("*/config.json"))
    return "one of " + ", ".join(names) if names else "an embedded model's name"
