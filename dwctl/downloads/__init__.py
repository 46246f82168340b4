"""What comes out of batches, as JSON lines: output and error files, results, and files as they came.

Nothing is stored here: lines are made by PostgreSQL (`queries.sql`, and `output_line`, `error_line` in `queue/batches.sql`) from the rows of
requests and templates, in pages. Each page is a transaction of its own, so that no connection and no snapshot is held while a client reads.

Entry points: `routes` (`/ai/v1/files/{id}/content`, `/ai/v1/batches/{id}/results`), `sources` (what an id leads to, checked before an
answer begins), `pages` (a page, and all of them).

Invariants: a line has a place that never changes (`finished_lines`), and a place is read only after it is committed, so whoever goes on
at X-Last-Line gets each line once. An error after the first byte breaks the answer off; it never ends as if it were whole.
"""
