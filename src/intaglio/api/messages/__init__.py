"""Anthropic's Messages API: a body becomes one of chat completions, and the completion its blocks or events.

Knows the two forms; sampling, tools, structured output and streaming are those of the OpenAI-compatible routes.
"""
