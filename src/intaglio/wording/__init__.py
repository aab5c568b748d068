"""The words of refusals: a field, its value and the bound in one sentence, and the name that was probably meant.

Does not know HTTP, the command line or any schema of ours. Every message about a field is made here, so that all
routes, settings and commands say the same fault in the same words.
"""

from __future__ import annotations

from intaglio.wording.fields import at, missing, place_of, shown, shown_name, wrong_type
from intaglio.wording.similar import did_you_mean, similar_names

__all__ = ["at", "did_you_mean", "missing", "place_of", "shown", "shown_name", "similar_names", "wrong_type"]
