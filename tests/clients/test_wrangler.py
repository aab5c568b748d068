"""wrangler, Cloudflare's command line."""

from __future__ import annotations

from tests.clients.assertions import prompt_text
from tests.clients.clients import WRANGLER, Client
from tests.clients.conftest import ADAPTER, MODEL, Plain
from tests.clients.script_runner import Outcomes
from tests.clients.table import shows

CLIENTS = (WRANGLER,)


def test_whoami_finds_a_user_and_an_account(client: Client, shown: Outcomes) -> None:
    assert "user@localhost" in shown["whoami"]["stdout"]
    assert "Intaglio" in shown["whoami"]["stdout"]


@shows("finetunes")
def test_a_finetune_is_created_uploaded_and_listed(client: Client, shown: Outcomes, plain: Plain) -> None:
    finetunes = shown["finetunes"]
    (made,) = [item for item in finetunes["json"] if item["name"].startswith("by-wrangler")]
    assert f'finetune "{made["name"]}" is ready to use' in finetunes["created"]["stdout"]
    assert made["id"] in finetunes["listed"]["stdout"]
    assert prompt_text(plain, lora=made["name"]) == prompt_text(plain, lora=ADAPTER) != prompt_text(plain)


@shows("models")
def test_models_and_their_schemas_are_listed(client: Client, shown: Outcomes) -> None:
    assert MODEL in shown["models"]["listed"]["stdout"]
    assert '"max_tokens"' in shown["models"]["schema"]["stdout"]


@shows("errors")
def test_errors_have_a_message(client: Client, shown: Outcomes) -> None:
    assert shown["errors"]["code"] == 1
    assert "No such model @cf/no/such-model or task. " in shown["errors"]["stderr"]
    assert "[code: 5007]" in shown["errors"]["stderr"]
    assert "by-wrangler" in shown["name_taken"]["stderr"]
