"""Wire formats: what callers and upstream servers say to each other, as pure functions of plain values.

No database, no Flask, no clock and no sockets in here: bytes and dicts go in, bytes and dicts come out.

    splice.py         change top-level members of a JSON text and pass the rest on as it is
    errors.py         what a caller did wrong; OpenAI's error envelope; what upstream errors are replaced by
    usage.py          token counts, read leniently from any answer
    shapes.py         checks of JSON shapes that name the offending field
    chat.py           requests for chat/completions, completions and embeddings: validate, prepare for the upstream
    answers.py        complete answers of the same endpoints: identifier, alias, strict and sanitised treatment
    assembly.py       a complete answer put together from a stream's chunks, and a stream made of a complete answer
    chat_stream.py    the same treatment as `answers`, chunk by chunk
    openresponses/    the Responses API: request, the one Response object, its events
"""
