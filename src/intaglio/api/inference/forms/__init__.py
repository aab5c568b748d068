"""The form of a completion: JSON, tool calls, or the texts of a grammar; from the fields to the engine and back."""
