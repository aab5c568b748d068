"""Every exception that Intaglio raises on purpose, as one tree.

    IntaglioError
    ├── RequestError            the caller's fault; the request ends alone
    │   ├── BadInputError           a field has the wrong type, value or combination
    │   ├── GrammarError            a grammar or JSON schema that cannot be enforced
    │   ├── IncompleteJsonError     the completion ended before its JSON was complete
    │   ├── ChatError               messages that cannot be put into the chat format
    │   ├── ContextLengthError      prompt + max_tokens does not fit into the context window
    │   ├── EmptyBodyError          the request has no body, and the route needs one
    │   ├── RequestTooLargeError    the request body is larger than the server accepts
    │   ├── ModelNotFoundError      no such model here
    │   ├── ModelWithoutWeightsError  the model is known, but this server was given no weights for it
    │   ├── FinetuneNotFoundError   no finetune of that name or id
    │   ├── FinetuneNotReadyError   the finetune lacks a file
    │   ├── AdapterUseError         valid adapters that cannot be used as a request asks: scale, mix, memory
    │   ├── FinetuneError           a finetune cannot be created or changed as asked
    │   ├── BatchNotFoundError      no batch of that id in the account, or its results are gone
    │   ├── ResponseNotFoundError   no stored response of that id in the account, or it was removed
    │   ├── AuthenticationError     no token, or a wrong one
    │   └── RouteError              no such route
    │       ├── IdentifierError         an id in the path is malformed, such as an account with a space in it
    │       └── MethodNotAllowedError   the route exists, but not with that HTTP method
    ├── AdapterError            adapter files that are invalid, unsupported or fail verification
    ├── ModelFormatError        weights, config or tokenizer files that cannot be read or are not a Gemma
    │   └── ModelNotInstalledError  the default model's package is not installed
    ├── HubError                a model of the Hugging Face hub that cannot be fetched
    │   ├── HubNotInstalledError    the package that talks to the hub is not installed
    │   └── HubUnreachableError     the hub cannot be reached, or offline mode is set
    ├── DataFolderError         the data folder or its database cannot be used
    ├── DatabaseError           the database is not available now; try again later
    ├── StorageFullError        a disk or quota is full
    ├── SettingsError           an option or environment variable with a bad name or value
    │   └── NotEnoughMemoryError    the models and their caches do not fit into the available memory
    ├── RemoteError             a command's request to a running server failed
    │   ├── ServerUnreachableError  no server of this API responds at that address
    │   └── ServerRefusedError      the server refused it, with a reason
    ├── TrainingError           a training cannot begin or continue
    │   ├── TrainingDataError       examples that cannot be read; the message names the file and the line
    │   └── TrainingInterruptedError  Ctrl-C; the message says what was written
    ├── PackingError            a checkpoint cannot be packed, or a packed file cannot be written
    ├── EvaluationError         texts, windows or models that cannot be evaluated or compared
    ├── CapacityError           no capacity now; try again later
    │   └── BatchQueueFullError     the limit of waiting batch items or of kept results is reached
    └── EngineError             our fault
        ├── EngineDeadError         the engine process ended while the request ran
        └── EngineStepError         one forward or one sequence failed inside the engine

One table, in `api/http/errors.py`, has the HTTP status and the Workers AI code of each.
"""

from __future__ import annotations


class IntaglioError(Exception):
    """Root of the tree. The message is a sentence for the person who can fix it: field or file, value, bound."""


class RequestError(IntaglioError):
    """The request cannot be served as it is; the caller has to change it."""


class BadInputError(RequestError):
    """A field has the wrong type, value or combination."""


class GrammarError(RequestError):
    """A grammar or JSON schema that cannot be enforced; the message names the part."""


class IncompleteJsonError(RequestError):
    """The completion ended before its JSON was complete; the message says what ended it."""


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
    """The request has no body, and the route needs one."""


class RequestTooLargeError(RequestError):
    """The request body is larger than this server accepts."""


class ModelNotFoundError(RequestError):
    """No model of that name."""


class ModelWithoutWeightsError(RequestError):
    """The model is known, but this server was started without its weights."""


class FinetuneNotFoundError(RequestError):
    """No finetune of that name or id. The base model never serves such a request instead.

    similar   names there are
    is_empty  the name was an empty text
    """

    def __init__(self, message: str, similar: tuple[str, ...] = (), *, is_empty: bool = False) -> None:
        super().__init__(message)
        self.similar = similar
        self.is_empty = is_empty


class FinetuneNotReadyError(RequestError):
    """The finetune exists, but a file of it was never uploaded."""


class AdapterUseError(RequestError):
    """Valid adapters cannot be used as a request asks: scaled, mixed, or within the adapter cache."""


class FinetuneError(RequestError):
    """A finetune cannot be created or changed as asked."""


class BatchNotFoundError(RequestError):
    """No batch of that id in the account, or one whose results are no longer kept."""


class ResponseNotFoundError(RequestError):
    """No stored response of that id in the account, or one that was removed."""


class AuthenticationError(RequestError):
    """No API token, or one that this server does not know."""


class RouteError(RequestError):
    """No such route."""


class IdentifierError(RouteError):
    """An id in the path is malformed."""


class MethodNotAllowedError(RouteError):
    """The route exists, but not with that HTTP method. allowed: the methods that it has."""

    def __init__(self, method: str, allowed: tuple[str, ...]) -> None:
        super().__init__(f"{method} not supported for requested URI.")
        self.allowed = allowed


class AdapterError(IntaglioError):
    """Adapter files that are invalid, unsupported or fail verification; the message names the file, key or tensor."""


class ModelFormatError(IntaglioError):
    """Weights, config or tokenizer files that cannot be read, or that are not a Gemma."""


class ModelNotInstalledError(ModelFormatError):
    """The package that carries the default model is not installed; the message says how to install it."""


class HubError(IntaglioError):
    """A model of the Hugging Face hub cannot be fetched; the message names the repository and what to do."""


class HubNotInstalledError(HubError):
    """The package that talks to the hub is not installed; the message says how to install it."""


class HubUnreachableError(HubError):
    """The hub cannot be reached or stops answering, or HF_HUB_OFFLINE is set."""


class DataFolderError(IntaglioError):
    """The data folder cannot be used: not writable, no usable database, or one of a later version."""


class DatabaseError(IntaglioError):
    """The database is not available: down, locked or unreadable. The change was made completely or not at all."""


class StorageFullError(IntaglioError):
    """A disk or quota is full; nothing was written."""

    def __init__(self, message: str = "the server's disk is full; nothing was changed") -> None:
        super().__init__(message)


class SettingsError(IntaglioError):
    """An option or environment variable with an unknown name or a bad value."""


class NotEnoughMemoryError(SettingsError):
    """The models and their caches, as the settings have them, do not fit into the available memory."""


class RemoteError(IntaglioError):
    """The request of a command or script to a running server failed."""


class ServerUnreachableError(RemoteError):
    """No server of this API responds at that address."""


class ServerRefusedError(RemoteError):
    """The server refused the request; the message is its reason. status and code: of its response."""

    def __init__(self, message: str, status: int, code: int) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class TrainingError(IntaglioError):
    """A training cannot begin or continue."""


class TrainingDataError(TrainingError):
    """Examples that cannot be read or used; the message names the file and the line."""


class TrainingInterruptedError(TrainingError):
    """A training was ended with Ctrl-C; the message says what was written."""


class PackingError(IntaglioError):
    """A checkpoint cannot be packed, or the packed file cannot be written; the message says what is kept."""


class EvaluationError(IntaglioError):
    """Texts that cannot be evaluated, windows out of bounds, or models that cannot be compared."""


class CapacityError(IntaglioError):
    """No capacity for the request now; the same request may succeed later."""


class BatchQueueFullError(CapacityError):
    """The limit of waiting batch items or of kept results is reached; it may succeed when batches have finished or
    expired.
    """


class EngineError(IntaglioError):
    """Something failed in the engine; the request was valid."""


class EngineDeadError(EngineError):
    """The engine process ended while the request ran."""


class EngineStepError(EngineError):
    """The engine could not carry a sequence through a step."""
