"""The adapters that come with the package. Each folder has a PEFT adapter and card.json, which describes it."""

from __future__ import annotations

from pathlib import Path

CARD_FILE = "card.json"
ASSISTANT = "intaglio-chat"  # makes the bundled base answer; the playground's chat and `intaglio chat` begin with it

FOLDER = Path(__file__).parent


def demo_adapter_folders() -> dict[str, Path]:
    """The folders, by name."""
    return {card.parent.name: card.parent for card in sorted(FOLDER.glob(f"*/{CARD_FILE}"))}
