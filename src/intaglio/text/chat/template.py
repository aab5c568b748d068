"""One chat template: compiled when the model is opened, run for each request, in the sandbox of `sandbox.py`.

Does not know tokens or what a template supports: see `template_format.py`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError

from intaglio.errors import ChatError, ModelFormatError
from intaglio.text.chat.bounds import MAX_LENGTH
from intaglio.text.chat.sandbox import ChatEnvironment, RaisedByTemplateError

# What the code of a template can raise. MemoryError and RuntimeError (also RecursionError) are the template's too.
_FAULTS = (
    TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)


class ChatTemplate:
    """A template of the kind that Hugging Face checkpoints and GGUF files have. Safe to use from several threads.

    label   names the template in messages: its file, and the key in it
    """

    def __init__(self, source: str, label: str, special_tokens: Mapping[str, str]) -> None:
        """special_tokens: the variables that are always there, such as bos_token. Raises ModelFormatError."""
        self.source = source
        self.label = label
        self.special_tokens = dict(special_tokens)
        self._environment = ChatEnvironment()
        try:
            self._generate = self._environment.template(source)
        except TemplateSyntaxError as error:
            raise ModelFormatError(f"{label}, line {error.lineno}: not a chat template ({error.message})") from error
        # Nested too deeply for jinja2 or for Python; a number of too many digits.
        except (RecursionError, MemoryError, SyntaxError, ValueError) as error:
            raise ModelFormatError(f"{label}: it cannot be compiled ({type(error).__name__}: {error})") from error

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> str:
        """The text of a conversation of plain JSON values.

        Raises ChatError: the template refuses the messages (raise_exception), has a fault, or exceeds a bound.
        """
        variables = {
            **self.special_tokens,
            "messages": messages,
            "tools": tools,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
        }
        self._environment.start()
        pieces: list[str] = []
        length = 0
        try:
            for piece in self._generate(variables):
                pieces.append(piece)
                length += len(piece)
                if length > MAX_LENGTH:
                    raise ChatError(f"{self.label}: the chat template writes more than {MAX_LENGTH} characters")
        except RaisedByTemplateError as error:
            raise ChatError(f"the model's chat template refuses the messages: {_shown(error)}") from error
        except _FAULTS as error:
            shown = f"{type(error).__name__}: {_shown(error)}"
            raise ChatError(f"{self.label}: the chat template cannot render these messages ({shown})") from error
        return "".join(pieces)


def _shown(error: BaseException) -> str:
    """The message of an error, in one line of at most 300 characters."""
    return textwrap.shorten(str(error), 300, placeholder=" ...")
