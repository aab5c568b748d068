"""The OpenAPI document: what `/openapi.json` tells of every route.

A route names its operation, and the operation is described here under that name. Bodies are checked by the very schemas
that stand in the document; the shapes of answers stand only here, and the tests hold every answer against them.
"""
