"""The guard at every door: who calls (`caller`), what a role may do (`permissions`), and the rule on each route (`guard`).

No tables here: who turns a credential into a Caller is registered by the identity room (`guard.init_app`).
"""
