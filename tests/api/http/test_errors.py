from __future__ import annotations

import inspect

import pytest

from intaglio import errors as tree
from intaglio.api.http.errors import WIRE_ERRORS, ErrorItem, error_item, wire_error

EXCEPTIONS = [kind for _, kind in inspect.getmembers(tree, inspect.isclass) if issubclass(kind, tree.IntaglioError)]


def test_every_exception_of_the_tree_has_a_row() -> None:
    assert len(EXCEPTIONS) > 15
    assert [kind.__name__ for kind in EXCEPTIONS if kind not in WIRE_ERRORS] == []


def test_every_exception_is_drawn_in_the_tree() -> None:
    assert [kind.__name__ for kind in EXCEPTIONS if kind.__name__ not in (tree.__doc__ or "")] == []


@pytest.mark.parametrize("kind", EXCEPTIONS, ids=lambda kind: kind.__name__)
def test_callers_faults_are_4xx_and_ours_5xx(kind: type[tree.IntaglioError]) -> None:
    status = WIRE_ERRORS[kind].status
    ours = not issubclass(kind, tree.RequestError | tree.AdapterError | tree.CapacityError)
    assert (status >= 500) == ours


def test_a_429_always_has_retry_after() -> None:
    rows = [row for row in WIRE_ERRORS.values() if row.status == 429]
    assert rows
    assert all("retry-after" in dict(row.headers) for row in rows)


def test_an_unlisted_subclass_takes_its_ancestors_row() -> None:
    class OddError(tree.FinetuneNotFoundError):
        pass

    assert wire_error(OddError("x")).code == 3037


def test_the_context_error_has_the_sentence_that_clients_look_for_and_both_numbers() -> None:
    item = error_item(tree.ContextLengthError(34_744, 256, 24_000), "id")
    assert item.code == 3010
    assert str(item.message).startswith(
        "AiError: The estimated number of input and maximum output tokens (35000) exceeded this model context "
        "window limit (24000)"
    )


def test_a_missing_finetune_reads_as_the_service_words_it() -> None:
    item = error_item(tree.FinetuneNotFoundError("Finetune x not found"), "0a1b")
    assert item == ErrorItem(3037, "AiError: AiError: Finetune x not found (0a1b)")
