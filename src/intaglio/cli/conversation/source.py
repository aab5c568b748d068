"""Where the text of `chat` and `run` comes from: a running server, or a model in this process."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from intaglio.client import Connection, Finetunes, Piece, stream_completion
from intaglio.errors import BadInputError, ServerUnreachableError
from intaglio.settings import DEFAULT_MODEL_ID, ClientSettings

if TYPE_CHECKING:
    from intaglio.llm import LLM

Chat: TypeAlias = Sequence[Mapping[str, str]]
# max_tokens and temperature, or less
Limits: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How completions are sampled; None is the default of the server or of `SamplingParams`."""

    max_tokens: int | None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    json_schema: Mapping[str, Any] | None = None

    def given(self) -> dict[str, Any]:
        """The numbers that were given, by name."""
        names = ("max_tokens", "temperature", "top_p", "seed")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def or_suggested(self, suggested: Limits) -> Sampling:
        """With what is suggested for the numbers that were not given."""
        return replace(self, **{name: value for name, value in suggested.items() if getattr(self, name) is None})


class Source(Protocol):
    """Computes completions of one model.

    model  its id or path
    place  where it runs, for a person
    """

    model: str
    place: str

    def adapters(self) -> Mapping[str, Limits]:
        """The adapters that can be used: name -> what its card suggests."""

    def is_pretrained(self) -> bool:
        """Whether the base is known to be pre-trained only: without an adapter it does not answer."""

    def stream(self, prompt: str | Chat, adapter: str | None, sampling: Sampling) -> Iterator[Piece]:
        """The pieces of one completion; a text is a raw prompt. Several threads may stream at a time.

        Raises an IntaglioError for a request that is refused, or that fails in the middle.
        """


@dataclass
class ServerSource:
    """A model of a running server."""

    connection: Connection
    model: str
    place: str = field(init=False)

    def __post_init__(self) -> None:
        self.place = self.connection.url

    def adapters(self) -> Mapping[str, Limits]:
        finetunes = Finetunes(self.connection)
        found = [*finetunes.list_public(), *finetunes.list_own()]  # an account's own hides another's of the same name
        return {one["name"]: _limits(one) for one in found if one["model"] == self.model}

    def is_pretrained(self) -> bool:
        listed = self.connection.get("models/search", search=self.model)
        properties = [item for one in listed if one["name"] == self.model for item in one["properties"]]
        return {"property_id": "pretrained", "value": "true"} in properties

    def stream(self, prompt: str | Chat, adapter: str | None, sampling: Sampling) -> Iterator[Piece]:
        body: dict[str, Any] = {"model": self.model, **sampling.given()}
        body |= {"prompt": prompt} if isinstance(prompt, str) else {"messages": list(prompt)}
        if adapter is not None:
            body["lora"] = adapter
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if sampling.json_schema is not None:
            schema = {"name": "answer", "schema": sampling.json_schema}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return stream_completion(self.connection, body)


@dataclass
class LocalSource:
    """A model in this process; adapters are folders, GGUF adapters or demo adapters."""

    llm: LLM
    model: str
    place: str = "this process"

    def adapters(self) -> Mapping[str, Limits]:
        from intaglio.demo_adapters import CARD_FILE, demo_adapter_folders

        folders = demo_adapter_folders() if self.model == DEFAULT_MODEL_ID else {}
        return {name: _limits(json.loads((path / CARD_FILE).read_bytes())) for name, path in folders.items()}

    def is_pretrained(self) -> bool:
        return self.llm.is_pretrained

    def stream(self, prompt: str | Chat, adapter: str | None, sampling: Sampling) -> Iterator[Piece]:
        from intaglio.request import SamplingParams

        stream = self.llm.stream(
            prompt,
            SamplingParams(**sampling.given()),
            adapters=adapter,
            raw=True,
            stop=sampling.stop,
            json_schema=sampling.json_schema,
        )
        for delta in stream:
            if delta.text:
                yield Piece(delta.text)
            if delta.finish_reason is not None and delta.usage is not None:
                usage = delta.usage
                yield Piece("", str(delta.finish_reason), usage.prompt_tokens, usage.completion_tokens)


def _limits(card: Mapping[str, Any]) -> Limits:
    """The numbers that a card, or a finetune in a list, suggests."""
    suggested = card.get("suggested") or {}
    return {name: suggested[name] for name in ("max_tokens", "temperature") if suggested.get(name) is not None}


@contextmanager
def open_source(settings: ClientSettings, model: str | None) -> Iterator[Source]:
    """The running server; or a model in this process, if no server answers at the default address, or the model is a
    path or an `hf:` reference.

    Raises ServerUnreachableError if an address was given and no server answers there.
    """
    if model is None or not _is_local(model):
        with Connection(settings.url, settings.account, settings.token) as connection:
            try:
                served = connection.served_models()
            except ServerUnreachableError:
                if "url" in settings.model_fields_set:
                    raise
            else:
                yield ServerSource(connection, _choose_model(model, served, connection.url))
                return
        print(f"no server at {settings.url}: the model runs in this process", file=sys.stderr)
    with _open_llm(model) as source:
        yield source


def _is_local(model: str) -> bool:
    return model.startswith(("hf:", "/", "./", "../", "~")) or model.endswith(".gguf") or Path(model).exists()


def _choose_model(model: str | None, served: list[str], url: str) -> str:
    """Raises BadInputError if the server does not have the model, or has several and none was named."""
    if model is None:
        if len(served) == 1 or DEFAULT_MODEL_ID not in served:
            return served[0]
        return DEFAULT_MODEL_ID
    if model not in served:
        raise BadInputError(f"{url} does not serve {model}; it serves {', '.join(served)}")
    return model


@contextmanager
def _open_llm(model: str | None) -> Iterator[LocalSource]:
    from intaglio.cli.progress.download import download_progress
    from intaglio.llm import LLM
    from intaglio.model_source import local_model_path
    from intaglio.settings import load_settings

    path = local_model_path(model or DEFAULT_MODEL_ID, load_settings(), download_progress())
    with LLM(path) as llm:
        yield LocalSource(llm, model or DEFAULT_MODEL_ID)
