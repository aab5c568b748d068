"""The fields of chat completions and completions, those of other servers included: what each of them does here."""

from intaglio.api.openai.fields.field import Field, Route, Treatment
from intaglio.api.openai.fields.table import FIELDS, fields_of, markdown_rows

__all__ = ["FIELDS", "Field", "Route", "Treatment", "fields_of", "markdown_rows"]
