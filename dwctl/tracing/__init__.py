"""Traces: spans of what happens to a request here, exported to a collector (OTLP over HTTP) where that is switched on.

`tracer` makes spans, `exporting` sends them beside the calls, `traceparent` is the header, `setup` makes a tracer where the settings want
one. OpenTelemetry's libraries are imported then and only then; everywhere else `tracer` is None, and that one look is all that a call pays.
"""
