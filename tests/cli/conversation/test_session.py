from __future__ import annotations

import pytest

from intaglio.cli.conversation.session import COMMANDS, Session
from intaglio.errors import BadInputError


@pytest.fixture
def session() -> Session:
    return Session(["json", "sql"])


def test_a_question_follows_what_was_said_and_the_system_text(session: Session) -> None:
    session.run_command("/system  Be brief. ")
    session.keep("one", "two")
    assert session.asked("three") == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three"},
    ]
    session.run_command("/system")
    session.run_command("/undo")
    assert session.asked("three") == [{"role": "user", "content": "three"}]


def test_an_empty_answer_is_not_kept(session: Session) -> None:
    session.keep("one", "")
    assert session.turns == []


def test_an_adapter_is_chosen_by_name_and_base_is_none(session: Session) -> None:
    assert session.run_command("/adapter sql") == "answers come from sql"
    assert session.answering == ("sql",)
    session.run_command("/adapter base")
    assert session.answering == (None,)
    assert session.run_command("/adapter") == "answers come from base; there are base, json, sql"
    session.run_command("/adapter ./my/folder")
    assert session.answering == ("./my/folder",)


def test_several_adapters_are_compared_until_one_is_chosen(session: Session) -> None:
    session.run_command("/compare base sql sql")
    assert session.answering == (None, "sql")
    session.run_command("/compare")
    assert session.answering == (None, "json", "sql")
    session.run_command("/adapter json")
    assert session.answering == ("json",)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/adapter sqk", "there is no adapter sqk; did you mean sql"),
        ("/adapter zzz", "there is no adapter zzz; there are base, json, sql"),
        ("/compare sql", "/compare needs two names at least; there are base, json, sql"),
        ("/compare sql nothing", "there is no adapter nothing"),
        ("/undo", "nothing to take back"),
        ("/compar a b", "no command /compar; did you mean /compare"),
        ("/", "no command /; /help lists the commands"),
    ],
)
def test_a_command_that_cannot_be_meant_changes_nothing(session: Session, line: str, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        session.run_command(line)
    assert session == Session(["json", "sql"])


def test_help_names_every_command_and_quit_ends(session: Session) -> None:
    text = session.run_command("/help")
    assert all(f"/{name}" in text for name in COMMANDS)
    with pytest.raises(EOFError):
        session.run_command("/quit")
