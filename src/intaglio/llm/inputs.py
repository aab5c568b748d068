"""What a caller may give to `LLM` and `AsyncLLM`, checked and in the forms that requests have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias, cast

import msgspec

from intaglio.demo_adapters import demo_adapter_folders
from intaglio.errors import AdapterError, BadInputError
from intaglio.grammar import check_grammar, json_schema_grammar
from intaglio.request import AdapterRef, SamplingParams, ScaledAdapter
from intaglio.wording.similar import meant_or

Chat: TypeAlias = Sequence[Mapping[str, Any]]
OneAdapter: TypeAlias = AdapterRef | ScaledAdapter | str | Path
AdapterSelection: TypeAlias = OneAdapter | Sequence[OneAdapter] | None

_SHOWN_CHARS = 60  # of a wrong value, in a message


class SchemaModel(Protocol):
    """A pydantic model class."""

    @classmethod
    def model_json_schema(cls) -> dict[str, Any]: ...


JsonSchema: TypeAlias = Mapping[str, Any] | type[SchemaModel]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the prompts of one call are completed, checked: one `params` and one `adapters` for each."""

    params: tuple[SamplingParams, ...]
    adapters: tuple[tuple[OneAdapter, ...], ...]

    def named_adapters(self) -> list[str | Path]:
        """The adapters that are given by name or path, each once."""
        named = (one for selection in self.adapters for one in selection if isinstance(one, str | Path))
        return list(dict.fromkeys(named))

    def scaled_adapters(self, loaded: Mapping[str | Path, AdapterRef]) -> list[list[ScaledAdapter]]:
        """For each prompt; `loaded` has those of `named_adapters`."""
        return [[_scaled(one, loaded) for one in selection] for selection in self.adapters]


def check_sampling(
    count: int,
    params: SamplingParams | Sequence[SamplingParams] | None,
    adapters: AdapterSelection | Sequence[AdapterSelection],
    json_schema: JsonSchema | None,
    *,
    is_one: bool,
) -> Sampling:
    """Raises BadInputError or GrammarError for what cannot be meant. Takes milliseconds with a grammar.

    count   of prompts
    is_one  there is one prompt that was not given in a list: then a list of adapters is one mix for it
    """
    each = list(params) if isinstance(params, Sequence) else [params or SamplingParams()] * count
    if len(each) != count:
        raise BadInputError(f"there are {count} prompts and {len(each)} sampling parameters")
    for one in each:
        if not isinstance(one, SamplingParams):
            raise BadInputError(f"sampling_params is {_shown(one)}; SamplingParams is needed")
    if json_schema is not None:
        each = _with_grammar(each, json_schema)
    else:
        for grammar in {one.grammar for one in each} - {None}:
            check_grammar(str(grammar))
    selections = [cast(AdapterSelection, adapters)] if is_one else _per_prompt(adapters, count)
    if len(selections) != count:
        raise BadInputError(f"there are {count} prompts and {len(selections)} adapter selections")
    return Sampling(tuple(each), tuple(_mix(one) for one in selections))


def _with_grammar(params: Iterable[SamplingParams], json_schema: JsonSchema) -> list[SamplingParams]:
    if isinstance(json_schema, type) and hasattr(json_schema, "model_json_schema"):
        json_schema = json_schema.model_json_schema()
    if not isinstance(json_schema, Mapping):
        raise BadInputError(f"json_schema is {_shown(json_schema)}; a dict or a pydantic model class is needed")
    grammar = json_schema_grammar(json_schema)
    for one in params:
        if one.grammar is not None:
            raise BadInputError("json_schema and sampling_params.grammar were both given; one of them is needed")
    return [msgspec.structs.replace(one, grammar=grammar) for one in params]


def _per_prompt(adapters: AdapterSelection | Sequence[AdapterSelection], count: int) -> list[AdapterSelection]:
    if isinstance(adapters, list | tuple):
        return list(adapters)
    return [cast(AdapterSelection, adapters)] * count


def _mix(selection: AdapterSelection) -> tuple[OneAdapter, ...]:
    """The adapters of one prompt."""
    if selection is None:
        return ()
    mix = tuple(selection) if isinstance(selection, list | tuple) else (cast(OneAdapter, selection),)
    for one in mix:
        if not isinstance(one, AdapterRef | ScaledAdapter | str | Path):
            wanted = "a path, the name of a demo adapter, an AdapterRef or a ScaledAdapter"
            raise BadInputError(f"an adapter is {_shown(one)}; {wanted} is needed")
    return mix


def _scaled(one: OneAdapter, loaded: Mapping[str | Path, AdapterRef]) -> ScaledAdapter:
    if isinstance(one, ScaledAdapter):
        return one
    return ScaledAdapter(one if isinstance(one, AdapterRef) else loaded[one])


def adapter_path(adapter: str | Path) -> Path:
    """The path of an adapter that is given by path or by the name of a demo adapter. Raises AdapterError."""
    path = Path(adapter)
    if path.exists():
        return path
    demos = demo_adapter_folders()
    if str(adapter) in demos:
        return demos[str(adapter)]
    names = ", ".join(sorted(demos))
    advice = meant_or(str(adapter), demos, f"those are {names}")
    raise AdapterError(f"{str(adapter)!r} is no folder or file, and no demo adapter; {advice}")


def as_texts(prompts: str | Sequence[str]) -> tuple[list[str], bool]:
    """The prompts, and whether there is one that was not in a list. Raises BadInputError for anything but texts."""
    if isinstance(prompts, str):
        return [prompts], True
    _check_list("prompts", prompts, "a text or a list of texts")
    for index, prompt in enumerate(prompts):
        if not isinstance(prompt, str):
            hint = "; messages are for chat()" if isinstance(prompt, Mapping | list | tuple) else ""
            raise BadInputError(f"prompts[{index}] is {_shown(prompt)}; a text is needed{hint}")
    return list(prompts), False


def as_chats(messages: str | Chat | Sequence[str | Chat]) -> tuple[list[Chat], bool]:
    """The chats, and whether there is one that was not in a list of chats. A text is a user's message.

    Raises BadInputError for anything but messages; what is in them is checked where they are rendered.
    """
    if isinstance(messages, str):
        return [_user_turn(messages)], True
    _check_list("messages", messages, "a list of messages, or a list of such lists,")
    if messages and all(isinstance(one, Mapping) for one in messages):
        return [cast(Chat, list(messages))], True
    chats: list[Chat] = []
    for index, chat in enumerate(messages):
        if isinstance(chat, bytes | Mapping) or not isinstance(chat, Sequence):
            raise BadInputError(f"messages[{index}] is {_shown(chat)}; a list of messages or a text is needed")
        chats.append(_user_turn(chat) if isinstance(chat, str) else cast(Chat, list(chat)))
    return chats, False


def _user_turn(text: str) -> Chat:
    return [{"role": "user", "content": text}]


def as_chat_or_text(prompt: str | Chat) -> str | Chat:
    """One prompt, for a stream. Raises BadInputError for anything but a text or a list of messages."""
    if isinstance(prompt, str):
        return prompt
    chats, is_one = as_chats(prompt)
    if not is_one:
        raise BadInputError("prompt is a list of chats; one text or one list of messages is needed")
    return chats[0]


def check_stop(stop: str | Sequence[str]) -> tuple[str, ...]:
    """The stop strings; one may be given without a list. Raises BadInputError for anything but texts."""
    if not isinstance(stop, str):
        _check_list("stop", stop, "a text or a list of texts")
    stops = (stop,) if isinstance(stop, str) else tuple(stop)
    for one in stops:
        if not isinstance(one, str) or not one:
            raise BadInputError(f"a stop string is {_shown(one)}; a text of one character or more is needed")
    return stops


def _check_list(name: str, value: object, wanted: str) -> None:
    if isinstance(value, bytes | Mapping) or not isinstance(value, Sequence):
        raise BadInputError(f"{name} is {_shown(value)}; {wanted} is needed")


def _shown(value: object) -> str:
    text = repr(value)
    return f"{text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + '…'} ({type(value).__name__})"
