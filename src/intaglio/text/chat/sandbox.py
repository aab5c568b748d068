"""The sandbox in which the chat template of a checkpoint runs: jinja2's, with transformers' additions and with bounds.

A template comes with the weights, often from strangers, and runs at every request. jinja2's immutable sandbox keeps it
from Python's internals, from changing what it is given, and from files. It would still let a template loop for hours
or fill the memory, so here every iteration of a loop, every call and every filter counts as a step, and the size of
what they make is bounded.

Sources: transformers, utils/chat_template_utils.py; jinja2, sandbox.py.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import wraps
from typing import Any, NoReturn

from jinja2 import nodes
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

MAX_STEPS = 1_000_000  # of one rendering; a chat of 1,000 messages takes some 10,000
MAX_SECONDS = 10.0
MAX_LENGTH = 1 << 24  # characters of a text, items of a list
MAX_NUMBER_BITS = 4096

_LONG_WIDTH = re.compile(r"\d{5}")  # in a format such as "%99999d"
_EACH = "each item, counted"  # a filter that no template can name


class RaisedByTemplateError(TemplateError):
    """The template called raise_exception: it refuses the messages."""


class ChatEnvironment(ImmutableSandboxedEnvironment):
    """Compiles and runs chat templates. One rendering runs in one thread; several threads may render at once."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        extensions = [_GenerationBlock, loopcontrols]
        super().__init__(trim_blocks=True, lstrip_blocks=True, optimized=False, extensions=extensions)
        self._use = threading.local()
        self.filters["tojson"] = _to_json
        self.filters = {name: self._bounded(function) for name, function in self.filters.items()}
        self.filters[_EACH] = self._counted
        del self.globals["lipsum"]
        self.globals |= {
            "raise_exception": _raise_exception,
            "strftime_now": _strftime_now,
            "namespace": _PlainNamespace,
        }

    def template(self, source: str) -> Callable[..., Iterator[str]]:
        """Compile; the result yields the pieces of the text for its variables. Raises jinja2.TemplateSyntaxError."""
        tree = self.parse(source)
        for loop in list(tree.find_all(nodes.For)):
            loop.iter = _filtered(loop.iter, _EACH, loop)
        for joined in list(tree.find_all(nodes.Concat)):
            joined.nodes = [_filtered(nodes.Concat(joined.nodes), "string", joined)]
        for block in list(tree.find_all(nodes.AssignBlock)):
            block.filter = _filtered(block.filter, "string", block)
        return self.template_class.from_code(self, self.compile(tree), self.make_globals(None)).generate

    def start(self) -> None:
        """Begin to count the steps of a rendering in this thread."""
        self._use.steps, self._use.deadline = 0, time.monotonic() + MAX_SECONDS

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        self._step()
        _check_arguments((), args, kwargs)
        return _checked(super().call(context, obj, *args, **kwargs))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """jinja2's replacement of `str.format`, which `getattr` gives to templates; None for anything else."""
        wrapped = super().wrap_str_format(value)
        if wrapped is not None:
            _check_arguments((value.__self__,), (), {})
        return wrapped

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        self._step()
        if operator in ("*", "**"):
            _check_product(operator, left, right)
        elif operator == "%" and isinstance(left, str):
            _check_arguments((left,), right if isinstance(right, tuple) else (right,), {})
        return _checked(super().call_binop(context, operator, left, right))

    def _step(self) -> None:
        self._use.steps += 1
        if self._use.steps > MAX_STEPS:
            raise SecurityError(f"it takes more than {MAX_STEPS:,} steps (iterations, calls and filters)")
        if time.monotonic() > self._use.deadline:
            raise SecurityError(f"it takes more than {MAX_SECONDS:.0f} seconds")

    def _counted(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            self._step()
            yield item

    def _bounded(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The filter, counted, with bounds for what it is given and what it returns."""

        @wraps(function)  # also the attribute by which jinja2 knows what else to pass to it
        def bounded(*args: Any, **kwargs: Any) -> Any:
            self._step()
            formats = [args[0]] if function.__name__ == "do_format" and isinstance(args[0], str) else []
            _check_arguments(formats, args, kwargs)
            return _checked(function(*args, **kwargs))

        return bounded


def _filtered(node: nodes.Node | None, name: str, place: nodes.Node) -> nodes.Filter:
    """The expression passed through a filter of ours, which counts it and checks its size."""
    made = nodes.Filter(node, name, [], [], None, None)
    made.set_lineno(place.lineno)
    return made


class _GenerationBlock(Extension):
    """`{% generation %}` marks an assistant's text for training: here it is the text."""

    tags = {"generation"}  # noqa: RUF012 (jinja2 declares it so)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_text"), [], [], body).set_lineno(line)

    def _text(self, caller: Macro) -> str:
        return str(caller())


class _PlainNamespace(Namespace):
    """`namespace()` without names that begin with an underscore, as in transformers."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # jinja2's way to allow `namespace(self=...)`
        namespace, *given = args
        attributes = dict(*given, **kwargs)
        for name in attributes:
            _check_name(name)
        Namespace.__init__(namespace, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: object) -> None:
    if str(name).startswith("_"):
        raise SecurityError(f"a namespace cannot hold {name!r}, because of its underscore")


def _raise_exception(message: object) -> NoReturn:
    raise RaisedByTemplateError(str(message))


def _strftime_now(layout: str) -> str:
    return datetime.now().strftime(layout)


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """transformers' tojson: unlike jinja2's it does not escape for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _check_arguments(formats: Iterable[str], args: Iterable[Any], kwargs: dict[str, Any]) -> None:
    """Refuse numbers, as arguments or in formats, that could ask for a text of that length."""
    for value in (*args, *kwargs.values()):
        if isinstance(value, int) and abs(value) > MAX_LENGTH:
            raise SecurityError(f"it passes {value:.3g} as an argument; at most {MAX_LENGTH} is allowed")
    for text in formats:
        if _LONG_WIDTH.search(text):
            raise SecurityError(f"its format {text[:40]!r} has a width of more than four digits")


def _check_product(operator: str, left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length() * abs(right) if operator == "**" else left.bit_length() + right.bit_length()
        if bits > MAX_NUMBER_BITS:
            raise SecurityError(f"it computes a number of more than {MAX_NUMBER_BITS} bits")
        return
    for one, other in ((left, right), (right, left)):
        if isinstance(one, int) and isinstance(other, str | list | tuple) and one * len(other) > MAX_LENGTH:
            raise SecurityError(f"it repeats a text or list to more than {MAX_LENGTH} characters or items")


def _checked(value: Any) -> Any:
    if isinstance(value, str | list | tuple | dict) and len(value) > MAX_LENGTH:
        raise SecurityError(f"it makes a text or list of more than {MAX_LENGTH} characters or items")
    return value
