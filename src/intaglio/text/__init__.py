"""Text to token ids and back: tokenizer, chat format, streaming detokenizer.

Stands beside the engine, which sees ids only. Begin with `load_tokenizer`.
"""

from intaglio.text.chat import Turn, fold_messages, render_chat, render_prompt
from intaglio.text.detokenizer import IncrementalDetokenizer
from intaglio.text.token_table import token_table_file
from intaglio.text.tokenizer import Tokenizer, load_tokenizer

__all__ = [
    "IncrementalDetokenizer",
    "Tokenizer",
    "Turn",
    "fold_messages",
    "load_tokenizer",
    "render_chat",
    "render_prompt",
    "token_table_file",
]
