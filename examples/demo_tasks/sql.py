"""intaglio-sql: a table's definition and a question become one SQLite query.

The subset: one table; columns, COUNT, AVG, MIN, MAX, SUM, DISTINCT; up to two conditions joined by AND;
GROUP BY; ORDER BY; LIMIT. A question that names no column asks for `*`.

The held-out split has other tables, values and sentence patterns than the training split.
"""

from __future__ import annotations

import random
import re
import sqlite3
from collections.abc import Sequence

from .sql_tables import Table, read_tables
from .sql_wording import (
    AGGREGATES,
    DIRECTIONS,
    EXTREMES,
    HELD_OUT,
    HELD_OUT_INSTRUCTIONS,
    INSTRUCTIONS,
    NATURAL,
    NATURAL_COUNTS,
    NATURAL_NUMBERS,
    TRAIN,
    Phrases,
)


def make_pair(rng: random.Random, *, held_out: bool) -> tuple[str, str]:
    """One (prompt, answer): a table definition and a question below it, and the query."""
    table = _some_columns(rng, rng.choice(read_tables(held_out=held_out)))
    question, query = _Asker(rng, table, HELD_OUT if held_out else TRAIN, held_out).ask()
    if not held_out and rng.random() < 0.1:
        question = question[0].lower() + question[1:]
    instruction = rng.choice(HELD_OUT_INSTRUCTIONS if held_out else INSTRUCTIONS)
    separator = "\n\n" if rng.random() < 0.25 else "\n"
    return _definition(rng, table, held_out) + separator + instruction + question, query


def runs_in_sqlite(prompt: str, text: str) -> bool:
    """Whether SQLite accepts `text` as one query on the table that `prompt` defines."""
    definition = re.search(r"create table .*?\);", prompt, re.IGNORECASE | re.DOTALL)
    if definition is None or not text.lower().startswith("select"):
        return False
    with sqlite3.connect(":memory:") as database:
        database.execute(definition.group())
        try:
            database.execute(text)
        except (sqlite3.Error, sqlite3.Warning):
            return False
    return True


class _Asker:
    """Asks one random question about one table in one split's wording."""

    def __init__(self, rng: random.Random, table: Table, phrases: Phrases, held_out: bool) -> None:
        self._rng, self._table, self._phrases, self._held_out = rng, table, phrases, held_out

    def ask(self) -> tuple[str, str]:
        kinds = (
            [self._rows] * 5 + [self._count] * 3 + [self._aggregate] * 4 + [self._top] * 3
            + [self._sorted] * 2 + [self._groups] * 3 + [self._distinct]
        )  # fmt: skip
        return self._rng.choice(kinds)()

    def _rows(self) -> tuple[str, str]:
        where, sql_where = self._maybe_where(0.8)
        if self._rng.random() < 0.45:
            phrases = self._phrases.rows_where if where else self._phrases.all_rows
            return self._say(phrases, where=where), f"SELECT * FROM {self._table.name}{sql_where};"
        first, second = self._rng.sample([*self._table.texts, *self._table.numbers], 2)
        phrase = self._rng.choice(self._phrases.columns_where if where else self._phrases.columns)
        picked = f"{first}, {second}" if "{d" in phrase else first
        question = self._say([phrase], where=where, c=first, d=second, cs=_plural(first), ds=_plural(second))
        return question, f"SELECT {picked} FROM {self._table.name}{sql_where};"

    def _count(self) -> tuple[str, str]:
        where, sql_where = self._maybe_where(0.75)
        phrases = self._phrases.count_where if where else self._phrases.count
        return self._say(phrases, where=where), f"SELECT COUNT(*) FROM {self._table.name}{sql_where};"

    def _aggregate(self) -> tuple[str, str]:
        word, number = self._rng.choice(list(AGGREGATES)), self._number()
        where, sql_where = self._maybe_where(0.5)
        phrases = self._phrases.aggregates_where if where else self._phrases.aggregates
        question = self._say(phrases, where=where, word=word, n=number)
        return question, f"SELECT {AGGREGATES[word]}({number}) FROM {self._table.name}{sql_where};"

    def _top(self) -> tuple[str, str]:
        word, number = self._rng.choice(list(EXTREMES)), self._number()
        count = 1 if self._rng.random() < 0.35 else self._rng.randint(2, 10)
        slots = {"extreme": word, "n": number, "k": str(count), "one": _singular(self._table.name)}
        column, phrases = "*", self._phrases.top_one if count == 1 else self._phrases.top
        if self._rng.random() < 0.4:
            column = self._rng.choice(list(self._table.texts))
            phrases = self._phrases.top_one_column if count == 1 else self._phrases.top_column
            slots |= {"c": column, "cs": _plural(column)}
        elif count > 1 and EXTREMES[word] == "DESC" and self._rng.random() < 0.4:
            phrases = self._phrases.top_by
        tail = f"ORDER BY {number} {EXTREMES[word]} LIMIT {count};"
        return self._say(phrases, **slots), f"SELECT {column} FROM {self._table.name} {tail}"

    def _sorted(self) -> tuple[str, str]:
        column, direction = (
            self._rng.choice([*self._table.texts, *self._table.numbers]),
            self._rng.choice(list(DIRECTIONS)),
        )
        question = self._say(self._phrases.sorted_rows, c=column, direction=direction)
        return question, f"SELECT * FROM {self._table.name} ORDER BY {column}{DIRECTIONS[direction]};"

    def _groups(self) -> tuple[str, str]:
        column = self._rng.choice(list(self._table.texts))
        value, phrases, slots = "COUNT(*)", self._phrases.per_group, {"c": column}
        if self._rng.random() < 0.6:
            word, number = self._rng.choice(list(AGGREGATES)), self._number()
            value, phrases = f"{AGGREGATES[word]}({number})", self._phrases.aggregate_per_group
            slots |= {"word": word, "n": number}
        return self._say(phrases, **slots), f"SELECT {column}, {value} FROM {self._table.name} GROUP BY {column};"

    def _distinct(self) -> tuple[str, str]:
        column = self._rng.choice(list(self._table.texts))
        question = self._say(self._phrases.distinct, c=column, cs=_plural(column))
        return question, f"SELECT DISTINCT {column} FROM {self._table.name};"

    def _maybe_where(self, probability: float) -> tuple[str, str]:
        """A condition in English and in SQL, both empty if there is none; a fifth are two conditions joined by AND."""
        if self._rng.random() >= probability:
            return "", ""
        columns = self._rng.sample([*self._table.texts, *self._table.numbers], 2 if self._rng.random() < 0.2 else 1)
        spoken, written = zip(*(self._condition(column) for column in columns), strict=True)
        return " and ".join(spoken), " WHERE " + " AND ".join(written)

    def _condition(self, column: str) -> tuple[str, str]:
        if column in self._table.texts:
            value = self._rng.choice(self._table.texts[column])
            natural: Sequence[str] = NATURAL.get(column, ())
            phrases = natural if natural and self._rng.random() < 0.5 else self._phrases.text_equals
            return self._rng.choice(phrases).format(c=column, v=value), f"{column} = '{value}'"
        low, high = self._table.numbers[column]
        number = self._rng.randint(low, high)
        if number > 100 and column != "year":
            number = int(float(f"{number:.2g}"))  # people ask about round numbers
        sign = self._rng.choice((">", ">", ">", "<", "<", "<", ">=", "<=", "="))
        spoken = self._rng.choice(self._phrases.number_compares[sign]).format(c=column, v=number)
        if column.endswith("s"):
            spoken = spoken.replace(f" a {column}", f" {column}").replace(" is ", " are ")
            if self._rng.random() < 0.5:
                spoken = self._rng.choice(NATURAL_COUNTS[sign]).format(c=column, v=number)
        natural = NATURAL_NUMBERS.get(column, {}).get(sign, ())
        if natural and self._rng.random() < 0.5:
            spoken = self._rng.choice(natural).format(v=number)
        return spoken, f"{column} {sign} {number}"

    def _number(self) -> str:
        return self._rng.choice(list(self._table.numbers))

    def _say(self, phrases: Sequence[str], **slots: str) -> str:
        return self._rng.choice(phrases).format(t=self._table.name, **slots)


def _some_columns(rng: random.Random, table: Table) -> Table:
    """The table with one to three of its columns of each type: more variety, and shorter prompts to train on."""
    texts = rng.sample(list(table.texts), rng.randint(1, len(table.texts)))
    numbers = rng.sample(list(table.numbers), rng.randint(1, len(table.numbers)))
    return Table(
        table.name,
        {column: table.texts[column] for column in texts},
        {column: table.numbers[column] for column in numbers},
    )


def _definition(rng: random.Random, table: Table, held_out: bool) -> str:
    columns = [(name, "TEXT") for name in table.texts] + [(name, "INTEGER") for name in table.numbers]
    rng.shuffle(columns)
    if rng.random() < 0.85:
        columns.insert(0, ("id", rng.choice(("INTEGER", "INTEGER PRIMARY KEY", "INT"))))
    style = rng.random()
    if style < 0.25 and not held_out:
        names = ", ".join(name for name, _ in columns)
        return rng.choice(("{t}({names})", "Table {t}: {names}", "{t} ({names})")).format(t=table.name, names=names)
    typed = [f"{name} {kind}" for name, kind in columns]
    if style < 0.45:
        return f"CREATE TABLE {table.name} (\n  " + ",\n  ".join(typed) + "\n);"
    return f"CREATE TABLE {table.name} (" + ", ".join(typed) + ");"


def _singular(table_name: str) -> str:
    return table_name[:-3] + "y" if table_name == "cities" else table_name[:-1]


def _plural(noun: str) -> str:
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun if noun.endswith("s") else noun + "s"
