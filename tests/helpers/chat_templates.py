"""Chat templates as checkpoints have them, and conversations to render with them.

GEMMA3 is what Google published with Gemma 3, GEMMA1 with Gemma 1, 1.1 and 2. The others are of the kinds that
fine-tunes bring.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from jinja2 import Template
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

GEMMA1 = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}"
    "{% endif %}{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{'<start_of_turn>model\\n'}}{% endif %}"
)

GEMMA3 = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first_user_prefix = messages[0]['content'] + '

' -%}
    {%- else -%}
        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '

' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '
' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}
                {{ '<start_of_image>' }}
            {%- elif item['type'] == 'text' -%}
                {{ item['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>
' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model
'}}
{%- endif -%}
"""

# The turns of ChatML, in Gemma's control tokens, so that any Gemma vocabulary can render it. It takes a system message.
CHATML = (
    "{% for message in messages %}"
    "{{ '<start_of_turn>' + message['role'] + '\\n' + message['content'] + '<end_of_turn>' + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>assistant\\n' }}{% endif %}"
)

# With calls and results as Hermes writes them, and the thoughts of earlier answers left out, as Qwen 3 does it.
HERMES = """{{- bos_token }}
{%- for message in messages %}
    {%- if message.role == 'tool' %}
        {{- '<start_of_turn>user\\n<tool_response>\\n' + message.content + '\\n</tool_response><end_of_turn>\\n' }}
    {%- else %}
        {{- '<start_of_turn>' + message.role + '\\n' }}
        {%- set content = message.content or '' %}
        {%- if '</think>' in content %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {{- content }}
        {%- for call in message.tool_calls or [] %}
            {{- '\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
            {{- call.function.arguments | tojson }}{{ '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<end_of_turn>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<start_of_turn>assistant\\n' }}
{%- endif %}
"""


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


def system(content: Any) -> dict[str, Any]:
    return {"role": "system", "content": content}


def parts(*texts: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text} for text in texts]


# Alternating ones, which every official template writes.
CONVERSATIONS: tuple[list[dict[str, Any]], ...] = (
    [user("Hi")],
    [user("")],
    [user(" \n\t\u00a0 ")],
    [user("\n\n  line one\n\n\nline two \n")],
    [user("a"), assistant("b")],
    [user("a"), assistant(" b\n"), user("\u3000c\u2028")],
    [user("1"), assistant(""), user(""), assistant("\n"), user("2")],
    [user("def f(x):\n\treturn    x\n"), assistant("<b>ok</b>\n\n\n"), user("\U0001f600")],
    [user("a")] + [assistant("b"), user("c")] * 20,
)

# Those that Gemma 3's template writes too.
WITH_SYSTEM: tuple[list[dict[str, Any]], ...] = (
    [system("Be brief."), user("Hi")],
    [system(" A "), user("Hi")],
    [system("\n\n A\n"), user(" Hi ")],
    [system(""), user("Hi")],
    [system("\n"), user("")],
    [system("A"), user("Hi"), assistant("b"), user("c")],
    [system(parts(" A ")), user("Hi")],
)
IN_PARTS: tuple[list[dict[str, Any]], ...] = (
    [user(parts("a ", " b"))],
    [user(parts("", "\n", " x "))],
    [user([])],
    [user(parts("a")), assistant(parts(" b", "c ")), user("d")],
    [system(parts("A\n")), user(parts(" b ", "c"))],
)


class TemplateRefusesError(Exception):
    pass


def render_with_jinja(
    template: str, messages: Sequence[dict[str, Any]], *, add_generation_prompt: bool = True, bos_token: str = "<bos>"
) -> str:
    """The text that transformers renders from the template, by jinja2 alone."""

    return _compiled(template).render(
        messages=messages, add_generation_prompt=add_generation_prompt, bos_token=bos_token, tools=None
    )


@cache
def _compiled(template: str) -> Template:
    def raise_exception(message: str) -> None:
        raise TemplateRefusesError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.globals["raise_exception"] = raise_exception
    return environment.from_string(template)
