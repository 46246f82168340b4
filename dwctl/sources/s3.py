"""Buckets of S3 and of servers that speak its protocol (`endpoint_url`).

boto3 signs, spells and parses; what it would send goes out through our own sessions (its event `before-send`), because these connect only to
addresses that `outbound.sources` allows. It is imported when the first source is opened, in a native thread: with its first client that
takes some 130 ms and 25 MB, another client 4 ms.

Addresses are path-style throughout: certificates of buckets with dots in their names fit, and keys that begin with `/` survive.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from typing import Any

import requests
from requests.structures import CaseInsensitiveDict

from dwctl import threads
from dwctl.config import Settings
from dwctl.printable import printable
from dwctl.sources.provider import (
    ObjectAbsent,
    ObjectChanged,
    Page,
    SourceError,
    SourceObject,
    SourceRefused,
)
from dwctl.upstream import outbound
from dwctl.upstream.addresses import Purpose, policy_for
from dwctl.upstream.errors import AddressNotAllowed

_CHUNK = 256 * 1024
_LARGEST_ANSWER = 16 * 1024 * 1024
"""Of what is parsed in one piece: a page of a thousand keys has half a megabyte."""
_LONGEST_REASON = 300
_TRIES = 2
_ABSENT = frozenset({"NoSuchKey", "404", "NotFound", "NoSuchVersion"})
_CHANGED = frozenset({"PreconditionFailed", "412", "InvalidRange", "416"})
_PASSING = frozenset({"SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "Throttling",
                      "ThrottlingException", "TooManyRequests", "RequestLimitExceeded", "BandwidthLimitExceeded"})  # fmt: skip
_HINTS: Mapping[str, str] = {
    "NoSuchBucket": "the bucket does not exist",
    "AccessDenied": "access denied",
    "403": "access denied",
    "InvalidAccessKeyId": "access_key_id is unknown",
    "SignatureDoesNotMatch": "secret_access_key is wrong",
    "PermanentRedirect": "the bucket is in another region",
    "AuthorizationHeaderMalformed": "the region is wrong",
    "RequestTimeTooSkewed": "the clocks differ too much",
}


class S3Source:
    """One bucket, or what is under a prefix of it."""

    def __init__(self, config: Mapping[str, Any], settings: Settings) -> None:
        self._bucket: str = config["bucket"]
        self._prefix: str = config.get("prefix") or ""
        reach = settings.outbound
        self._session = outbound.session(
            policy_for(reach, Purpose.SOURCES),
            use_environment_proxies=reach.use_environment_proxies,
        )
        limits = settings.connections
        self._timeouts = (limits.connect_timeout, limits.read_timeout)
        self._client: Any = threads.in_files(_client, config)
        self._client.meta.events.register("before-send.s3", self._send)

    def test(self) -> str:
        """Whether the bucket can be listed."""
        found = self.page(None, 1).objects
        where = f"under {printable(self._prefix)!r} " if self._prefix else ""
        return f"The bucket can be read. {'There are' if found else 'There are no'} objects {where}in it."

    def page(self, after: str | None, limit: int) -> Page:
        """Objects behind a key, in the order of S3 (that of their UTF-8)."""
        wanted = {"StartAfter": after} if after is not None else {}
        with _errors("listing"):
            answer = self._client.list_objects_v2(
                Bucket=self._bucket, Prefix=self._prefix, MaxKeys=limit, **wanted
            )
        listed = answer.get("Contents", [])
        more = listed and answer.get("IsTruncated")
        return Page([_listed(item) for item in listed], listed[-1]["Key"] if more else None)

    def find(self, key: str) -> SourceObject:
        """Ask for an object's size and date."""
        with _errors("looking up an object"):
            answer = self._client.head_object(Bucket=self._bucket, Key=key)
        etag = answer.get("ETag")
        return SourceObject(key, answer["ContentLength"], answer["LastModified"], etag)

    @contextmanager
    def read(self, wanted: SourceObject, offset: int) -> Iterator[Iterator[bytes]]:
        """Its bytes, if it still is what was listed."""
        condition: dict[str, Any] = (
            {"IfMatch": wanted.etag} if wanted.etag else {"IfUnmodifiedSince": wanted.last_modified}
        )
        if offset:
            condition["Range"] = f"bytes={offset}-"
        with _errors("reading an object"):
            answer = self._client.get_object(Bucket=self._bucket, Key=wanted.key, **condition)
        body = answer["Body"]
        try:
            if answer.get("ContentLength", wanted.size - offset) != wanted.size - offset:
                raise ObjectChanged
            yield _pieces(body)
        finally:
            # It may be in the middle of a gigabyte: the connection is of no more use.
            body.close()

    def close(self) -> None:
        """Close what is kept open."""
        self._session.close()

    def _send(self, request: Any, **_event: Any) -> Any:
        """Send a request of boto3's; errors are those that it retries and raises."""
        from botocore import exceptions
        from botocore.awsrequest import AWSResponse

        try:
            answer = self._session.send(
                _prepared(request), stream=True, timeout=self._timeouts, allow_redirects=False
            )
            body = _Body(answer.raw) if request.stream_output else _Whole(answer)
        except requests.exceptions.SSLError as error:
            raise exceptions.SSLError(endpoint_url=request.url, error=error) from error
        except requests.ConnectTimeout as error:
            raise exceptions.ConnectTimeoutError(endpoint_url=request.url, error=error) from error
        except requests.Timeout as error:
            raise exceptions.ReadTimeoutError(endpoint_url=request.url, error=error) from error
        except requests.ConnectionError as error:
            raise exceptions.EndpointConnectionError(
                endpoint_url=request.url, error=error
            ) from error
        except requests.RequestException as error:
            raise exceptions.HTTPClientError(error=error) from error
        return AWSResponse(request.url, answer.status_code, answer.headers, body)


class _Body:
    """What boto3 reads of a body that streams: as much as there is, not as much as was asked for, so that a trickle is noticed."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def read(self, amount: int | None = None) -> bytes:
        read: bytes = (
            self._raw.read(_LARGEST_ANSWER, decode_content=False)
            if amount is None
            else self._raw.read1(amount, decode_content=False)
        )
        return read

    def stream(self, amount: int = _CHUNK, **_options: Any) -> Iterator[bytes]:
        """The body of an error, which boto3 reads whole."""
        yield self._raw.read(_LARGEST_ANSWER, decode_content=False)

    def close(self) -> None:
        self._raw.close()
        self._raw.release_conn()


class _Whole(BytesIO):
    """A body that was read before boto3 sees it, up to a bound."""

    def __init__(self, answer: requests.Response) -> None:
        content = bytearray()
        with answer:
            for piece in answer.iter_content(_CHUNK):
                content += piece
                if len(content) > _LARGEST_ANSWER:
                    raise requests.exceptions.ContentDecodingError("the answer is too large")
        super().__init__(content)

    def stream(self, amount: int = _CHUNK, **_options: Any) -> Iterator[bytes]:
        while piece := self.read(amount):
            yield piece


def _client(config: Mapping[str, Any]) -> Any:
    from botocore.config import Config

    return _boto().client(
        "s3",
        region_name=config["region"],
        endpoint_url=config.get("endpoint_url"),
        aws_access_key_id=config["access_key_id"],
        aws_secret_access_key=config["secret_access_key"],
        config=Config(
            signature_version="s3v4",
            s3={"addressing_style": "path"},
            retries={"mode": "standard", "total_max_attempts": _TRIES},
            # What the environment says is about the machine's own accounts.
            ignore_configured_endpoint_urls=True,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


@cache
def _boto() -> Any:
    import boto3

    return boto3.session.Session()


def _prepared(request: Any) -> requests.PreparedRequest:
    prepared = requests.PreparedRequest()
    prepared.method = request.method
    prepared.url = request.url
    prepared.headers = CaseInsensitiveDict(
        {name: _text(value) for name, value in request.headers.items()}
    )
    prepared.body = request.body or None
    return prepared


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _listed(item: Mapping[str, Any]) -> SourceObject:
    return SourceObject(item["Key"], item["Size"], item["LastModified"], item.get("ETag"))


def _pieces(body: Any) -> Iterator[bytes]:
    while True:
        with _errors("reading an object"):
            piece = body.read(_CHUNK)
        if not piece:
            return
        yield piece


@contextmanager
def _errors(doing: str) -> Iterator[None]:
    """What boto3 raises, as an error of ours with a reason that fits into a line."""
    from botocore import exceptions
    from botocore.parsers import ResponseParserError

    try:
        yield
    except exceptions.ClientError as error:
        raise _refusal(doing, error.response) from error
    except AddressNotAllowed as error:
        raise SourceRefused(
            "endpoint_url leads to an address that may not be called (outbound.sources)"
        ) from error
    except (exceptions.ReadTimeoutError, exceptions.ConnectTimeoutError) as error:
        raise SourceError(f"{doing}: the source did not answer in time") from error
    except exceptions.SSLError as error:
        raise SourceRefused(
            f"{doing}: no TLS connection, or a certificate that is not trusted"
        ) from error
    except ResponseParserError as error:
        raise SourceRefused(f"{doing}: the answer is none of S3's") from error
    except (
        exceptions.ConnectionError,
        exceptions.HTTPClientError,
        exceptions.IncompleteReadError,
    ) as error:
        raise SourceError(f"{doing}: the source cannot be reached, or broke off") from error
    except (exceptions.BotoCoreError, exceptions.ParamValidationError, ValueError) as error:
        raise SourceRefused(f"{doing}: {_bounded(str(error))}") from error
    except (OSError, requests.RequestException) as error:
        raise SourceError(f"{doing}: the source broke off") from error


def _refusal(doing: str, answer: Mapping[str, Any]) -> SourceError:
    said = answer.get("Error", {})
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code = str(said.get("Code", status))
    if code in _ABSENT:
        return ObjectAbsent()
    if code in _CHANGED:
        return ObjectChanged()
    reason = _HINTS.get(code) or _bounded(str(said.get("Message") or "refused"))
    message = f"{doing}: {reason} ({_bounded(code)})"
    passing = code in _PASSING or status >= 500 or status == 429
    return SourceError(message) if passing else SourceRefused(message)


def _bounded(text: str) -> str:
    return printable(text, _LONGEST_REASON)
