"""The sandbox in which the chat template of a checkpoint runs: jinja2's, with transformers' additions and with bounds.

A template comes with the weights, often from an unknown author, and runs at every request. jinja2's immutable sandbox
keeps it from Python's internals, from changing what it is given, and from files. It would still let a template loop for
hours or fill the memory, so here every iteration of a loop, every call and every filter counts as a step, and the size
of their results is bounded.

Sources: transformers, utils/chat_template_utils.py; jinja2, sandbox.py.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
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
MAX_LENGTH = 1 << 24  # characters of a text, or sixteen times the items of a list
MAX_NUMBER_BITS = 4096
MAX_MADE = 1 << 28  # characters and items that all calls and filters of one rendering make together
_ITEM = 16  # characters that an item of a list counts as: it takes more memory and time than a character
MAX_FORMAT = 20_000  # characters of a format, each of which may stand for a thousand

_LONG_WIDTH = re.compile(r"\d{5}")  # in a format such as "%99999d"
_EACH, _MADE = "each item, counted", "what is made, measured"  # filters that no template can name
# Methods of texts that can make much out of little, or take long, and that no template needs.
_REFUSED_METHODS = frozenset({"encode", "expandtabs", "maketrans", "translate"})


class RaisedByTemplateError(TemplateError):
    """The template called raise_exception: it refuses the messages."""


class ChatEnvironment(ImmutableSandboxedEnvironment):
    """Compiles and runs chat templates. One rendering runs in one thread; several threads may render at once."""

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "**", "%"})

    def __init__(self) -> None:
        extensions = [_GenerationBlock, loopcontrols]
        super().__init__(trim_blocks=True, lstrip_blocks=True, optimized=False, extensions=extensions)
        self._use = threading.local()
        self.filters["tojson"] = _to_json
        self.filters = {name: self._bounded(function) for name, function in self.filters.items()}
        self.filters |= {_EACH: self._counted, _MADE: self._measured}
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
        _measure_displays(tree)
        for block in list(tree.find_all(nodes.AssignBlock)):
            block.filter = _filtered(block.filter, "string", block)
        return self.template_class.from_code(self, self.compile(tree), self.make_globals(None)).generate

    def start(self) -> None:
        """Begin to count the steps of a rendering in this thread."""
        self._use.steps, self._use.made, self._use.deadline = 0, 0, time.monotonic() + MAX_SECONDS

    @staticmethod
    def concat(pieces: Iterable[str]) -> str:
        """Joins what a macro or a block writes; jinja2 calls it by this name."""
        found, length = [], 0
        for piece in pieces:
            found.append(piece)
            length += len(piece)
            if length > MAX_LENGTH:
                raise SecurityError(f"it makes a text of more than {MAX_LENGTH} characters")
        return "".join(found)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, str) and attr in _REFUSED_METHODS:
            return False
        return super().is_safe_attribute(obj, attr, value)

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        self._step()
        _check_arguments((), args, kwargs)
        _check_sizes((getattr(obj, "__self__", None), *args, *kwargs.values()))
        return self._measured(super().call(context, obj, *args, **kwargs))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """jinja2's replacement of `str.format`, which `getattr` gives to templates; None for anything else."""
        wrapped = super().wrap_str_format(value)
        if wrapped is not None:
            _check_arguments((value.__self__,), (), {})
        return wrapped

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        self._step()
        _check_numbers(left, right)
        if operator in ("*", "**"):
            _check_product(operator, left, right)
        elif operator == "%" and isinstance(left, str):
            _check_arguments((left,), right if isinstance(right, tuple) else (right,), {})
        return self._measured(super().call_binop(context, operator, left, right))

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

    def _measured(self, value: Any) -> Any:
        """The value, if it is not too large by itself or with what was made before."""
        _check_numbers(value)
        size = 0 if isinstance(value, int) else _size_of(value)
        self._use.made += size
        if size > MAX_LENGTH or self._use.made > MAX_MADE:
            raise SecurityError(f"it makes a text or list of more than {MAX_LENGTH} characters or items")
        return value

    def _bounded(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The filter, counted, with bounds for what it is given and what it returns."""

        @wraps(function)  # also the attribute by which jinja2 knows what else to pass to it
        def bounded(*args: Any, **kwargs: Any) -> Any:
            self._step()
            formats = [args[0]] if function.__name__ == "do_format" and isinstance(args[0], str) else []
            _check_arguments(formats, args, kwargs)
            _check_sizes((*args, *kwargs.values()))
            return self._measured(function(*args, **kwargs))

        return bounded


def _filtered(node: nodes.Node | None, name: str, place: nodes.Node) -> nodes.Filter:
    """The expression passed through a filter of ours, which counts it and checks its size."""
    made = nodes.Filter(node, name, [], [], None, None)
    made.set_lineno(place.lineno)
    return made


def _measure_displays(tree: nodes.Template) -> None:
    """Pass each list, tuple and dict that is written in the template through the filter that measures it. Names that a
    tuple assigns to are none.
    """
    for parent in list(tree.find_all(nodes.Node)):
        for name, value in list(parent.iter_fields()):
            if isinstance(value, list):
                setattr(parent, name, [_measured_display(one) for one in value])
            elif isinstance(value, nodes.Node):
                setattr(parent, name, _measured_display(value))


def _measured_display(node: Any) -> Any:
    is_display = isinstance(node, nodes.List | nodes.Dict) or (isinstance(node, nodes.Tuple) and node.ctx == "load")
    return _filtered(node, _MADE, node) if is_display else node


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
        if _LONG_WIDTH.search(text) or len(text) > MAX_FORMAT:
            raise SecurityError(f"its format {text[:40]!r} is too long or has a width of more than four digits")


def _check_product(operator: str, left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length() * abs(right) if operator == "**" else left.bit_length() + right.bit_length()
        if bits > MAX_NUMBER_BITS:
            raise SecurityError(f"it computes a number of more than {MAX_NUMBER_BITS} bits")
        return
    for one, other in ((left, right), (right, left)):
        if isinstance(one, int) and isinstance(other, Sized) and one * len(other) > MAX_LENGTH:
            raise SecurityError(f"it repeats a text or list to more than {MAX_LENGTH} characters or items")


def _check_numbers(*values: Any) -> None:
    for value in values:
        if isinstance(value, int) and value.bit_length() > MAX_NUMBER_BITS:
            raise SecurityError(f"it computes with a number of more than {MAX_NUMBER_BITS} bits")


def _check_sizes(values: Iterable[Any]) -> None:
    """Refuse a call that could make the product of its two largest values: `replace`, `join` and the like."""
    sizes = sorted((_size_of(value) for value in values), reverse=True)[:2]
    if len(sizes) == 2 and sizes[0] * sizes[1] > MAX_MADE:
        raise SecurityError(f"it passes texts of {sizes[0]} and {sizes[1]} characters to one call")


def _size_of(value: Any) -> int:
    """Characters and items, of what is inside too; a number counts as itself. Stops where there are too many."""
    if isinstance(value, int):
        return abs(value)
    total, waiting = 0, [value]
    while waiting and total <= MAX_LENGTH:
        one = waiting.pop()
        if isinstance(one, str | bytes):
            total += len(one)
        elif isinstance(one, dict):
            total += _ITEM * len(one)
            waiting += [*one.keys(), *one.values()]
        elif isinstance(one, list | tuple):
            total += _ITEM * len(one)
            waiting += one
    return total
