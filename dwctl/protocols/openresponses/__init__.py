"""The Responses API, spoken for upstream servers that only know chat/completions.

    request.py     a request: checked, and turned into a chat completion's
    tools.py       its tools and the choice among them: sent, left out, refused, shown
    custom_tools.py  tools that take free text, as functions with one text argument
    items.py       input and output items, and their identifiers
    resource.py    the one complete Response object, from its skeleton to its end
    from_row.py    the same object made of a stored row, whatever the row holds
    events.py      the frames of a stream
    stream.py      a chat stream turned into Response events
    replay.py      a finished Response as the stream that it would have been
    passthrough.py for upstream servers that speak the Responses API themselves

The published schema (2026-04-24) and OpenAI's own SDK are both kept to; where they differ, what they differ in is written down
beside the tests.
"""
