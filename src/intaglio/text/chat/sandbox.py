"""The sandbox in which the chat template of a checkpoint runs: jinja2's, with transformers' additions and with bounds.

A template comes with the weights, often from an unknown author, and runs at every request. jinja2's immutable sandbox
keeps it from Python's internals, from changing what it is given, and from files. It would still let a template loop for
hours or fill the memory, so here every iteration of a loop, every call, filter, test and comparison counts as a step,
and the size of what they are given and return is bounded. The time is read at each step only, so no single step may be
long: filters whose work grows faster than their input are left out or written anew (`bounded_filters.py`).

Sources: transformers, utils/chat_template_utils.py; jinja2, sandbox.py.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, MappingView, Sized
from datetime import datetime
from functools import wraps
from typing import Any, NoReturn

from jinja2 import nodes
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from intaglio.text.chat.bounded_filters import LEFT_OUT, WRITTEN_ANEW
from intaglio.text.chat.bounds import (
    ITEM,
    MAX_LENGTH,
    MAX_MADE,
    check_arguments,
    check_numbers,
    check_product,
    check_sizes,
    size_of,
)

MAX_STEPS = 1_000_000  # of one rendering; a chat of 1,000 messages takes some 10,000
MAX_SECONDS = 10.0  # of processor time of its thread: other requests and programs do not count
# Filters that no template can name.
_EACH, _MADE, _PART, _COMPARED = (
    "each item, counted",
    "what is made, measured",
    "a slice, measured",
    "compared, counted",
)
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
        functions = _functions(self.filters | WRITTEN_ANEW)
        self.filters = {name: self._bounded(function) for name, function in functions if name not in LEFT_OUT}
        self.tests = {name: self._stepped(function) for name, function in _functions(self.tests)}
        self.filters |= {_EACH: self._counted, _MADE: self._measured, _PART: self._part, _COMPARED: self._compared}
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
            joined.nodes = [_joined_in_pairs(joined.nodes, joined)]
        _measure_expressions(tree)
        for block in list(tree.find_all(nodes.AssignBlock)):
            block.filter = _filtered(block.filter, "string", block)
        return self.template_class.from_code(self, self.compile(tree), self.make_globals(None)).generate

    def start(self) -> None:
        """Begin to count the steps of a rendering in this thread."""
        self._use.steps, self._use.made, self._use.deadline = 0, 0, time.thread_time() + MAX_SECONDS

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
        args, kwargs = self._without_lazy(args, kwargs)
        check_arguments((), args, kwargs)
        check_sizes((getattr(obj, "__self__", None), *args, *kwargs.values()))
        return self._measured(super().call(context, obj, *args, **kwargs))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """jinja2's replacement of `str.format`, which `getattr` gives to templates; None for anything else."""
        wrapped = super().wrap_str_format(value)
        if wrapped is not None:
            check_arguments((value.__self__,), (), {})
        return wrapped

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        self._step()
        check_numbers(left, right)
        if operator in ("*", "**"):
            check_product(operator, left, right)
        elif operator == "%" and isinstance(left, str):
            values = right if isinstance(right, tuple) else (right,)
            check_arguments((left,), values, {})
            if "*" in left:  # a width that is one of the values
                check_sizes((left, *values))
        return self._measured(super().call_binop(context, operator, left, right))

    def _step(self) -> None:
        self._use.steps += 1
        if self._use.steps > MAX_STEPS:
            raise SecurityError(f"it takes more than {MAX_STEPS:,} steps (iterations, calls and filters)")
        if time.thread_time() > self._use.deadline:
            raise SecurityError(f"it takes more than {MAX_SECONDS:.0f} seconds")

    def _counted(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            self._step()
            yield item

    def _measured(self, value: Any) -> Any:
        """The value, if it is not too large by itself or with what was made before."""
        check_numbers(value)
        size = 0 if isinstance(value, int) else size_of(value)
        self._use.made += size
        if size > MAX_LENGTH or self._use.made > MAX_MADE:
            raise SecurityError(f"it makes a text or list of more than {MAX_LENGTH} characters or items")
        return value

    def _part(self, value: Any) -> Any:
        """A slice: a copy of a text, or of a list without what is inside."""
        self._step()
        self._use.made += len(value) * (1 if isinstance(value, str) else ITEM) if isinstance(value, Sized) else 0
        if self._use.made > MAX_MADE:
            raise SecurityError(f"it makes a text or list of more than {MAX_LENGTH} characters or items")
        return value

    def _compared(self, value: Any) -> Any:
        self._step()
        return value

    def _without_lazy(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments with lists in place of what makes its items as they are asked for, and so has no size yet."""
        return tuple(map(self._listed, args)), {name: self._listed(value) for name, value in kwargs.items()}

    def _listed(self, value: Any) -> Any:
        is_lazy = isinstance(value, Iterator | MappingView | range) and not isinstance(value, LoopContext)
        return list(self._counted(value)) if is_lazy else value

    def _stepped(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The test, counted. It takes no longer than what it is given is large."""

        @wraps(function)
        def stepped(*args: Any, **kwargs: Any) -> Any:
            self._step()
            args, kwargs = self._without_lazy(args, kwargs)
            return function(*args, **kwargs)

        return stepped

    def _bounded(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The filter, counted, with bounds for what it is given and what it returns."""

        @wraps(function)  # also the attribute by which jinja2 knows what else to pass to it
        def bounded(*args: Any, **kwargs: Any) -> Any:
            self._step()
            args, kwargs = self._without_lazy(args, kwargs)
            formats = [args[0]] if function.__name__ == "do_format" and isinstance(args[0], str) else []
            check_arguments(formats, args, kwargs)
            check_sizes((*args, *kwargs.values()))
            return self._measured(self._listed(function(*args, **kwargs)))

        return bounded


def _functions(named: Mapping[str, Any]) -> Iterator[tuple[str, Callable[..., Any]]]:
    """The items, whose values jinja2 declares as of several types."""
    yield from named.items()


def _filtered(node: nodes.Node | None, name: str, place: nodes.Node) -> nodes.Filter:
    """The expression passed through a filter of ours, which counts it and checks its size."""
    made = nodes.Filter(node, name, [], [], None, None)
    made.set_lineno(place.lineno)
    return made


def _joined_in_pairs(parts: list[nodes.Expr], place: nodes.Node) -> nodes.Expr:
    """`a ~ b ~ c` as pairs of pairs, each measured: all at once would make a long text of them before it is seen."""
    half = len(parts) // 2
    pair = [_joined_in_pairs(some, place) for some in (parts[:half], parts[half:])] if len(parts) > 2 else parts
    return _filtered(nodes.Concat(pair), "string", place)


def _measure_expressions(tree: nodes.Template) -> None:
    """Pass each list, tuple and dict that is written in the template, each slice and each comparison through the filter
    that measures or counts it. Names that a tuple assigns to are none.
    """
    for parent in list(tree.find_all(nodes.Node)):
        for name, value in list(parent.iter_fields()):
            if isinstance(value, list):
                setattr(parent, name, [_measured_expression(one) for one in value])
            elif isinstance(value, nodes.Node):
                setattr(parent, name, _measured_expression(value))


def _measured_expression(node: Any) -> Any:
    if isinstance(node, nodes.Compare):
        return _filtered(node, _COMPARED, node)
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice):
        return _filtered(node, _PART, node)
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
