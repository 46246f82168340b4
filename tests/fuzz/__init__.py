"""A fuzzer of our own: odd requests and odd answers through every surface and mode, and the rules that hold whatever comes.

A run is a seed and a number of cases; a case is made from both alone, so it can be run again by itself. `asks` makes what a caller sends,
`answers` what the upstream says to it, `run` sends, waits and looks for broken rules. By hand: `python -m tests.fuzz --help`.
"""
