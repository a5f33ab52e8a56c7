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
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import UserError
from core.expansion.schema import Line
from core.retrieval.tokens import UNIT, both_views, stem, without_question_words

FORMAT = "expansion-terms-1"
WEIGHTS, ABOUT = "terms.npz", "terms.json"
#: a predicted word below this weight is noise
LEAST = 0.1

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Writing:
    """How lines are written from the weights; chosen on held-out questions. `thresholds`: one line for each, of the query's words
    that weigh at least so much; the first line also gets the `num_terms` words that answers use most."""

    thresholds: tuple[float, ...] = (0.8,)
    num_terms: int = 10


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
        chosen = writing or self.writing
        added = self.added(query, chosen.num_terms)
        lines: list[str] = []
        for number, threshold in enumerate(chosen.thresholds):
            kept = self.kept(query, threshold)
            text = " ".join([*kept, *(word for word in added if number == 0 and word not in kept)])
            if text and text not in lines:
                lines.append(text)
        return tuple(Line("lex", text) for text in lines)

    def kept(self, query: str, threshold: float) -> list[str]:
        """The query's words whose weight is at least `threshold`, in their order; all of them when none is."""
        subject = without_question_words(query)
        words = [word for match in UNIT.finditer(subject) for word in self._spans(match[0], bool(match["cjk"]), threshold)]
        return list(dict.fromkeys(words)) or [match[0] for match in UNIT.finditer(subject)]

    def _spans(self, run: str, is_cjk: bool, threshold: float) -> list[str]:
        """A word that weighs enough; of a run of Chinese characters the stretches whose pairs do."""
        if not is_cjk or len(run) == 1:
            token = next(iter(tokens(run)), "")
            return [run] if self.own.get(token, 1.0) >= threshold else []
        spans: list[str] = []
        start = None
        for i in range(len(run)):
            is_kept = i + 1 < len(run) and self.own.get("p" + run[i : i + 2], 1.0) >= threshold
            if is_kept and start is None:
                start = i
            elif not is_kept and start is not None:
                spans.append(run[start : i + 1])
                start = None
        return spans

    def added(self, query: str, number: int) -> list[str]:
        """The words that answers to such a query use, strongest first, without those of the query."""
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
        words = [self.surfaces[i] for i in best if weights[i] >= LEAST]
        return [word for word in words if stem(word) not in held][:number]

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


def load(folder: Path) -> TermModel:
    """Raises UserError("expansion_training.terms_damaged") for a folder that holds no such model."""
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        if about["format"] != FORMAT:
            raise ValueError(about["format"])
        with np.load(folder / WEIGHTS) as arrays:
            own, into, out, bias = (arrays[name] for name in ("own", "into", "out", "bias"))
        writing = Writing(tuple(about["writing"]["thresholds"]), int(about["writing"]["num_terms"]))
        weights = dict(zip(about["own"], own.tolist(), strict=True))
        return TermModel(weights, {name: i for i, name in enumerate(about["features"])}, into, out, bias, about["surfaces"], writing)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError("expansion_training.terms_damaged", path=folder, reason=f"{type(error).__name__}: {error}") from error
