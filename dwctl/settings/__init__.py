"""How settings are written, read and bounded; which there are is said in `dwctl.config`.

Entry points: `sources.read` (what is written where), `schema.build` (dataclasses to what loads and checks them), `bounds.BOUNDS` (between what
each number must lie), `obsolete`, `kinds` (durations, lists, networks and how they are written), `mail_addresses`, `example.text` (a file with all of them).
Promises: only this room reads the YAML file and the variables; no value that may be a secret is quoted in an error.
"""
