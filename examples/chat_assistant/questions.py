"""The questions of intaglio-chat: those whose answers it is trained on, and 200 that are held out.

A held-out question asks about something that no training question of its kind asks about: another country, another
sentence, another text.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from . import knowledge, texts
from .marks import Wanted

NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five"}
HELD_OUT_COUNTS = {
    "fact": 50, "explanation": 11, "list": 24, "past tense": 8, "spelling": 8, "question form": 5, "politeness": 7,
    "summary": 24, "reading": 24, "small talk": 19, "unknown": 20,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Question:
    """One question of a kind, and what its answer must be like. Other wordings of a question have the same `topic`."""

    kind: str
    text: str
    wanted: Wanted
    topic: str


def train_questions(seed: int = 270) -> list[Question]:
    """Every question that may be trained on, shuffled."""
    rng = random.Random(seed)
    found = {question.text: question for make in KINDS.values() for question in make(rng, held_out=False)}
    questions = list(found.values())
    rng.shuffle(questions)
    return questions


def held_out_questions(seed: int = 7) -> list[Question]:
    """200 questions, one wording of each. Raises ValueError if a kind has too few."""
    rng = random.Random(seed)
    chosen: list[Question] = []
    for kind, count in HELD_OUT_COUNTS.items():
        wordings: dict[str, list[Question]] = {}
        for question in KINDS[kind](rng, held_out=True):
            wordings.setdefault(question.topic, []).append(question)
        if len(wordings) < count:
            raise ValueError(f"there are {len(wordings)} held-out questions of the kind {kind}, {count} are needed")
        chosen += [rng.choice(wordings[topic]) for topic in rng.sample(list(wordings), count)]
    return chosen


_CAPITAL_WORDINGS = ("What is the capital of {}?", "Which city is the capital of {}?", "What's the capital of {}?")
_FACT_WORDINGS = (
    (knowledge.CAPITALS, "capital", _CAPITAL_WORDINGS),
    (knowledge.LANGUAGES, "language", ("What language do people speak in {}?", "Which language is spoken in {}?")),
    (knowledge.CONTINENTS, "continent", ("On which continent is {}?", "Which continent is {} in?")),
    (knowledge.YOUNG_ANIMALS, "young", ("What is a young {} called?", "What do you call a baby {}?")),
    (knowledge.OPPOSITES, "opposite", ("What is the opposite of {}?", 'What is the opposite of the word "{}"?')),
    (knowledge.COLOURS, "colour", ("What colour is {}?", "Which colour does {} have?")),
    (knowledge.GENERAL, "general", ("{}",)),
)  # fmt: skip


def _facts(rng: random.Random, *, held_out: bool) -> Iterator[Question]:
    for text, relation, wordings in _FACT_WORDINGS:
        for asked, answers in knowledge.table(text, held_out=held_out).items():
            wanted = Wanted(any_of=answers, max_words=20)
            for wording in wordings:
                yield Question("fact", wording.format(asked), wanted, f"{relation} {asked}")


def _explanations(rng: random.Random, *, held_out: bool) -> Iterator[Question]:
    for asked, words in knowledge.table(knowledge.EXPLAINED, held_out=held_out).items():
        wanted = Wanted(any_of=words, max_words=35)
        for wording in ("What is {}?", "Explain in one sentence what {} is.", "Can you tell me what {} is?"):
            yield Question("explanation", wording.format(asked), wanted, asked)


def _lists(rng: random.Random, *, held_out: bool) -> Iterator[Question]:
    for kind, members in knowledge.table(knowledge.LISTED, held_out=held_out).items():
        for number, word in NUMBERS.items():
            wanted = Wanted(items=number, members=members, max_words=4 * number)
            for wording in ("Name {} {}.", "List {} {}.", "Give me a list of {} {}."):
                yield Question("list", wording.format(word, kind), wanted, f"{number} {kind}")


def _pairs(kind: str, text: str, *wordings: str) -> Callable[..., Iterator[Question]]:
    """Questions about sentences of which there is one right form."""

    def make(rng: random.Random, *, held_out: bool) -> Iterator[Question]:
        for asked, (answer,) in knowledge.table(text, held_out=held_out).items():
            for wording in wordings:
                yield Question(kind, wording.format(asked), Wanted(exact=answer, question=answer.endswith("?")), asked)

    return make


def _politeness(rng: random.Random, *, held_out: bool) -> Iterator[Question]:
    for asked in texts.split(texts.REQUESTS, held_out=held_out):
        last_word = asked.rstrip(".").split()[-1]
        wanted = Wanted(any_of=("please", "could you", "would you", "can you"), all_of=(last_word,), max_words=20)
        for wording in ("Make this polite: {}", "Say this in a friendlier way: {}"):
            yield Question("politeness", wording.format(asked), wanted, asked)


def _filled(rng: random.Random, *, held_out: bool) -> Iterator[tuple[texts.Text, dict[str, str]]]:
    patterns = texts.HELD_OUT_TEXTS if held_out else texts.TRAIN_TEXTS
    slots = texts.HELD_OUT_SLOTS if held_out else texts.TRAIN_SLOTS
    for pattern in patterns:
        for _ in range(9):
            yield pattern, {name: rng.choice(words) for name, words in slots.items()}


def _summaries(rng: random.Random, *, held_out: bool) -> Iterator[Question]:
    for pattern, slots in _filled(rng, held_out=held_out):
        text = pattern.pattern.format(**slots)
        wanted = Wanted(any_of=tuple(word.format(**slots) for word in pattern.summary_has), max_words=20)
        for wording in ("Summarise this text in one sentence: {}", "Give a short summary of this text.\n\n{}"):
            yield Question("summary", wording.format(text), wanted, text)


def _reading(rng: random.Random, *, held_out: bool) -> Iterator[Question]:
    for pattern, slots in _filled(rng, held_out=held_out):
        text = pattern.pattern.format(**slots)
        asked, answer = (words.format(**slots) for words in rng.choice(pattern.questions))
        wanted = Wanted(any_of=(answer,), max_words=20)
        for wording in ("{text}\n\n{asked}", "{asked}\n\n{text}"):
            yield Question("reading", wording.format(text=text, asked=asked), wanted, text + asked)


def _small_talk(rng: random.Random, *, held_out: bool) -> Iterator[Question]:
    for line in texts.split(texts.SMALL_TALK, held_out=held_out):
        asked, _, words = line.partition(" = ")
        yield Question("small talk", asked, Wanted(any_of=tuple(words.split(", "))), asked)


def _unknown(rng: random.Random, *, held_out: bool) -> Iterator[Question]:
    asked_directly = texts.split(texts.UNKNOWN, held_out=held_out)
    with_slots = [
        pattern.format(word)
        for pattern, words in texts.UNKNOWN_PATTERNS.items()
        for word in words.split(", ")
    ]  # fmt: skip
    for asked in asked_directly + ([] if held_out else with_slots):
        yield Question("unknown", asked, Wanted(knows=False), asked)


KINDS: dict[str, Callable[..., Iterator[Question]]] = {
    "fact": _facts,
    "explanation": _explanations,
    "list": _lists,
    "past tense": _pairs(
        "past tense", texts.PAST_TENSE, "Put this into the past tense: {}", "Write this in the past tense: {}"
    ),
    "spelling": _pairs(
        "spelling", texts.SPELLING, "Correct the spelling: {}", "Correct the mistake in this sentence: {}"
    ),
    "question form": _pairs(
        "question form", texts.STATEMENTS, "Turn this into a question: {}", "Make a question of this: {}"
    ),
    "politeness": _politeness,
    "summary": _summaries,
    "reading": _reading,
    "small talk": _small_talk,
    "unknown": _unknown,
}
