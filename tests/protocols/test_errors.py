import orjson
import pytest

from dwctl.protocols import errors


def test_an_envelope_has_all_four_members():
    body = orjson.loads(errors.envelope("No", "invalid_request_error", "bad", "model"))
    assert body == {"error": {"message": "No", "type": "invalid_request_error", "param": "model", "code": "bad"}}  # fmt: skip


@pytest.mark.parametrize(
    ("status", "type", "message"),
    [
        (400, "invalid_request_error", "Invalid request"),
        (401, "authentication_error", "Authentication failed"),
        (403, "permission_error", "Permission denied"),
        (404, "not_found_error", "Not found"),
        (429, "rate_limit_error", "Rate limit exceeded"),
        (500, "api_error", "Internal server error"),
        (502, "api_error", "Bad gateway"),
        (503, "api_error", "Service unavailable"),
        (418, "api_error", "An error occurred"),
        (529, "api_error", "An error occurred"),
    ],
)
def test_strict_mode_replaces_an_upstream_error_by_its_status_alone(status, type, message):
    expected = {"message": message, "type": type, "param": None, "code": f"http_{status}"}
    assert errors.sanitised_strict(status) == expected


@pytest.mark.parametrize(
    ("status", "type", "code"),
    [
        (400, "invalid_request_error", "upstream_error"),
        (499, "invalid_request_error", "upstream_error"),
        (500, "internal_error", "internal_error"),
        (302, "internal_error", "internal_error"),
    ],
)
def test_the_plain_table_knows_only_rejected_and_failed(status, type, code):
    error = errors.sanitised_plain(status)
    assert (error["type"], error["code"], error["param"]) == (type, code, None)


@pytest.mark.parametrize(("status", "seen"), [(401, 502), (403, 502), (404, 404), (500, 500)])
def test_a_refusal_of_our_own_credential_is_a_bad_gateway(status, seen):
    assert errors.client_status(status) == seen


def test_an_invalid_request_says_400_and_names_the_field():
    error = errors.InvalidRequest("No", param="messages[0].content", code="invalid_type")
    assert (error.status, error.param, error.code, error.message) == (
        400,
        "messages[0].content",
        "invalid_type",
        "No",
    )
