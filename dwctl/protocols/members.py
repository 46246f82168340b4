"""The top-level members of requests by which the gateway judges, routes, changes, bills or stores them, on any surface."""

from __future__ import annotations

from dwctl.protocols import chat
from dwctl.protocols.openresponses import request
from dwctl.protocols.spelling import Names

# What is read where no list of members is: by modes, by the surface of /responses, and by what is told of a stored request.
_ELSEWHERE = {"background", "conversation", "prompt", "context_management", "max_completion_tokens", "reasoning_effort", "response_format"}  # fmt: skip
_ACCEPTED = (chat.CHAT, chat.COMPLETIONS, chat.EMBEDDINGS)

OURS = Names(
    _ELSEWHERE.union(
        request.KNOWN,
        *(accepted.required for accepted in _ACCEPTED),
        *(accepted.optional for accepted in _ACCEPTED),
    )
)
