"""The doors of this room: organisations, their members, invitations."""
