"""Marking answers: by rules, or from what an LLM judge extracts; what is done about golds that cannot be marked."""
