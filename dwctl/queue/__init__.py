"""The queue in PostgreSQL: requests that wait for a worker, and the tracking rows of all others (schema `fusillade`).

    pending --claim--> claimed --start--> processing --> completed | failed
       ^                  |                   |
       +---- retry, lost owner (leases) ------+
    pending | claimed | processing --cancel--> canceled

Who may change which state: the owner of a claim (`daemon_id`) moves claimed and processing rows, and only those it owns; anyone may cancel;
terminal rows stay. Delivery is at least once: a request whose worker died runs again, and its charge is unique by its id.
Realtime rows are born final, or in `processing` when their call lasts; they are never run again, because their caller is gone: when their
process dies they end `failed` ("interrupted").

Tables: files, request_templates, batches, requests, daemons are a contract (operators and the acceptance tests write them by hand);
ready, delayed, inflight, queues, model_slots, open_calls, duties are ours: what is due, what waits for its time, what a worker runs, who is
next, how many may run, what a web process runs, which chores are due.
A claim is a lease: it lives as long as its owner's row in `daemons` beats.
"""
