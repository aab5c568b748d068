"""The native routes: running a model, streamed or not, batches, and the list of models.

From a body, query and options to a running request, and from its text to a response. Does not know OpenAI's shapes.
"""
