"""LoRA adapters of llama.cpp, as `convert_lora_to_gguf.py` writes them: one GGUF file with tensors and scaling.

    general.type, adapter.type      "adapter", "lora"
    general.architecture            gemma, gemma2 or gemma3
    adapter.lora.alpha              scaling of a module: alpha / its rank. 0, or no such key, is a scaling of 1
    blk.N.attn_q.weight.lora_a      [rank, in], PEFT's A; also attn_k, attn_v, attn_output, ffn_gate, ffn_up, ffn_down
    blk.N.attn_q.weight.lora_b      [out, rank], PEFT's B

For a Gemma the converter neither permutes rows nor changes values, except norms, which llama.cpp does not use. The
tensors may be quantized. The converter drops rsLoRA, patterns of alpha and DoRA: what the file says is what is served.
Source: ggml-org/llama.cpp, convert_lora_to_gguf.py and src/llama-adapter.cpp.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intaglio.errors import AdapterError, ModelFormatError
from intaglio.files.safetensors_header import STORED_DTYPES, TensorEntry
from intaglio.lora.peft.config import PeftConfig
from intaglio.model.weights.dequantize import dequantize
from intaglio.model.weights.formats import RawTensor
from intaglio.model.weights.gguf import GgufFile, read_gguf
from intaglio.model.weights.names import LINEAR_LAYERS

SUFFIX = ".gguf"

_ARCHITECTURES = ("gemma", "gemma2", "gemma3")
_NAME = re.compile(rf"blk\.(0|[1-9][0-9]{{0,5}})\.({'|'.join(LINEAR_LAYERS)})\.weight\.lora_([ab])")
_PREFIX = "base_model.model."
_REFUSED = (
    ("token_embd", "is a LoRA on the embedding, which llama.cpp applies to a tied head too. Upload PEFT's files of it"),
    ("output.", "is a LoRA on the head, which llama.cpp has not for a Gemma. Upload PEFT's files of it"),
    ("_norm", "is a norm, which llama.cpp does not use. Upload PEFT's files of it"),
)


class GgufAdapter:
    """An open adapter under PEFT's names, with the methods of `SafetensorsFile`. The constructor raises AdapterError.

    label         names the file in messages; its own name by default
    entries       the tensors by PEFT's names; their byte offsets are those in the file's data, not used here
    config        the same settings in PEFT's terms
    architecture  "gemma", "gemma2" or "gemma3"
    """

    def __init__(self, path: Path, max_bytes: int, label: str | None = None) -> None:
        self._label = label or path.name
        try:
            size = path.stat().st_size
            if size > max_bytes:
                raise self._fault(f"has {size} bytes; the limit is {max_bytes} (max_adapter_file_bytes)")
            file = read_gguf(path)
        except OSError as error:
            raise self._fault(f"cannot be read: {error.strerror}") from error
        except ModelFormatError as error:
            raise AdapterError(str(error).replace(str(path), self._label)) from error
        self.architecture = self._check_kind(file)
        self._raw = {self._peft_name(name): raw for name, raw in file.tensors.items()}
        self.entries = {
            name: TensorEntry(name, raw.dtype, raw.shape, 0, raw.data.nbytes) for name, raw in self._raw.items()
        }
        self.config = self._config(file.metadata)

    def __enter__(self) -> GgufAdapter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._raw.clear()  # the mapping ends with its last view

    def read(self, name: str) -> NDArray[np.float32]:
        """One tensor as float32. Raises AdapterError when a value is not finite."""
        raw = self._raw[name]
        try:
            return np.array(dequantize(raw), np.float32).reshape(raw.shape)
        except ModelFormatError as error:
            raise self._fault(f"{error}; the training diverged or the file is damaged") from error

    def read_rows(self, name: str, first: int, last: int) -> NDArray[np.float32]:
        """Rows first ... last - 1 of a matrix, like `read`."""
        return self.read(name)[first:last]

    def check_family(self, family: str) -> None:
        """Raise AdapterError if the base is of another family."""
        if self.architecture != family:
            raise self._fault(f"general.architecture is {self.architecture!r}; the base model here is a {family}")

    def raw(self, name: str) -> RawTensor:
        """The tensor as it is stored."""
        return self._raw[name]

    def with_own_names(self, message: str) -> str:
        """A message about PEFT's names with those of this file."""
        for name, raw in self._raw.items():
            message = message.replace(repr(name), repr(raw.name))
        return message

    def _check_kind(self, file: GgufFile) -> str:
        metadata = file.metadata
        if metadata.get("general.type") != "adapter":
            raise self._fault(
                f"general.type is {metadata.get('general.type', 'model')!r}, not 'adapter': a whole model is served "
                "with --model ID=FILE.gguf; an adapter is made by llama.cpp's convert_lora_to_gguf.py"
            )
        if metadata.get("adapter.type") != "lora":
            raise self._fault(f"adapter.type is {metadata.get('adapter.type')!r}; lora is served")
        if metadata.get("adapter.alora.invocation_tokens"):
            raise self._fault("adapter.alora.invocation_tokens asks for activated LoRA, which is not served")
        architecture = metadata.get("general.architecture")
        if architecture not in _ARCHITECTURES:
            raise self._fault(f"general.architecture is {architecture!r}; {', '.join(_ARCHITECTURES)} are served")
        return str(architecture)

    def _peft_name(self, name: str) -> str:
        match = _NAME.fullmatch(name)
        if match is None:
            what = next((what for part, what in _REFUSED if part in name), "is not a LoRA weight of a Gemma layer")
            raise self._fault(f"tensor {name!r} {what}")
        layer, module, half = match.groups()
        return f"{_PREFIX}model.layers.{layer}.{LINEAR_LAYERS[module]}.lora_{half.upper()}.weight"

    def _config(self, metadata: Mapping[str, Any]) -> PeftConfig:
        alpha = metadata.get("adapter.lora.alpha", 0.0)
        if type(alpha) not in (int, float) or not math.isfinite(alpha):
            raise self._fault(f"adapter.lora.alpha is {alpha!r}; a finite number is needed")
        ranks = {
            name.removeprefix(_PREFIX).removesuffix(".lora_A.weight"): entry.shape[0]
            for name, entry in self.entries.items()
            if name.endswith(".lora_A.weight") and entry.shape
        }
        rank = Counter(ranks.values()).most_common(1)[0][0] if ranks else 1
        others = {re.escape(path): own for path, own in ranks.items() if own != rank}
        return PeftConfig(
            r=rank,
            lora_alpha=float(alpha) if alpha else float(rank),
            use_rslora=False,
            rank_pattern=others,
            alpha_pattern={} if alpha else {path: float(own) for path, own in others.items()},
            target_modules=tuple(sorted({path.split(".", 3)[3] for path in ranks})),
            exclude_modules=(),
            layers_to_transform=None,
            model_type=None,
            base_model=None,
        )

    def _fault(self, message: str) -> AdapterError:
        return AdapterError(f"{self._label}: {message}")


def gguf_to_peft(
    adapter: GgufAdapter, family: str, write_config: Callable[[bytes], None], write_weights: Callable[[bytes], None]
) -> None:
    """Write the adapter as PEFT's two files. Float tensors keep their type, quantized ones become float32.

    family  of the base. Raises AdapterError if it is not the adapter's, or a value of a quantized tensor is not finite.
    """
    adapter.check_family(family)
    config = adapter.config
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": config.r,
        "lora_alpha": config.lora_alpha,
        "rank_pattern": dict(config.rank_pattern),
        "alpha_pattern": dict(config.alpha_pattern),
        "target_modules": list(config.target_modules),
    }
    write_config(json.dumps(settings, indent=2).encode())
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, entry in adapter.entries.items():
        dtype = entry.dtype if entry.dtype in STORED_DTYPES else "F32"
        stop = start + math.prod(entry.shape) * STORED_DTYPES[dtype].itemsize
        header[name] = {"dtype": dtype, "shape": list(entry.shape), "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    write_weights(len(text).to_bytes(8, "little") + text)
    for name, entry in adapter.entries.items():
        raw = adapter.raw(name)
        write_weights((raw.data if entry.dtype in STORED_DTYPES else adapter.read(name)).tobytes())
