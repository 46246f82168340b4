"""Batches: a file of requests, run once each within a window."""
