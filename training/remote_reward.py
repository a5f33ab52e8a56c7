"""Our reward for OpenRLHF and verl, which run in environments of their own: this one file, standard library only, is copied there.

It asks POST /api/reward of a running Consilium. Where it is and with which token is read from the environment:

    CONSILIUM_URL       http://127.0.0.1:8765
    CONSILIUM_TOKEN     from POST /api/session (docs/scaling_training.md); ends like any sign-in
    CONSILIUM_UNSCORED  what an answer without a score counts as; left out, it raises (neither trainer can leave a row out)

OpenRLHF: `--reward.remote_url /path/remote_reward.py --data.label_key sample_id`. verl: `custom_reward_function.path=...`, with
the sample id in `extra_info`. See docs/scaling_training.md for what was and was not run.
"""

from __future__ import annotations

import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

#: end-of-turn and padding tokens that a decoded response may end with
END = re.compile(r"(?:\s*(?:<\|[^<>|]*\|>|</s>|<pad>|<eos>))+\s*$")
TRIES, PAUSE_S, TIMEOUT_S = 5, 2.0, 180.0


def reward_func(queries: Sequence[str], prompts: Sequence[str], labels: Sequence[Any], **_kwargs: Any) -> dict[str, Any]:
    """What OpenRLHF calls: `queries` are prompt and response in one text with special tokens, `labels` our sample ids.

    A response without an end token was cut off. Raises RuntimeError for an answer without a score (see the module).
    """
    responses = [query[len(prompt) :] if query.startswith(prompt) else query for query, prompt in zip(queries, prompts, strict=True)]
    body: dict[str, Any] = {
        "completions": [END.sub("", response) for response in responses],
        "finish_reasons": ["stop" if END.search(response) else "length" for response in responses],
    }
    body |= {"sample_ids": [int(label) for label in labels]} if all(_is_id(label) for label in labels) else {"prompts": list(prompts)}
    rewards = _tensor(ask(body))
    return {"rewards": rewards, "scores": rewards, "extra_logs": {}}


def compute_score(data_source: str, solution_str: str, ground_truth: Any, extra_info: dict[str, Any] | None = None, **_kw: Any) -> float:
    """What verl calls, once per response. `extra_info["sample_id"]` names the prompt; without it `extra_info["prompt"]` is its text."""
    known = extra_info or {}
    body: dict[str, Any] = {"completions": [solution_str]}
    body |= {"sample_ids": [int(known["sample_id"])]} if _is_id(known.get("sample_id")) else {"prompts": [str(known["prompt"])]}
    return ask(body)[0]


def ask(body: dict[str, Any]) -> list[float]:
    """The rewards. Tries again while the server is away or the teacher has no verdict; never puts a zero in its place."""
    unscored = os.environ.get("CONSILIUM_UNSCORED", "")
    found: list[float | None] = []
    for attempt in range(TRIES):
        if attempt:
            time.sleep(PAUSE_S * 2 ** (attempt - 1))
        try:
            answer = _post(body)
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code != 429:
                raise RuntimeError(f"/api/reward: {error.code} {error.read().decode(errors='replace')[:300]}") from error
            continue
        except (urllib.error.URLError, TimeoutError):
            continue
        found = answer["rewards"]
        if answer["num_unscored"] == 0 or unscored:
            return [float(unscored) if value is None else float(value) for value in found]
        if not any(str(reason).startswith("teacher_") for reason in answer["unscored_reasons"]):
            break  # asking again would not help
    raise RuntimeError("/api/reward gave no score; set CONSILIUM_UNSCORED to a low number to go on all the same")


def _post(body: dict[str, Any]) -> dict[str, Any]:
    address = os.environ.get("CONSILIUM_URL", "http://127.0.0.1:8765").rstrip("/") + "/api/reward"
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {os.environ['CONSILIUM_TOKEN']}"}
    request = urllib.request.Request(address, json.dumps(body).encode(), headers)  # noqa: S310 - an address that the operator sets
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310
        answer: dict[str, Any] = json.load(response)
    return answer


def _is_id(value: Any) -> bool:
    return isinstance(value, int) or (isinstance(value, str) and value.isdigit())


def _tensor(values: list[float]) -> Any:
    """OpenRLHF wants a tensor; where there is no torch the list itself."""
    try:
        import torch
    except ImportError:
        return values
    return torch.tensor(values)
