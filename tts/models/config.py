"""Numbers of a config.json by the names that transformers has for them, whatever the architecture calls them."""

from __future__ import annotations

from collections.abc import Mapping

from tts.errors import InputError


def read_setting(config: Mapping[str, object], name: str) -> int | None:
    """A number of the text model: as config.json has it, else as transformers' config class does.

    The class knows other names (GPT-2's n_positions is max_position_embeddings) and the defaults of what a file leaves
    out. Importing it takes seconds and loads torch, so it is asked only where the file itself doesn't say.
    None where neither knows. Raises InputError where the class refuses the config.
    """
    text = config.get("text_config") or config
    if text.get(name) is not None:
        return text[name]
    from transformers import CONFIG_MAPPING

    kind = config.get("model_type")
    if kind not in CONFIG_MAPPING:
        return None
    try:
        return getattr(CONFIG_MAPPING[kind].from_dict(dict(config)).get_text_config(), name, None)
    except Exception as error:  # each class checks in its own way
        line = " ".join(str(error).split())
        raise InputError(f"config.json of model_type {kind!r} can't be read: {line}") from None
