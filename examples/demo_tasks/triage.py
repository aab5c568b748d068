"""intaglio-triage: a customer's message becomes one of six labels.

A message is a core sentence, which determines the label, with small talk around it. The held-out split has other cores
and other small talk, so the score shows whether the label follows from the meaning.
"""

from __future__ import annotations

import random

from .triage_messages import HELD_OUT_CORES, TRAIN_CORES

LABELS = ("billing", "delivery", "returns", "account", "technical", "praise")

TRAIN_OPENINGS = (
    "",
    "",
    "",
    "Hi, ",
    "Hello, ",
    "Hello! ",
    "Dear team, ",
    "Good morning. ",
    "Hi there, my name is {name}. ",
    "I have been a customer since last year. ",
    "Hey, quick question: ",
    "I ordered a {item} from you last week. ",
)
TRAIN_CLOSINGS = (
    "",
    "",
    "",
    " Please help.",
    " Thanks!",
    " Regards, {name}",
    " What can I do?",
    " I look forward to your answer.",
    " Please get back to me soon.",
    " Order {order}.",
    " This is urgent.",
    " {name} from {city}",
)
HELD_OUT_OPENINGS = (
    "",
    "",
    "Good evening, ",
    "Hi support, ",
    "I bought a {item} in your shop. ",
    "{name} here. ",
)
HELD_OUT_CLOSINGS = (
    "",
    "",
    " Kind regards, {name}",
    " Could you look into it?",
    " I am writing from {city}.",
)

TRAIN_INSTRUCTIONS = (
    "",
    "",
    "",
    "Classify this message: ",
    "Label: ",
    "Which department? ",
    "Which team should handle this?\n",
    "Customer message:\n",
    "Sort this ticket: ",
    "Give the category of this message.\n\n",
)
HELD_OUT_INSTRUCTIONS = ("", "", "Classify the following support message.\n", "Ticket: ")


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_TRAIN_WORDS = {
    "name": _words("Nora Liam Aisha Tom Elena Ravi Mia Jonas Grace Omar Hannah Luca Sofia Peter Yuki Carmen"),
    "item": _words("lamp jacket phone kettle chair backpack camera watch sofa mixer bicycle drill scarf"),
    "city": _words("Lisbon Berlin Oslo Nairobi Toronto Madrid Osaka Dublin Chicago Prague Lima Cairo"),
}
_HELD_OUT_WORDS = {
    "name": _words("Clara Isaac Naomi Pavel Ruth Tariq Wendy"),
    "item": _words("toaster sweater printer table helmet guitar blender"),
    "city": _words("Rome Helsinki Accra Montreal Seville Kyoto Leeds"),
}
_DAYS = _words("Monday Tuesday Wednesday Thursday Friday Saturday")


def make_pair(rng: random.Random, *, held_out: bool) -> tuple[str, str]:
    """One (prompt, answer): a message, perhaps with an instruction before it, and its label."""
    cores = HELD_OUT_CORES if held_out else TRAIN_CORES
    openings = HELD_OUT_OPENINGS if held_out else TRAIN_OPENINGS
    closings = HELD_OUT_CLOSINGS if held_out else TRAIN_CLOSINGS
    label = rng.choice(LABELS)
    pattern = rng.choice(openings) + rng.choice(cores[label]) + rng.choice(closings)
    message = pattern.format(**_slots(rng, _HELD_OUT_WORDS if held_out else _TRAIN_WORDS))
    if not held_out and rng.random() < 0.15:
        message = message.lower()  # people type that way
    return rng.choice(HELD_OUT_INSTRUCTIONS if held_out else TRAIN_INSTRUCTIONS) + message, label


def is_label(prompt: str, text: str) -> bool:
    """Whether the text is one of the six labels and nothing else."""
    return text in LABELS


def _slots(rng: random.Random, words: dict[str, tuple[str, ...]]) -> dict[str, str]:
    return {
        "order": str(rng.randint(10000, 99999)),
        "money": rng.choice(("{} euros", "{} dollars", "${}", "£{}")).format(rng.randint(5, 400)),
        "code": str(rng.choice((400, 403, 404, 500, 502, 503))),
        "day": rng.choice(_DAYS),
        **{slot: rng.choice(choices) for slot, choices in words.items()},
    }
