"""Search engines that can stand in for the two channels of an index when it outgrows one machine (docs/scaling.md).

`base` says what an engine must do, `milvus` and `opensearch` do it, `bm25` makes the lexical score the same in all of them, `remote`
searches through one and falls back on the version's own channels. Texts, tables and the channels themselves stay in the
version's folder: an engine is given numbers of entries, hashed tokens and vectors, and answers with numbers.
"""
