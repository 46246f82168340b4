import orjson

from dwctl.protocols.errors import InvalidRequest
from dwctl.web.envelope import openai_error


def test_an_envelope_has_all_four_members():
    body = orjson.loads(openai_error("No", "bad", 400, "model"))
    assert body == {"error": {"message": "No", "type": "invalid_request_error", "param": "model", "code": "bad"}}  # fmt: skip


def test_an_invalid_request_says_400_and_names_the_field():
    error = InvalidRequest("No", param="messages[0].content", code="invalid_type")
    assert (error.status, error.param, error.code, error.message) == (
        400,
        "messages[0].content",
        "invalid_type",
        "No",
    )
