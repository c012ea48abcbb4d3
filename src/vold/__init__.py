"""Move reasoning from a text-only teacher LLM into a vision-language student.

Importing this package is cheap: nothing here imports torch. Import what you need from the modules.
"""

__version__ = "0.1.0"
