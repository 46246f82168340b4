"""The files API under `/ai/v1/files`."""
