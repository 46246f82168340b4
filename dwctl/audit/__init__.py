"""Who changed what, from where: written by triggers in the change's own transaction, read by administrators.

Table: `audit_log` (only appended; the duty `purge_audit_log` deletes what is past `audit.retention_days`). Entry points: `stamping` tells the
database who acts (the triggers of migrations 0018 and 0031 write nothing where nobody does), `noting` writes what no trigger sees, `reading` finds entries, `exporting` streams them.
Invariants: a change and its entry are committed together or not at all; no secret is in an entry, only that it was set or changed.
A new administrative table is attached in its migration: `SELECT audit_table('tool_sources', 'tool_source', name_column => 'name')`, and its
actions get their sentences in docs/audit.md.
"""
