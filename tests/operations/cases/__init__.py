"""A call of every documented operation: each function here has an operation's id for its name, takes the World and gives the answer.

One module for each room; a new room adds its own, and an operation without a case fails `test_every_operation.py`. The answer is expected
to be a success; a function with the attribute `refused` (see `refused`) gets that status.
"""
