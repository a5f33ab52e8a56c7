"""The small question writer: an encoder-decoder that can copy words of the passage (a pointer-generator), as plain functions.

Names of diseases and drugs are rare words, so a model trained on a few thousand pairs can spell hardly any of them; it can
learn to point at them. Every next piece is therefore drawn from a mixture: the vocabulary (question words, words that go with
the passage's subject) or a position of the passage, whose piece is copied (See, Liu and Manning, ACL 2017; here with
transformer layers). A piece outside the vocabulary has a hashed embedding, so that it keeps its identity inside the model.

Pure: weights are a dict of tensors, the functions know nothing of files. torch is imported inside functions only. Called by
training.doc2query (learning) and core.retrieval.writers (writing).
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.retrieval.tokens import CJK

if TYPE_CHECKING:
    from torch import Tensor

    Weights = dict[str, Tensor]

#: One CJK character, a number, a word (with its hyphens and apostrophes), or a mark.
PIECE = re.compile(rf"[{CJK}]|\d+(?:\.\d+)?|[^\W\d_{CJK}]+(?:['’-][^\W_{CJK}]+)*|[^\w\s]")
PAD, START, END = 0, 1, 2
NUM_SPECIAL = 3
#: embeddings shared by the pieces outside a vocabulary
NUM_HASHED = 2000
NO_SPACE_BEFORE = set(".,?!;:)]}%'’/")
NO_SPACE_AFTER = set("([{/'’")
IS_CJK = re.compile(rf"[{CJK}\u3000-\u303f\uff00-\uffef]")


def pieces(text: str) -> list[str]:
    """What the model reads and writes, in lower case and in order."""
    return [piece.lower() for piece in PIECE.findall(unicodedata.normalize("NFKC", text))]


def capitals(text: str) -> dict[str, str]:
    """How pieces that `text` never writes in lower case are written in it, so that a copied name keeps its capitals."""
    found: dict[str, str] = {}
    for piece in PIECE.findall(unicodedata.normalize("NFKC", text)):
        lower = piece.lower()
        if piece == lower or lower in found:
            found[lower] = min(found.get(lower, piece), piece) if piece != lower else lower
        else:
            found[lower] = piece
    return {lower: piece for lower, piece in found.items() if piece != lower}


def join(written: Sequence[str]) -> str:
    """Text of pieces: no spaces inside Chinese, none before a closing mark."""
    text = ""
    for piece in written:
        last = text[-1:]
        tight = not text or piece in NO_SPACE_BEFORE or last in NO_SPACE_AFTER or IS_CJK.match(piece) or IS_CJK.match(last)
        text += piece if tight else " " + piece
    return text[:1].upper() + text[1:]


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a writer. `num_hashed` embeddings are shared by the pieces outside the vocabulary."""

    vocabulary: int
    width: int = 128
    num_heads: int = 4
    encoder_layers: int = 2
    decoder_layers: int = 1
    num_hashed: int = NUM_HASHED
    max_source: int = 128
    max_target: int = 24


class Vocabulary:
    """Pieces the model can write without copying. Ids: 3 special ones, the pieces, then hashed ids for everything else."""

    def __init__(self, known: Sequence[str], num_hashed: int) -> None:
        self.known = list(known)
        self.num_hashed = num_hashed
        self.id_of = {piece: NUM_SPECIAL + i for i, piece in enumerate(self.known)}

    def __len__(self) -> int:
        return NUM_SPECIAL + len(self.known)

    def embedded(self, piece: str) -> int:
        """The row of the embedding table."""
        found = self.id_of.get(piece)
        return found if found is not None else len(self) + zlib.crc32(piece.encode()) % self.num_hashed

    @staticmethod
    def learn(questions: Iterable[Sequence[str]], passages: Iterable[Sequence[str]], size: int, num_hashed: int) -> Vocabulary:
        """The `size` most frequent pieces; one in a question weighs as much as ten in a passage. Single ones are left out."""
        counts: Counter[str] = Counter()
        for row in questions:
            for piece in row:
                counts[piece] += 10
        for row in passages:
            counts.update(row)
        ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        return Vocabulary([piece for piece, n in ranked[:size] if n > 10], num_hashed)


@dataclass(frozen=True, slots=True)
class Source:
    """A passage as the model sees it: embedding rows and copy ids (vocabulary id, or `len(vocabulary) + i` for `extra[i]`)."""

    rows: list[int]
    copies: list[int]
    extra: list[str]

    @staticmethod
    def of(vocabulary: Vocabulary, passage: Sequence[str]) -> Source:
        """Of a passage's pieces, cut to the model's length by the caller. An empty passage becomes one END."""
        extra: dict[str, int] = {}
        rows, copies = [], []
        for piece in passage:
            rows.append(vocabulary.embedded(piece))
            copies.append(vocabulary.id_of.get(piece) or len(vocabulary) + extra.setdefault(piece, len(extra)))
        return Source(rows or [END], copies or [END], list(extra))


def initial_weights(shape: Shape, seed: int) -> Weights:
    """Random weights, float32, drawn from `seed` alone."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    width = shape.width
    weights: Weights = {}

    def linear(name: str, rows: int, columns: int, scale: float = 1.0) -> None:
        weights[name] = torch.randn(rows, columns, generator=generator) * (scale * columns**-0.5)

    def block(name: str, attentions: Sequence[str]) -> None:
        for kind in attentions:
            for part in ("q", "k", "v", "o"):
                linear(f"{name}.{kind}.{part}", width, width, 0.5 if part == "o" else 1.0)
            weights[f"{name}.{kind}.norm"] = torch.ones(width)
        linear(f"{name}.up", 2 * width, width)
        linear(f"{name}.down", width, 2 * width, 0.5)
        weights[f"{name}.norm"] = torch.ones(width)

    linear("embedding", shape.vocabulary + shape.num_hashed, width)
    linear("position.source", shape.max_source, width, 0.3)
    linear("position.target", shape.max_target + 1, width, 0.3)
    linear("before", width, width)
    linear("after", width, width)
    for layer in range(shape.encoder_layers):
        block(f"encoder.{layer}", ["self"])
    for layer in range(shape.decoder_layers):
        block(f"decoder.{layer}", ["self", "cross"])
    for name in ("memory", "output"):
        weights[f"{name}.norm"] = torch.ones(width)
    linear("copy.q", width, width)
    linear("copy.k", width, width)
    linear("gate", 1, width)
    weights["bias"] = torch.zeros(shape.vocabulary)
    return weights


def encode(weights: Weights, shape: Shape, rows: Tensor, *, dropout: float = 0.0) -> Tensor:
    """Memory (B, S, D) of embedding rows (B, S) padded with PAD. Every position also sees its neighbours' embeddings:
    the decoder, having copied a piece, finds the next one by the piece before it."""
    import torch.nn.functional as F

    e = F.embedding(rows, weights["embedding"])
    x = e + F.pad(e, (0, 0, 1, 0))[:, :-1] @ weights["before"].T + F.pad(e, (0, 0, 0, 1))[:, 1:] @ weights["after"].T
    x = F.dropout(x + weights["position.source"][: rows.shape[1]], dropout, dropout > 0)
    visible = (rows != PAD)[:, None, None, :]
    for layer in range(shape.encoder_layers):
        name = f"encoder.{layer}"
        h = _norm(x, weights[f"{name}.self.norm"])
        keys, values = (_heads(weights[f"{name}.self.{part}"], shape.num_heads, h) for part in "kv")
        x = x + _attend(weights, f"{name}.self", shape.num_heads, h, keys, values, visible, dropout)
        x = x + _feed(weights, name, x, dropout)
    return _norm(x, weights["memory.norm"])


def prepared(weights: Weights, shape: Shape, memory: Tensor) -> list[Tensor]:
    """What every step of `decode` needs of the memory, computed once: keys and values of each layer, keys for copying."""
    found: list[Tensor] = []
    for layer in range(shape.decoder_layers):
        found += [_heads(weights[f"decoder.{layer}.cross.{part}"], shape.num_heads, memory) for part in "kv"]
    return [*found, memory @ weights["copy.k"].T]


def decode(
    weights: Weights,
    shape: Shape,
    inputs: Tensor,
    memory: list[Tensor],
    rows: Tensor,
    past: list[Tensor] | None = None,
    *,
    dropout: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    """Vocabulary probabilities (B, T, V), copy attention (B, T, S), probability of copying (B, T), and the new past.

    `memory` comes from `prepared`. `inputs` (B, T) are embedding rows of the pieces so far; with `past` (per layer keys and
    values of earlier steps, (B, heads, t, D / heads)) only the new ones are given. `rows` (B, S) is the source, for its padding.
    """
    import torch
    import torch.nn.functional as F

    start = 0 if past is None else past[0].shape[2]
    length = inputs.shape[1]
    x = F.embedding(inputs, weights["embedding"]) + weights["position.target"][start : start + length]
    x = F.dropout(x, dropout, dropout > 0)
    source_visible = (rows != PAD)[:, None, None, :]
    causal = torch.ones(length, start + length, dtype=torch.bool).tril(start)[None, None]
    kept: list[Tensor] = []
    for layer in range(shape.decoder_layers):
        name = f"decoder.{layer}"
        h = _norm(x, weights[f"{name}.self.norm"])
        both = [_heads(weights[f"{name}.self.{part}"], shape.num_heads, h) for part in "kv"]
        if past is not None:
            both = [torch.cat([past[2 * layer + i], new], 2) for i, new in enumerate(both)]
        kept += both
        x = x + _attend(weights, f"{name}.self", shape.num_heads, h, both[0], both[1], causal, dropout)
        h = _norm(x, weights[f"{name}.cross.norm"])
        x = x + _attend(weights, f"{name}.cross", shape.num_heads, h, memory[2 * layer], memory[2 * layer + 1], source_visible, dropout)
        x = x + _feed(weights, name, x, dropout)
    x = F.dropout(_norm(x, weights["output.norm"]), dropout, dropout > 0)
    logits = x @ weights["embedding"][: shape.vocabulary].T + weights["bias"]
    scores = (x @ weights["copy.q"].T) @ memory[-1].transpose(1, 2) * shape.width**-0.5
    copying = scores.masked_fill((rows == PAD)[:, None, :], -1e9).softmax(-1)
    return logits.softmax(-1), copying, torch.sigmoid(x @ weights["gate"].T)[..., 0], kept


def loss(weights: Weights, shape: Shape, rows: Tensor, copies: Tensor, inputs: Tensor, targets: Tensor, dropout: float) -> Tensor:
    """Mean negative log-likelihood in nats per piece. `targets` (B, T): copy ids, PAD where there is nothing to predict.

    A target that is neither in the vocabulary nor in the passage cannot be written, and is left out.
    """
    memory = prepared(weights, shape, encode(weights, shape, rows, dropout=dropout))
    words, copying, gate, _ = decode(weights, shape, inputs, memory, rows, dropout=dropout)
    is_word = targets < shape.vocabulary
    word = words.gather(-1, targets.clamp_max(shape.vocabulary - 1)[..., None])[..., 0] * is_word
    copied = (copying * (copies[:, None, :] == targets[..., None])).sum(-1)
    likelihood = (1 - gate) * word + gate * copied
    counted = (targets != PAD) & (likelihood > 0)
    return -(likelihood.clamp_min(1e-9).log() * counted).sum() / counted.sum().clamp_min(1)


def mixture(words: Tensor, copying: Tensor, gate: Tensor, copies: Tensor, num_ids: int) -> Tensor:
    """Probabilities (B, num_ids) of the next piece over vocabulary and copied extras, from one step of `decode`."""
    import torch

    found = torch.zeros(len(words), num_ids)
    found[:, : words.shape[1]] = words * (1 - gate)[:, None]
    return found.scatter_add_(1, copies, copying * gate[:, None])


def _norm(x: Tensor, weight: Tensor) -> Tensor:
    import torch.nn.functional as F

    return F.rms_norm(x, (x.shape[-1],), weight, 1e-6)


def _heads(weight: Tensor, num_heads: int, x: Tensor) -> Tensor:
    """(B, heads, T, D / heads)"""
    return (x @ weight.T).view(*x.shape[:2], num_heads, -1).transpose(1, 2)


def _attend(
    weights: Weights, name: str, num_heads: int, x: Tensor, keys: Tensor, values: Tensor, visible: Tensor, dropout: float
) -> Tensor:
    import torch.nn.functional as F

    found = F.scaled_dot_product_attention(_heads(weights[f"{name}.q"], num_heads, x), keys, values, attn_mask=visible)
    return F.dropout(found.transpose(1, 2).flatten(2) @ weights[f"{name}.o"].T, dropout, dropout > 0)


def _feed(weights: Weights, name: str, x: Tensor, dropout: float) -> Tensor:
    import torch.nn.functional as F

    h = F.gelu(_norm(x, weights[f"{name}.norm"]) @ weights[f"{name}.up"].T)
    return F.dropout(h @ weights[f"{name}.down"].T, dropout, dropout > 0)
