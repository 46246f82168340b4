"""What a call costs and who has paid.

Tables: credits_transactions (the ledger: append-only, unique by source), user_balance_checkpoints (the balance, changed in the ledger's own
transaction), model_tariffs.
Entry points: `money` and `tariffs` (exact arithmetic; pick a tariff, price a usage; pure), `price_list` (the tariffs of a model as rows),
`ledger` (grant, remove, balance, reconcile), `statements` (pages of the ledger with the running balance), `routes` (transactions).
Invariants: money is Decimal and numeric, never a float; an amount is positive and its type gives the sign; the balance of an account is the
signed sum of its ledger rows at every commit.
"""
