"""Files of an lmms-eval task. They are copied beside its questions and run in lmms-eval's own environment."""
