"""A model that is trained, sampled from, scored and saved: `policy`, its chat template, its family and its tokenizer.
What makes it fast or small: packed micro-batches, the LM head chunk by chunk (`lm_head/`), adapters, several processes,
and turns on the device (`place`). `memory` plans what a run needs of a device.
"""
