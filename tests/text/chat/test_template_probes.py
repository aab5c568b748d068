"""Gemma's own templates are recognised by what they do, and so is what another template can do."""

from __future__ import annotations

import pytest

from intaglio.errors import ModelFormatError
from intaglio.text.chat.template import ChatTemplate
from intaglio.text.chat.template_probes import Abilities, OwnTemplate, find_abilities, recognise_own
from tests.helpers.chat_templates import CHATML, GEMMA1, GEMMA3, HERMES

FOLDED_SYSTEM = GEMMA1.replace(
    "{{ raise_exception('System role not supported') }}",
    "{% set ns = messages[0]['content'] + '\\n\\n' %}{% set messages = messages[1:] %}",
).replace("'\\n' + message", "'\\n' + ((ns if loop.first else '') if ns is defined else '') + message")


def template(source: str) -> ChatTemplate:
    return ChatTemplate(source, "m/chat_template.jinja", {"bos_token": "<bos>", "eos_token": "<eos>"})


@pytest.mark.parametrize(
    ("source", "takes_system"),
    [
        (GEMMA1, False),
        (GEMMA3, True),
        (GEMMA3.replace("{{ bos_token }}\n", ""), True),  # as quantizers write it, since llama.cpp adds BOS
        (GEMMA3.replace("    ", "").replace("'", '"').replace('"\n"', '"\\n"'), True),
        (GEMMA1.replace("{{ raise_exception('Conversation", "{{ dict('Conversation"), False),  # refuses with a fault
        (FOLDED_SYSTEM, True),
    ],
    ids=["1 and 2", "3", "without BOS", "other notation", "other refusal", "2 with a system text"],
)
def test_a_template_that_writes_the_same_is_gemmas_own(source: str, takes_system: bool) -> None:
    assert recognise_own(template(source)) == OwnTemplate(takes_system)


@pytest.mark.parametrize(
    "source",
    [
        CHATML,
        HERMES,
        GEMMA3.replace("| trim", ""),
        GEMMA3.replace("model\n", "model\n<think>\n"),
        GEMMA3.replace("item['text'] | trim", "item['text'] + ' '"),
        GEMMA3.replace('role = "model"', 'role = "assistant"'),
        GEMMA3.replace("messages[0]['content'] + '\n\n'", "messages[0]['content'] | trim + '\n\n'"),
        GEMMA3.replace("{{ bos_token }}", "{{ bos_token }}{% if tools %}{{ tools | tojson }}{% endif %}"),
        GEMMA1.replace("messages[0]['role'] == 'system'", "false").replace("!= (loop.index0 % 2 == 0)", "and false"),
    ],
    ids=["ChatML", "Hermes", "no trim", "thinks", "parts", "role", "trimmed system", "tools", "any role"],
)  # fmt: skip
def test_a_template_that_writes_anything_else_is_not(source: str) -> None:
    assert recognise_own(template(source)) is None


def test_what_a_template_can_do_is_found() -> None:
    assert find_abilities(template(CHATML)) == Abilities(strings=True, parts=False, system=True, calls=False)
    assert find_abilities(template(HERMES)) == Abilities(strings=True, parts=False, system=True, calls=True)
    assert find_abilities(template(GEMMA1)) == Abilities(strings=True, parts=False, system=False, calls=False)
    only_parts = "{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}"
    assert find_abilities(template(only_parts)) == Abilities(strings=False, parts=True, system=True, calls=False)
    as_json = "{% for m in messages %}{{ m.content | tojson }}{% endfor %}"
    assert not find_abilities(template(as_json)).parts, "it would write the array itself into the prompt"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("", r"m/chat_template\.jinja: the chat template leaves out the user's text$"),
        ("{{ bos_token }}{{ messages | length }}", "leaves out the user's text$"),
        ("{{ raise_exception('never') }}", r"text \(the model's chat template refuses the messages: never\)"),
        ("{{ messages.x.y }}", r"text \(.*UndefinedError"),
    ],
)
def test_a_template_that_leaves_out_the_users_text_is_refused(source: str, words: str) -> None:
    assert recognise_own(template(source)) is None
    with pytest.raises(ModelFormatError, match=words):
        find_abilities(template(source))
