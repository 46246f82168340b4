import json
import random

import orjson
import pytest

from dwctl.protocols.splice import replace_members

SPLICED = {
    "replace a string": ('{"model":"a","x":1}', {"model": '"b"'}, '{"model":"b","x":1}'),
    "replace a number": ('{"n": 1.50 , "x":1}', {"n": "2"}, '{"n": 2 , "x":1}'),
    "replace null": ('{"a":null}', {"a": "{}"}, '{"a":{}}'),
    "replace an object": ('{"a":{"b":[1,{"c":"}"}]},"d":1}', {"a": "0"}, '{"a":0,"d":1}'),
    "replace an array by an array": ('{"a":[1,[2]]}', {"a": "[3]"}, '{"a":[3]}'),
    "append": ('{"x":1}', {"model": '"b"'}, '{"x":1,"model":"b"}'),
    "append two, in order": ('{"x":1}', {"b": "1", "a": "2"}, '{"x":1,"b":1,"a":2}'),
    "append to an empty object": ("{}", {"model": '"b"'}, '{"model":"b"}'),
    "append to an empty object with blanks": (" { } \n", {"a": "1"}, ' {"a":1 } \n'),
    "append keeps what stands around": ('\n{"x":1\n}\n', {"a": "1"}, '\n{"x":1,"a":1\n}\n'),
    "remove the first": ('{"a":1, "b":2}', {"a": None}, '{"b":2}'),
    "remove the middle": ('{"a":1, "b":2, "c":3}', {"b": None}, '{"a":1, "c":3}'),
    "remove the last": ('{"a":1, "b":2 }', {"b": None}, '{"a":1 }'),
    "remove the only": ('{ "a": 1 }', {"a": None}, "{  }"),
    "remove all": ('{"a":1,"b":2,"c":3}', {"a": None, "b": None, "c": None}, "{}"),
    "remove neighbours": ('{"a":1,"b":2,"c":3,"d":4}', {"b": None, "c": None}, '{"a":1,"d":4}'),
    "remove the first two": ('{"a":1,"b":2,"c":3}', {"a": None, "b": None}, '{"c":3}'),
    "remove what is not there": ('{"a":1}', {"z": None}, '{"a":1}'),
    "remove one and append": ('{"a":1}', {"a": None, "b": "2"}, '{"b":2}'),
    "replace, remove, append": (
        '{"model":"a","service_tier":"flex","stream":true}',
        {"model": '"b"', "service_tier": None, "stream_options": '{"include_usage":true}'},
        '{"model":"b","stream":true,"stream_options":{"include_usage":true}}',
    ),
    "a nested equal name stays": ('{"x":{"model":"n"},"model":"a"}', {"model": '"b"'}, '{"x":{"model":"n"},"model":"b"}'),
    "a nested equal name stays, nothing at the top": ('{"x":{"model":"n"}}', {"model": '"b"'}, '{"x":{"model":"n"},"model":"b"}'),
    "removal leaves a nested equal name": ('{"x":{"a":1}}', {"a": None}, '{"x":{"a":1}}'),
    "a string with the name stays": ('{"x":"\\"model\\": 1","model":"a"}', {"model": '"b"'}, '{"x":"\\"model\\": 1","model":"b"}'),
    "a string that ends in the name stays": ('{"x\\"model":"y","model":"a"}', {"model": '"b"'}, '{"x\\"model":"y","model":"b"}'),
    "a value with the name stays": ('{"x":"model","model":"a"}', {"model": '"b"'}, '{"x":"model","model":"b"}'),
    "an escaped backslash before a quote": ('{"x":"\\\\","model":"a\\\\"}', {"model": '"b"'}, '{"x":"\\\\","model":"b"}'),
    "an escaped spelling of the key": ('{"\\u006dodel":"a","x":1}', {"model": '"b"'}, '{"\\u006dodel":"b","x":1}'),
    "an escaped spelling is removed": ('{"x":1,"\\u006dodel":"a"}', {"model": None}, '{"x":1}'),
    "both spellings are changed": ('{"model":"a","m\\u006fdel":"c"}', {"model": '"b"'}, '{"model":"b","m\\u006fdel":"b"}'),
    "duplicates are all changed": ('{"model":"a","x":1,"model":"c"}', {"model": '"b"'}, '{"model":"b","x":1,"model":"b"}'),
    "duplicates are all removed": ('{"a":1,"x":1,"a":2}', {"a": None}, '{"x":1}'),
    "big integers and number spelling": ('{"i":123456789012345678901234567890,"f":1.50e+02,"m":"a"}', {"m": '"b"'}, '{"i":123456789012345678901234567890,"f":1.50e+02,"m":"b"}'),
    "blanks of every kind": ('{\t"m"\r\n :\n"a" ,"x" : 1}', {"m": '"b"'}, '{\t"m"\r\n :\n"b" ,"x" : 1}'),
    "text beyond ASCII": ('{"x":"é😀","m":"a","y":"ü"}', {"m": '"ö"'}, '{"x":"é😀","m":"ö","y":"ü"}'),
    "a Latin letter as an escape": ('{"x":"\\u00e9","m":"a"}', {"m": '"b"'}, '{"x":"\\u00e9","m":"b"}'),
    "names that are no identifiers": ('{"a b":1,"":2,"é":3}', {"a b": "0", "": None, "é": "4"}, '{"a b":0,"é":4}'),
    "nothing to change": ('{"a" : 1}', {}, '{"a" : 1}'),
}  # fmt: skip


@pytest.mark.parametrize("direct", [True, False], ids=["parsed", "not parsed"])
@pytest.mark.parametrize(("raw", "changes", "expected"), SPLICED.values(), ids=SPLICED)
def test_only_the_named_members_change(raw, changes, expected, direct):
    encoded = {name: None if v is None else v.encode() for name, v in changes.items()}
    parsed = orjson.loads(raw) if direct else None
    assert replace_members(raw.encode(), encoded, parsed=parsed).decode() == expected


REFUSED = [
    "",
    "[]",
    "5",
    '"x"',
    "{",
    '{"a":1',
    '{"a":1} x',
    '{"a" 1}',
    "{a:1}",
    '{"a":}',
    '{"a":1,}',
    '{"a":1 "b":2}',
]


@pytest.mark.parametrize("raw", REFUSED)
def test_what_is_not_one_json_object_is_refused(raw):
    with pytest.raises(ValueError):
        replace_members(raw.encode(), {"zz": b"1"})


def test_text_that_is_not_utf8_is_refused():
    with pytest.raises(ValueError):
        replace_members(b'{"a":"\xff"}', {"a": b"1"})


def test_a_number_of_ten_thousand_digits_is_passed_on():
    raw = b'{"n":' + b"9" * 10_000 + b',"m":1}'
    assert replace_members(raw, {"m": b"2"}) == raw[:-2] + b"2}"


def test_nesting_beyond_the_interpreters_stack_is_passed_on():
    deep = b'[{"a":"]"},' * 5_000 + b'"}"' + b"]" * 5_000
    raw = b'{"m":1,"deep":' + deep + b',"n":1}'
    assert replace_members(raw, {"n": b"2"}) == raw[:-2] + b"2}"


def random_value(rng: random.Random, depth: int) -> object:
    kind = rng.randrange(6 if depth else 4)
    if kind == 4:
        return [random_value(rng, depth - 1) for _ in range(rng.randrange(4))]
    if kind == 5:
        return {random_text(rng): random_value(rng, depth - 1) for _ in range(rng.randrange(4))}
    return [rng.randrange(-(10**6), 10**6), None, rng.random() < 0.5, random_text(rng)][kind]


def random_text(rng: random.Random) -> str:
    return "".join(
        rng.choice(["a", "b", '"', "\\", ":", "{", "é", "\n"]) for _ in range(rng.randrange(4))
    )


def test_both_ways_agree_with_a_parser_on_random_objects():
    rng = random.Random(20261123)
    for _ in range(1_500):
        body = {
            rng.choice(["a", "b", "ab", random_text(rng)]): random_value(rng, 3) for _ in range(5)
        }
        raw = json.dumps(
            body, ensure_ascii=rng.random() < 0.5, indent=rng.choice([None, 1])
        ).encode()
        changes = {
            n: rng.choice([None, b'"new"', b"[1]"]) for n in rng.sample(["a", "b", "ab", "z"], 2)
        }
        scanned = replace_members(raw, changes)
        assert replace_members(raw, changes, parsed=orjson.loads(raw)) == scanned
        expected = {**body, **{n: v and orjson.loads(v) for n, v in changes.items()}}
        expected = {n: v for n, v in expected.items() if n not in changes or changes[n]}
        assert json.loads(scanned) == expected
        assert [n for n in json.loads(scanned) if n in body] == [n for n in body if n in expected]
