"""What only a GPU can say, in at most ten minutes: `make gpu`, or `python -m benchmarks.gpu`."""
