import json

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dwctl.protocols.splice import open_members, replace_members

SPLICED = {
    "replace a string": ('{"model":"a","x":1}', {"model": '"b"'}, '{"model":"b","x":1}'),
    "replace null by an object": ('{"a":null}', {"a": "{}"}, '{"a":{}}'),
    "replace an object": ('{"a":{"b":[1,{"c":"}"}]},"d":1}', {"a": "0"}, '{"a":0,"d":1}'),
    "append two, in order": ('{"x":1}', {"b": "1", "a": "2"}, '{"x":1,"b":1,"a":2}'),
    "append to an empty object": (" { } \n", {"a": "1"}, '{"a":1}'),
    "remove": ('{"a":1, "b":2, "c":3}', {"b": None}, '{"a":1,"c":3}'),
    "remove all": ('{"a":1,"b":2}', {"a": None, "b": None}, "{}"),
    "remove what is not there": ('{"a":1}', {"z": None}, '{"a":1}'),
    "replace, remove, append": (
        '{"model":"a","service_tier":"flex","stream":true}',
        {"model": '"b"', "service_tier": None, "stream_options": '{"include_usage":true}'},
        '{"model":"b","stream":true,"stream_options":{"include_usage":true}}',
    ),
    "a nested equal name stays": ('{"x":{"model":"n"},"model":"a"}', {"model": '"b"'}, '{"x":{"model":"n"},"model":"b"}'),
    "a string with the name stays": ('{"x":"\\"model\\": 1","model":"a"}', {"model": '"b"'}, '{"x":"\\"model\\": 1","model":"b"}'),
    "an escaped spelling of the key": ('{"\\u006dodel":"a","x":1}', {"model": '"b"'}, '{"model":"b","x":1}'),
    "duplicates": ('{"model":"a","x":1,"model":"c"}', {"model": '"b"'}, '{"model":"b","x":1}'),
    "duplicates that nobody asked for": ('{"x":1,"m":"a","x":2}', {"m": '"b"'}, '{"x":2,"m":"b"}'),
    "both spellings": ('{"model":"a","m\\u006fdel":"c"}', {"model": None}, "{}"),
    "big integers and number spelling": ('{"i":123456789012345678901234567890,"f":1.50e+02,"m":"a"}', {"m": '"b"'}, '{"i":123456789012345678901234567890,"f":1.50e+02,"m":"b"}'),
    "blanks inside of values": ('{ "x" : [ 1 , {"y" :\n2} ] , "m" : "a" }', {"m": '"b"'}, '{"x":[ 1 , {"y" :\n2} ],"m":"b"}'),
    "text beyond ASCII": ('{"x":"é😀\\u00e9","m":"a","ü":"ü"}', {"m": '"ö"'}, '{"x":"é😀\\u00e9","m":"ö","ü":"ü"}'),
    "names that are no identifiers": ('{"a b":1,"":2,"é":3}', {"a b": "0", "": None, "é": "4"}, '{"a b":0,"é":4}'),
}  # fmt: skip


@pytest.mark.parametrize(("raw", "changes", "expected"), SPLICED.values(), ids=SPLICED)
def test_only_the_named_members_change(raw, changes, expected):
    encoded = {name: None if v is None else v.encode() for name, v in changes.items()}
    assert replace_members(raw.encode(), encoded).decode() == expected


texts = st.text(st.characters(codec="utf-8"), max_size=6)
numbers = st.from_regex(r"\A-?(0|[1-9][0-9]{0,40})(\.[0-9]{1,30})?([eE][-+]?[0-9]{1,2})?\Z").map(
    lambda text: text.strip()
)
values = st.recursive(
    st.one_of(numbers, st.sampled_from(["true", "false", "null"]), texts.map(json.dumps)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda parts: f"[{' , '.join(parts)} ]"),
        st.dictionaries(texts, inner, max_size=4).map(
            lambda members: (
                "{" + ",".join(f"{json.dumps(n)} : {v}" for n, v in members.items()) + "}"
            )
        ),
    ),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(texts, values), max_size=6),
    st.dictionaries(texts, st.none() | values, max_size=4),
)
def test_every_value_keeps_its_spelling_and_every_member_its_place(members, changes):
    raw = "{" + ", ".join(f"{json.dumps(name)}: {value}" for name, value in members) + "}"
    result = replace_members(
        raw.encode(), {n: None if v is None else v.encode() for n, v in changes.items()}
    )
    expected = {n: v for n, v in (dict(members) | changes).items() if v is not None}
    found = {name: bytes(value).decode() for name, value in open_members(result).items()}
    assert list(found.items()) == list(expected.items())
    assert json.loads(result) == {name: json.loads(value) for name, value in expected.items()}


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(texts, values, max_size=6))
def test_what_the_parser_takes_can_be_spliced(members):
    raw = "{" + ",".join(f"{json.dumps(n)}:{v}" for n, v in members.items()) + "}"
    try:
        parsed = orjson.loads(raw)
    except orjson.JSONDecodeError:  # a number beyond all floats
        return
    assert orjson.loads(replace_members(raw.encode(), {"m": b"1"})) == parsed | {"m": 1}


@pytest.mark.parametrize(
    "raw",
    [b"", b"[]", b"5", b'"a"', b"{", b'{"a"}', b'{"a":}', b'{"a":1', b'{"a":1,}', b'{"a":1}x', b'{"a":01}', b"{'a':1}", b'{"\xff":1}', b'{"a":' + b"[" * 9000 + b"]" * 9000 + b"}"],
)  # fmt: skip
def test_what_is_no_object_is_refused(raw):
    with pytest.raises(ValueError) as error:
        replace_members(raw, {"a": b"1"})
    assert str(error.value)
