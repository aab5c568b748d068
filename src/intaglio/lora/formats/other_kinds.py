"""Says what a file is that came in place of `adapter_model.safetensors`, from its first bytes, and what to do."""

from __future__ import annotations

NUM_BYTES = 512  # that `describe` looks at

_PICKLE = (
    "is a pickle, as torch.save writes adapter_model.bin; it is never read, since unpickling can run any code. Save it "
    "as safetensors: PeftModel.from_pretrained(base, folder).save_pretrained(new_folder)"
)
_GGUF = (
    "is a GGUF file; send a GGUF adapter under a name that ends in .gguf, alone, as "
    "`intaglio adapters upload FILE.gguf` does. A whole model is served with --model ID=FILE.gguf"
)

_PACKED = "is {}; unpack it and send the files that it holds"
_PAGE = "is a web page; download the file itself (on the Hugging Face hub: resolve/main, not blob/main)"
_JSON = "is a JSON text, not weights; it may be adapter_config.json under the wrong name"
_KINDS = (
    (b"gguf", _GGUF),
    *((bytes([0x80, protocol]), _PICKLE) for protocol in range(2, 6)),
    (b"\x1f\x8b", _PACKED.format("compressed with gzip")),
    (b"<!doc", _PAGE),
    (b"<html", _PAGE),
    (b'{"', _JSON),
    (b"{\n", _JSON),
)


def describe(beginning: bytes) -> str | None:
    """What a file with these first bytes is, after its name in a sentence; None if it may be safetensors."""
    # A safetensors file: the length of a header below 2^40 bytes, little endian, and the header, a JSON object. A gzip
    # file without a time has zeros there too.
    if beginning[5:9] == b"\0\0\0{":
        return None
    if beginning.startswith(b"PK\x03\x04"):
        return _PICKLE if b"data.pkl" in beginning else _PACKED.format("a zip archive")
    text = beginning.lstrip().lower()
    return next((kind for magic, kind in _KINDS if text.startswith(magic)), None)
