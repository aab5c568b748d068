"""Text to token ids and back, chats and tool calls included. Begin with `load_tokenizer`.

  chat/                  messages to ids: Gemma's turn format, and templates of checkpoints that have another
  tools.py               the tools of a request, and the prompt that describes them; tool_calls.py: the model's calls
  tokenizer.py           encode and decode; detokenizer.py: ids to text as they arrive, and stop strings
  token_table.py         the bytes of every token, in a file that the engine reads to enforce grammars
  vocabulary.py          what every tokenizer file contains; tokenizer_cache.py keeps it on disk for the next start
  gguf_vocabulary.py, hf_vocabulary.py, sentencepiece_model.py   readers of the three kinds of tokenizer files

Does not know the engine, adapters or HTTP.
"""

from intaglio.text.chat import (
    GEMMA_TEMPLATE,
    AnsweredChat,
    ChatFormat,
    TokenizerConfig,
    Turn,
    fold_messages,
    open_chat_format,
    read_tokenizer_config,
    render_chat,
    render_prompt,
)
from intaglio.text.detokenizer import PLAIN_TEXT, IncrementalDetokenizer, TextForm
from intaglio.text.token_table import token_table_file
from intaglio.text.tokenizer import Tokenizer, load_tokenizer

__all__ = [
    "GEMMA_TEMPLATE",
    "PLAIN_TEXT",
    "AnsweredChat",
    "ChatFormat",
    "IncrementalDetokenizer",
    "TextForm",
    "Tokenizer",
    "TokenizerConfig",
    "Turn",
    "fold_messages",
    "load_tokenizer",
    "open_chat_format",
    "read_tokenizer_config",
    "render_chat",
    "render_prompt",
    "token_table_file",
]
