"""The native routes that run a model: one prompt, streamed or whole, and batches; the models that can be asked.

From a body, query and options to an `EngineRequest`, and from its tokens to a response. Knows no OpenAI shapes.
"""
