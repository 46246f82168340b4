"""The queue in PostgreSQL: requests that wait for a worker, and the tracking rows of all others (schema `fusillade`).

    pending --claim--> claimed --start--> processing --> completed | failed
       ^                  |                   |
       +-- retry, given back (waits) ---------+
    claimed | processing --third loss--> failed (WorkerLost)
    pending --deadline--> failed (DeadlinePassed)
    pending | claimed | processing --cancel--> canceled

Who may change which state: the owner of a claim (`daemon_id`) moves claimed and processing rows, and only those it owns; anyone may cancel;
terminal rows stay. Delivery is at least once: a request whose worker died runs again, after a wait, and its charge is unique by its id.
Whoever gives a request back counts it (`times_lost`), unless it ends in good order; the third loss is the last.
Realtime rows are born final, or in `processing` when their call lasts. When their process dies they end `failed` (Interrupted), because
their caller is gone; those in the background of which nothing was shown are run by a worker, once. An owner that turns out to be alive may
overwrite its own Interrupted.
What has been shown of a stream (`response_chunks`) is not run again: its request ends Interrupted.
What the queue itself ends goes to `unrecorded`, from where a duty of `analytics` writes its log row, and its charge as far as it is known.

Tables: files, request_templates, batches, requests, daemons are a contract (operators and the acceptance tests write them by hand);
ready, delayed, inflight, queues, model_slots, open_calls, unrecorded, duties, response_chunks are ours: what is due, what waits for its time, what a worker
runs, who is next, how many may run, what a web process runs and its last words, what is still to be recorded, which chores are due, what streams have said.
All that writes requests, and what belongs to them, is functions of the database, with their present text in `functions.sql`.
A claim is a lease: it lives as long as its owner's row in `daemons` beats.
"""
