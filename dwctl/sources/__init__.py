"""Connections to external sources of files: objects are listed, read and run as batches, each once.

Tables: `connections`, `sync_operations`, `sync_entries`. Entry points: `routes.py` (an account's own), `syncing.py` (a worker's jobs:
`listing`, `ingesting`, `activating`), `duties.py`. A kind of source implements `provider.py`; S3 does, in `s3.py`.

Invariants: no transaction is open while a source is waited for; a credential is neither shown nor logged; an object that was taken is not
taken again unless somebody says so, whatever dies (docs/decisions/0028).
"""
