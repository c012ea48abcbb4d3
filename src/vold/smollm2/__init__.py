"""An experiment with real models and pictures, all out of packages. `python -m vold.smollm2.build` makes the models."""
