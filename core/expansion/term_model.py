"""A small model that expands a query by terms: which of its words matter, and which words its answers use. numpy only, about 1 ms.

Two learned parts over the search tokens of `core.retrieval.tokens` (both views): a weight for every token of a query (how much it helps
to find what answers it), and a low-rank map from the query's tokens to tokens of passages, `relu(bag @ U @ O + bias)`. Both are trained so
that BM25 with these weights ranks the passage that answers a question above others (training.expansion_terms; the idea is that of
term-recall prediction, Zhao and Callan 2010, and of learned sparse queries, SPLADE 2021, over an ordinary index). What comes out are
`lex:` lines: the words that matter, the words that answers use. Invariant: a line never holds a word that search would not see.
Called by core.expansion.expander, training.expansion_terms and the benchmark.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import UserError
from core.expansion.schema import Line
from core.retrieval.tokens import UNIT, both_views, stem, without_question_words

FORMAT = "expansion-terms-2"
WEIGHTS, ABOUT = "terms.npz", "terms.json"
#: a predicted word below this weight is noise
LEAST = 0.1

Array = np.ndarray[Any, Any]


#: a word of weight 1 stands so often in a line, one of half the weight half as often: search counts how often a word is asked for
EMPHASIS = 2
MOST = 5


@dataclass(frozen=True, slots=True)
class Writing:
    """How lines are written from the weights; chosen on held-out questions. One line for each number: the query's words by their
    weight, and so many of the words that answers use."""

    num_terms: tuple[int, ...] = (10,)


def tokens(text: str) -> list[str]:
    """Search tokens of both views, told apart: pairs of characters and words ("p"), single Chinese characters ("s")."""
    pairs, lone = both_views(text)
    return ["p" + token for token in pairs] + ["s" + token for token in lone if not token.isascii()]


@dataclass(frozen=True, slots=True)
class TermModel:
    """`own`: token -> weight (1 where absent). `features`: token -> row of `into` (F, W); `out` (W, T), `bias` (T,) give the weights of
    the T passage tokens, written as `surfaces`."""

    own: Mapping[str, float]
    features: Mapping[str, int]
    into: Array
    out: Array
    bias: Array
    surfaces: Sequence[str]
    writing: Writing = Writing()

    def expand(self, query: str, writing: Writing | None = None) -> tuple[Line, ...]:
        """The `lex:` lines of a query, each once; empty for a query without words."""
        kept = self.weighed(query)
        lines: list[str] = []
        for number in (writing or self.writing).num_terms:
            text = " ".join([*kept, *self.added(query, number)])
            if text and text not in lines:
                lines.append(text)
        return tuple(Line("lex", text) for text in lines)

    def weighed(self, query: str) -> list[str]:
        """The query's words, each as often as its weight says; all of them once when none is worth a mention.

        Of a run of Chinese characters the stretches whose pairs weigh enough, once for every step of their weight, then single characters
        where they weigh more than the stretches say: search looks for pairs and for characters.
        """
        runs = dict.fromkeys((m[0], bool(m["cjk"])) for m in UNIT.finditer(without_question_words(query)))
        words: list[str] = []
        for run, is_cjk in runs:
            names = tokens(run)
            if not is_cjk or len(run) == 1:
                words += [run] * self._times(names[0])
                continue
            times = [self._times("p" + run[i : i + 2]) for i in range(len(run) - 1)]
            found = [part for level in range(1, MOST + 1) for part in stretches(run, times, level)]
            held = Counter("".join(found))
            words += found + [c for c in dict.fromkeys(run) for _ in range(self._times("s" + c) - held[c])]
        return words or [run for run, _ in runs]

    def _times(self, token: str) -> int:
        """How often a token is written."""
        return min(MOST, round(EMPHASIS * self.own.get(token, 1.0)))

    def added(self, query: str, number: int) -> list[str]:
        """The `number` words that answers to such a query use, strongest first and as often as they weigh, none of the query's."""
        if not number:
            return []
        asked = tokens(query)
        rows = [self.features[token] for token in dict.fromkeys(asked) if token in self.features]
        if not rows:
            return []
        hidden = self.into[rows].sum(0) / np.sqrt(len(rows))
        weights = np.maximum(hidden @ self.out + self.bias, 0)
        best = np.argsort(-weights, kind="stable")[: number + len(asked)]
        held = {stem(token[1:]) for token in asked}
        chosen = [i for i in best if weights[i] >= LEAST and stem(self.surfaces[i]) not in held][:number]
        return [self.surfaces[i] for i in chosen for _ in range(max(1, min(MOST, round(EMPHASIS * float(weights[i])))))]

    def save(self, folder: Path) -> None:
        """terms.npz and terms.json."""
        names = list(self.own)
        own = np.array([self.own[name] for name in names], dtype=np.float32)
        np.savez_compressed(folder / WEIGHTS, own=own, into=self.into, out=self.out, bias=self.bias)
        about = {
            "format": FORMAT,
            "own": names,
            "features": list(self.features),
            "surfaces": list(self.surfaces),
            "writing": asdict(self.writing),
        }
        (folder / ABOUT).write_text(json.dumps(about, ensure_ascii=False), encoding="utf-8")


def stretches(run: str, times: Sequence[int], level: int) -> list[str]:
    """The longest parts of a run whose pairs of neighbours are all written at least `level` times; `times` has one less than `run`."""
    found: list[str] = []
    start = None
    for i in range(len(run)):
        is_kept = i < len(times) and times[i] >= level
        if is_kept and start is None:
            start = i
        elif not is_kept and start is not None:
            found.append(run[start : i + 1])
            start = None
    return found


def load(folder: Path) -> TermModel:
    """Raises UserError("expansion_training.terms_damaged") for a folder that holds no such model."""
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        if about["format"] != FORMAT:
            raise ValueError(about["format"])
        with np.load(folder / WEIGHTS) as arrays:
            own, into, out, bias = (arrays[name] for name in ("own", "into", "out", "bias"))
        writing = Writing(tuple(about["writing"]["num_terms"]))
        weights = dict(zip(about["own"], own.tolist(), strict=True))
        return TermModel(weights, {name: i for i, name in enumerate(about["features"])}, into, out, bias, about["surfaces"], writing)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError("expansion_training.terms_damaged", path=folder, reason=f"{type(error).__name__}: {error}") from error
