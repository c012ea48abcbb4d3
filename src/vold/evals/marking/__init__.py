"""Marking answers: by rules, or from what an LLM judge extracts; golds that do not grade themselves are left out."""
