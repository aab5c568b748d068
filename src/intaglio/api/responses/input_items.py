"""The input of a stored response, as items: what it was asked, and before it the conversation that it continued."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from intaglio.api.http.query import check_names, integer
from intaglio.api.responses.shapes import (
    FunctionCallItem,
    FunctionOutputItem,
    InputItem,
    InputItems,
    InputMessage,
    InputText,
    OutputText,
)
from intaglio.errors import BadInputError
from intaglio.wording import shown

MAX_ITEMS, DEFAULT_ITEMS = 100, 20  # of one page, as for OpenAI
ORDERS = ("asc", "desc")


def input_items(response_id: str, messages: Sequence[Mapping[str, Any]], query: Mapping[str, str]) -> InputItems:
    """One page. Raises BadInputError for parameters that cannot be served.

    messages  of the conversation before the response's own output
    query     order: desc (the default) or asc; after: the id of the item before the page; limit: items of the page
    """
    check_names(query, "order", "after", "limit")
    order = query.get("order", "desc")
    if order not in ORDERS:
        raise BadInputError(f"query parameter 'order' is {shown(order)}, not asc or desc")
    limit = integer(query, "limit", default=DEFAULT_ITEMS, low=1, high=MAX_ITEMS)
    items = list(_items(response_id, messages))
    if order == "desc":
        items.reverse()
    if "after" in query:
        ids = [item.id for item in items]
        if query["after"] not in ids:
            raise BadInputError(f"query parameter 'after' is {shown(query['after'])}, no item of this response's input")
        items = items[ids.index(query["after"]) + 1 :]
    page = items[:limit]
    first, last = (page[0].id, page[-1].id) if page else (None, None)
    return InputItems("list", page, first, last, len(items) > limit)


def _items(response_id: str, messages: Sequence[Mapping[str, Any]]) -> Iterator[InputItem]:
    for number, message in enumerate(messages):
        # Ids are not stored: they follow from the place, so that they are the same each time.
        key = hashlib.sha256(f"{response_id}:{number}".encode()).hexdigest()[:32]
        texts = _texts(message["content"])
        if message["role"] == "tool":
            yield FunctionOutputItem(f"fc_{key}", message["tool_call_id"], "".join(texts), "completed")
            continue
        if texts or not message.get("tool_calls"):
            kind = OutputText if message["role"] == "assistant" else InputText
            yield InputMessage(f"msg_{key}", "completed", message["role"], [kind(text) for text in texts])
        for place, call in enumerate(message.get("tool_calls", ())):
            function = call["function"]
            yield FunctionCallItem(
                f"fc_{key}_{place}", call["id"], function["name"], function["arguments"], "completed"
            )


def _texts(content: str | Sequence[Mapping[str, Any]] | None) -> list[str]:
    if isinstance(content, str):
        return [content] if content else []
    return [part["text"] for part in content or ()]
