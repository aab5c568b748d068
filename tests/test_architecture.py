"""Imports run one way, and each library stays in the package that needs it. A failure names the offending line."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "intaglio"

BASE = {"version", "errors", "wording", "request", "status", "settings", "files"}
ENGINE = {"ops", "model", "lora", "grammar", "engine"}
JOINED = {"base_model", "completion", "llm"}

# package or top-level module -> those it may import from, beside itself. ARCHITECTURE.md draws the same.
MAY_IMPORT: dict[str, set[str]] = {
    "version": set(),
    "errors": set(),
    "wording": set(),
    "request": {"errors"},
    "status": set(),
    "config_file": {"errors", "wording"},
    "settings": {"errors", "wording", "config_file"},
    "files": {"errors"},
    "demo_adapters": set(),
    "database": {"errors"},
    "json_schema": {"errors", "wording"},
    "grammar": BASE | {"json_schema"},
    "ops": BASE,
    "model": BASE | {"ops"},
    "lora": BASE | {"ops", "model"},
    "engine": BASE | {"ops", "model", "lora", "grammar"},
    "hub": BASE | {"model"},
    "model_source": BASE | {"model", "hub"},
    "text": BASE | {"model", "grammar"},
    "finetunes": BASE | {"database", "lora", "model", "demo_adapters"},
    "batches": BASE | {"database"},
    "conversations": BASE | {"database"},
    "client": {"errors", "wording", "files"},
    "base_model": BASE | ENGINE | {"text", "model_source"},
    "completion": BASE | {"text"},
    "llm": BASE | ENGINE | {"text", "base_model", "completion", "model_source", "demo_adapters"},
    "training": BASE | {"model", "text", "base_model"},
    "evaluation": BASE | ENGINE | {"text", "base_model"},
    "api": BASE
    | JOINED
    | {"finetunes", "batches", "conversations", "demo_adapters", "grammar", "lora", "model", "model_source", "text"},
    "cli": BASE
    | ENGINE
    | JOINED
    | {"demo_adapters", "finetunes", "text", "api", "client", "training", "evaluation", "hub", "model_source"},
    "__main__": {"cli"},
    "__init__": BASE | JOINED,
}

# library -> the packages that may name it.
MAY_USE_LIBRARY: dict[str, set[str]] = {
    "torch": {"training"},
    "transformers": {"training"},
    "peft": {"training"},
    "accelerate": set(),
    "safetensors": {"training"},
    "fastapi": {"api"},
    "starlette": {"api"},
    "uvicorn": {"api", "cli"},
    "sqlalchemy": {"database", "finetunes", "batches", "conversations"},
    "alembic": {"database", "finetunes", "batches", "conversations"},
    "httpx2": {"client", "hub"},
    "huggingface_hub": {"hub"},
    "typer": {"cli"},
    "rich": {"cli"},
    "pydantic_settings": {"settings"},
    "tomllib": {"config_file"},
    "tokenizers": {"text"},
    "sentencepiece": {"text"},
    "zmq": {"engine"},
    "jinja2": {"text"},
    "llguidance": {"grammar", "engine"},
    "threadpoolctl": {"ops"},
}

MAX_MODULES = 13  # beside __init__.py; a package that grows is divided by what a reader looks for

HEAVY = {
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "safetensors",
    "huggingface_hub",
}  # the extras train, hub

# A second kind of device is a second backend of ops, so these know arrays only through it.
THROUGH_OPS_ONLY = ("engine/*.py", "engine/*/*.py", "model/gemma.py", "model/config.py")
ARRAY_LIBRARIES = {"numpy", "ml_dtypes", "torch", "scipy"}


@dataclass(frozen=True, slots=True)
class Import:
    """One imported module, as written in one line of one file."""

    path: Path  # below the package
    line: int
    module: str

    @property
    def package(self) -> str:
        return self.path.parts[0].removesuffix(".py")

    @property
    def top(self) -> str:
        return self.module.split(".")[0]

    @property
    def target(self) -> str | None:
        """The package of ours that is imported; None for a library."""
        if self.top != "intaglio":
            return None
        parts = self.module.split(".")
        return parts[1] if len(parts) > 1 else "__init__"

    def __str__(self) -> str:
        return f"src/intaglio/{self.path.as_posix()}:{self.line}: imports {self.module}"


Check = Callable[[Iterator[Import]], list[str]]


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


@cache
def statements(path: Path) -> list[ast.Import | ast.ImportFrom]:
    """The import statements of a file, also those inside functions and under TYPE_CHECKING."""
    return [node for node in ast.walk(parsed(path)) if isinstance(node, ast.Import | ast.ImportFrom)]


def imports_of(source: Path) -> Iterator[Import]:
    for path in sorted(source.rglob("*.py")):
        inside = path.relative_to(source)
        for node in statements(path):
            for module in _modules(node, inside):
                yield Import(inside, node.lineno, module)


def _modules(node: ast.Import | ast.ImportFrom, path: Path) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if node.level:
        package = ["intaglio", *path.parent.parts]
        base = package[: len(package) - node.level + 1]
        module = ".".join([*base, node.module] if node.module else base)
    else:
        module = node.module or ""
    if module == "intaglio":  # `from intaglio import errors` names a module, `from intaglio import LLM` the public API
        return [f"intaglio.{alias.name}" if alias.name in MAY_IMPORT else "intaglio" for alias in node.names]
    return [module]


def wrong_way(imports: Iterator[Import]) -> list[str]:
    wrong = []
    for one in imports:
        target = one.target
        if target is not None and target != one.package and target not in MAY_IMPORT.get(one.package, set()):
            allowed = ", ".join(sorted(MAY_IMPORT.get(one.package, set()))) or "nothing"
            wrong.append(f"{one} ({one.package} may import: {allowed})")
    return wrong


def misplaced_libraries(imports: Iterator[Import]) -> list[str]:
    wrong = []
    for one in imports:
        if one.top in MAY_USE_LIBRARY and one.package not in MAY_USE_LIBRARY[one.top]:
            packages = ", ".join(sorted(MAY_USE_LIBRARY[one.top])) or "none of them"
            wrong.append(f"{one} (only for: {packages})")
    return wrong


def heavy_at_import_time(source: Path) -> list[str]:
    """Statements of modules, outside of functions, that import a library which a server does without."""
    wrong = []
    for path in sorted(source.rglob("*.py")):
        inside = path.relative_to(source)
        for node in parsed(path).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                wrong += [
                    f"{Import(inside, node.lineno, module)} (inside a function, please: the server has no {module})"
                    for module in _modules(node, inside)
                    if module.split(".")[0] in HEAVY
                ]
    return wrong


def import_cycle(source: Path) -> list[str]:
    """The modules of one cycle of imports, also of those inside functions and under TYPE_CHECKING; [] without one."""
    modules = {_module_name(path.relative_to(source)): path.relative_to(source) for path in source.rglob("*.py")}
    graph: dict[str, set[str]] = {name: set() for name in modules}
    for name, path in modules.items():
        for node in statements(source / path):
            imported = set(_modules(node, path))
            if isinstance(node, ast.ImportFrom):  # `from intaglio.api import app` may name a module
                imported |= {f"{module}.{alias.name}" for module in imported for alias in node.names}
                imported -= {".".join(one.split(".")[:-1]) for one in imported & graph.keys()}
            graph[name] |= (imported & graph.keys()) - {name}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def _module_name(path: Path) -> str:
    parts = path.parent.parts if path.name == "__init__.py" else path.with_suffix("").parts
    return ".".join(["intaglio", *parts])


def arrays_by_name(imports: Iterator[Import]) -> list[str]:
    return [
        f"{one} (arrays go through ops here)"
        for one in imports
        if one.top in ARRAY_LIBRARIES and any(one.path.match(pattern) for pattern in THROUGH_OPS_ONLY)
    ]


def test_every_package_is_in_the_table() -> None:
    packages = {path.relative_to(SOURCE).parts[0].removesuffix(".py") for path in SOURCE.rglob("*.py")}
    assert packages <= MAY_IMPORT.keys(), "a new package: say in MAY_IMPORT and ARCHITECTURE.md what it may import"


def test_the_table_has_no_cycle() -> None:
    TopologicalSorter(MAY_IMPORT).prepare()  # raises CycleError


def test_no_module_imports_itself_by_way_of_others() -> None:
    assert import_cycle(SOURCE) == []


def test_the_check_notices_a_cycle_of_two_modules_in_one_package(tmp_path: Path) -> None:
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "pool.py").write_text("from intaglio.lora import cache\n")
    (tmp_path / "lora" / "cache.py").write_text("def load():\n    from intaglio.lora.pool import AdapterPool\n")
    assert set(import_cycle(tmp_path)) == {"intaglio.lora.pool", "intaglio.lora.cache"}


def test_a_package_has_about_a_dozen_modules() -> None:
    sizes = {folder: sum(path.name != "__init__.py" for path in folder.glob("*.py")) for folder in _packages()}
    assert {folder.name: size for folder, size in sizes.items() if size > MAX_MODULES} == {}


# Of api/, lowest first: a module may import from its own part and from the layers below.
API_LAYERS = (
    {"http"},
    {"aliases", "background_verification", "catalogue"},
    {"stand_ins"},
    {"state"},
    {"model_names"},
    {"inference", "finetunes", "account", "health", "status"},
    {"openai", "binding"},
    {"messages", "responses"},
    {"openapi", "startup"},
    {"reference"},
    {"app"},
)


def upwards_in_api(source: Path) -> list[str]:
    layer = {part: level for level, parts in enumerate(API_LAYERS) for part in parts}
    wrong = []
    for one in imports_of(source):
        target = one.module.split(".")
        if one.package != "api" or target[:2] != ["intaglio", "api"] or len(target) < 3:
            continue
        part = one.path.parts[1].removesuffix(".py")
        if target[2] != part and layer[target[2]] >= layer[part]:
            wrong.append(f"{one} (api/{part} is not above api/{target[2]})")
    return wrong


def test_the_parts_of_the_api_import_downwards_only() -> None:
    assert upwards_in_api(SOURCE) == []


def test_the_check_notices_an_upward_import_within_the_api(tmp_path: Path) -> None:
    (tmp_path / "api" / "http").mkdir(parents=True)
    (tmp_path / "api" / "http" / "errors.py").write_text("from intaglio.api.openai.input import read_chat\n")
    assert [line.split(" ")[0] for line in upwards_in_api(tmp_path)] == ["src/intaglio/api/http/errors.py:1:"]


def test_every_package_says_what_it_does() -> None:
    assert [
        folder.name for folder in _packages() if len(ast.get_docstring(parsed(folder / "__init__.py")) or "") < 60
    ] == []


def _packages() -> list[Path]:
    return [path.parent for path in sorted(SOURCE.rglob("__init__.py"))]


def test_imports_run_one_way() -> None:
    assert wrong_way(imports_of(SOURCE)) == []


def test_each_library_stays_in_its_package() -> None:
    assert misplaced_libraries(imports_of(SOURCE)) == []


def test_what_only_training_needs_is_imported_inside_functions() -> None:
    assert heavy_at_import_time(SOURCE) == []


def test_the_check_notices_a_heavy_import_of_a_module(tmp_path: Path) -> None:
    (tmp_path / "base.py").write_text("import torch\n\n\ndef load():\n    import peft\n")
    assert [line.split(" ")[0] for line in heavy_at_import_time(tmp_path)] == ["src/intaglio/base.py:1:"]


def test_model_and_engine_reach_arrays_only_through_ops() -> None:
    assert arrays_by_name(imports_of(SOURCE)) == []


def test_only_settings_reads_the_environment() -> None:
    readers = []
    for path in sorted(SOURCE.rglob("*.py")):
        if path.relative_to(SOURCE) == Path("settings.py"):
            continue
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            if "os.environ" in line or "os.getenv" in line:
                readers.append(f"src/intaglio/{path.relative_to(SOURCE).as_posix()}:{number}: {line.strip()}")
    assert readers == []


@pytest.mark.parametrize(
    ("path", "line", "check"),
    [
        ("engine/scheduler.py", "from intaglio.api import app", wrong_way),
        ("ops/reference.py", "import intaglio.model.gemma", wrong_way),
        ("model/gemma.py", "from ..lora.adapter import LoraAdapter", wrong_way),
        ("model/weights/gguf.py", "from ...text import tokenizer", wrong_way),
        ("text/detokenizer.py", "from intaglio import engine", wrong_way),
        ("errors.py", "from intaglio import LLM", wrong_way),
        ("model/weights/gguf.py", "import torch", misplaced_libraries),
        ("engine/engine.py", "from fastapi import FastAPI", misplaced_libraries),
        ("engine/sampler.py", "import numpy as np", arrays_by_name),
        ("model/gemma.py", "def f():\n    from numpy import dot", arrays_by_name),
    ],
)
def test_the_checks_notice_a_wrong_import(path: str, line: str, check: Check, tmp_path: Path) -> None:
    file = tmp_path / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(line + "\n")
    found = check(imports_of(tmp_path))
    assert len(found) == 1
    assert found[0].startswith(f"src/intaglio/{path}:")
