"""`intaglio adapters` against a server with a fake model; `check` with a real tiny model."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from intaglio.api.app import create_app
from intaglio.cli.adapter_tables import show_list
from intaglio.client import ADAPTER_FILES
from intaglio.model.config import ModelConfig, config_from_hf
from intaglio.settings import Settings
from tests.api.conftest import MODEL, fake_state
from tests.helpers.adapters import write_peft_adapter
from tests.helpers.checkpoints import random_weights, tiny_config, write_hf_folder
from tests.helpers.commands import CommandResult, run_in_process
from tests.helpers.gguf_adapters import write_gguf_adapter
from tests.helpers.live_server import live_server
from tests.helpers.tokenizers import tiny_pieces, write_tokenizer_json

TOKEN = "right"


Intaglio = Callable[..., CommandResult]


@pytest.fixture(scope="module")
def base_config() -> ModelConfig:
    return config_from_hf(tiny_config("gemma"))


@pytest.fixture(scope="module")
def folders(base_config: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("adapters")
    return [write_peft_adapter(folder / str(seed), base_config, seed=seed, model_type="gemma") for seed in (1, 2)]


@pytest.fixture(scope="module")
def url(base_config: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    settings = Settings(data_dir=tmp_path_factory.mktemp("data"), api_tokens=(TOKEN,))
    with live_server(create_app(fake_state(settings, base_config))) as address:
        yield address


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Intaglio:
    """`intaglio adapters …`, in this process."""

    return lambda *words: run_in_process(monkeypatch, capsys, "adapters", *words)


@pytest.fixture
def intaglio(command: Intaglio, url: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Intaglio:
    """`command` with the server, its token and an account for this test in the environment."""
    account = f"acc-{zlib.crc32(request.node.name.encode())}"
    for name, value in {"URL": url, "ACCOUNT": account, "TOKEN": TOKEN}.items():
        monkeypatch.setenv(f"INTAGLIO_{name}", value)
    return command


def refusal(ended: CommandResult) -> str:
    """The one line on stderr with which a command ends with status 1."""
    (line,) = ended.err.splitlines()
    assert (ended.status, ended.out) == (1, "")
    assert line.startswith("intaglio: ")
    return line.removeprefix("intaglio: ")


def upload(intaglio: Intaglio, folder: Path, *more: str) -> CommandResult:
    return intaglio("upload", str(folder), "--name", "mine", "--model", MODEL, *more)


def test_an_adapter_is_uploaded_shown_listed_and_deleted(intaglio: Intaglio, folders: list[Path]) -> None:
    assert intaglio("list").out.strip() == "no adapters"
    sent = upload(intaglio, folders[0], "--description", "what it does")
    assert (sent.status, sent.err) == (0, "")
    shown = intaglio("show", "mine")
    assert shown.out == sent.out
    for text in ("mine", MODEL, "what it does", "ready", *ADAPTER_FILES, "verified in 0.12 s", "modules of rank 4"):
        assert text in shown.out, text
    row = intaglio("list").out.splitlines()
    assert any("mine" in line and "what it does" in line and " no " in line for line in row)
    gone = intaglio("delete", "mine")
    assert (gone.status, gone.out.startswith("deleted mine (")) == (0, True)
    assert "Finetune mine not found" in refusal(intaglio("show", "mine"))


def test_json_output_is_the_servers_result(intaglio: Intaglio, folders: list[Path]) -> None:
    sent = upload(intaglio, folders[0], "--public", "--json").json
    assert (sent["verification"]["verdict"], sent["public"], sent["version"]) == ("verified", True, 1)
    assert intaglio("show", "mine", "--json").json == sent
    assert [one["id"] for one in intaglio("list", "--json").json] == [sent["id"]]
    assert sent["id"] in [one["id"] for one in intaglio("list", "--public", "--json").json]
    assert sent["id"] in intaglio("list", "--public").out, "by it other accounts use the finetune"
    assert intaglio("delete", sent["id"], "--json").json["deleted"] is True
    assert intaglio("list", "--json").json == []


def test_a_second_upload_is_a_version_and_rollback_goes_back(intaglio: Intaglio, folders: list[Path]) -> None:
    first, second = (upload(intaglio, folder, "--json").json for folder in folders)
    assert (second["version"], second["id"]) == (2, first["id"])
    assert "kept for a rollback" in intaglio("show", "mine").out
    back = intaglio("rollback", "mine", "--json").json
    assert (back["version"], back["digest"]) == (3, first["digest"])
    assert intaglio("rollback", "mine", "--to", "2", "--json").json["digest"] == second["digest"]
    assert "99" in refusal(intaglio("rollback", "mine", "--to", "99"))


def test_a_download_has_the_bytes_that_were_sent_and_overwrites_nothing(
    intaglio: Intaglio, folders: list[Path], tmp_path: Path
) -> None:
    upload(intaglio, folders[0])
    out = tmp_path / "new" / "folder"
    fetched = intaglio("download", "mine", "--out", str(out))
    assert fetched.out.splitlines() == [str(out / name) for name in ADAPTER_FILES]
    for name in ADAPTER_FILES:
        assert (out / name).read_bytes() == (folders[0] / name).read_bytes()
    assert "already exists" in refusal(intaglio("download", "mine", "--out", str(out)))
    (tmp_path / "file").write_text("in the way")
    said = refusal(intaglio("download", "mine", "--out", str(tmp_path / "file" / "x")))
    assert said.endswith("cannot be written: Not a directory")


def test_a_refused_adapter_is_one_sentence_with_the_reason(
    intaglio: Intaglio, folders: list[Path], tmp_path: Path
) -> None:
    for name in ADAPTER_FILES:
        (tmp_path / name).write_bytes((folders[0] / name).read_bytes())
    (tmp_path / ADAPTER_FILES[0]).write_text('{"peft_type": "IA3"}')
    assert "IA3" in refusal(upload(intaglio, tmp_path))
    assert "mine" not in intaglio("list").out
    (tmp_path / ADAPTER_FILES[1]).unlink()
    assert refusal(upload(intaglio, tmp_path)) == f"{tmp_path} has no {ADAPTER_FILES[1]}"


def test_an_unreachable_server_and_a_wrong_token_are_each_one_sentence(
    command: Intaglio, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert refusal(command("list", "--url", "http://127.0.0.1:1")).startswith("no response from http://127.0.0.1:1: ")
    assert refusal(command("list", "--url", url)) != ""
    assert command("list", "--url", url, "--token", TOKEN).status == 0
    monkeypatch.setenv("INTAGLIO_TOKEN", "wrong")
    assert command("list", "--url", url).status == 1
    assert command("list", "--url", url, "--token", TOKEN).status == 0, "the option wins over the variable"
    monkeypatch.setenv("INTAGLIO_TOKNE", TOKEN)
    assert "unknown environment variable INTAGLIO_TOKNE" in refusal(command("list", "--url", url))


def test_control_characters_from_the_server_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    other = {"name": "x", "model": "m", "state": "ready", "version": 1, "public": True}
    show_list([{**other, "description": "\x1b[2J[bold red]hello[/]\x07\nthere"}])
    shown = capsys.readouterr().out
    assert all(letter.isprintable() or letter == "\n" for letter in shown)
    assert "[bold red]hello[/]" in shown


def test_check_verifies_a_folder_without_a_server(
    command: Intaglio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INTAGLIO_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("INTAGLIO_KV_CACHE_BYTES", str(1 << 24))
    model = tmp_path / "model"
    hf_config = tiny_config("gemma3_text", vocab_size=512)
    write_hf_folder(model, hf_config, random_weights(hf_config, 4))
    write_tokenizer_json(model / "tokenizer.json", tiny_pieces(512))
    config = config_from_hf(hf_config)
    folder = write_peft_adapter(tmp_path / "adapter", config, targets=["q_proj", "v_proj"])
    verification = command("check", str(folder), "--model", str(model), "--json").json
    assert (verification["verdict"], verification["rank"], verification["scalable"]) == ("verified", 4, True)
    assert verification["modules"] == 2 * config.num_layers
    assert verification["agreement"] > 0.99
    assert verification["largest_logit_change"] > verification["mean_logit_change"] > 0
    assert "agreement" in command("check", str(folder), "--model", str(model)).out
    gguf = write_gguf_adapter(tmp_path / "lora.gguf", config, alpha=8.0, rank=4, targets=["q_proj", "v_proj"])
    assert command("check", str(gguf), "--model", str(model), "--json").json["digest"] == verification["digest"]
    (folder / ADAPTER_FILES[0]).write_text("{}")
    assert ADAPTER_FILES[0] in refusal(command("check", str(folder), "--model", str(model)))
