"""What the queue does, for operators and owners: processes, pending requests, requests of all batches."""
