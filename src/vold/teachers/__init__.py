"""Teachers: one file per backend, one Protocol (`vold.types.Teacher`)."""
