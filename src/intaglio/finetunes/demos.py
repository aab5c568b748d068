"""The demo adapters that come with the package: public finetunes that every account can use.

Each is a folder with adapter_config.json, adapter_model.safetensors and card.json. They are checked against the base at
every start like an upload. If one fails, the server does not start: that is a fault of the package.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

import msgspec

from intaglio.demo_adapters import CARD_FILE
from intaglio.errors import AdapterError
from intaglio.finetunes.records import ADAPTER_FILES, Finetune, FinetuneVersion, StoredFile, SuggestedUse
from intaglio.lora.peft.reader import AdapterLimits, read_peft_adapter
from intaglio.model.config import ModelConfig

DEMO_ACCOUNT = "intaglio"
DEMO_NAME_PREFIX = "intaglio-"  # reserved, so that a demo never hides an account's own finetune


class DemoCard(msgspec.Struct, frozen=True):
    """The fields of card.json that are shown; a card may have more."""

    name: str
    description: str
    example_prompt: str
    suggested: SuggestedUse | None = None


def read_demo_adapters(folder: Path, model: str, config: ModelConfig, limits: AdapterLimits) -> list[Finetune]:
    """All demo adapters below `folder`, checked, by name. Raises AdapterError naming the broken one."""
    cards = sorted(folder.glob(f"*/{CARD_FILE}"))
    return [_read_demo(card, model, config, limits) for card in cards]


def _read_card(path: Path) -> DemoCard:
    try:
        return msgspec.json.decode(path.read_bytes(), type=DemoCard)
    except (msgspec.MsgspecError, ValueError) as error:
        texts = ", ".join(DemoCard.__struct_fields__[:3])
        raise AdapterError(
            f"{path.name} is not a JSON object with the texts {texts}, and perhaps suggested: {error}"
        ) from error


def _read_demo(card_path: Path, model: str, config: ModelConfig, limits: AdapterLimits) -> Finetune:
    folder = card_path.parent
    try:
        card = _read_card(card_path)
        adapter = read_peft_adapter(folder, config, limits)
    except AdapterError as error:
        raise AdapterError(f"demo adapter {folder.name}: {error}") from error
    except OSError as error:
        raise AdapterError(f"demo adapter {folder.name}: its files cannot be read: {error}") from error
    if not card.name.startswith(DEMO_NAME_PREFIX):
        raise AdapterError(f"demo adapter {folder.name}: its name {card.name!r} lacks the prefix {DEMO_NAME_PREFIX!r}")
    made_at = datetime.fromtimestamp(card_path.stat().st_mtime, UTC)
    files = {name: _stored_file(folder / name, made_at) for name in ADAPTER_FILES}
    return Finetune(
        id=str(uuid5(NAMESPACE_URL, f"intaglio:demo-adapter:{card.name}")),
        account=DEMO_ACCOUNT,
        name=card.name,
        model=model,
        description=card.description,
        public=True,
        created_at=made_at,
        modified_at=made_at,
        current=FinetuneVersion(1, adapter.digest, folder, files),
        candidate=None,
        example_prompt=card.example_prompt,
        suggested=card.suggested,
    )


def _stored_file(path: Path, made_at: datetime) -> StoredFile:
    with path.open("rb") as file:
        return StoredFile(hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size, made_at)
