"""The demo world: a small bilingual medical world that the toy model is trained on. Pure, deterministic, no advice to anybody.

`load_world` reads assets/demo/world; `prompts` makes the demo dataset; `pretraining_texts` and `sft_answer` make what the
demo base and SFT versions learn from; `world_terms` lists the phrases that the lexicons must know.
"""

from core.demo_world.cases import Case, case_of
from core.demo_world.samples import Defects, pretraining_texts, prompts, sft_answer
from core.demo_world.terms import Terms, phrases, world_terms
from core.demo_world.world import GUIDELINES, World, load_world

__all__ = [
    "GUIDELINES",
    "Case",
    "Defects",
    "Terms",
    "World",
    "case_of",
    "load_world",
    "phrases",
    "pretraining_texts",
    "prompts",
    "sft_answer",
    "world_terms",
]
