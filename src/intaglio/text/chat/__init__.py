"""Messages to prompts. Begin with `open_chat_format`.

  messages.py         messages, checked, as all formats take them
  gemma_turns.py      Gemma's turn format, from ids
  chat_format.py      which format a model has
  template_files.py   where a checkpoint keeps a template of its own
  template.py         compiling and running one, in sandbox.py; bounds.py, bounded_filters.py: what it may make there
  template_probes.py  what a template supports, and whether it is Gemma's own
  template_format.py  messages to ids by a template; shield.py: control tokens in messages stay plain text

Does not know the engine, adapters or HTTP.
"""

from intaglio.text.chat.chat_format import ChatFormat, open_chat_format, render_prompt
from intaglio.text.chat.gemma_turns import GEMMA_TEMPLATE, Turn, fold_messages, render_chat
from intaglio.text.chat.messages import AnsweredChat
from intaglio.text.chat.template_files import TokenizerConfig, read_tokenizer_config

__all__ = [
    "GEMMA_TEMPLATE",
    "AnsweredChat",
    "ChatFormat",
    "TokenizerConfig",
    "Turn",
    "fold_messages",
    "open_chat_format",
    "read_tokenizer_config",
    "render_chat",
    "render_prompt",
]
