"""Models from the Hugging Face hub: a reference such as `hf:google/gemma-7b-it` becomes files in the hub's own cache.

Only files that are needed are fetched; interrupted ones are resumed, and each is checked by its hash. The library
`huggingface_hub` is an extra and imported when a reference is first used. Knows nothing of what is done with the files.
"""

from intaglio.hub.fetch import fetch_model
from intaglio.hub.progress import DownloadProgress, LineProgress
from intaglio.hub.reference import HubReference, is_hub_reference, parse_hub_reference

__all__ = [
    "DownloadProgress",
    "HubReference",
    "LineProgress",
    "fetch_model",
    "is_hub_reference",
    "parse_hub_reference",
]
