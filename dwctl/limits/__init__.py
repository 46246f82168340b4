"""How fast, and how many at once: limits that hold over all processes on one database.

    demands (what a call may be refused by) --take--> permit --give_back--> nothing left

Tables, unlogged, after a crash of the database empty: `limit_states` has a row for each key, model or component that is limited: two token
buckets (calls; LLM tokens) and the number of calls that run. `limit_holds` says which process holds what of them for which call.
Both are written by one function, `exchange_limits` (`functions.sql`): what a process gives back and what it wants, all or nothing for each
call, by the database's clock, rows locked in one order. `limiter.py` makes groups of what a process's calls want at the same time, as the
recorder does. A call without limits never comes here.

A hold belongs to a process (`fusillade.daemons`): when that is dead, or has not beaten for `daemons.dead_after`, its places are free.
"""
