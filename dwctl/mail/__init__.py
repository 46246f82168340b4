"""Mail to people: written down in the transaction that wants it sent, sent by a worker afterwards.

Table: `outgoing_mails`. Entry points: `outbox.put`, `outbox.composed_by`; the worker runs `sending.Sending`. Invariants: a request never
waits for a mail server, and its answer does not depend on one; no database connection is held while a mail server is waited for; what a
mail says (it may hold a link that lets somebody in) is sealed while it waits, gone when it has been sent, and never in a log line.
"""
