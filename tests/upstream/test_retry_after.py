import pytest

from dwctl.upstream.retry_after import retry_after_s

NOW = 1445412480.0  # Wed, 21 Oct 2015 07:28:00 GMT

SAID = {
    "nothing": ({}, None),
    "seconds": ({"retry-after": "7"}, 7.0),
    "blanks": ({"retry-after": " 7 "}, 7.0),
    "a fraction": ({"retry-after": "0.5"}, 0.5),
    "zero": ({"retry-after": "0"}, 0.0),
    "negative": ({"retry-after": "-1"}, None),
    "very long": ({"retry-after": "999999999"}, 999_999.0),
    "longer than a number": ({"retry-after": "9" * 400}, None),
    "exponent": ({"retry-after": "1e9"}, None),
    "other digits": ({"retry-after": "\u0667"}, None),
    "words": ({"retry-after": "soon"}, None),
    "empty": ({"retry-after": ""}, None),
    "a date": ({"retry-after": "Wed, 21 Oct 2015 07:28:30 GMT"}, 30.0),
    "a date that has passed": ({"retry-after": "Wed, 21 Oct 2015 07:27:00 GMT"}, 0.0),
    "a date of old (RFC 850)": ({"retry-after": "Wednesday, 21-Oct-15 07:28:30 GMT"}, 30.0),
    "a date of C": ({"retry-after": "Wed Oct 21 07:28:30 2015"}, 30.0),
    "a date that is none": ({"retry-after": "Wed, 99 Oct 2015 07:28:30 GMT"}, None),
    "a date by the server's clock": ({"date": "Wed, 21 Oct 2015 09:00:00 GMT", "retry-after": "Wed, 21 Oct 2015 09:00:05 GMT"}, 5.0),
    "a server's clock that says nothing": ({"date": "now", "retry-after": "Wed, 21 Oct 2015 07:28:30 GMT"}, 30.0),
    "milliseconds": ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
    "milliseconds that are none": ({"retry-after-ms": "x", "retry-after": "1"}, 1.0),
}  # fmt: skip


@pytest.mark.parametrize(("headers", "expected"), SAID.values(), ids=SAID)
def test_what_a_server_asks_for_in_seconds(headers, expected):
    assert retry_after_s(headers.items(), NOW) == expected
