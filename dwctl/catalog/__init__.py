"""Which models exist, where they run and who may use them.

Tables: inference_endpoints, deployed_models, deployment_groups, deployed_model_components, model_traffic_rules, provider_display_configs.
Entry points: `snapshot` (the in-process routing value that every call reads), `routing` (alias and caller to Target, pure), `discovery`
(asks an endpoint what it serves), `endpoints`, `listing` (models that follow an endpoint's list) and `models` (what changes them), `access` and `rules` (grants, traffic rules), `search` and
`details` (which models a caller sees, and what of them), `metrics` (how much they are used), `providers` (how providers are shown), `routes` (admin API).
Invariants: an alias is unique among the living models; access goes group by group, never by role; the snapshot is replaced whole.
"""
