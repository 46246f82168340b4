"""The worker process: claims queued requests and runs them, and does the duties.

Entry points: `app` (what gunicorn serves: health and metrics), `process` (start and drain), `claims` (the loop that
claims), `runs` (one request: `ai.relay`, then settled), `duties` (the runner). Any number of workers, on any number of machines; none of them leads.
"""
