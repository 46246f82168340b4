"""What the queue does, for operators and owners: processes, pending requests, requests of all batches, a batch's progress.

No tables. Nothing here counts what may be millions: batches bring their counts with them (`batch_models`), of single requests those that wait
are few, and lists go along keys. What could still be slow is bounded in time, and is then an estimate, or left out.

Entry points: `routes` (`/ai/v1/daemons`, `/ai/v1/batches/{id}/progress`, `/admin/api/v1/monitoring/pending-request-counts`,
`/admin/api/v1/batches/requests`), `queue_depth` (what `operations` shows by model on the metrics page).
"""
