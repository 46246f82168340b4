"""Who people are: users, groups, organisations, API keys, login sessions.

Tables: users, user_roles, groups, user_groups, user_organizations, api_keys, login_sessions, sign_in_attempts.
Entry points: `authentication` (credential to Caller), `routes/` (sign-in and the admin API of these resources), `bootstrap` (the first
administrator, the Everyone group, the system user).
Invariants: the nil UUID is the system user and the Everyone group; a secret is shown once and kept as its SHA-256; a deleted user or
organisation keeps its rows and loses every way in.
"""
