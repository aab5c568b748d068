"""The playground's page Adapters in a real browser, against a live server."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from intaglio.lora.peft.reader import CONFIG_FILE, WEIGHTS_FILE
from tests.helpers.browser import ANSWER_TIMEOUT_MS, needs_browser, open_view, watched_page
from tests.helpers.servers import LiveServer

pytestmark = needs_browser

DROP = """({ files }) => {
  const transfer = new DataTransfer();
  for (const [name, text] of files) transfer.items.add(new File([text], name));
  document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
}"""


@pytest.fixture
def page(browser: Browser, live_server: LiveServer) -> Iterator[Page]:
    """The list of adapters; those of the account are deleted afterwards."""
    with watched_page(browser, live_server.url) as page:
        open_view(page, live_server.url, "adapters")
        yield page
        finetunes = f"{live_server.account()}/ai/finetunes"
        for finetune in page.request.get(finetunes).json()["result"]:
            page.request.delete(f"{finetunes}/{finetune['id']}")


def choose(page: Page, *paths: Path) -> None:
    label = "Folder of an adapter" if paths[0].is_dir() else "Files of an adapter"
    page.get_by_label(label).set_input_files(paths[0] if paths[0].is_dir() else list(paths))


def item(page: Page, name: str) -> Locator:
    return page.locator(".adapters > li").filter(has=page.get_by_role("heading", name=name, exact=True))


def own_names(page: Page, server: LiveServer) -> list[str]:
    return [one["name"] for one in page.request.get(f"{server.account()}/ai/finetunes").json()["result"]]


def test_a_folder_is_uploaded_verified_and_stands_beside_the_base(
    page: Page, live_server: LiveServer, adapter_folders: list[Path]
) -> None:
    choose(page, adapter_folders[0])
    expect(page).to_have_url(re.compile(r"#/compare[?].*with=(\*|%2A)%2Cone"), timeout=ANSWER_TIMEOUT_MS)
    expect(page.get_by_role("article", name="one", exact=True)).to_contain_text("Verified: ")
    expect(page.get_by_role("article", name="base", exact=True)).to_be_visible()
    page.get_by_role("link", name="Adapters").click()
    expect(page.locator("#view-adapters").get_by_role("status")).to_contain_text("one: version 1. Verified: ")
    expect(item(page, "one")).to_contain_text("yours · ready · version 1 · verified")


def test_two_dropped_files_without_a_folder_get_a_free_name(
    page: Page, live_server: LiveServer, adapter_folders: list[Path]
) -> None:
    choose(page, adapter_folders[1] / WEIGHTS_FILE, adapter_folders[1] / CONFIG_FILE)
    expect(page.get_by_role("article", name="dropped-1", exact=True)).to_contain_text(
        "Verified: ", timeout=ANSWER_TIMEOUT_MS
    )


def test_versions_are_listed_made_current_and_downloaded(
    page: Page, live_server: LiveServer, adapter_folders: list[Path], tmp_path: Path
) -> None:
    folder = tmp_path / "versions"
    for number, source in enumerate(adapter_folders, start=1):
        folder.mkdir(exist_ok=True)
        for name in (CONFIG_FILE, WEIGHTS_FILE):
            (folder / name).write_bytes((source / name).read_bytes())
        choose(page, folder)
        expect(page.locator("#view-compare")).to_be_visible(timeout=ANSWER_TIMEOUT_MS)
        page.get_by_role("link", name="Adapters").click()
        expect(item(page, "versions")).to_contain_text(f"version {number}")
    item(page, "versions").get_by_role("button", name="Details").click()
    with page.expect_download() as download:
        item(page, "versions").get_by_role("button", name=f"Download {WEIGHTS_FILE}").click()
    assert download.value.path().read_bytes() == (adapter_folders[1] / WEIGHTS_FILE).read_bytes()
    item(page, "versions").get_by_role("button", name="Make version 1 current").click()
    expect(item(page, "versions")).to_contain_text("version 3")


def test_an_adapter_is_deleted_at_the_second_press(
    page: Page, live_server: LiveServer, adapter_folders: list[Path]
) -> None:
    choose(page, adapter_folders[0])
    expect(page.locator("#view-compare")).to_be_visible(timeout=ANSWER_TIMEOUT_MS)
    page.get_by_role("link", name="Adapters").click()
    item(page, "one").get_by_role("button", name="Delete one").click()
    item(page, "one").get_by_role("button", name="Really delete one?").click()
    expect(item(page, "one")).to_have_count(0)
    assert own_names(page, live_server) == []
    expect(item(page, "intaglio-json").get_by_role("button", name="Delete")).to_have_count(0)


def test_a_refused_adapter_says_why_and_leaves_nothing_behind(
    page: Page, live_server: LiveServer, adapter_folders: list[Path], tmp_path: Path
) -> None:
    folder = tmp_path / "refused"
    folder.mkdir()
    config = json.loads((adapter_folders[0] / CONFIG_FILE).read_text()) | {"r": 5}
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    (folder / WEIGHTS_FILE).write_bytes((adapter_folders[0] / WEIGHTS_FILE).read_bytes())
    choose(page, folder)
    expect(page.get_by_role("alert")).to_contain_text("rank", timeout=ANSWER_TIMEOUT_MS)
    expect(page.locator("#view-adapters progress")).to_be_hidden()
    assert own_names(page, live_server) == []


def drop(page: Page, *paths: Path) -> None:
    """Let go of files and folders over the page, as a person does: the browser reads them from the disk."""
    devtools = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    for step in ("dragEnter", "dragOver", "drop"):
        devtools.send("Input.dispatchDragEvent", {"type": step, "x": 400, "y": 300, "data": data})
    devtools.detach()


def test_a_dropped_folder_is_uploaded_under_its_name(
    page: Page, live_server: LiveServer, adapter_folders: list[Path]
) -> None:
    page.get_by_role("link", name="Compare").click()
    drop(page, adapter_folders[1])
    expect(page.get_by_role("article", name="two", exact=True)).to_contain_text("Verified: ", timeout=ANSWER_TIMEOUT_MS)
    assert own_names(page, live_server) == ["two"]


@pytest.mark.parametrize(
    ("missing", "problem"),
    [
        (WEIGHTS_FILE, f"{CONFIG_FILE} is there, but not the weights"),
        (CONFIG_FILE, f"{WEIGHTS_FILE} is there, but not {CONFIG_FILE}"),
    ],
)
def test_a_dropped_folder_without_one_of_the_two_files_is_refused_with_what_is_missing(
    page: Page, live_server: LiveServer, adapter_folders: list[Path], tmp_path: Path, missing: str, problem: str
) -> None:
    folder = shutil.copytree(adapter_folders[0], tmp_path / "half")
    (folder / missing).unlink()
    drop(page, folder)
    expect(page.get_by_role("alert")).to_contain_text(problem)
    assert own_names(page, live_server) == []


def test_a_dropped_folder_with_nothing_in_it_says_so(page: Page, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    drop(page, tmp_path / "nothing")
    expect(page.get_by_role("alert")).to_contain_text("The folder is empty")


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        ([CONFIG_FILE], f"{CONFIG_FILE} is there, but not the weights"),
        ([WEIGHTS_FILE], f"{WEIGHTS_FILE} is there, but not {CONFIG_FILE}"),
        (["notes.txt", "photo.png"], "There is no adapter among these files (notes.txt, photo.png)"),
        (["a.gguf", "b.gguf"], "2 GGUF files"),
    ],
)
def test_files_that_are_no_adapter_are_refused_with_what_is_missing(
    page: Page, live_server: LiveServer, names: list[str], problem: str
) -> None:
    page.get_by_role("link", name="Chat").click()  # dropped on any view
    page.evaluate(DROP, {"files": [[name, "x"] for name in names]})
    expect(page.get_by_role("alert")).to_contain_text(problem)
    assert own_names(page, live_server) == []


def test_a_file_of_two_gigabytes_is_refused_before_it_is_read(
    page: Page, live_server: LiveServer, adapter_folders: list[Path], tmp_path: Path
) -> None:
    large = tmp_path / WEIGHTS_FILE
    with large.open("wb") as file:
        file.truncate(2 * 10**9)
    page.on("request", lambda request: pytest.fail(f"sent {request.url}") if request.method == "POST" else None)
    choose(page, adapter_folders[0] / CONFIG_FILE, large)
    expect(page.get_by_role("alert")).to_have_text(
        f"{WEIGHTS_FILE} has 2.0 GB, more than an adapter's 1.0 GB. It was not read."
    )
    assert own_names(page, live_server) == []
