"""What happened: each call written down once, with its charge.

Tables: http_analytics (the request log, partitioned by day), usage_deltas (what each call adds to the sums that the room `usage` keeps), batch_usage.
Entry points: `recorder` (group commit of tracking rows, log rows, charges and balances), `spool` (records while the database is away),
`duties` (partitions ahead, retention).
Invariants: one request id, one log row, one charge; what a client holds an id of is committed, or fsynced to the spool, before it is answered.
"""
