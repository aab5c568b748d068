"""What a question wants of its answer, and the marks of an answer. No model judges: a word is there or it is not."""

from __future__ import annotations

import re
from dataclasses import dataclass

DOES_NOT_KNOW = ("do not know", "don't know", "cannot know", "cannot tell", "can't know", "not told me", "cannot see")
_WORD = re.compile(r"[\w'’-]+")
_ITEM = re.compile(r"(?:[-*•]|\d+[.)])\s+(.+)")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an answer must be like.

    any_of     it contains one of these words or phrases; nothing is asked where there is none
    all_of     it contains each of these
    exact      it is this text, but for capitals at the start and the stop at the end
    items      it is a list of so many different items, one per line
    members    the items are among these, as singular or plural
    max_words  it has no more words
    question   it is one
    knows      it says something; otherwise it says that it does not know
    """

    any_of: tuple[str, ...] = ()
    all_of: tuple[str, ...] = ()
    exact: str = ""
    items: int = 0
    members: tuple[str, ...] = ()
    max_words: int = 25
    question: bool = False
    knows: bool = True


@dataclass(frozen=True, slots=True)
class Marks:
    """fact: what it says is right; form: what it looks like; length: no longer than wanted; stops: by itself."""

    fact: bool
    form: bool
    length: bool
    stops: bool

    @property
    def all_right(self) -> bool:
        return self.fact and self.form and self.length and self.stops


def mark(wanted: Wanted, answer: str, *, stops: bool) -> Marks:
    answer = answer.strip()
    num_words = len(_WORD.findall(answer))
    return Marks(
        fact=_is_right(wanted, answer),
        form=_has_form(wanted, answer),
        length=0 < num_words <= wanted.max_words,
        stops=stops,
    )


def items_of(answer: str) -> list[str]:
    """The items of a list with one item per line; empty if a line is none."""
    found = [_ITEM.fullmatch(line.strip()) for line in answer.strip().splitlines()]
    return [match[1].strip().rstrip(".") for match in found if match] if all(found) else []


def _is_right(wanted: Wanted, answer: str) -> bool:
    if wanted.exact:
        return _plain(answer) == _plain(wanted.exact)
    if wanted.members:
        members = {_singular(member) for member in wanted.members}
        items = items_of(answer)
        return bool(items) and all(_singular(item) in members for item in items)
    if says_it_does_not_know(answer) == wanted.knows:
        return False
    has = [contains(answer, words) for words in wanted.any_of]
    return (any(has) or not has) and all(contains(answer, words) for words in wanted.all_of)


def _has_form(wanted: Wanted, answer: str) -> bool:
    if wanted.items:
        items = [item.lower() for item in items_of(answer)]
        return len(items) == wanted.items == len(set(items))
    one_paragraph = bool(answer) and "\n" not in answer
    return one_paragraph and answer.endswith("?" if wanted.question else (".", "!", "?"))


def says_it_does_not_know(answer: str) -> bool:
    return any(words in answer.lower() for words in DOES_NOT_KNOW)


def contains(text: str, words: str) -> bool:
    """Whether the words occur in the text, as whole words in this order, whatever their case."""
    return re.search(rf"(?<!\w){re.escape(words.lower())}(?!\w)", text.lower()) is not None


def _plain(text: str) -> str:
    return text.strip("\"'“”. \n").lower()


def _singular(word: str) -> str:
    word = word.lower().strip()
    for ending, instead in (("ies", "y"), ("oes", "o"), ("ches", "ch"), ("shes", "sh"), ("s", "")):
        if word.endswith(ending) and len(word) > len(ending) + 1:
            return word.removesuffix(ending) + instead
    return word
