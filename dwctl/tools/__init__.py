"""Tool sources: servers behind tools that models are offered, and the models and groups that they are attached to.

Tables: `tool_sources`, `deployment_tool_sources`, `group_tool_sources`. Entry points: `sources` (what changes them), `attachments`,
`parameters` (what a tool takes, as a JSON Schema), `routes` (admin API).
Invariants: a call is offered a tool only if it is attached to the model and to a group of the caller; a credential is never shown, and
never sent to another origin than the one that it was given for.
"""
