"""The tools that people bring, besides client libraries: frameworks, evaluators, load testers, proxies, an editor.

The second table of docs/clients.md has a row for each of them and a column for each job. Their tests have the marker
`tools`.
"""

from __future__ import annotations

from types import MappingProxyType

from tests.clients.clients import client_row

# job -> heading of its column
JOBS = MappingProxyType({
    "chat": "chat",
    "stream": "stream",
    "adapter": "adapter",
    "structured": "structured output",
    "tools": "tools",
    "errors": "errors",
})  # fmt: skip

_LOAD = "it measures and looks at no answer"
_OBJECTS_ONLY = "it hands back objects only"

OPENAI_AGENTS = client_row("openai-agents", "openai-agents", "agents", "openai_agents.py")
INSTRUCTOR = client_row("instructor", "instructor", "agents", "instructor_objects.py", chat=_OBJECTS_ONLY)
LANGCHAIN_OPENAI_CHAT = client_row("langchain-openai", "langchain-openai", "agents", "langchain_openai_chat.py")
OUTLINES = client_row("outlines", "outlines", "agents", "outlines_generation.py", tools="it knows no tools")
LLAMA_INDEX = client_row(
    "llama-index-llms-openai-like", "llama-index-llms-openai-like", "llama-index", "llama_index_llm.py"
)
AI_SDK = client_row("@ai-sdk/openai-compatible", "@ai-sdk/openai-compatible", "node", "ai_sdk_openai_compatible.mjs")
LANGCHAIN_JS = client_row("@langchain/openai", "@langchain/openai", "node", "langchain_openai.mjs")
PROMPTFOO = client_row(
    "promptfoo", "promptfoo", "promptfoo", "promptfooconfig.yaml", stream="it asks for whole answers only"
)
INSPECT = client_row(
    "inspect-ai", "inspect-ai", "inspect-ai", "inspect_evaluation.py", stream="it waits for the whole answer"
)
LOCUST = client_row(
    "locust", "locust", "locust", "locust_load.py",
    stream="its OpenAI user times whole answers", structured=_LOAD, tools=_LOAD,
)  # fmt: skip
AIPERF = client_row("aiperf", "aiperf", "aiperf", "aiperf_profile.py", structured=_LOAD, tools=_LOAD)
GUIDELLM = client_row("guidellm", "guidellm", "guidellm", "guidellm_run.py", structured=_LOAD, tools=_LOAD)
LITELLM_PROXY = client_row("LiteLLM proxy", "litellm", "litellm-proxy", "litellm_proxy.py")
AIDER = client_row(
    "aider", "aider-chat", "aider", "aider_editing.py", tools="it asks for edits as text and has no tools"
)

TOOLS = (
    OPENAI_AGENTS, INSTRUCTOR, LANGCHAIN_OPENAI_CHAT, LLAMA_INDEX, OUTLINES, AI_SDK, LANGCHAIN_JS, PROMPTFOO, INSPECT,
    LOCUST, AIPERF, GUIDELLM, LITELLM_PROXY, AIDER,
)  # fmt: skip
