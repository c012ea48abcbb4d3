"""The demo world: problems over handwritten digits, the three small models that ship with it, and their recipe."""
