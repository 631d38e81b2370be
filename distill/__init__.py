"""distill: make small reasoning models by distillation.

A teacher's chains of thought are sampled, the correct and readable ones kept, a student trained on them and measured.
The command line is `distill`; each stage's pure core can be imported.
"""

__version__ = "0.1.0"
