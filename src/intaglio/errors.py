"""Every exception that Intaglio raises on purpose, as one tree.

    IntaglioError
    ├── RequestError            the caller's fault; the request ends alone
    │   ├── BadInputError           a field has the wrong type, value or combination
    │   ├── GrammarError            a grammar or JSON schema that answers cannot be held to
    │   ├── JsonAnswerError         an answer that ended before the JSON it had to be was complete
    │   ├── ChatError               messages that cannot be put into the chat format
    │   ├── ContextLengthError      prompt + max_tokens does not fit into the context window
    │   ├── EmptyBodyError          no body where one is needed
    │   ├── RequestTooLargeError    the body is larger than the server takes
    │   ├── ModelNotFoundError      no such model here
    │   ├── ModelWithoutWeightsError  the model is known, but this server was given no weights for it
    │   ├── FinetuneNotFoundError   no finetune of that name or id
    │   ├── FinetuneNotReadyError   the finetune lacks a file
    │   ├── AdapterUseError         adapters, each of them good, that cannot be used as a request asks
    │   ├── FinetuneError           a finetune that cannot be made or changed as asked
    │   ├── BatchNotFoundError      no batch of that id in the account, or its results are gone
    │   ├── AuthenticationError     no token, or a wrong one
    │   └── RouteError              no such route
    │       ├── IdentifierError         an id in the path that cannot be one, such as an account with a space in it
    │       └── MethodNotAllowedError   the route exists, but not with that HTTP method
    ├── AdapterError            adapter files that cannot be served as they stand
    ├── ModelFormatError        weights, config or tokenizer files that cannot be read or are not a Gemma
    │   └── ModelNotInstalledError  the default model's package is not installed
    ├── DataFolderError         the data folder, or its database, cannot be used as it stands
    ├── DatabaseError           the database does not answer now; the same request may succeed when it is back
    ├── StorageFullError        no room on a disk that something has to be kept on
    ├── SettingsError           an option or environment variable with a bad name or value
    │   └── NotEnoughMemoryError    the models and their caches do not fit into the memory there is
    ├── RemoteError             what a command asked of a running server did not happen
    │   ├── ServerUnreachableError  nobody answers at that address, or not as a server of this API does
    │   └── ServerRefusedError      the server said no, and why
    ├── TrainingError           a training that cannot begin or go on as asked
    │   ├── TrainingDataError       examples that cannot be read; the message names the file and the line
    │   └── TrainingInterruptedError  Ctrl-C; the message says what was written
    ├── CapacityError           no room now; try later
    │   └── BatchQueueFullError     as many batch items wait, or results are kept, as are allowed
    └── EngineError             our fault
        ├── EngineDeadError         the engine process ended while the request ran
        └── EngineStepError         one forward or one sequence failed inside the engine

The HTTP status and the Workers AI code of each stand in one table, `api/http/errors.py`.
"""

from __future__ import annotations


class IntaglioError(Exception):
    """Root of the tree. The message is a sentence for the person who can mend it."""


class RequestError(IntaglioError):
    """What the caller sent cannot be served as it stands."""


class BadInputError(RequestError):
    """A field has the wrong type, value or combination."""


class GrammarError(RequestError):
    """A grammar or JSON schema that answers cannot be held to; the message names what in it."""


class JsonAnswerError(RequestError):
    """The answer ended before the JSON that it had to be was complete; the message says what ended it."""


class ChatError(RequestError):
    """Messages that cannot be put into the model's chat format."""


class ContextLengthError(RequestError):
    """The prompt and the tokens asked for do not fit into the context window together."""

    def __init__(self, prompt_tokens: int, max_tokens: int, window: int) -> None:
        super().__init__(
            f"the prompt has {prompt_tokens} tokens and max_tokens is {max_tokens}: "
            f"{prompt_tokens + max_tokens} together, more than the context window of {window} tokens"
        )
        self.prompt_tokens = prompt_tokens
        self.max_tokens = max_tokens
        self.window = window


class EmptyBodyError(RequestError):
    """No body where one is needed."""


class RequestTooLargeError(RequestError):
    """The body is larger than this server takes."""


class ModelNotFoundError(RequestError):
    """No model of that name."""


class ModelWithoutWeightsError(RequestError):
    """The model is in the catalogue, but this server was started without its weights."""


class FinetuneNotFoundError(RequestError):
    """No finetune of that name or id. Never answered by the base model instead."""


class FinetuneNotReadyError(RequestError):
    """The finetune exists, but a file of it was never uploaded."""


class AdapterUseError(RequestError):
    """Adapters that are good each for itself cannot be used as a request asks."""


class FinetuneError(RequestError):
    """A finetune that cannot be made or changed as asked."""


class BatchNotFoundError(RequestError):
    """No batch of that id in the account, or one whose results are no longer kept."""


class AuthenticationError(RequestError):
    """No API token, or one that this server does not know."""


class RouteError(RequestError):
    """No such route."""


class IdentifierError(RouteError):
    """An id in the path that cannot be one."""


class MethodNotAllowedError(RouteError):
    """The route exists, but not with that HTTP method. allowed: those that it has."""

    def __init__(self, method: str, allowed: tuple[str, ...]) -> None:
        super().__init__(f"{method} not supported for requested URI.")
        self.allowed = allowed


class AdapterError(IntaglioError):
    """Adapter files that cannot be served as they stand; the message names the file, key or tensor."""


class ModelFormatError(IntaglioError):
    """Weights, config or tokenizer files that cannot be read, or that are not a Gemma."""


class ModelNotInstalledError(ModelFormatError):
    """The package that carries the default model is not installed; the message says how to install it."""


class DataFolderError(IntaglioError):
    """The data folder cannot be used as it stands: not writable, no database, or one of a later version."""


class DatabaseError(IntaglioError):
    """The database does not answer now: it is down, locked or unreadable. Nothing was changed, or all of it."""


class StorageFullError(IntaglioError):
    """No room on the disk, or within the quota, for what was to be kept; nothing of it was."""

    def __init__(self, message: str = "the server's disk is full; nothing was changed") -> None:
        super().__init__(message)


class SettingsError(IntaglioError):
    """An option or environment variable with an unknown name or a bad value."""


class NotEnoughMemoryError(SettingsError):
    """The models and their caches, as the settings have them, do not fit into the memory there is."""


class RemoteError(IntaglioError):
    """What a command or script asked of a running server did not happen."""


class ServerUnreachableError(RemoteError):
    """Nobody answers at that address, or not as a server of this API does."""


class ServerRefusedError(RemoteError):
    """The server said no; the message is its reason. status and code: those of its answer."""

    def __init__(self, message: str, status: int, code: int) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class TrainingError(IntaglioError):
    """A training that cannot begin or go on as asked."""


class TrainingDataError(TrainingError):
    """Examples that cannot be read or used; the message names the file and the line."""


class TrainingInterruptedError(TrainingError):
    """Somebody ended a training with Ctrl-C; the message says what was written until then."""


class CapacityError(IntaglioError):
    """No room for the request now; the same request may succeed later."""


class BatchQueueFullError(CapacityError):
    """No room for a batch before others are finished, or their results have been kept long enough."""


class EngineError(IntaglioError):
    """Something failed on our side."""


class EngineDeadError(EngineError):
    """The engine process ended while the request ran."""


class EngineStepError(EngineError):
    """The engine could not carry a sequence through a step."""
