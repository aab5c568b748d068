"""The Workers AI API over HTTP: one FastAPI application in front of the loaded models and the adapter store."""

from __future__ import annotations
