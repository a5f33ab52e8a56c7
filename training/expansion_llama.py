"""llama.cpp at work on an exported file, by any Python in which llama-cpp-python is built: it needs nothing else, not even this project.

    PYTHON training/expansion_llama.py check FILE.gguf      texts on stdin -> token ids and greedy answers on stdout
    PYTHON training/expansion_llama.py quantise IN OUT TYPE K-quants (Q4_K_M, Q5_K_M, Q6_K)

Started by the export job with the Python of the setting llama_python; one JSON object goes in, one comes out.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time
from typing import Any


def check(file: str, asked: dict[str, Any]) -> dict[str, Any]:
    """Token ids of each rendered prompt; the ids that llama.cpp writes after it at temperature 0 (end token included); and how often
    it would choose the next token of a given answer, shown that answer so far.

    `asked`: prompts (rendered texts), answers (ids), max_new_tokens, eos (ids that end an answer), num_ctx.
    """
    import llama_cpp
    import numpy as np

    model = llama_cpp.Llama(model_path=file, n_ctx=asked["num_ctx"], n_threads=1, verbose=False, seed=0)

    def choice() -> int:
        logits = llama_cpp.llama_get_logits_ith(model.ctx, -1)
        return int(np.ctypeslib.as_array(logits, shape=(model.n_vocab(),)).argmax())

    rows = []
    for text, given in zip(asked["prompts"], asked["answers"], strict=True):
        ids = model.tokenize(text.encode("utf-8"), add_bos=False, special=True)
        num_same = 0
        model.reset()
        model.eval(ids)
        for token in given:
            num_same += choice() == token
            model.eval([token])
        written: list[int] = []
        started = time.perf_counter()
        if len(ids) + asked["max_new_tokens"] <= asked["num_ctx"]:
            for token in model.generate(ids, temp=0.0, repeat_penalty=1.0, reset=True):
                written.append(int(token))
                if token in asked["eos"] or len(written) == asked["max_new_tokens"]:
                    break
        rows.append({"prompt": [int(i) for i in ids], "num_same": num_same, "answer": written, "seconds": time.perf_counter() - started})
    return {"rows": rows, "version": llama_cpp.__version__}


def quantise(source: str, target: str, kind: str) -> dict[str, Any]:
    """Write `target` in a K-quant. llama.cpp keeps another type for rows that are no multiple of 256."""
    import llama_cpp

    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}")
    code = llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(parameters))
    return {"code": int(code), "version": llama_cpp.__version__}


if __name__ == "__main__":
    answer = quantise(*sys.argv[2:5]) if sys.argv[1] == "quantise" else check(sys.argv[2], json.load(sys.stdin))
    print(json.dumps(answer))
