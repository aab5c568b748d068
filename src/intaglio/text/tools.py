"""The tools that a model may call: reading what callers declare, and the part of the prompt that describes them.

Gemma has no control tokens for calls. The prompt describes them in words: the list of functions as JSON, and the form
of a call, which is a JSON object with `name` and `parameters`. A tool that has only its code (Workers AI's `functions`)
is listed with that code, and its arguments may be any object; the code is never run.

Source of the form: https://ai.google.dev/gemma/docs/capabilities/function-calling
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from intaglio.errors import BadInputError

MAX_TOOLS = 128
ANY_ARGUMENTS: Mapping[str, Any] = {"type": "object"}
_NO_ARGUMENTS: Mapping[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
_OPEN_ENDED = ("additionalProperties", "patternProperties", "unevaluatedProperties", "$ref", "allOf", "anyOf", "oneOf")


@dataclass(frozen=True, slots=True)
class Tool:
    """One function.

    parameters  the JSON schema of its arguments, which are an object
    code        its source, listed in the prompt instead of the schema; "" if there is none
    strict      the caller asks that the schema is enforced or refused
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    code: str = ""
    strict: bool = False


@dataclass(frozen=True, slots=True)
class ToolUse:
    """The tools of a request, and how they may be used.

    tools     all tools in the prompt, at least one
    required  whether the completion must be a call
    only      the one tool that may be called; None allows all
    parallel  whether a completion may have several calls
    """

    tools: tuple[Tool, ...]
    required: bool = False
    only: str | None = None
    parallel: bool = True

    @property
    def callable_tools(self) -> tuple[Tool, ...]:
        return tuple(tool for tool in self.tools if self.only in (None, tool.name))


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the model asks for. The caller of the API carries it out."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class UnreadCall:
    """A call of an earlier turn whose arguments are no JSON object, for example cut. written: as they stand."""

    name: str
    written: str


def parse_tools(
    tools: Sequence[Any] | None, functions: Sequence[Any] | None = None, choice: Any = None, *, parallel: bool = True
) -> ToolUse | None:
    """Read the tools of a request; None if nothing may be called.

    tools      `{name, description, parameters}` or `{type: "function", function: {name, description, parameters}}`
    functions  `{name, code}`, or as `tools`
    choice     "auto" (also None), "none", "required" (also "any"), or `{type: "function", function: {name}}`

    Raises BadInputError naming the tool.
    """
    num_tools = len(tools or ()) + len(functions or ())
    if num_tools > MAX_TOOLS:
        raise BadInputError(f"{num_tools} tools, more than the {MAX_TOOLS} that are allowed")
    found = [
        _read_tool(f"{field}[{index}]", item)
        for field, items in (("tools", tools), ("functions", functions))
        for index, item in enumerate(items or ())
    ]
    names = [tool.name for tool in found]
    for name in names:
        if names.count(name) > 1:
            raise BadInputError(f"two tools have the name {name!r}")
    required, only = _read_choice(choice, names)
    if choice == "none" or not found:
        return None
    return ToolUse(tuple(found), required, only, parallel and only is None)


def with_tools(messages: Sequence[Mapping[str, Any]], use: ToolUse) -> list[Mapping[str, Any]]:
    """The conversation with a system message that describes the tools.

    It is added at the end, so that message numbers in errors are the caller's own; the chat formats put
    every system text first anyway.
    """
    return [*messages, {"role": "system", "content": tool_prompt(use)}] if messages else []


def tool_prompt(use: ToolUse) -> str:
    """The text of the prompt that describes the tools."""
    form = "a JSON object with the name of the function and its arguments, such as " + call_text(
        [ToolCall("get_weather", {"city": "Paris"})]
    )
    if use.parallel:
        form += ", or a JSON array of such objects to call several"
    if use.only is not None:
        ask = f"Call the function {use.only}: answer with {form}"
    elif use.required:
        ask = f"Call one of the functions: answer with {form}"
    else:
        ask = f"If one of them helps, call it: answer with {form}. If none does, answer in plain words"
    listed = "\n".join(_tool_json(tool) for tool in use.tools)
    return f"You can call functions. {ask}. Add no other text to a call.\n\nThe functions are:\n{listed}"


def call_text(calls: Sequence[ToolCall | UnreadCall]) -> str:
    """Calls in the form that the prompt asks the model for; what cannot be read stands in it as it was written.

    Raises BadInputError if arguments are nested too deeply.
    """
    written = [_written(call) for call in calls]
    return written[0] if len(written) == 1 else f"[{', '.join(written)}]"


def _written(call: ToolCall | UnreadCall) -> str:
    if isinstance(call, ToolCall):
        return json_text({"name": call.name, "parameters": call.arguments})
    return f'{{"name": {json_text(call.name)}, "parameters": {call.written}'


def _tool_json(tool: Tool) -> str:
    about = {"name": tool.name}
    if tool.description:
        about["description"] = tool.description
    if tool.code:
        return json_text({**about, "code": tool.code})
    return json_text({**about, "parameters": tool.parameters})


def json_text(value: object) -> str:
    """JSON as it stands in prompts. Raises BadInputError if it is nested too deeply."""
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError as error:
        raise BadInputError("a tool's schema, a call or a result is nested too deeply") from error


def _read_tool(where: str, item: object) -> Tool:
    if not isinstance(item, Mapping):
        raise BadInputError(f"{where} is not an object")
    if item.get("type", "function") != "function":
        raise BadInputError(f"{where} is of type {item['type']!r}; only functions can be called here")
    declared = item.get("function", item)
    name = declared.get("name") if isinstance(declared, Mapping) else None
    if not isinstance(name, str) or not name:
        raise BadInputError(f"{where} has no name")
    description, code = declared.get("description") or "", declared.get("code") or ""
    if not isinstance(description, str) or not isinstance(code, str):
        raise BadInputError(f"description and code of the tool {name!r} must be strings")
    if code:
        return Tool(name, description, ANY_ARGUMENTS, code)
    strict = True in (declared.get("strict"), item.get("strict"))
    return Tool(name, description, _read_parameters(name, declared.get("parameters")), strict=strict)


def _read_parameters(name: str, schema: object) -> Mapping[str, Any]:
    """The schema of the arguments. If it lists properties and says nothing about others, others are not allowed,
    because a model would invent arguments."""
    if schema is None:
        return _NO_ARGUMENTS
    if not isinstance(schema, Mapping) or schema.get("type", "object") != "object":
        raise BadInputError(f"parameters of the tool {name!r} must be the JSON schema of an object")
    closed = {"type": "object", **schema}
    if "properties" in schema and not any(key in schema for key in _OPEN_ENDED):
        closed["additionalProperties"] = False
    return closed


def _read_choice(choice: object, names: Sequence[str]) -> tuple[bool, str | None]:
    """Whether a call is required, and the only tool that may be called."""
    if choice is None or choice in ("auto", "none"):
        return False, None
    only = None if choice in ("required", "any") else _chosen_name(choice)
    if not names:
        raise BadInputError("tool_choice requires a call, but there are no tools")
    if only is not None and only not in names:
        raise BadInputError(f"tool_choice names {only!r}, which is not among the tools: {', '.join(names)}")
    return True, only


def _chosen_name(choice: object) -> str:
    function = choice.get("function") if isinstance(choice, Mapping) and choice.get("type") == "function" else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str):
        raise BadInputError(
            f"tool_choice is {json.dumps(choice)}; it must be auto, none, required or "
            '{"type": "function", "function": {"name": ...}}'
        )
    return name
