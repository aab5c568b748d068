"""JSON schemas made ready for enforcement: `enforceable_schema` writes a schema in the few keywords that the grammar
library takes literally, all of whose texts the given schema allows. Knows no grammar, request or model."""

from intaglio.json_schema.compiler import enforceable_schema

__all__ = ["enforceable_schema"]
