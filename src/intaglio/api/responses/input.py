"""From the body of a response to that of a chat completion, which has the same meaning.

The items of a conversation become messages; those of the responses that it continues stand in front of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from intaglio.api.inference.schema import member, typed_object
from intaglio.api.responses.schema import VLLM_FIELDS
from intaglio.errors import BadInputError
from intaglio.wording import missing, shown

FORMAT_FIELD = "text.format"  # what is `response_format` in chat completions
_SAME = ("model", "temperature", "top_p", "stream", "lora", "options", "parallel_tool_calls", *VLLM_FIELDS)
_CHOICES = ("auto", "none", "required")
_ROLES = ("user", "assistant", "system", "developer")
_TEXTS = ("input_text", "output_text", "text")

Message = dict[str, Any]


def as_chat_body(body: Mapping[str, Any], earlier: Sequence[Message] = ()) -> dict[str, Any]:
    """A body as its check gives it, as one of chat completions. Raises BadInputError for items that are not served.

    earlier  the messages of the conversation that it continues
    """
    instructions = [{"role": "system", "content": body["instructions"]}] if body.get("instructions") else []
    chat: dict[str, Any] = {name: body[name] for name in _SAME if name in body}
    chat["messages"] = [*instructions, *earlier, *read_items(body["input"])]
    if body.get("include") or body.get("top_logprobs"):  # logprobs are all that can be included
        chat |= {"logprobs": True, "top_logprobs": body.get("top_logprobs", 0)}
    if "max_output_tokens" in body:
        chat["max_tokens"] = body["max_output_tokens"]
    if body.get("tools"):
        chat["tools"] = [_tool(tool) for tool in body["tools"]]
    if "tool_choice" in body:
        chat["tool_choice"] = _tool_choice(body["tool_choice"])
    asked = body.get("text", {}).get("format")
    if asked is not None:
        chat["response_format"] = _response_format(asked)
    return chat


def read_items(sent: str | Sequence[Any]) -> list[Message]:
    """The items of an input as messages. Raises BadInputError."""
    if isinstance(sent, str):
        return [{"role": "user", "content": sent}]
    messages: list[Message] = []
    for number, item in enumerate(sent):
        message = _message(f"input[{number}]", item)
        if message["role"] == "assistant" and messages and messages[-1]["role"] == "assistant":
            _join(messages[-1], message)  # a call stands in an item of its own, behind the text and other calls
        else:
            messages.append(message)
    return messages


def _join(before: Message, message: Message) -> None:
    if message["content"]:
        before["content"] = [*(before["content"] or []), *message["content"]]
    if "tool_calls" in message:
        before["tool_calls"] = [*before.get("tool_calls", []), *message["tool_calls"]]


def _message(place: str, item: Mapping[str, Any]) -> Message:
    kind = item.get("type") or ("message" if "role" in item else None)
    if kind == "message":
        role = member(place, item, "role", str)
        if role not in _ROLES:
            raise BadInputError(f"{place}.role is {shown(role)}; it must be {', '.join(_ROLES)}")
        return {"role": "system" if role == "developer" else role, "content": _parts(place, item, "content")}
    if kind == "function_call":
        function = {"name": member(place, item, "name", str), "arguments": member(place, item, "arguments", str)}
        call = {"id": member(place, item, "call_id", str), "type": "function", "function": function}
        return {"role": "assistant", "content": None, "tool_calls": [call]}
    if kind == "function_call_output":
        text = "".join(part["text"] for part in _parts(place, item, "output"))
        return {"role": "tool", "tool_call_id": member(place, item, "call_id", str), "content": text}
    raise BadInputError(
        f"{place}.type is {shown(kind)}; message, function_call and function_call_output can be served here"
    )


def _parts(place: str, item: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """A text, or parts that are texts, as parts of a message."""
    content = item.get(name)
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    parts = member(place, item, name, list)
    return [{"type": "text", "text": _text(f"{place}.{name}[{number}]", part)} for number, part in enumerate(parts)]


def _text(place: str, sent: object) -> str:
    part = typed_object(place, sent)
    if part["type"] == "refusal":
        return _text_member(place, part, "refusal")
    if part["type"] not in _TEXTS:
        raise BadInputError(f"{place}.type is {shown(part['type'])}; this server reads text: {', '.join(_TEXTS)}")
    return _text_member(place, part, "text")


def _text_member(place: str, part: Mapping[str, Any], name: str) -> str:
    text: str = member(place, part, name, str)
    return text


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    """A function, whose fields stand beside its type here and one level deeper in chat completions."""
    sent = ("name", "description", "parameters", "strict")
    function = {name: tool[name] for name in sent if tool.get(name) is not None}
    return {"type": "function", "function": function}


def _tool_choice(choice: Any) -> Any:
    if isinstance(choice, dict) and choice.get("type") == "function":
        if isinstance(choice.get("name"), str):
            return {"type": "function", "function": {"name": choice["name"]}}
        if "function" in choice:  # the form of chat completions
            return choice
    if choice not in _CHOICES:
        raise BadInputError(
            f'tool_choice is {shown(choice)}; it must be {", ".join(_CHOICES)} or {{"type": "function", "name": ...}}'
        )
    return choice


def _response_format(asked: Mapping[str, Any]) -> dict[str, Any]:
    if asked["type"] != "json_schema":
        return {"type": asked["type"]}
    if "schema" not in asked:
        raise BadInputError(missing("text.format", ["schema"], asked))
    return {"type": "json_schema", "json_schema": {"name": "output", "schema": asked["schema"]}}
