"""Organisations: accounts that several people act for; who belongs to one, in which role, and who has been invited.

An organisation is a row of `users` with the type organization; members and invitations are rows of `user_organizations` (both tables are
identity's, which must know them to say who calls). Entry points: `accounts`, `members`, `invitations`, `domains` (who comes by trusted
header), `departures` (what ends with a person or an organisation), `rights` (the rules of the routes).

Invariants, whatever happens at once: an organisation that exists has an active owner, and nobody is an active member of more organisations than
`organizations.max_per_user`. Whatever changes a membership locks the organisation first and the person after it (`locks`), then looks.
Keys of an organisation end with the membership of the person who made them.
"""
