"""A model's chat template applied to a whole dialogue, which is what some process reward models read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from tts.engines.model import DATE, Model, read_template
from tts.errors import InputError


def render_conversation(model: Model, messages: Sequence[Mapping[str, str]]) -> str:
    """The dialogue as text, special tokens written out; "" where the model has no chat template. The date is DATE.

    Raises InputError where the template can't be rendered.
    """
    from transformers.utils.chat_template_utils import render_jinja_template

    template = read_template(model.path)
    if not template:
        return ""
    today = datetime.strptime(DATE, "%d %b %Y")
    try:
        rendered, _ = render_jinja_template(
            [list(messages)],
            chat_template=template,
            date_string=DATE,
            strftime_now=today.strftime,  # shadows the function through which a template would see the clock
            **model.special_tokens,
        )
    except Exception as error:  # a template may raise anything; the user needs the one line
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"prm_model={model.name}: its chat template can't render a dialogue ({reason}): "
            "use the template that the PRM was trained with"
        ) from None
    return rendered[0]
