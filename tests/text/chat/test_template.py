"""A chat template runs with what transformers gives it, and in bounds."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from intaglio.errors import ChatError, ModelFormatError
from intaglio.text.chat.gemma_turns import GEMMA_TEMPLATE, fold_messages, turns_text
from intaglio.text.chat.template import ChatTemplate
from tests.helpers.chat_templates import GEMMA3, TemplateRefusesError, assistant, render_with_jinja, user


def render(source: str, *messages: dict[str, Any], opening: bool = True) -> str:
    template = ChatTemplate(source, "model/chat_template.jinja", {"bos_token": "<bos>", "eos_token": "<eos>"})
    return template.render(messages or [user("Hi")], add_generation_prompt=opening)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ bos_token }}{{ eos_token }}{{ messages[0].content }}", "<bos><eos>Hi"),
        ("{% if add_generation_prompt %}yes{% endif %}", "yes"),
        ("{% if tools %}a{% elif tools is none %}none{% endif %}{{ documents is none }}", "noneTrue"),
        ("{% if unknown is defined %}a{% else %}b{% endif %}{{ unknown }}", "b"),
        ("  {% if true %}\nx\n  {% endif %}\n", "x\n"),  # trim_blocks and lstrip_blocks
        ("{% for i in range(9) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 4 %}{% break %}{% endif %}{{ i }}"
         "{% endfor %}", "013"),
        ("{% for m in 'abc' %}{{ loop.index0 }}{{ loop.last }}{{ loop.length }}{{ loop.previtem }} {% endfor %}",
         "0False3 1False3a 2True3b "),
        ("{% for x in [[1, []], [2, [[3, []]]]] recursive %}{{ x[0] }}{{ loop(x[1]) }}{% endfor %}", "123"),
        ("{% set ns = namespace(n=0) %}{% for i in [1, 2] %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}", "3"),
        ("{% macro f(x) %}<{{ x }}>{{ caller() }}{% endmacro %}{% call f(1) %}a{% endcall %}", "<1>a"),
        ("{% generation %}{{ messages[0].content }}{% endgeneration %}!", "Hi!"),
        ('{{ {"b": "<\'é\'>", "a": [1, none]} | tojson }}', '{"b": "<\'é\'>", "a": [1, null]}'),
        ('{{ {"b": 1, "a": "é"} | tojson(indent=1, sort_keys=true, ensure_ascii=true) }}',
         json.dumps({"b": 1, "a": "é"}, indent=1, sort_keys=True)),
        ("{{ 'a' ~ 1 ~ none ~ 'b' + 'c' * 3 }}{{ '%s-%02d' % ('x', 7) }}{{ '{:>3}'.format(1) }}",
         "a1Nonebcccx-07  1"),
        ("{{ messages | map(attribute='role') | join(',') }}{{ messages[-1]['content'][::-1] }}", "useriH"),
        ("{{ dict(a=1).a }}{{ strftime_now('%Y') | length }}{{ messages is iterable }}", "14True"),
        ("{% set x %}a{{ 1 }}{% endset %}{{ x | upper }}", "A1"),
        ("{% for k, v in messages[0].items() %}{{ k }}{% endfor %}{{ messages[0].values() | last }}", "rolecontentHi"),
        ("{{ messages[-1:][0].role[:2] }}{{ 3.14159 | round(2) }}{{ [1, 2] | sum }}", "us3.143"),
        ("{{ [{'n': 2}] | sum(attribute='n') }}{{ [900000, 7] | select('gt', 800000) | list }}", "2[900000]"),
        ("{{ messages | selectattr('role', 'in', ['user']) | list | length }}{{ 'i' in [] }}", "1False"),
        ("{% for m in messages %}{% set x = [loop] | first %}{{ x.index }}{% endfor %}{{ 'a' ~ 'b' ~ 'c' }}", "1abc"),
    ],
)  # fmt: skip
def test_a_template_has_what_transformers_gives_it(source: str, text: str) -> None:
    assert render(source) == text


def test_gemma_3s_template_writes_what_plain_jinja_writes() -> None:
    messages = [user(" a "), assistant("b"), user("c\n")]
    assert render(GEMMA3, *messages, opening=False) == render_with_jinja(GEMMA3, messages, add_generation_prompt=False)
    with pytest.raises(TemplateRefusesError):
        render_with_jinja(GEMMA3, messages[1:])
    words = r"template refuses the messages: Conversation roles must alternate user/assistant/user/assistant/\.\.\.$"
    with pytest.raises(ChatError, match=words):
        render(GEMMA3, *messages[1:])


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("a\n{% for m in %}", r"chat_template\.jinja, line 2: not a chat template \(Expected an expression"),
        ("{{ 'a }}", "line 1: not a chat template"),
        ("{% unknown %}", "unknown tag 'unknown'"),
        ("{{ x | unknown }}", "No filter named 'unknown'"),
        ("{{ x | striptags }}", "No filter named 'striptags'"),
        ("{{ x | urlize }}", "No filter named 'urlize'"),
        ("{{ " + "9" * 5000 + " }}", "cannot be compiled"),
        ("{% if a %}" * 2000 + "{% endif %}" * 2000, "cannot be compiled"),
        ("{{ " + "(" * 5000 + ")" * 5000 + " }}", "cannot be compiled"),
    ],
)
def test_a_template_that_does_not_compile_is_refused_by_its_file(source: str, words: str) -> None:
    with pytest.raises(ModelFormatError, match=words):
        render(source)


DOUBLED = "{%% set ns = namespace(s='ab') %%}{%% for i in range(90) %%}%s{%% endfor %%}"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}", "1,000,000 steps"),
        ("{% for i in range(10 ** 9) %}{% endfor %}", "passes 1e\\+09"),
        ("{% for i in range(100001) %}{% endfor %}", "Range too big"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
        ("{% for x in [1, 2] recursive %}{{ loop([1, 2]) }}{% endfor %}", "RecursionError"),
        ("{% for i in range(100000) %}{{ 'x' * 1000 }}{% endfor %}", "writes more than 16777216 characters"),
        (DOUBLED % "{% set ns.s = ns.s + ns.s %}", "more than 16777216"),
        (DOUBLED % "{% set ns.s = ns.s ~ ns.s %}", "more than 16777216"),
        (DOUBLED % "{% set ns.s %}{{ ns.s }}{{ ns.s }}{% endset %}", "more than 16777216"),
        (DOUBLED % "{% set ns.s = [ns.s, ns.s] | join %}", "more than 16777216"),
        ("{{ 'a' * 10 ** 12 }}", "repeats a text or list to more than"),
        ("{{ 10 ** 12 * [1] }}", "repeats a text or list to more than"),
        ("{{ 2 ** (10 ** 9) }}", "more than 4096 bits"),
        ("{{ '%99999999999d' % 1 }}", "width of more than four digits"),
        ("{{ '%99999999999d' | format(1) }}", "width of more than four digits"),
        ("{{ '{:>99999999999}'.format(1) }}", "width of more than four digits"),
        ("{{ '%*d' % (99999999999, 1) }}", "passes 1e\\+11 as an argument"),
        ("{{ '{:>{w}}'.format(1, w=99999999999) }}", "passes 1e\\+11"),
        ("{{ 'a' | center(99999999999) }}", "passes 1e\\+11"),
        ("{{ 'a'.ljust(99999999999) }}", "passes 1e\\+11"),
        (DOUBLED % "{% set ns.s = [ns.s, ns.s] %}", "more than 16777216"),
        (DOUBLED % "{% set ns.s = (ns.s, ns.s) %}{% if ns.s == ns.s %}{% endif %}", "more than 16777216"),
        (DOUBLED % "{% set ns.s = {'a': ns.s, 'b': [ns.s]} %}", "more than 16777216"),
        ("{{ 'a'.encode() * 60000000000 }}", "access to attribute 'encode'"),
        ("{{ ('f' * 16777216) | int(base=16) }}", "more than 4096 bits"),
        ("{{ ('a' * 65536).replace('a', 'b' * 65536) }}", "texts of 65536 and 65536 characters"),
        ("{{ ('\\t' * 1000).expandtabs(16777216) }}", "access to attribute 'expandtabs'"),
        ("{{ '%9999d' * 5000 % 1 }}", "too long"),
        ("{% set x %}{% for i in range(100000) %}" + "x" * 1000 + "{% endfor %}{% endset %}", "more than 16777216"),
        ("{% macro f() %}{% for i in range(90000) %}" + "x" * 1000 + "{% endfor %}{% endmacro %}{{ f() }}", "16777216"),
        ("{% for i in range(100) %}{% set x = 'x' * 16000000 %}{% endfor %}", "more than 16777216"),
        # What has no size before it is asked for its items: gigabytes and hours, if it were not listed first.
        ("{{ range(1000) | join('a' * 16000000) }}", "texts of 16000000 and 16000 characters"),
        ("{{ ('a' * 16000000).join(range(1000) | map('string')) }}", "texts of 16000000 and"),
        ("{{ ('a' * 16000000).join({1: 'a', 2: 'b', 3: 'c'}.values()) }}", "texts of 16000000 and 51 characters"),
        ("{{ range(100000) | select('in', range(100000) | list) | list }}", "texts of 1600000 and"),
        # Work in one step that grows with the square of its input, or as 10 to the power of it.
        ("{{ ([[1]] * 400000) | sum(start=[]) }}", "sum adds numbers, not list"),
        ("{{ [{'a': [1]}] | sum(attribute='a') }}", "sum adds numbers, not list"),
        ("{{ 1 | round(16777216, 'ceil') }}", "rounds to 16777216 digits"),
        ("{{ ('%*d' * 1000) % ((16000000, 1) * 1000) }}", "texts of 16000000 and"),
        # Work without a loop, a call or a filter: only the length of the template would bound it.
        ("{% set x = 'a' * 16000000 %}{% set y = " + " ~ ".join("x" * 40) + " %}", "more than 16777216"),
        ("{% set x = 'a' * 16000000 %}" + "{% set y = x[1:] %}" * 20, "more than 16777216"),
        ("{% set x = [1] * 1000000 %}" + "{% set y = x[::-1] %}" * 20, "more than 16777216"),
        ("{% import 'os' as os %}", "no loader"),
        ("{% include '/etc/passwd' %}", "no loader"),
        ("{{ ''.__class__.__mro__ }}", "SecurityError: access to attribute '__class__'"),
        ("{{ raise_exception.__globals__.os }}", "SecurityError: access to attribute '__globals__'"),
        ("{{ (messages | first).update(role='x') }}", "SecurityError: access to attribute 'update'"),
        ("{{ messages.append(1) }}", "SecurityError: access to attribute 'append'"),
        ("{{ namespace(__class__=1) }}", "cannot hold '__class__'"),
        ("{% set ns = namespace() %}{% set ns._a = 1 %}", "cannot hold '_a'"),
        ("{{ lipsum(99) }}", "'lipsum' is undefined"),
        ("{{ unknown.content }}", "UndefinedError: 'unknown' is undefined"),
        ("{{ messages[0].content + 1 }}", "TypeError"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ 'x' | int(base=99) | tojson(indent=messages) }}", "cannot render these messages"),
        ("{{ raise_exception('a\n' * 900) }}", r"refuses the messages: a a a [a ]*\.\.\.$"),
    ],
)  # fmt: skip
def test_faults_and_endless_templates_end_with_an_error_that_says_why(source: str, words: str) -> None:
    with pytest.raises(ChatError, match=words):
        render(source)


@pytest.mark.parametrize("expression", ["x == y", "x in [y]", "x is eq y", "x is in [y]"])
def test_a_comparison_counts_as_a_step(expression: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("intaglio.text.chat.sandbox.MAX_STEPS", 50)
    source = "{% set x, y = 'a', 'b' %}" + f"{{{{ {expression} }}}}" * 60
    with pytest.raises(ChatError, match="more than 50 steps"):
        render(source)


def test_rendering_in_several_threads_counts_each_by_itself() -> None:
    template = ChatTemplate("{% for i in range(20000) %}{% endfor %}{{ messages[0].content }}", "t", {})
    texts: list[str] = []

    def work(name: str) -> None:
        texts.extend(template.render([user(name)], add_generation_prompt=True) for _ in range(30))

    threads = [threading.Thread(target=work, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(texts) == ["a"] * 30 + ["b"] * 30


@pytest.mark.parametrize("opening", [True, False])
@pytest.mark.parametrize("system", [[], [{"role": "system", "content": " Be brief. "}]])
def test_the_template_of_gemmas_turns_writes_what_the_turn_format_does(
    system: list[dict[str, str]], opening: bool
) -> None:
    said = [{"role": role, "content": f" {role} says\n"} for role in ("user", "assistant", "user")]
    template = ChatTemplate(GEMMA_TEMPLATE, "Gemma's turns", {"bos_token": "<bos>"})
    text = template.render([*system, *said], add_generation_prompt=opening)
    assert text == "<bos>" + turns_text(fold_messages([*system, *said]), add_generation_prompt=opening)
