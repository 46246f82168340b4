"""What `dwctl up` stands on: a PostgreSQL of its own, a supervisor for its processes, and a demo upstream.

Nothing here is used in production, where `DATABASE_URL` names the database and the platform runs
the processes. No module of this room imports another room.
"""
