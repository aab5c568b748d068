from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from intaglio.api.app import create_app
from intaglio.cli.conversation.source import Sampling
from intaglio.model.config import config_from_hf
from intaglio.settings import Settings
from tests.api.conftest import fake_state
from tests.cli.conversation.conftest import Intaglio
from tests.helpers.checkpoints import tiny_config
from tests.helpers.commands import DEADLINE_S
from tests.helpers.live_server import live_server

PRETRAINED = "This base is pre-trained: "


def test_questions_are_answered_and_each_follows_those_before(connected: Intaglio) -> None:
    found = connected("chat", stdin="a b\nc d\n/history\n/quit\n")
    assert found.status == 0, found.err
    lines = found.out.splitlines()
    assert lines[0].startswith("@intaglio/fake in http://127.0.0.1:")
    assert lines[1].startswith("b a")
    assert lines[2].startswith("base · stop · ")
    assert lines[3].startswith("d c")
    assert [line for line in lines[5:] if line.startswith("user: ")] == ["user: a b", "user: c d"]
    assert len(lines[3]) > len(lines[1]), "the second prompt has the first question in it"


def test_a_wrong_command_and_a_refused_question_leave_the_conversation_as_it_was(connected: Intaglio) -> None:
    found = connected("chat", stdin="/compar\n/adapter nowhere\na <fail> b\n/history\nc d\n")
    assert found.status == 0
    assert "no command /compar; did you mean /compare?" in found.err
    assert "there is no adapter nowhere; " in found.err
    assert "nothing has been said yet" in found.out
    assert "d c" in found.out, "the end of a pipe ends it, after the last line was answered"


def test_an_adapter_of_the_command_line_must_exist(connected: Intaglio) -> None:
    found = connected("chat", "--adapter", "nowhere")
    assert (found.status, found.err) == (1, "intaglio: there is no adapter nowhere; there are base\n")


def test_a_server_says_that_its_base_is_pretrained(intaglio: Intaglio, tmp_path: Path) -> None:
    state = fake_state(Settings(data_dir=tmp_path / "served"), config_from_hf(tiny_config("gemma")))
    for llm in state.models.values():
        llm.is_pretrained = True  # type: ignore[misc]
    with live_server(create_app(state)) as url:
        found = intaglio("chat", "--url", url)
    assert PRETRAINED in found.out


def test_a_base_is_called_pretrained_by_what_its_checkpoint_is(
    connected: Intaglio, base_folder: Path, tmp_path: Path
) -> None:
    assert PRETRAINED not in connected("chat").out
    for name, said in (("gemma-3-270m", True), ("gemma-3-270m-it", False)):
        copy = shutil.copytree(base_folder, tmp_path / name)
        assert (PRETRAINED in connected("chat", "--model", str(copy)).out) == said


def test_what_is_given_counts_before_what_a_card_suggests() -> None:
    suggested = {"max_tokens": 8, "temperature": 0}
    assert Sampling(None).or_suggested(suggested).given() == suggested
    assert Sampling(3, temperature=0.5, seed=1).or_suggested(suggested).given() == {
        "max_tokens": 3, "temperature": 0.5, "seed": 1,
    }  # fmt: skip
    assert Sampling(3, temperature=0).or_suggested({"temperature": 1}).given() == {"max_tokens": 3, "temperature": 0}


def test_adapters_answer_side_by_side(intaglio: Intaglio, base_folder: Path, tmp_path: Path) -> None:
    from tests.helpers.adapters import write_peft_adapter

    config = config_from_hf(tiny_config("gemma3_text", vocab_size=512))
    adapter = write_peft_adapter(tmp_path / "a", config, seed=9)
    words = ["chat", "--model", str(base_folder), "--max-tokens", "8", "--temperature", "0"]
    found = intaglio(*words, stdin=f"/compare base {adapter}\none\n/history\n")
    assert found.status == 0, found.err
    assert "─ base ─" in found.out
    assert found.out.count("length · 8 tokens") == 2, found.out
    assert found.out.count("user: one") == 1


# The command as a terminal starts it: a program in the background of a shell, as the tests may be, ignores Ctrl-C, and
# so would those that it starts.
START = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from intaglio.cli import main; main()"


class Screen:
    """What a terminal shows, read piece by piece."""

    def __init__(self, terminal: int) -> None:
        self._terminal = terminal
        self._unread = ""

    def read_until(self, wanted: str) -> None:
        """Read up to a text. Fails after the deadline."""
        while wanted not in self._unread:
            ready, _, _ = select.select([self._terminal], [], [], DEADLINE_S)
            assert ready, f"{wanted!r} did not come; there is {self._unread!r}"
            self._unread += os.read(self._terminal, 1 << 16).decode("utf-8", "replace")
        self._unread = self._unread.partition(wanted)[2]


def test_in_a_terminal_ctrl_c_stops_an_answer_and_ctrl_d_leaves(url: str, tmp_path: Path) -> None:
    terminal, end = pty.openpty()
    environment = os.environ | {"INTAGLIO_DATA_DIR": str(tmp_path / "data"), "TERM": "dumb"}
    command = [sys.executable, "-c", START, "chat", "--url", url]
    with subprocess.Popen(
        command, stdin=end, stdout=end, stderr=end, env=environment, start_new_session=True
    ) as process:
        try:
            os.close(end)
            screen = Screen(terminal)
            screen.read_until("\n> ")
            os.write(terminal, b"a <stall> b\n")
            screen.read_until("\nb")
            process.send_signal(signal.SIGINT)
            screen.read_until("stopped")
            screen.read_until("\n> ")
            os.write(terminal, b"/history\n")
            screen.read_until("assistant: b")
            screen.read_until("\n> ")  # before it, Ctrl-D would be lost
            os.write(terminal, b"\x04")
            assert process.wait(DEADLINE_S) == 0
        finally:
            process.kill()
    os.close(terminal)
    history = tmp_path / "data" / "chat-history"
    assert history.read_text().splitlines() == ["a <stall> b", "/history"]
    assert history.stat().st_mode & 0o077 == 0
