"""The clients that are tested: what each is called, which version, where it is installed, and what it cannot do.

The first table of docs/clients.md has a row for each of them and a column for each feature. `tools.py` has the second.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ENVIRONMENTS = ROOT / ".venv-clients"
NODE_FOLDER = HERE / "node"
NODE_BIN = ENVIRONMENTS / "node" / "bin"
# environment of a JavaScript package -> the folder with its package.json and its scripts
NODE_FOLDERS = MappingProxyType({"node": NODE_FOLDER, "promptfoo": HERE / "promptfoo"})

# feature -> heading of its column
FEATURES = MappingProxyType({
    "prompt": "prompt",
    "chat": "chat",
    "stream": "stream",
    "adapter": "adapter",
    "finetunes": "finetunes",
    "models": "models",
    "errors": "errors",
    "structured": "structured output",
    "tools": "tools",
    "logprobs": "logprobs",
    "batch": "batch",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Client:
    """One row of the table.

    name         in the table
    package      name in its registry; "" for a program of the system
    environment  the folder below .venv-clients for a Python package, one of NODE_FOLDERS for a JavaScript one
    script       its example in `folder`, which the tests run
    cannot       feature -> why this client does not have it with any server
    variables    environment variables for its script, besides those for all scripts
    """

    name: str
    package: str
    environment: str
    script: str
    cannot: Mapping[str, str]
    variables: Mapping[str, str]

    @property
    def version(self) -> str:
        """The exact version that is pinned for the tests; "" for a program of the system."""
        if not self.package:
            return ""
        if self.environment in NODE_FOLDERS:
            package = json.loads((self.folder / "package.json").read_text())
            return str(package["dependencies"][self.package])
        pins = (HERE / "requirements" / f"{self.environment}.in").read_text()
        pin = re.search(rf"^{re.escape(self.package)}(?:\[[a-z,]+\])?==(\S+)$", pins, re.MULTILINE)
        assert pin is not None, f"{self.package} is not pinned in requirements/{self.environment}.in"
        return pin[1]

    @property
    def folder(self) -> Path:
        """Where its script is."""
        return NODE_FOLDERS.get(self.environment, HERE / "scripts")

    @property
    def title(self) -> str:
        """Name and version, as the first cell of the row."""
        return f"{self.name} {self.version}".strip()


def client_row(name: str, package: str, environment: str, script: str, endpoint: str = "", **cannot: str) -> Client:
    """A row. endpoint, if any, is the script's ENDPOINT_FORMAT."""
    variables = {"ENDPOINT_FORMAT": endpoint} if endpoint else {}
    return Client(name, package, environment, script, MappingProxyType(cannot), MappingProxyType(variables))


_CHAT_ONLY = "it sends messages only"
_NO_FINETUNES = "it runs models only; an adapter is uploaded with another client"
_NO_MODELS = "it does not list models"
_NO_LOGPROBS = "Workers AI's own route has no logprobs, and this client no other"
_NO_BATCH = "it does not know batches"

CLOUDFLARE_PYTHON = client_row(
    "cloudflare (Python)", "cloudflare", "cloudflare-5", "cloudflare_python.py", logprobs=_NO_LOGPROBS
)
CLOUDFLARE_PYTHON_4 = client_row(
    "cloudflare (Python)", "cloudflare", "cloudflare-4", "cloudflare_python.py", logprobs=_NO_LOGPROBS
)
CLOUDFLARE_NODE = client_row("cloudflare (npm)", "cloudflare", "node", "cloudflare_node.mjs", logprobs=_NO_LOGPROBS)
WRANGLER = client_row(
    "wrangler", "wrangler", "node", "wrangler.mjs",
    **dict.fromkeys(
        ("prompt", "chat", "stream", "adapter", "structured", "tools", "logprobs", "batch"),
        "its commands manage finetunes and models and run none",
    ),
)  # fmt: skip
WORKERS_AI_PROVIDER = client_row(
    "workers-ai-provider", "workers-ai-provider", "node", "workers_ai_provider.mjs",
    prompt="the AI SDK turns a prompt into messages", finetunes=_NO_FINETUNES, models=_NO_MODELS,
    logprobs=_NO_LOGPROBS, batch=_NO_BATCH,
)  # fmt: skip
LANGCHAIN = client_row(
    "langchain-cloudflare", "langchain-cloudflare", "langchain-cloudflare", "langchain_chat.py",
    endpoint="workers_ai", prompt=_CHAT_ONLY, finetunes=_NO_FINETUNES, models=_NO_MODELS,
    logprobs=_NO_LOGPROBS, batch=_NO_BATCH,
)  # fmt: skip
LANGCHAIN_OPENAI = client_row(
    "langchain-cloudflare, `openai_compatible`,", "langchain-cloudflare", "langchain-cloudflare", "langchain_chat.py",
    endpoint="openai_compatible", prompt=_CHAT_ONLY, finetunes=_NO_FINETUNES, models=_NO_MODELS,
    logprobs="it does not hand logprobs on", batch=_NO_BATCH,
)  # fmt: skip
LITELLM = client_row(
    "litellm", "litellm", "litellm", "litellm_completion.py",
    prompt="its Cloudflare provider sends messages only", finetunes=_NO_FINETUNES, models=_NO_MODELS, batch=_NO_BATCH,
)  # fmt: skip
OPENAI_PYTHON = client_row(
    "openai (Python)", "openai", "openai", "openai_python.py",
    finetunes=_NO_FINETUNES, batch="its batches are files of OpenAI's own API",
)  # fmt: skip
OPENAI_NODE = client_row(
    "openai (npm)", "openai", "node", "openai_node.mjs",
    finetunes=_NO_FINETUNES, batch="its batches are files of OpenAI's own API",
)  # fmt: skip
PYDANTIC_AI = client_row(
    "pydantic-ai-cloudflare", "pydantic-ai-cloudflare", "pydantic-ai-cloudflare", "pydantic_ai_agent.py",
    prompt=_CHAT_ONLY, finetunes=_NO_FINETUNES, models=_NO_MODELS, batch=_NO_BATCH,
)  # fmt: skip
ANTHROPIC = client_row(
    "anthropic (Python)", "anthropic", "anthropic", "anthropic_python.py",
    prompt=_CHAT_ONLY, finetunes=_NO_FINETUNES, logprobs="Anthropic's API has no logprobs",
    batch="its batches are those of Anthropic's own API",
)  # fmt: skip
CURL = client_row("curl, as the documentation writes it", "", "", "curl.sh")

CLIENTS = (
    CLOUDFLARE_PYTHON, CLOUDFLARE_PYTHON_4, CLOUDFLARE_NODE, WRANGLER, WORKERS_AI_PROVIDER, LANGCHAIN,
    LANGCHAIN_OPENAI, LITELLM, OPENAI_PYTHON, OPENAI_NODE, PYDANTIC_AI, ANTHROPIC,
    CURL,
)  # fmt: skip
