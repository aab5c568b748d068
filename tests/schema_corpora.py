"""How many schemas of a corpus are served, how many are refused, and whether any answer breaks its schema.

    .venv/bin/python -m tests.schema_corpora FOLDER [--every N] [--answers N]

FOLDER has JSON files: a schema each, an object with `schema`, or lists of those, as JSONSchemaBench and the
JSON-Schema-Test-Suite have. Answers are random walks over what the grammar allows, checked by jsonschema-rs.
"""

from __future__ import annotations

import argparse
import collections
import json
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from intaglio.errors import GrammarError
from tests.helpers.schema_walks import violations

_DIALECTS = {
    "draft4": "http://json-schema.org/draft-04/schema#", "draft6": "http://json-schema.org/draft-06/schema#",
    "draft7": "http://json-schema.org/draft-07/schema#",
    "draft2019-09": "https://json-schema.org/draft/2019-09/schema",
    "draft2020-12": "https://json-schema.org/draft/2020-12/schema",
}  # fmt: skip


@dataclass
class Counts:
    """Of one corpus. broken: (schema's name, answer, reason)."""

    schemas: int = 0
    served: int = 0
    answers: int = 0
    refused: collections.Counter[str] = field(default_factory=collections.Counter)
    unchecked: list[str] = field(default_factory=list)
    broken: list[tuple[str, str, str]] = field(default_factory=list)
    slowest: tuple[float, str] = (0.0, "")
    refused_names: list[tuple[str, str]] = field(default_factory=list)

    def add(self, name: str, schema: Any, answers: int) -> None:
        self.schemas += 1
        began = time.thread_time()
        try:
            made, broken = violations(schema, answers)
        except GrammarError as error:
            self.refused[reason_of(str(error))] += 1
            self.refused_names.append((name, str(error)))
            return
        except ValueError as error:  # jsonschema-rs does not read the schema, which is then not valid
            self.unchecked.append(f"{name}: {str(error)[:100]}")
            return
        self.slowest = max(self.slowest, (time.thread_time() - began, name))
        self.served += 1
        self.answers += made
        self.broken += [(name, text, reason) for text, reason in broken]


def reason_of(message: str) -> str:
    """The keyword of a refusal, or the kind."""
    keyword = re.match(r'"([^"]+)" at ', message)
    return keyword.group(1) if keyword else re.sub(r"[\d'].*", "", message)[:60].strip()


def schemas_in(folder: Path) -> Iterator[tuple[str, Any]]:
    """(name, schema) of every schema in the JSON files below the folder."""
    for path in sorted(folder.rglob("*.json")):
        content = json.loads(path.read_text())
        name = str(path.relative_to(folder))
        dialect = next((url for draft, url in _DIALECTS.items() if f"{draft}/" in str(path)), None)
        if isinstance(content, list):
            for index, item in enumerate(content):
                if isinstance(item, dict) and "schema" in item:
                    schema = item["schema"]
                    if dialect and isinstance(schema, dict) and "$schema" not in schema:
                        schema = {"$schema": dialect, **schema}
                    yield f"{name}#{index}", schema
        else:
            yield name, content["schema"] if isinstance(content, dict) and "schema" in content else content


def report(counts: Counts, *, with_refusals: bool = False) -> Iterator[str]:
    """The counts in lines of text."""
    yield (
        f"{counts.schemas} schemas: {counts.served} served, {sum(counts.refused.values())} refused, "
        f"{len(counts.unchecked)} that jsonschema-rs does not read; {counts.answers} answers, of which "
        f"{len(counts.broken)} break their schema"
    )
    for reason, count in counts.refused.most_common():
        yield f"{count:6} refused: {reason}"
    for name, text, reason in counts.broken:
        yield f"BROKEN {name} {text[:300]!r} {reason}"
    yield f"slowest: {counts.slowest[0]:.1f} s, {counts.slowest[1]}"
    yield from (f"refused {name}: {reason}" for name, reason in counts.refused_names if with_refusals)
    yield from (f"not read {line}" for line in counts.unchecked if with_refusals)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--every", type=int, default=1, help="take each Nth schema")
    parser.add_argument("--answers", type=int, default=4, help="per schema")
    parser.add_argument("--refused", action="store_true", help="print every refusal")
    asked = parser.parse_args()
    counts = Counts()
    for index, (name, schema) in enumerate(schemas_in(asked.folder)):
        if index % asked.every == 0:
            counts.add(name, schema, asked.answers)
    for line in report(counts, with_refusals=asked.refused):
        sys.stdout.write(f"{line}\n")
    sys.exit(bool(counts.broken))


if __name__ == "__main__":
    main()
