"""Text to token ids and back. Begin with `load_tokenizer`.

  chat.py                  messages to ids in Gemma's turn format; tools.py, tool_calls.py: what tools add to both sides
  detokenizer.py           ids to text while they arrive; finds stop strings
  tokenizer.py             encode and decode; token_table.py: the bytes of every token, in a file for the engine
  gguf_vocabulary.py       readers of tokenizer files, beside hf_vocabulary.py and sentencepiece_model.py; each gives
  vocabulary.py            the one form of all of them; tokenizer_cache.py: kept on disk for the next start

Does not know the engine, which sees ids only, adapters or HTTP.
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
