"""The worker process: claims queued requests and runs them, and does the duties.

Entry points: `app` (what gunicorn serves: health and metrics), `process` (start and drain), `claims` (claim -> greenlet -> `ai.relay` ->
settle), `duties` (the runner). Any number of workers, on any number of machines; none of them leads.
"""
