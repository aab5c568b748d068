"""`python -m benchmarks.lm_eval_folder FILE FOLDER`: a GGUF file as transformers reads it, as a float32 folder.

Runs in the environment of `lm_eval_figures.py`. Three minutes, of which the tokenizer's merges take two.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.oracle.transformers_peft import load_hf_gguf


def write_folder(file: Path, folder: Path) -> None:
    from transformers import AutoTokenizer

    model = load_hf_gguf(file, "gemma3")
    for holder in (model, model.config):  # what says that the weights were quantized, and would be looked for
        for name in ("hf_quantizer", "quantization_config"):
            if hasattr(holder, name):
                delattr(holder, name)
    tokenizer = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)
    # As Google publishes it: an answer ends with its turn. The GGUF file names one token.
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<end_of_turn>")]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    write_folder(Path(sys.argv[1]), Path(sys.argv[2]))
