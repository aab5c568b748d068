"""The native routes that run a model: one prompt, streamed or whole, and batches; the models that are listed.

From a body, query and options to a running request, and from its text to a response. Knows no OpenAI shapes.
"""
