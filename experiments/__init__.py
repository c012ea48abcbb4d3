"""What the package was tried with, beside it and not installed with it: run from the root of a checkout.

Makers of the models that ship with it, teachers with a planted flaw and figures for studies, a world on real
pretrained models, and the fuzzer of graders and marking rules.
"""
