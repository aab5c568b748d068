"""The state of one conversation, and the commands that change it. Knows nothing of the terminal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from intaglio.errors import BadInputError
from intaglio.wording.similar import meant_or, similar_names

BASE = "base"  # what the base without an adapter is called


@dataclass
class Session:
    """What has been said, and how the next answer is made.

    adapter   None is the base
    compared  more than one entry: every answer is made with each of them, and the first one is kept
    """

    available: list[str]
    adapter: str | None = None
    system: str | None = None
    compared: tuple[str | None, ...] = ()
    turns: list[dict[str, str]] = field(default_factory=list)

    @property
    def answering(self) -> tuple[str | None, ...]:
        """The adapters that answer the next question."""
        return self.compared or (self.adapter,)

    def asked(self, question: str) -> list[dict[str, str]]:
        """The messages for a question."""
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [*system, *self.turns, {"role": "user", "content": question}]

    def keep(self, question: str, answer: str) -> None:
        """Add a question and its answer, so that the next question follows them. An empty answer is not kept."""
        if answer:
            self.turns += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]

    def run_command(self, line: str) -> str:
        """Run a line that begins with a slash. Returns what to tell. Raises BadInputError, EOFError for /quit."""
        name, _, argument = line[1:].strip().partition(" ")
        command = COMMANDS.get(name)
        if command is None:
            close = similar_names(name, COMMANDS, at_most=1)
            hint = f"; did you mean /{close[0]}?" if close else "; /help lists the commands"
            raise BadInputError(f"there is no command /{name}{hint}")
        return command.run(self, argument.strip())

    def choose_adapter(self, name: str) -> str:
        if not name:
            others = ", ".join([BASE, *self.available])
            return f"answers come from {shown(self.adapter)}; there are {others}"
        self.adapter, self.compared = self.checked(name), ()
        return f"answers come from {shown(self.adapter)}"

    def compare(self, names: str) -> str:
        chosen = tuple(self.checked(name) for name in names.split()) or (None, *self.available)
        if len(set(chosen)) < 2:
            raise BadInputError(f"/compare needs two names at least; there are {', '.join([BASE, *self.available])}")
        self.compared = tuple(dict.fromkeys(chosen))
        return f"every question goes to {', '.join(map(shown, self.compared))}; /adapter ends it"

    def set_system(self, text: str) -> str:
        self.system = text or None
        return "the system text is set" if text else "there is no system text"

    def reset(self, _: str) -> str:
        self.turns.clear()
        return "a new conversation begins"

    def undo(self, _: str) -> str:
        if not self.turns:
            raise BadInputError("there is nothing to take back")
        del self.turns[-2:]
        return "the last question and its answer are taken back"

    def history(self, _: str) -> str:
        return "\n".join(f"{turn['role']}: {turn['content']}" for turn in self.turns) or "nothing has been said yet"

    def help(self, _: str) -> str:
        width = max(len(one.usage) for one in COMMANDS.values())
        return "\n".join(f"{one.usage:{width}}  {one.meaning}" for one in COMMANDS.values())

    def quit(self, _: str) -> str:
        raise EOFError

    def checked(self, name: str) -> str | None:
        """A name that can be used; None for the base. A path is taken as it is. Raises BadInputError."""
        if name == BASE:
            return None
        if name in self.available or "/" in name or name.endswith(".gguf"):
            return name
        known = [BASE, *self.available]
        hint = meant_or(name, known, f"there are {', '.join(known)}")
        raise BadInputError(f"there is no adapter {name}; {hint}")


@dataclass(frozen=True, slots=True)
class Command:
    """usage: as /help shows it; run: with the text behind its name."""

    usage: str
    meaning: str
    run: Callable[[Session, str], str]


COMMANDS = {
    "adapter": Command(
        "/adapter NAME", "answer with this adapter, or with `base`; without a name lists them", Session.choose_adapter
    ),
    "compare": Command(
        "/compare NAME NAME …", "put every question to each of them; without names to all", Session.compare
    ),
    "system": Command(
        "/system TEXT", "instructions for the whole conversation; without a text removes them", Session.set_system
    ),
    "history": Command("/history", "show what was said", Session.history),
    "undo": Command("/undo", "take the last question and its answer back", Session.undo),
    "reset": Command("/reset", "begin a new conversation", Session.reset),
    "help": Command("/help", "show this", Session.help),
    "quit": Command("/quit", "leave; so does Ctrl-D", Session.quit),
}


def shown(adapter: str | None) -> str:
    """The name of an adapter, for a person."""
    return BASE if adapter is None else adapter
