"""Measuring: `evaluate` over task sets and benchmarks, with `marking/` by rules or an LLM judge; paired comparisons and
statistics; `preflight` (`vold check`), `overlap` (`vold align`), `engine_check`.
`study/` runs arms and seeds and decides claims; `bridges/` exchange files with VLMEvalKit and lmms-eval.
"""
