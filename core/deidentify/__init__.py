"""Finding what identifies a person in Chinese and English medical text, masking it, and putting consistent surrogates in its place.

Patterns, checksums, word lists and context; no model and no network, so that the door to every outside endpoint can afford it
(the reasons against Presidio in the web process, with figures, stand in docs/privacy.md). `find` and `find_all` detect, `mask`
makes what people may see, `Surrogates` what may be used instead. Pure but for reading the word list once.
Called by `core.importing`, `core.quarantine`, the teacher's door and `core.model_client`.
"""

from core.deidentify.detect import find, find_all
from core.deidentify.findings import KINDS, STRUCTURED, Finding, fingerprint, mask
from core.deidentify.surrogates import Surrogates

__all__ = ["KINDS", "STRUCTURED", "Finding", "Surrogates", "find", "find_all", "fingerprint", "mask"]
