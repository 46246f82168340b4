"""What was used, added up: calls, tokens, cost and times by account, key, model and status.

Tables: account_rollups, model_rollups (sums by minute, hour, day and of all time), caller_rollups, latency_histograms (not of all time), rollup_grains (since when each is kept).
Entry points: `folding` (deltas into sums), `spans` (which sums make up a time), `aggregates`, `breakdown`, `accounts`, `models` (what is read), `routes`.
Invariants: the recorder writes a delta in the transaction of the log row; folding deletes it in the transaction that adds it; who reads takes
sums and deltas of one snapshot. So every number counts each log row once, whatever runs or has died. The log itself is never read.
"""
