"""What an operator looks at: is it alive, is it ready, how busy is it, and where is everything.

Entry points: `health` (`/healthz`, `/readyz`), `metrics` (`/internal/metrics`), `pages` (`/`). `measured` counts requests in front of the
application; `siblings` adds up the numbers of the processes of one gunicorn. Web and worker processes register the same blueprints.
No tables. Everything here reads what other rooms keep anyway; nothing here may slow a call down.
"""
