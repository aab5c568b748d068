"""The OpenAPI document: what `/openapi.json` says of every route.

A route names its operation, and the operation is described here under that name. Schemas of bodies and responses come
from the declarations beside the routes; tests check every response against the document. Serves nothing itself.
"""
