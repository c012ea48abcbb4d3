"""The method on SmolLM2 and DINOv2 weights and on pictures, all out of ordinary packages."""
