"""The playground's page Complete in a real browser, against a live server."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from intaglio.api.catalogue import HOSTED
from intaglio.client import publish
from tests.e2e.conftest import MODEL
from tests.helpers.browser import ANSWER_TIMEOUT_MS, box, needs_browser, open_view, watched_page
from tests.helpers.servers import LiveServer, serve

pytestmark = needs_browser


@pytest.fixture
def page(browser: Browser, live_server: LiveServer) -> Iterator[Page]:
    """Complete with its lists filled."""
    with watched_page(browser, live_server.url) as page:
        open_complete(page, live_server.url)
        yield page


def open_complete(page: Page, url: str, **fields: str) -> None:
    open_view(page, url, "complete", **fields)


def choose_form(page: Page, name: str) -> None:
    page.get_by_role("radio", name=name).check()


def run_and_wait(page: Page) -> str:
    """Press Run; return the text of the finished completion."""
    page.get_by_role("button", name="Run").click()
    expect(page.get_by_role("status")).to_have_text("Done.", timeout=ANSWER_TIMEOUT_MS)
    return page.locator("#completion").inner_text()


def fact(page: Page, name: str) -> str:
    item = page.locator("#facts div").filter(has=page.get_by_text(name, exact=True))
    return item.locator("dd").inner_text()


def first_adapter(page: Page) -> str:
    names = page.locator("#lora option").evaluate_all("options => options.map(option => option.value)")
    assert names[0] == "", "the base model comes first"
    assert len(names) > 1, "the server lists no adapter"
    return str(names[1])


def test_a_typed_prompt_streams_a_completion_with_its_facts(page: Page) -> None:
    choose_form(page, "raw")
    box(page, "Prompt").fill("The three primary colors are")
    box(page, "max_tokens").fill("7")
    box(page, "temperature").fill("0")
    answer = run_and_wait(page)
    assert answer.strip()
    assert int(fact(page, "prompt tokens").split()[0]) > 0
    assert 1 <= int(fact(page, "completion tokens")) <= 7
    assert float(fact(page, "tokens/s")) > 0
    assert fact(page, "finish reason") in {"stop", "length"}
    assert "intaglio-adapter-digest" not in page.locator("#facts").inner_text()


@pytest.mark.slow
def test_an_adapter_is_chosen_by_name_and_its_digest_is_shown(page: Page) -> None:
    adapter = first_adapter(page)
    page.get_by_role("combobox", name="Adapter").select_option(adapter)
    choose_form(page, "prompt")
    box(page, "Prompt").fill("Nora Patel from Lisbon ordered three desk lamps.")
    box(page, "max_tokens").fill("5")
    assert f'"lora": "{adapter}"' in page.locator("#code").inner_text()
    run_and_wait(page)
    assert re.fullmatch("[0-9a-f]{64}", fact(page, "intaglio-adapter-digest"))


@pytest.mark.slow
def test_models_without_weights_are_greyed_under_a_note_and_described(page: Page, live_server: LiveServer) -> None:
    group = page.locator("#model optgroup[label^='No weights on this server']")
    options = group.locator("option").evaluate_all("options => options.map(one => [one.value, one.disabled])")
    assert options == [[name, True] for name in HOSTED]
    open_complete(page, live_server.url, model="@cf/google/gemma-3-12b-it")
    expect(page.locator("#about")).to_contain_text(
        "no weights for it. Serve it with --model '@cf/google/gemma-3-12b-it="
    )


def test_a_model_that_another_one_stands_in_for_runs_and_shows_which_answered(browser: Browser, tmp_path: Path) -> None:
    asked = "@cf/google/gemma-7b-it-lora"
    with serve(["--stand-in", asked], tmp_path) as server:
        page = browser.new_page()
        open_complete(page, server.url, model=asked, prompt="One two", max_tokens="4", lora="intaglio-json")
        groups = page.locator("#model optgroup").evaluate_all("groups => groups.map(one => one.label)")
        assert groups[0] == f"Answered by {MODEL}"
        assert groups[1:] == ["No weights on this server: intaglio serve --model ID=PATH adds them"]
        expect(page.locator("#model")).to_have_value(asked)
        expect(page.locator("#lora option:checked")).to_have_text(
            "intaglio-json"
        )  # an adapter of the base that answers
        run_and_wait(page)
        assert fact(page, "intaglio-answered-by") == MODEL
        page.close()


def test_two_adapters_are_mixed_with_their_scales_and_the_link_keeps_them(page: Page) -> None:
    first, second = page.locator("#lora option").evaluate_all("options => options.slice(1, 3).map(one => one.value)")
    expect(page.get_by_label("Scale", exact=True)).to_be_hidden()
    page.get_by_role("combobox", name="Adapter").select_option(first)
    box(page, "Scale").fill("0.5")
    page.get_by_role("combobox", name="Mixed with").select_option(second)
    box(page, "Scale of that one").fill("-0.25")
    choose_form(page, "prompt")
    box(page, "Prompt").fill("Nora Patel from Lisbon ordered three desk lamps.")
    box(page, "max_tokens").fill("3")
    mix = f'"lora": [{{"name": "{first}", "scale": 0.5}}, {{"name": "{second}", "scale": -0.25}}]'
    assert mix in page.locator("#code").inner_text()
    run_and_wait(page)
    digest = fact(page, "intaglio-adapter-digest")
    page.reload()
    expect(page.locator("#model")).to_be_enabled()
    assert mix in page.locator("#code").inner_text()
    run_and_wait(page)
    assert fact(page, "intaglio-adapter-digest") == digest
    page.get_by_role("combobox", name="Adapter").select_option(second)  # it cannot be mixed with itself
    assert f'"lora": [{{"name": "{second}", "scale": 0.5}}]' in page.locator("#code").inner_text()
    page.get_by_role("combobox", name="Adapter").select_option("")
    assert "lora" not in page.locator("#code").inner_text()


@pytest.mark.slow
def test_the_result_of_an_adapters_verification_is_shown(
    page: Page, live_server: LiveServer, adapter_folders: list[Path]
) -> None:
    publish(adapter_folders[0], url=live_server.url, name="playground-verified")
    page.locator("#connection summary").click()
    page.get_by_role("button", name="Load models and adapters again").click()
    page.get_by_role("combobox", name="Adapter").select_option("playground-verified")
    expect(page.locator("#verification")).to_contain_text(re.compile(r"^Verified: \d+ modules of rank 4, .*agreement"))
    page.get_by_role("combobox", name="Mixed with").select_option("intaglio-json")  # one that comes with the package
    expect(page.locator("#about2")).to_contain_text("JSON")
    expect(page.locator("#verification2")).to_contain_text("Verified: ")
    page.get_by_role("combobox", name="Adapter").select_option("")
    expect(page.locator("#verification")).to_have_text("")
    page.request.delete(f"{live_server.url}/client/v4/accounts/local/ai/finetunes/playground-verified")


@pytest.mark.slow
def test_stop_ends_a_long_completion_and_the_next_one_runs(page: Page) -> None:
    choose_form(page, "raw")
    box(page, "Prompt").fill("Once upon a time")
    box(page, "max_tokens").fill("2000")
    page.get_by_role("button", name="Run").click()
    expect(page.locator("#completion")).to_have_text(re.compile(r"\S"), timeout=ANSWER_TIMEOUT_MS)
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("status")).to_contain_text("Stopped")
    expect(page.get_by_role("button", name="Stop")).to_be_disabled()
    assert fact(page, "finish reason") == "stopped"
    assert int(fact(page, "completion tokens")) > 0
    box(page, "max_tokens").fill("3")
    assert run_and_wait(page).strip()


@pytest.mark.slow
def test_an_adapter_chosen_after_typing_takes_its_form_and_limits_and_keeps_the_text(page: Page) -> None:
    box(page, "Prompt").fill("Please send two wool scarves to Ines Duarte in Funchal.")
    expect(page.get_by_role("radio", name="raw")).to_be_checked()
    expect(box(page, "max_tokens")).to_have_value("24")
    page.get_by_role("combobox", name="Adapter").select_option("intaglio-json")
    expect(page.get_by_role("radio", name="prompt")).to_be_checked()
    expect(box(page, "max_tokens")).to_have_value("96")  # of the adapter's card
    expect(box(page, "Prompt")).to_have_value("Please send two wool scarves to Ines Duarte in Funchal.")
    box(page, "max_tokens").fill("9")
    page.get_by_role("combobox", name="Adapter").select_option("intaglio-sql")
    expect(box(page, "max_tokens")).to_have_value("9")  # the reader's own number stays


@pytest.mark.slow
def test_an_empty_prompt_is_not_sent(page: Page) -> None:
    box(page, "Prompt").fill("")
    page.get_by_role("button", name="Run").click()
    expect(page.locator("#error")).to_have_text("Type a prompt first.")
    expect(box(page, "Prompt")).to_be_focused()


@pytest.mark.slow
def test_the_rendered_prompt_and_its_token_count_follow_the_form_as_it_is_typed(page: Page) -> None:
    box(page, "Prompt").fill("Hello")
    expect(page.locator("#reads-count")).to_have_text(re.compile(r"^2 tokens of \d+$"))
    page.locator("#reads summary").click()
    expect(page.locator("#reads-tokens span")).to_have_text(["<bos>", "Hello"])
    choose_form(page, "messages")
    box(page, "System message").fill("Be <b>brief</b>.")
    expect(page.locator("#reads-tokens")).to_have_text(
        "<bos><start_of_turn>user\nBe <b>brief</b>.\n\nHello<end_of_turn>\n<start_of_turn>model\n"
    )
    box(page, "max_tokens").fill("1")
    page.get_by_label("stream", exact=True).uncheck()
    run_and_wait(page)
    shown = page.locator("#reads-count").inner_text().split()[0]
    assert fact(page, "prompt tokens").split()[0] == shown


@pytest.mark.slow
def test_a_link_of_the_first_version_opens_complete(page: Page, live_server: LiveServer) -> None:
    page.goto("about:blank")
    page.goto(f"{live_server.url}/#mode=messages&system=Be+brief.&prompt=Hello")
    expect(box(page, "System message")).to_have_value("Be brief.")
    expect(page).to_have_url(re.compile("#/complete[?]"))


@pytest.mark.slow
def test_ctrl_enter_runs_the_prompt(page: Page) -> None:
    box(page, "max_tokens").fill("2")
    box(page, "Prompt").press("Control+Enter")
    expect(page.get_by_role("status")).to_have_text("Done.", timeout=ANSWER_TIMEOUT_MS)


def test_what_the_server_refuses_is_shown_with_its_code_and_message(page: Page) -> None:
    box(page, "max_tokens").fill("1000000")  # the schema has no bound; the window of the model has
    page.get_by_role("button", name="Run").click()
    expect(page.get_by_role("alert")).to_have_text(re.compile(r"^Error \d+: .*1000000"))
    expect(page.locator("#completion")).to_have_text("")


@pytest.mark.slow
def test_an_unknown_adapter_in_a_link_is_an_error_and_never_base_text(page: Page, live_server: LiveServer) -> None:
    open_complete(page, live_server.url, lora="no-<b>such</b>-adapter", prompt="The sky is", max_tokens="3")
    page.get_by_role("button", name="Run").click()
    expect(page.get_by_role("alert")).to_contain_text("Error 3037")
    expect(page.get_by_role("alert")).to_contain_text("no-<b>such</b>-adapter")  # as text, never as markup
    expect(page.locator("#completion")).to_have_text("")


@pytest.mark.slow
def test_the_form_comes_back_from_its_link(page: Page) -> None:
    choose_form(page, "messages")
    box(page, "System message").fill("Be brief & <b>kind</b>.")
    box(page, "User message").fill("50% of #1?")
    box(page, "seed").fill("12")
    expect(page).to_have_url(re.compile("seed=12"))
    page.reload()
    expect(page.locator("#model")).to_be_enabled()
    expect(box(page, "System message")).to_have_value("Be brief & <b>kind</b>.")
    expect(box(page, "User message")).to_have_value("50% of #1?")
    expect(box(page, "seed")).to_have_value("12")
    expect(page.get_by_role("radio", name="messages")).to_be_checked()


@pytest.mark.slow
def test_a_public_adapter_of_another_account_is_run_by_its_id_and_an_unready_one_is_marked(
    page: Page, live_server: LiveServer
) -> None:
    model = page.locator("#model").input_value()
    finetunes = f"{live_server.url}/client/v4/accounts/other/ai/finetunes"
    made = page.request.post(finetunes, data={"model": model, "name": "playground-shared", "public": True}).json()
    page.locator("#connection summary").click()
    page.get_by_role("button", name="Load models and adapters again").click()
    option = page.locator("#lora option", has_text="playground-shared (awaiting files)")
    expect(option).to_have_attribute("value", made["result"]["id"])
    page.get_by_role("combobox", name="Adapter").select_option(made["result"]["id"])
    expect(page.locator("#about")).to_have_text("Not ready: awaiting files.")
    box(page, "Prompt").fill("Hello")
    page.get_by_role("button", name="Run").click()
    expect(page.get_by_role("alert")).to_contain_text("Error 3039")
    page.request.delete(f"{finetunes}/playground-shared")
