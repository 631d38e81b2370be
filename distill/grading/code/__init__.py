"""Programs as answers: the program in an answer, its tests, and what they say of it.

What is expected never enters the sandbox in which a program runs (`distill.grading.sandbox`); outputs and results are
compared outside it. Without a sandbox nothing runs, and programs are ungraded.
"""
