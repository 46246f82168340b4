"""OpenAI's published schema and its SDK as judges of batches."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema_rs import Draft202012Validator
from openai.types import Batch

_FILE = Path(__file__).parents[1] / "protocols" / "standards" / "openai" / "batches.json"


@cache
def _judge(name: str) -> Draft202012Validator:
    schemas = json.loads(_FILE.read_text())["components"]["schemas"]
    reference = {"$ref": f"#/components/schemas/{name}", "components": {"schemas": schemas}}
    return Draft202012Validator(reference)


def check_batch(batch: Any) -> None:
    _judge("Batch").validate(batch)
    Batch.model_validate(batch, strict=True)


def check_list(page: Any) -> None:
    _judge("ListBatchesResponse").validate(page)
    for batch in page["data"]:
        check_batch(batch)
