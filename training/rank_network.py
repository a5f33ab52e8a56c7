"""The small network of the feature reranker: a perceptron with one hidden layer over the signals of each candidate, trained listwise.

Loss: cross-entropy between the softmax of a list's scores and its grades (ListNet: Cao et al., ICML 2007). Stopped at the epoch
with the best nDCG@10 on other questions. Several networks from different seeds are averaged, by laying them side by side as one.
Called by training.reranker; what comes out is numpy (core.retrieval.rank_features).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from core.retrieval.metrics import ndcg_at
from core.retrieval.rank_features import Layers

NUM_EPOCHS = 40
BATCH = 64
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 0.05
DROPOUT = 0.1
OUT_OF_LIST = -1e9


@dataclass(frozen=True, slots=True)
class Network:
    """Centre and scale of the signals, the layers, and mean nDCG@10 of the tuning lists after and before."""

    centre: np.ndarray
    scale: np.ndarray
    layers: Layers
    quality: float
    quality_before: float


def learn_network(
    signals: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    tuning: Sequence[np.ndarray],
    tuning_labels: Sequence[np.ndarray],
    *,
    num_hidden: int,
    num_networks: int,
    seed: int,
) -> Network:
    """`signals` are (candidates, features) per list, `labels` (candidates,) grades with at least one above 0."""
    every = np.concatenate(signals)
    centre, scale = every.mean(axis=0), every.std(axis=0) + 1e-6
    values, mask = _padded(signals, centre, scale)
    others, other_mask = _padded(tuning, centre, scale)
    wanted = torch.zeros(mask.shape)
    for row, found in enumerate(labels):
        wanted[row, : len(found)] = torch.from_numpy(found / found.sum())
    nets = [_one(values, mask, wanted, others, other_mask, tuning_labels, num_hidden, seed + i) for i in range(num_networks)]
    layers = _side_by_side([(net[0], net[-1]) for net in nets])  # type: ignore[misc]
    with torch.no_grad():
        scores = torch.stack([net(others).squeeze(-1) for net in nets]).mean(0)
    unchanged = -torch.arange(others.shape[1]).expand(len(others), -1).float()
    return Network(centre, scale, layers, _quality(scores, tuning_labels), _quality(unchanged, tuning_labels))


def _one(
    values: torch.Tensor,
    mask: torch.Tensor,
    wanted: torch.Tensor,
    others: torch.Tensor,
    other_mask: torch.Tensor,
    other_labels: Sequence[np.ndarray],
    num_hidden: int,
    seed: int,
) -> nn.Sequential:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(values.shape[2], num_hidden), nn.ReLU(), nn.Dropout(DROPOUT), nn.Linear(num_hidden, 1))
    optimizer = torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    best, best_state = -1.0, {name: value.clone() for name, value in net.state_dict().items()}
    for _ in range(NUM_EPOCHS):
        net.train()
        for rows in torch.randperm(len(values)).split(BATCH):  # type: ignore[no-untyped-call]
            scores = net(values[rows]).squeeze(-1).masked_fill(~mask[rows], OUT_OF_LIST)
            loss = -(wanted[rows] * torch.log_softmax(scores, dim=1)).sum(1).mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        net.eval()
        with torch.no_grad():
            quality = _quality(net(others).squeeze(-1).masked_fill(~other_mask, OUT_OF_LIST), other_labels)
        if quality > best:
            best, best_state = quality, {name: value.clone() for name, value in net.state_dict().items()}
    net.load_state_dict(best_state)
    return net.eval()


def _padded(lists: Sequence[np.ndarray], centre: np.ndarray, scale: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    width = max((len(one) for one in lists), default=1)
    values = torch.zeros((len(lists), width, len(centre)))
    mask = torch.zeros((len(lists), width), dtype=torch.bool)
    for row, one in enumerate(lists):
        values[row, : len(one)] = torch.from_numpy(((one - centre) / scale).astype(np.float32))
        mask[row, : len(one)] = True
    return values, mask


def _quality(scores: torch.Tensor, labels: Sequence[np.ndarray]) -> float:
    """Mean nDCG@10 of the lists, by what is in them."""
    found = []
    for row, grades in zip(scores.numpy(), labels, strict=True):
        order = np.argsort(-row[: len(grades)], kind="stable")
        found.append(ndcg_at([str(i) for i in order], {str(i): float(grade) for i, grade in enumerate(grades)}) or 0.0)
    return float(np.mean(found)) if found else 0.0


def _side_by_side(pairs: Sequence[tuple[nn.Linear, nn.Linear]]) -> Layers:
    """Networks as one wide network whose output is their mean."""
    hidden = [(first.weight.detach().numpy(), first.bias.detach().numpy()) for first, _ in pairs]
    last = [(second.weight.detach().numpy() / len(pairs), second.bias.detach().numpy() / len(pairs)) for _, second in pairs]
    one = (np.concatenate([w for w, _ in hidden]), np.concatenate([b for _, b in hidden]))
    two = (np.concatenate([w for w, _ in last], axis=1), np.sum([b for _, b in last], axis=0))
    return one, two
