"""The OpenAI-compatible routes: chat completions, completions, models.

Translates their requests and responses; everything between the two is `inference`.
"""
