"""The request log, as its readers see it."""
