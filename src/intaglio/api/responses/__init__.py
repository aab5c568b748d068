"""OpenAI's Responses API: a body becomes one of chat completions, and the completion its items or events. A stored
response can be read, continued and deleted.

Knows the two forms and what is stored of a response; sampling, tools, structured output and streaming are those of the
other OpenAI-compatible routes.
"""
