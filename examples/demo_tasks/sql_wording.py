"""The wordings of questions about a table: one set of patterns for training, another held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Phrases:
    """The patterns of one split, with slots for table, columns and values.

    {t} table; {one} its singular; {c} {d} columns; {cs} {ds} their plurals; {n} number column; {v} value; {k} count;
    {where} a condition such as "with a price over 40"; {word} "average" and the like.
    """

    all_rows: Sequence[str]
    columns: Sequence[str]
    rows_where: Sequence[str]
    columns_where: Sequence[str]
    count: Sequence[str]
    count_where: Sequence[str]
    aggregates: Sequence[str]
    aggregates_where: Sequence[str]
    top: Sequence[str]
    top_column: Sequence[str]
    top_one: Sequence[str]
    top_one_column: Sequence[str]
    top_by: Sequence[str]
    sorted_rows: Sequence[str]
    per_group: Sequence[str]
    aggregate_per_group: Sequence[str]
    distinct: Sequence[str]
    text_equals: Sequence[str]
    number_compares: dict[str, Sequence[str]]


TRAIN = Phrases(
    all_rows=("Show all {t}.", "List all {t}", "Give me every row of {t}.", "Show me everything in {t}"),
    columns=(
        "Show the {c} of all {t}.",
        "List the {cs} of all {t}",
        "What are the {cs} of the {t}?",
        "Give me the {c} and {d} of all {t}.",
        "List {c} and {d} of every row in {t}",
        "Show the {cs} and {ds} of the {t}",
    ),
    rows_where=(
        "Show all {t} {where}.",
        "List the {t} {where}",
        "Which {t} are {where}?",
        "Find all {t} {where}.",
        "Give me all {t} {where}",
        "Show me every row of {t} {where}",
        "I need the {t} {where}",
    ),
    columns_where=(
        "What is the {c} of the {t} {where}?",
        "List the {cs} of all {t} {where}.",
        "Show the {c} of {t} {where}",
        "Give me the {c} and {d} of all {t} {where}.",
        "Find the {cs} of {t} {where}",
        "What are the {cs} of {t} {where}?",
        "Show the {c} and the {d} of the {t} {where}.",
    ),
    count=(
        "How many {t} are there?",
        "Count the {t}.",
        "What is the number of {t}?",
        "How many rows are in {t}",
    ),
    count_where=(
        "How many {t} are there {where}?",
        "Count the {t} {where}.",
        "What is the number of {t} {where}?",
        "How many {t} {where} are there",
        "How many {t} are {where}?",
        "Tell me how many {t} there are {where}",
    ),
    aggregates=(
        "What is the {word} {n} of all {t}?",
        "Find the {word} {n} of the {t}.",
        "Show the {word} {n} in {t}",
        "Give me the {word} {n} for all {t}",
    ),
    aggregates_where=(
        "What is the {word} {n} of {t} {where}?",
        "Find the {word} {n} of the {t} {where}.",
        "Show the {word} {n} for {t} {where}",
        "Calculate the {word} {n} of all {t} {where}",
    ),
    top=(
        "Show the {k} {t} with the {extreme} {n}.",
        "Which {k} {t} have the {extreme} {n}?",
        "List the {k} {t} with the {extreme} {n}",
        "Give me {k} {t} with the {extreme} {n}",
    ),
    top_column=(
        "Show the {c} of the {k} {t} with the {extreme} {n}.",
        "What are the {cs} of the {k} {t} with the {extreme} {n}?",
        "List the {cs} of the {k} {t} that have the {extreme} {n}",
    ),
    top_one=(
        "Which {one} has the {extreme} {n}?",
        "Show the {one} with the {extreme} {n}.",
        "What is the {one} with the {extreme} {n}",
    ),
    top_one_column=(
        "What is the {c} of the {one} with the {extreme} {n}?",
        "Show the {c} of the {one} with the {extreme} {n}",
        "Give me the {c} of the {one} that has the {extreme} {n}.",
    ),
    top_by=("Show the top {k} {t} by {n}.", "Top {k} {t} by {n}", "List the top {k} {t} by {n}"),
    sorted_rows=(
        "Show all {t} sorted by {c}{direction}.",
        "List the {t} ordered by {c}{direction}",
        "Sort all {t} by {c}{direction}",
        "Give me all {t}, sorted by their {c}{direction}",
    ),
    per_group=(
        "How many {t} are there per {c}?",
        "Count the {t} for each {c}.",
        "Show the number of {t} per {c}",
        "How many {t} does each {c} have?",
    ),
    aggregate_per_group=(
        "What is the {word} {n} per {c} in {t}?",
        "Show the {word} {n} of {t} for each {c}.",
        "Give me the {word} {n} of the {t} per {c}",
        "Find the {word} {n} of {t} by {c}",
    ),
    distinct=(
        "What different {cs} are there in {t}?",
        "List the distinct {cs} of {t}.",
        "Show every different {c} in {t}",
        "Which different {cs} do the {t} have?",
    ),
    text_equals=(
        "whose {c} is {v}",
        "with {c} {v}",
        "where the {c} is {v}",
        "with the {c} {v}",
        'whose {c} is "{v}"',
        "where {c} is {v}",
        "that have the {c} {v}",
    ),
    number_compares={
        ">": (
            "with a {c} over {v}",
            "whose {c} is greater than {v}",
            "with {c} above {v}",
            "where the {c} is more than {v}",
            "with a {c} of more than {v}",
            "that have a {c} above {v}",
            "where {c} is higher than {v}",
        ),
        "<": (
            "with a {c} under {v}",
            "whose {c} is less than {v}",
            "with {c} below {v}",
            "where the {c} is less than {v}",
            "with a {c} of less than {v}",
            "that have a {c} below {v}",
            "where {c} is lower than {v}",
        ),
        ">=": ("with a {c} of at least {v}", "whose {c} is at least {v}", "where the {c} is {v} or more"),
        "<=": ("with a {c} of at most {v}", "whose {c} is at most {v}", "where the {c} is {v} or less"),
        "=": ("with a {c} of {v}", "whose {c} is {v}", "where the {c} is {v}", "with {c} {v}"),
    },
)

HELD_OUT = Phrases(
    all_rows=("Show me all the {t}.", "Give me a list of all {t}."),
    columns=("Show me the {cs} of all {t}.", "I want to see the {c} and the {d} of all {t}."),
    rows_where=(
        "Show me the {t} {where}.",
        "Find every one of the {t} {where}.",
        "Please list all {t} {where}.",
    ),
    columns_where=("Tell me the {c} of the {t} {where}.", "Show me the {cs} and {ds} of all {t} {where}."),
    count=("How many {t} do we have?", "Tell me the number of {t}."),
    count_where=("How many {t} do we have {where}?", "Count all the {t} {where}."),
    aggregates=("Tell me the {word} {n} of the {t}.", "What's the {word} {n} in {t}?"),
    aggregates_where=(
        "Tell me the {word} {n} of the {t} {where}.",
        "What's the {word} {n} of all {t} {where}?",
    ),
    top=("Find the {k} {t} with the {extreme} {n}.", "Show me the {k} {t} that have the {extreme} {n}."),
    top_column=("Give me the {cs} of the {k} {t} with the {extreme} {n}.",),
    top_one=("Find the {one} with the {extreme} {n}.", "Which {one} is the one with the {extreme} {n}?"),
    top_one_column=("Tell me the {c} of the {one} with the {extreme} {n}.",),
    top_by=("What are the top {k} {t} by {n}?", "Give me the top {k} {t} by {n}."),
    sorted_rows=("Show me all the {t} sorted by {c}{direction}.", "Order the {t} by {c}{direction}."),
    per_group=("Give me the number of {t} for each {c}.", "For each {c}, how many {t} are there?"),
    aggregate_per_group=(
        "Tell me the {word} {n} of the {t} for each {c}.",
        "For each {c}, what is the {word} {n} of the {t}?",
    ),
    distinct=("Show me the different {cs} of the {t}.", "Which distinct {cs} are in {t}?"),
    text_equals=("where the {c} equals {v}", "that have {c} {v}", "whose {c} is '{v}'"),
    number_compares={
        ">": ("with a {c} greater than {v}", "whose {c} is above {v}", "that have a {c} over {v}"),
        "<": ("with a {c} less than {v}", "whose {c} is below {v}", "that have a {c} under {v}"),
        ">=": ("that have a {c} of at least {v}",),
        "<=": ("that have a {c} of at most {v}",),
        "=": ("where the {c} equals {v}", "that have a {c} of {v}"),
    },
)

# Wordings without the name of the column. Both splits use these; tables and values still differ.
NATURAL = {
    "city": ("in {v}", "from {v}"),
    "country": ("in {v}", "from {v}"),
    "department": ("in the {v} department",),
    "genre": ("in the {v} genre", "of the genre {v}"),
    "category": ("in the {v} category", "in the category {v}"),
    "author": ("by {v}", "written by {v}"),
    "artist": ("by {v}",),
    "director": ("by {v}", "directed by {v}"),
    "destination": ("to {v}",),
    "owner": ("owned by {v}",),
    "status": ("with status {v}", "that are {v}"),
    "brand": ("made by {v}", "from the brand {v}"),
}
# "with more than 40 pages": for number columns that are plural words.
NATURAL_COUNTS = {
    ">": ("with more than {v} {c}", "that have more than {v} {c}"),
    "<": ("with fewer than {v} {c}", "with less than {v} {c}"),
    ">=": ("with at least {v} {c}",),
    "<=": ("with at most {v} {c}",),
    "=": ("with {v} {c}", "that have exactly {v} {c}"),
}
NATURAL_NUMBERS: dict[str, dict[str, Sequence[str]]] = {
    "age": {">": ("older than {v}", "over {v} years old"), "<": ("younger than {v}", "under {v} years old")},
    "price": {">": ("that cost more than {v}", "more expensive than {v}"), "<": ("cheaper than {v}",)},
    "salary": {">": ("who earn more than {v}", "that earn over {v}"), "<": ("who earn less than {v}",)},
    "year": {">": ("after {v}", "from after {v}"), "<": ("before {v}", "from before {v}"), "=": ("from {v}",)},
    "rating": {">": ("rated above {v}",), "<": ("rated below {v}",)},
    "weight": {">": ("heavier than {v}",), "<": ("lighter than {v}",)},
}
AGGREGATES = {
    "average": "AVG",
    "mean": "AVG",
    "highest": "MAX",
    "maximum": "MAX",
    "largest": "MAX",
    "lowest": "MIN",
    "minimum": "MIN",
    "smallest": "MIN",
    "total": "SUM",
}
EXTREMES = {"highest": "DESC", "largest": "DESC", "biggest": "DESC", "lowest": "ASC", "smallest": "ASC"}
DIRECTIONS = {"": "", " in ascending order": "", " in descending order": " DESC", ", highest first": " DESC"}
INSTRUCTIONS = (
    "",
    "",
    "",
    "",
    "Question: ",
    "Write a SQL query: ",
    "Write SQL for this question: ",
    "SQL for: ",
)
HELD_OUT_INSTRUCTIONS = ("", "", "", "Write the SQL query. ")
