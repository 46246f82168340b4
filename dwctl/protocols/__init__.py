"""Wire formats: what callers and upstream servers say to each other, as pure functions of plain values.

No database, no Flask and no sockets in here: bytes and dicts go in, bytes and dicts come out.

    surfaces.py       one Surface for each protocol that callers speak: what it allows, checks, sends and renders. Begin here
    asked.py          one request, read once; modes.py: tier, stream, background
    treatments.py     how a call is sent and its answer treated: the seam between the relay and the formats
    disclosure.py     what a caller may see of an upstream's error
    failures.py       how a request can fail, whether a retry helps, and how a stored failure reads
    usage.py          token counts: read, completed, estimated
    rows.py           a stored request as plain values
    errors.py         what a caller did wrong, and what an upstream did
    shapes.py         checks of JSON shapes that name the offending field
    json_objects.py   objects that can be read and written again; splice.py: change top-level members of a JSON text
    forms.py          what chat/completions, completions and embeddings differ in, as data
    chat.py           their requests: what strict mode accepts, what goes upstream
    answers.py        their complete answers: identifier, alias, strict and sanitised treatment
    assembly.py       a complete answer put together from a stream's chunks, and a stream made of a complete answer
    streaming.py      what all treatments of streams share: limits, and the usage at the end
    chat_stream.py    the same treatment as `answers`, chunk by chunk
    held_streams.py   the streams of calls that somebody else runs: what is said before, between and behind their kept events
    numbered.py       a stream's events by their numbers
    openresponses/    the Responses API: request, the one Response object, its events
"""
