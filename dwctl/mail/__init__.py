"""Mail to people: written down in the transaction that wants it sent, sent by a duty afterwards.

Table: `outgoing_mails`. Entry point: `outbox.put`. Invariants: a request never waits for a mail server, and its answer does not depend on one;
what a mail says (it may hold a link that lets somebody in) is sealed while it waits, and gone when it has been sent.
"""
