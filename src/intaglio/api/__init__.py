"""The Workers AI API over HTTP: one FastAPI application in front of the loaded models and the finetune store.

    http <- aliases, background_verification, state <- model_names <- inference <- openai, binding
            finetunes, account, health beside inference;  messages, responses above openai;  openapi above them;
            app and startup on top

Imports run from right to left only; tests/test_architecture.py enforces it. The playground is static files.
"""

from __future__ import annotations
