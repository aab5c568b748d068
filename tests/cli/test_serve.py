"""The error message of a server that cannot start, its end by a signal, and its listening socket."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from intaglio.cli.progress.work import Report
from intaglio.cli.serve import bind, loading_bars
from intaglio.ops.cpu import instruction_sets
from intaglio.settings import load_settings
from tests.helpers.checkpoints import random_weights, tiny_config, write_hf_folder
from tests.helpers.commands import run_in_process
from tests.helpers.engines import write_tiny_model
from tests.helpers.servers import serve
from tests.helpers.tokenizers import tiny_pieces, write_tokenizer_json

DEADLINE_S = 60
BOUNDS = "a whole number from 1 to 256 is needed"


def refusal(*arguments: str, address_space: int | None = None, **variables: str) -> str:
    """The one line on stderr with which `intaglio serve` ends with status 1."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("INTAGLIO_")} | variables

    def limit() -> None:
        if address_space is not None:
            resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))

    done = subprocess.run(
        [sys.executable, "-m", "intaglio.cli", "serve", "--port", "0", *arguments],
        env=environment, capture_output=True, text=True, timeout=DEADLINE_S,
        preexec_fn=limit, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("intaglio: ")
    assert "ready" not in done.stdout
    return lines[0].removeprefix("intaglio: ")


@pytest.fixture
def refused_at_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """`refusal` in this process, which is faster than starting one."""

    def run(*arguments: str, **variables: str) -> str:
        with monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            ended = run_in_process(patch, capsys, "serve", *arguments)
        assert ended.status == 1
        return ended.err.removeprefix("intaglio: ").removesuffix("\n")

    return run


def test_a_data_folder_that_cannot_be_made_is_refused_in_one_line(
    refused_at_once: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    folder = tmp_path / "file" / "data"
    assert refused_at_once("--data-dir", str(folder)).startswith(f"data_dir {folder} cannot be used: Not a directory; ")


@pytest.mark.slow
def test_a_new_data_folder_is_private_and_an_existing_one_keeps_its_mode(tmp_path: Path) -> None:
    new, old = tmp_path / "new", tmp_path / "old"
    old.mkdir(mode=0o755)
    for folder in (new, old):
        assert "no-such-model" in refusal("--data-dir", str(folder), "--model", "@a/b=/no-such-model")
    assert (new.stat().st_mode & 0o777, old.stat().st_mode & 0o777) == (0o700, 0o755)
    assert list(new.iterdir()) == []


@pytest.mark.parametrize("threads", ["0", "-1", "10000", "two"])
def test_a_number_of_threads_out_of_bounds_is_refused_by_option_and_by_variable(
    refused_at_once: Callable[..., str], threads: str
) -> None:
    expected = f"setting 'threads' is '{threads}'; {BOUNDS} (compute threads; none: one per core)"
    assert refused_at_once("--threads", threads) == expected
    assert refused_at_once(INTAGLIO_THREADS=threads) == expected


def test_unknown_kernels_are_refused_with_the_known_ones(refused_at_once: Callable[..., str]) -> None:
    expected = "setting 'kernels' is 'sse9'; one of auto, reference, amx, avx512vnni, avx2, neon, plain is needed"
    assert refused_at_once("--kernels", "sse9").startswith(expected)
    assert refused_at_once(INTAGLIO_KERNELS="sse9").startswith(expected)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--model", "no-path"], "is not ID=PATH"),
        (["--model", "@local/x=/nowhere/at/all"], "/nowhere/at/all does not exist"),
        (
            ["--stand-in", "@cf/google/gemma-7b-it"],
            "is not a model of the catalogue; did you mean @hf/google/gemma-7b-it?",
        ),
        (["--model", "@a/b=hf:a/b", "--stand-in", "@a/b"], "this server has weights for it"),
        (["--model", "@a/b=hf:a"], "does not name a model of the Hugging Face hub"),
        (["--model", "@a/b=/x", "--model", "@a/b=/y"], "is given twice"),
        (["--max-running", "0"], "max_running"),
        (["--port", "70000"], "port"),
        (["--format", "f8"], "format"),
    ],
)
def test_a_wrong_option_ends_the_start_with_one_sentence(
    refused_at_once: Callable[..., str], tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    said = refused_at_once("--port", "0", "--data-dir", str(tmp_path), *arguments)
    assert sentence in said
    assert "\n" not in said


def test_a_base_without_a_tokenizer_is_refused_with_the_option_that_helps(
    refused_at_once: Callable[..., str], tmp_path: Path
) -> None:
    config = tiny_config("gemma3_text")
    write_hf_folder(tmp_path / "model", config, random_weights(config))
    model = f"@local/tiny={tmp_path / 'model'}"
    assert "--tokenizer" in refused_at_once("--port", "0", "--data-dir", str(tmp_path), "--model", model)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_every_process_ends_the_server_after_its_running_requests(
    tmp_path: Path, number: signal.Signals
) -> None:
    """Ctrl-C in a terminal is for the whole group of processes, and a service manager sends SIGTERM to all of them."""
    config = tiny_config("gemma3_text", vocab_size=512)
    write_hf_folder(tmp_path / "model", config, random_weights(config))
    write_tokenizer_json(tmp_path / "model" / "tokenizer.json", tiny_pieces(512))
    arguments = [f"--model=@local/tiny={tmp_path / 'model'}", "--kv-cache-bytes", str(1 << 24)]
    with serve([*arguments, "--cache-dir", str(tmp_path / "cache")], tmp_path / "data") as server:
        children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
        body = {"prompt": "the answer", "raw": True, "max_tokens": 300, "stream": True}
        with httpx.stream("POST", f"{server.account()}/ai/run/@local/tiny", json=body, timeout=60) as answer:
            lines = answer.iter_lines()
            next(lines)
            for process in map(int, children):
                os.kill(process, number)
            os.killpg(server.pid, number)
            *_, last = filter(None, lines)
        assert last == "data: [DONE]", "a running stream is completed"
        server.log.wait_for_end()
    assert "Traceback" not in server.log.text
    assert "the engine process ended" not in server.log.text


def test_a_refusal_is_one_line_and_a_status() -> None:
    assert refusal(INTAGLIO_THREADS="10000").startswith("setting 'threads' is '10000'")


@pytest.mark.skipif("neon" in instruction_sets(), reason="this machine has every instruction set that is tried")
def test_kernels_that_this_machine_lacks_are_refused_with_those_it_has(
    refused_at_once: Callable[..., str], tmp_path: Path
) -> None:
    model = f"@local/tiny={write_tiny_model(tmp_path / 'model')}"
    folder = ["--data-dir", str(tmp_path)]
    assert refused_at_once("--port", "0", *folder, "--model", model, "--kernels", "neon") == (
        f"setting 'kernels': instruction set 'neon': this machine has {', '.join(instruction_sets())}"
    )


def test_caches_larger_than_the_machine_are_refused_with_the_sum(
    refused_at_once: Callable[..., str], tmp_path: Path
) -> None:
    model = f"@local/tiny={write_tiny_model(tmp_path / 'model')}"
    folders = ["--data-dir", str(tmp_path), "--cache-dir", str(tmp_path)]
    said = refused_at_once("--port", "0", "--model", model, "--kv-cache-bytes", str(10**16), *folders)
    assert said.startswith("not enough memory: 10,000,000,")
    assert "KV cache 10,000,000,000 MB (kv_cache_bytes)" in said
    assert "Lower kv_cache_bytes by" in said


@pytest.mark.slow
def test_a_memory_limit_of_the_process_is_respected(tmp_path: Path) -> None:
    model = f"@local/tiny={write_tiny_model(tmp_path / 'model')}"
    arguments = ["--model", model, "--kv-cache-bytes", str(3 << 30), "--cache-dir", str(tmp_path)]
    said = refusal(*arguments, address_space=3 << 30)
    assert "available (RLIMIT_AS of the process)" in said
    assert "KV cache 3,221 MB (kv_cache_bytes)" in said


def test_small_responses_on_a_kept_connection_do_not_wait_for_acknowledgements() -> None:
    """Nagle's algorithm and a client's delayed acknowledgement cost 40 ms each time."""

    async def accepted_without_delay() -> bool:
        seen: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        async def on_connection(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            accepted = writer.get_extra_info("socket")
            seen.set_result(bool(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)))
            writer.close()

        listener = bind(load_settings(port=0))
        async with await asyncio.start_server(on_connection, sock=listener):
            _, writer = await asyncio.open_connection(*listener.getsockname())
            found = await asyncio.wait_for(seen, DEADLINE_S)
            writer.close()
            await writer.wait_closed()
        return found

    assert asyncio.run(accepted_without_delay())


def test_each_model_that_has_to_be_quantized_gets_a_bar_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []

    @contextmanager
    def recorded(doing: str, unit: str) -> Iterator[Report]:
        shown.append(f"{doing} in {unit}")
        yield lambda done, total: shown.append(f"{done}/{total}")
        shown.append("closed")

    monkeypatch.setattr("intaglio.cli.serve.work_progress", recorded)
    with loading_bars() as on_loading:
        on_loading("a", 1, 2)
        on_loading("a", 2, 2)
        on_loading("b", 1, 9)
    begin = "quantizing"
    assert shown == [f"{begin} a in bytes", "1/2", "2/2", "closed", f"{begin} b in bytes", "1/9", "closed"]


def test_nothing_is_shown_if_no_weights_have_to_be_quantized(capsys: pytest.CaptureFixture[str]) -> None:
    with loading_bars():
        pass
    assert capsys.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.parametrize("tokens", [(), ("se cret$1", "other")])
def test_the_commands_that_are_printed_work_as_they_are_pasted(tmp_path: Path, tokens: tuple[str, ...]) -> None:
    config = tiny_config("gemma3_text", vocab_size=512)
    write_hf_folder(tmp_path / "model", config, random_weights(config))
    write_tokenizer_json(tmp_path / "model" / "tokenizer.json", tiny_pieces(512))
    arguments = [f"--model=@local/tiny={tmp_path / 'model'}", "--kv-cache-bytes", str(1 << 24)]
    arguments += ["--cache-dir", str(tmp_path / "cache"), *(f"--api-tokens={token}" for token in tokens)]
    with serve(arguments, tmp_path / "data") as server:
        server.log.wait_for(r"^curl -N .*$")
        pasted = [line for line in server.log.text.splitlines() if line.startswith("curl ")]
        assert len(pasted) == 2
        assert ("INTAGLIO_TOKEN" in server.log.text) == bool(tokens)
        assert not any(token in server.log.text for token in tokens)
        for line in pasted:
            environment = {**os.environ, "INTAGLIO_TOKEN": tokens[0]} if tokens else dict(os.environ)
            done = subprocess.run(
                ["bash", "-c", line], capture_output=True, text=True, check=True, env=environment, timeout=DEADLINE_S
            )
            assert '"response":' in done.stdout, done
        playground = server.log.wait_for(r"playground: (http\S+)\)")[1]
        assert httpx.get(playground).status_code == 200
