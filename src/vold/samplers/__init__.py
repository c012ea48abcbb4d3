"""Samplers: one file per backend, one Protocol (`vold.types.Sampler`)."""
