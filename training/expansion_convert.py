"""Run llama.cpp's converter on one folder, in a process of its own: it changes sys.path and imports every architecture it knows.

The converter recognises a tokenizer's way of splitting text by a hash over one sample, so it refuses every tokenizer that
somebody trained, though it splits as Qwen's does. Here the splitting itself is compared: where a byte-level BPE tokenizer has
exactly the pattern of one that llama.cpp implements, that one's name is written; any other tokenizer stays refused.

    python -m training.expansion_convert --converter DIR --model DIR --out FILE --type f16|bf16|f32|q8_0
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import Any

EXIT_TOKENIZER = 5
#: tokenizer.json's split patterns -> llama.cpp's name of the same splitting (src/llama-vocab.cpp)
_QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPLITS = {_QWEN: "qwen2", _QWEN.replace(r"|\p{N}|", r"|\p{N}{1,3}|"): "llama-bpe"}


def splitting(tokenizer_json: dict[str, Any]) -> str | None:
    """llama.cpp's name for how a byte-level BPE tokenizer splits text; None when it is none of those that are known."""
    if tokenizer_json.get("model", {}).get("type") != "BPE":
        return None
    top = tokenizer_json.get("pre_tokenizer") or {}
    steps = top.get("pretokenizers", [top])
    *before, last = steps
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space"):
        return None
    if not before:
        return "gpt-2" if last.get("use_regex", True) else None
    one = before[0]
    is_plain = len(before) == 1 and one.get("type") == "Split" and one.get("behavior") == "Isolated" and not one.get("invert")
    if not is_plain or last.get("use_regex", True):
        return None
    return SPLITS.get(str(one.get("pattern", {}).get("Regex", "")))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("converter", "model", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--type", required=True, choices=("f16", "bf16", "f32", "q8_0"))
    asked = parser.parse_args()
    # its own copy of `gguf` before the pinned package of that name, which knows fewer architectures under the same version number
    sys.path[:0] = [str(asked.converter.resolve()), str(asked.converter.resolve() / "gguf-py")]
    base = importlib.import_module("conversion.base")
    known = base.TextModel.get_vocab_base_pre

    def get_vocab_base_pre(self: Any, tokenizer: Any) -> str:
        try:
            return str(known(self, tokenizer))
        except NotImplementedError:
            found = splitting(json.loads((asked.model / "tokenizer.json").read_text(encoding="utf-8")))
            if found is None:
                raise
            print(f"tokenizer not known by its hash; it splits as {found}", flush=True)
            return found

    base.TextModel.get_vocab_base_pre = get_vocab_base_pre
    sys.argv = ["convert_hf_to_gguf.py", "--outfile", str(asked.out), "--outtype", asked.type, str(asked.model)]
    try:
        importlib.import_module("convert_hf_to_gguf").main()
    except NotImplementedError as error:
        print(error, file=sys.stderr, flush=True)
        return EXIT_TOKENIZER
    return 0


if __name__ == "__main__":
    sys.exit(main())
