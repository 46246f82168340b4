"""The names of roles, as the API and the settings write them. What each may do is in `access.permissions`."""

ROLES = (
    "PlatformManager",
    "StandardUser",
    "RequestViewer",
    "BillingManager",
    "BatchAPIUser",
    "ConnectionsUser",
)
