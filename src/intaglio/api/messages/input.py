"""From the body of a message to that of a chat completion, which has the same meaning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from intaglio.api.inference.schema import member, typed_object
from intaglio.errors import BadInputError
from intaglio.wording import at, missing, shown, wrong_type

# Called alike in both forms.
_SAME = ("model", "max_tokens", "stream", "temperature", "top_p", "top_k", "seed", "lora", "options")
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_ERROR = "Error: "  # in front of the result of a tool that failed


def as_chat_body(body: Mapping[str, Any]) -> dict[str, Any]:
    """A body as its check gives it, as one of chat completions. Raises BadInputError for blocks that are not served."""
    chat: dict[str, Any] = {name: body[name] for name in _SAME if name in body}
    chat["messages"] = _messages(body)
    if chat["messages"][-1]["role"] == "assistant":
        _check_continued(body)
        chat["continue_final_message"] = True
    if body.get("stop_sequences"):
        chat["stop"] = body["stop_sequences"]
    if body.get("tools"):
        chat["tools"] = [_tool(tool) for tool in body["tools"]]
    if "tool_choice" in body:
        choice = body["tool_choice"]
        chat["tool_choice"] = _tool_choice(choice)
        chat["parallel_tool_calls"] = not choice.get("disable_parallel_tool_use")
    _, asked = output_format(body)
    if asked is not None:
        chat["response_format"] = {"type": "json_schema", "json_schema": {"name": "output", "schema": asked["schema"]}}
    return chat


def _messages(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    system = body.get("system")
    messages = [{"role": "system", "content": system}] if system else []
    for index, message in enumerate(body["messages"]):
        if isinstance(message["content"], str):
            messages.append({"role": message["role"], "content": message["content"]})
        elif message["role"] == "user":
            messages += _user_turns(f"messages[{index}].content", message["content"])
        else:
            messages.append(_assistant_turn(f"messages[{index}].content", message["content"]))
    return messages


def _check_continued(body: Mapping[str, Any]) -> None:
    """A last message of the assistant is the beginning of its answer. Raises BadInputError as Anthropic's API refuses
    one that cannot be continued.
    """
    last = len(body["messages"]) - 1
    content = body["messages"][last]["content"]
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if any(block["type"] == "tool_use" for block in blocks):
        raise BadInputError(f"messages[{last}] calls tools and is the last message; their results have to follow it")
    if blocks and blocks[-1]["text"] != blocks[-1]["text"].rstrip():
        raise BadInputError(
            f"messages[{last}], which the answer continues, ends with whitespace; send it without, because the model "
            "writes it"
        )
    if output_format(body)[1] is not None:
        raise BadInputError(
            f"messages[{last}] is of the assistant, whose text the answer would continue; an answer that has to be "
            "JSON begins anew: end with a message of the user"
        )


def _user_turns(where: str, blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Results of tools are messages of their own; the texts between them are the user's, in their order."""
    turns: list[dict[str, Any]] = []
    for number, block in enumerate(blocks):
        place = at(where, number)
        if block["type"] == "tool_result":
            turns.append(_tool_result(place, block))
            continue
        text = {"type": "text", "text": _text(place, block, "text and tool_result")}
        if turns and turns[-1]["role"] == "user":
            turns[-1]["content"].append(text)
        else:
            turns.append({"role": "user", "content": [text]})
    return turns or [{"role": "user", "content": ""}]


def _assistant_turn(where: str, blocks: list[dict[str, Any]]) -> dict[str, Any]:
    texts, calls = [], []
    for number, block in enumerate(blocks):
        place = at(where, number)
        if block["type"] == "tool_use":
            calls.append(_tool_call(place, block))
        else:
            texts.append({"type": "text", "text": _text(place, block, "text and tool_use")})
    turn: dict[str, Any] = {"role": "assistant", "content": texts or None if calls else texts or ""}
    return {**turn, "tool_calls": calls} if calls else turn


def _text(place: str, block: Mapping[str, Any], served: str) -> str:
    if block["type"] != "text":
        raise BadInputError(f"{place}.type is {shown(block['type'])}; {served} can be served here")
    text: str = member(place, block, "text", str)
    return text


def _tool_call(place: str, block: Mapping[str, Any]) -> dict[str, Any]:
    function = {"name": member(place, block, "name", str), "arguments": member(place, block, "input", dict)}
    return {"id": member(place, block, "id", str), "type": "function", "function": function}


def _tool_result(place: str, block: Mapping[str, Any]) -> dict[str, Any]:
    content = block.get("content")
    if isinstance(content, list):
        content = "".join(
            _text(part, typed_object(part, one), "text")
            for part, one in ((f"{place}.content[{number}]", one) for number, one in enumerate(content))
        )
    elif content is not None and not isinstance(content, str):
        raise BadInputError(wrong_type(at(place, "content"), content, ["string", "array"]))
    failed = member(place, {"is_error": block.get("is_error") or False}, "is_error", bool)
    text = (_ERROR if failed else "") + (content or "")
    return {"role": "tool", "tool_call_id": member(place, block, "tool_use_id", str), "content": text}


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    described = {"name": tool["name"], "description": tool.get("description"), "parameters": tool["input_schema"]}
    return {"type": "function", "function": described | ({"strict": True} if tool.get("strict") else {})}


def _tool_choice(choice: Mapping[str, Any]) -> Any:
    if choice["type"] != "tool":
        return _CHOICES[choice["type"]]
    if "name" not in choice:
        raise BadInputError(missing("tool_choice", ["name"], choice))
    return {"type": "function", "function": {"name": choice["name"]}}


def output_format(body: Mapping[str, Any]) -> tuple[str, Mapping[str, Any] | None]:
    """The form that the text must have, None for any, and the field that asks for it. Raises BadInputError for two."""
    newer, older = body.get("output_config", {}).get("format"), body.get("output_format")
    if newer is not None and older is not None:
        raise BadInputError("output_config.format and output_format both ask for JSON; send only one of them")
    return ("output_config.format", newer) if newer is not None else ("output_format", older)
