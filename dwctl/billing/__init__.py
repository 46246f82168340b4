"""What a call costs and who has paid.

Tables: credits_transactions (the ledger: append-only, unique by source), user_balance_checkpoints (the balance, changed in the ledger's own
transaction, and what of it is reserved), credit_reservations (for which calls), api_key_spend (what keys with a cap have spent), model_tariffs.
Entry points: `money` and `tariffs` (exact arithmetic; pick a tariff, price a usage; pure), `price_list` (the tariffs of a model as rows),
`ledger` (grant, remove, balance), `reservations` (hold what a call may cost), `functions.sql` (what calls hold and let go), `statements`
(pages of the ledger with the running balance), `verification` (does it all add up?), `routes` (transactions).
Invariants, at every commit: money is Decimal and numeric, never a float; an amount is positive and its type gives the sign; the balance of an
account is the signed sum of its ledger rows; what is reserved of it, or of a cap, is the sum of the reservations that say so, and was there
when they were made; what a capped key has spent is the sum of its entries since the cap's window began.
"""
