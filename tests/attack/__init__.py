"""The front door under attack: raw requests, slow ones, odd ones, cut ones, the end of a process, and all doors side by side.

`raw.py` is the client, the modules named `*_cases.py` are tables that are meant to grow: one line for each thing that somebody tried.
"""
