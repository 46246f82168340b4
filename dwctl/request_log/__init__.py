"""Reads the request log: lists with filters, one call with its story and its bodies, words in bodies, calls as they are written, downloads.

Tables: none of its own; it reads `http_analytics` (room `analytics`), and the queue's rows for bodies and states. Entry points: `routes`, the command
`dwctl requests`. Invariants: work for one page is bounded in rows, bytes and time, and a page that ends early says so and where it goes on; no
connection is held between pages or while a reader waits; a body that the log does not show (`bodies`) is not found by its words either.
"""
