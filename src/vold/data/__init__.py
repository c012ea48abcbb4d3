"""Data as others publish it: rows from any container, pictures in any form. Benchmarks and training sets share it."""
