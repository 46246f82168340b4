"""Batches: a file of requests, run once each within a window.

    routes -> creation (checks, capacity, one row and a notification) -> duties (populate) -> the worker -> the recorder's functions (count, end)
    routes -> changes (cancel, retry, delete: one row) -> duties (the lines follow)

Tables: batches, batch_models, finished_lines of the queue (written by `queue/batches.sql` only), `batch_capacity_reservations` here.
Entry points: `routes.py`; `creation.py` and `changes.py`, which others call too; `duties.py`. What a batch looks like, and its status, is made in
`batch_object.py` alone.

Invariants: a batch counts against its models' headroom from its own commit on. No request reads or changes a number of rows that grows with a batch.
Counters, stamps and the lines of the files change in the transaction that ends the lines.
"""
