"""The chat format of a model: Gemma's turn format, or the checkpoint's own template where that is another.

`open_chat_format` chooses; everything that puts messages into a prompt uses its result.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from intaglio.text.chat.gemma_turns import GemmaFormat
from intaglio.text.chat.messages import AnsweredChat
from intaglio.text.chat.template_files import TemplateText
from intaglio.text.tokenizer import Tokenizer

logger = logging.getLogger(__name__)


class ChatFormat(Protocol):
    """How the messages of a conversation become a prompt. Safe to use from several threads."""

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        continue_final: bool = False,
    ) -> list[int]:
        """The token ids, with one BOS, at the start.

        add_generation_prompt  end with the opening of the model's turn
        continue_final         end with the text of the last message, which is the assistant's, and leave its turn open

        Raises ChatError.
        """

    def answered(self, messages: Sequence[Mapping[str, Any]]) -> AnsweredChat:
        """A conversation to train with. Raises ChatError."""


def open_chat_format(
    template: TemplateText | None, special_tokens: Mapping[str, str], tokenizer: Tokenizer, *, takes_system: bool
) -> ChatFormat:
    """The format of a checkpoint.

    template        its chat template; without one, or with Gemma's own, it is Gemma's turn format
    special_tokens  those that its files name; otherwise bos_token, eos_token and pad_token are the tokenizer's
    takes_system    whether the template that Google published for its generation takes a system message

    Raises ModelFormatError if the template cannot be compiled or leaves out the user's text.
    """
    if template is None:
        return GemmaFormat(tokenizer, takes_system=takes_system)
    # Imported here, since a checkpoint without a template, as many GGUF files are, needs no jinja2.
    from intaglio.text.chat.template import ChatTemplate
    from intaglio.text.chat.template_format import TemplateFormat
    from intaglio.text.chat.template_probes import recognise_own

    compiled = ChatTemplate(template.text, template.label, _token_texts(tokenizer) | dict(special_tokens))
    own = recognise_own(compiled)
    if own is not None:
        return GemmaFormat(tokenizer, takes_system=own.takes_system)
    logger.info("%s is not Gemma's own: prompts are rendered with it", template.label)
    return TemplateFormat(compiled, tokenizer)


def _token_texts(tokenizer: Tokenizer) -> dict[str, str]:
    ids = {"bos_token": tokenizer.bos_id, "eos_token": tokenizer.eos_id, "pad_token": tokenizer.pad_id}
    return {name: tokenizer.piece_name(token_id) for name, token_id in ids.items() if token_id is not None}


def render_prompt(prompt: str, tokenizer: Tokenizer, raw: bool, chat: ChatFormat | None = None) -> list[int]:
    """The token ids of a bare prompt.

    raw True    the text unchanged, with control tokens recognised; exactly one BOS at the start, whether the text
                begins with none, one or more
    raw False   one user message and the opening of the model's turn, in the given format or else Gemma's
    """
    if not raw:
        return (chat or GemmaFormat(tokenizer)).render([{"role": "user", "content": prompt}])
    ids = tokenizer.encode(prompt, special=True)
    first_other = next((i for i, token_id in enumerate(ids) if token_id != tokenizer.bos_id), len(ids))
    return [tokenizer.bos_id, *ids[first_other:]]
