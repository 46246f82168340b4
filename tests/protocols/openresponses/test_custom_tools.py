import json
from itertools import pairwise

import pytest

from dwctl.protocols.openresponses.custom_tools import (
    InputText,
    arguments_of,
    as_function,
    input_of,
)

TEXTS = {
    "empty": "",
    "words": "hello",
    "escapes": 'a"b\\c\n\t\u2028/',
    "beyond the first plane": "😀 x 😀",
    "JSON": '{"input":"x"}',
    "a pattern": "\\d+\\\\",
    "a patch": "*** Begin Patch\n*** Add File: a.py\n+print('\"')\n*** End Patch\n",
}
SPELLINGS = {
    "compact": lambda text: arguments_of(text),
    "ASCII": lambda text: json.dumps({"input": text}),
    "indented": lambda text: json.dumps({"input": text}, indent=2),
    "with more after it": lambda text: json.dumps({"input": text, "why": "x"}),
    "with more before it": lambda text: json.dumps({"why": "x", "input": text}),
    "by another name": lambda text: json.dumps({"patch": text}),
}
ODD = {
    "no JSON": ("plain text", "plain text"),
    "nothing": ("", ""),
    "a string": ('"str"', "str"),
    "a number": ("5", "5"),
    "no text in it": ('{"input":5}', '{"input":5}'),
    "two strings of other names": ('{"a":"x","b":"y"}', '{"a":"x","b":"y"}'),
    "cut in the text": ('{"input":"cut', "cut"),
    "cut in an escape": ('{"input":"cut\\', "cut"),
    "cut in a number": ('{"input":"cut\\u12', "cut"),
    "cut in a pair": ('{"input":"a\\ud83d', "a\ufffd"),
    "half a pair": ('{"input":"a\\ud83dz"}', "a\ufffdz"),
    "the other half": ('{"input":"\\ude00z"}', "\ufffdz"),
    "escapes that are none": ('{"input":"\\d\\q\\u12"}', "\\d\\q\\u12"),
    "a line break as it is": ('{"input":"a\nb"}', "a\nb"),
    "long white space": (" " * 300 + '{"input":"a"}', "a"),
    "long and not JSON": ("x" * 300, "x" * 300),
}


def in_pieces(arguments: str, size: int) -> str:
    text = InputText()
    cuts = [*range(0, len(arguments), size), len(arguments)]
    return "".join(text.add(arguments[a:b]) for a, b in pairwise(cuts)) + text.end()


@pytest.mark.parametrize("spell", SPELLINGS.values(), ids=SPELLINGS)
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_the_text_comes_back_however_it_is_spelt_and_cut(text, spell):
    arguments = spell(text)
    assert input_of(arguments) == text
    for size in range(1, len(arguments) + 1):
        assert in_pieces(arguments, size) == text


@pytest.mark.parametrize(("arguments", "text"), ODD.values(), ids=ODD)
def test_a_model_that_does_not_keep_to_the_form_is_taken_at_its_word(arguments, text):
    assert input_of(arguments) == text
    for size in range(1, len(arguments) + 1):
        assert in_pieces(arguments, size) == text


def test_the_text_is_told_as_it_comes():
    text = InputText()
    assert [text.add(piece) for piece in ('{"inp', 'ut": "He', "llo\\", 'n"', "}")] == ["", "He", "llo", "\n", ""]  # fmt: skip
    assert text.end() == text.add("x") == ""


def test_an_input_that_is_the_arguments_goes_as_it_is():
    assert input_of('{"input":"x"}', plain=True) == '{"input":"x"}'


@pytest.mark.parametrize(
    ("members", "description"),
    [
        ({}, None),
        ({"description": "d", "format": None}, "d"),
        ({"description": "d", "format": {"type": "text"}}, "d"),
        ({"format": {"type": "grammar", "syntax": "regex", "definition": "a+"}}, "The input must match this regular expression:\na+"),
        ({"description": "d", "format": {"type": "grammar", "syntax": "lark", "definition": "start: x"}}, "d\n\nThe input must match this Lark grammar:\nstart: x"),
    ],
    ids=["nothing said", "description", "text", "regex", "lark"],
)  # fmt: skip
def test_a_custom_tool_becomes_a_function_that_says_its_form(members, description):
    function = as_function({"type": "custom", "name": "t", **members})
    assert function.get("description") == description
    assert function["name"] == "t"
    assert function["parameters"]["required"] == ["input"]
