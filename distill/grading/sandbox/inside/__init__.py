"""What runs inside a sandbox. It imports the standard library and the two modules of `isolation` that need no others.

`distill.grading.sandbox.start` sends these modules into the sandbox as code: no file of distill is there.
"""
