"""The OpenAI-compatible surface under `/ai/v1`.

Entry points: `front` (a thin WSGI dispatch for the hot POST routes) and `routes` (the same routes and all others in Flask); both call
`lifecycle.answer`, which decides tier, background and stream, and then relays (`relay`) or queues and waits (`held`).
A call with an Idempotency-Key is run, or answered as an earlier one was, by `repeats` (table `idempotency_keys`).
Streams that others may read go through a log (`event_log` writes, `following` reads, `followed` and `resuming` show).
`admission` refuses, before any work is done. The worker runs queued requests through `relay`, in its own process. Within it `attempts` goes
from target to target, by `selection` and `fallback` (pure); `attempt` is one of them, `live` a stream that has begun.
Invariants: an id that a client holds can be fetched at once, from any process; a call that was answered is charged exactly once.
"""
