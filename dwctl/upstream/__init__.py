"""Talking to one inference server over HTTP/1.1: no database, no Flask, no choice of server.

Entry points: `client.UpstreamClient.send` takes a `target.Target` (where, as whom, how long) and bytes, and gives
an answer whose body is read whole or piece by piece; `headers` says which headers pass in either direction;
`sse` turns a body's pieces into events; `errors` is all that can go wrong; `health` remembers which targets fail or want rest. Choosing a target, falling back to
the next one and retrying are the caller's business (`catalog`, `ai`).

Promises:
- A request is sent once. The one exception: where the other side had closed a kept-alive connection before the request
  reached it (it never acknowledged the bytes), the request goes out once more, on a new connection.
- Redirects are not followed, proxies from the environment are not used, TLS certificates are always verified.
- Bodies come out plain (decoded), as they arrive, and a body that was cut short is never taken for a whole one.
- Only addresses that a policy allows are connected to (`addresses`), the very ones that were judged.
- Our credential is hidden in whatever a server says.
- Every wait has a limit and names its phase. A greenlet may be killed in any wait: its connection is then closed,
  never kept half-read.
- Everything belongs to the thread (the gevent hub) that made it, patched or not.

Rooms: `http1`, `coding`, `redaction` and `addresses` are pure, `connections` has the sockets, `client` joins them. `outbound` makes the sessions of
whatever is asked by `requests` instead (lists of models, webhooks): nothing else makes one.
"""
