"""Reaches S3 servers, for the SDK and the trainer alike, and says why a request failed.

Endpoint, region, certificates and credentials are found here and nowhere else. A server's answer is
never quoted: whoever writes a job chooses its endpoint, and what answers there may be anything that
the machine can reach. An error has the HTTP status, and a sentence of ours for each code and each
cause that is known.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from retrainer.api.v1alpha1 import Storage
from retrainer.errors import UserError

if TYPE_CHECKING:
    import boto3
    from obstore.store import S3Store

ENV_ENDPOINT = "RETRAINER_S3_ENDPOINT"
"""URL of the S3 server as this machine reaches it, where pods use another one."""
_ENV_AWS_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
DEFAULT_REGION = "us-east-1"
NO_KEY = "(none was found)"
"""Written for the access key where there is none: a public bucket can be read without."""


@dataclass(frozen=True)
class Access:
    """How this machine reaches S3.

    Attributes:
        endpoint: URL of the S3 server; instead of the job's own and of the environment's.
        session: whose credentials and region to use; boto3's own search if None.
    """

    endpoint: str | None = None
    session: "boto3.Session | None" = None


class Server:
    """One S3 server with the credentials for it.

    Attributes:
        given: its URL where one is given; None means AWS.
        region: region of the buckets.
        session: boto3 session that gives the credentials.
        insecure: whether any certificate is accepted.
    """

    def __init__(self, storage: Storage, access: Access | None = None) -> None:
        """Find out how it is reached; nothing is sent to it.

        Raises:
            UserError: the URL is none, or the credentials that are named cannot be read.
        """
        import boto3

        access = access or Access()
        self.given = endpoint_for(storage, access)
        self.insecure = storage.insecure
        try:
            self.session = access.session or boto3.Session()
            self._credentials: Any = self.session.get_credentials()
            self.region = (
                storage.region
                or os.environ.get("AWS_REGION")
                or self.session.region_name
                or DEFAULT_REGION
            )
            if self._credentials:  # a login or a role is looked up only now
                self._credentials.get_frozen_credentials()
        except Exception as error:  # also what a credential_process prints, as it is
            if _may_pass(error):
                return  # each request looks them up again
            raise UserError(
                f"No S3 credentials can be read: {_no_credentials(error)}; see AWS_PROFILE and ~/.aws."
            ) from error

    @property
    def endpoint(self) -> str:
        """URL of the server, for messages."""
        return self.given or f"https://s3.{self.region}.amazonaws.com"

    @property
    def key(self) -> str:
        """The id of the access key, for messages; never the secret."""
        return self._credentials.access_key if self._credentials else NO_KEY

    def open(
        self, bucket: str, *, client: "dict[str, Any]", retries: "Any", prefix: str | None = None
    ) -> "S3Store":
        """Open a bucket for obstore. Without credentials requests are not signed.

        Args:
            bucket: its name.
            client: further options of obstore's HTTP client, such as times.
            retries: obstore's own retries.
            prefix: under which all paths are.
        """
        from obstore.auth.boto3 import Boto3CredentialProvider
        from obstore.store import S3Store

        options: Any = {
            "allow_http": self.endpoint.startswith("http://"),
            "allow_invalid_certificates": self.insecure,
            **client,
        }
        if bundle := os.environ.get("AWS_CA_BUNDLE"):
            options["root_certificate"] = _certificates(bundle)
        config: Any = {"region": self.region, "virtual_hosted_style_request": False}
        if self.given:
            config["endpoint"] = self.given
        provider = None
        if self._credentials:
            provider = Boto3CredentialProvider(self.session)
        else:
            config["skip_signature"] = True
        return S3Store(
            bucket,
            prefix=prefix,
            config=config,
            client_options=options,
            retry_config=retries,
            credential_provider=provider,
        )

    def boto_client(self, **config: Any) -> Any:
        """Make a boto3 client of the same server; `config` is botocore's."""
        import botocore
        from botocore.config import Config

        unsigned = {} if self._credentials else {"signature_version": botocore.UNSIGNED}
        return self.session.client(
            "s3",
            endpoint_url=self.given,
            region_name=self.region,
            verify=False if self.insecure else None,
            config=Config(s3={"addressing_style": "path"}, **unsigned, **config),
        )


def endpoint_for(storage: Storage, access: Access) -> str | None:
    """Find the URL of the S3 server for this machine; None is AWS.

    The argument, RETRAINER_S3_ENDPOINT, the job's own, then what AWS's tools read.

    Raises:
        UserError: it is not a URL.
    """
    own = (access.endpoint, os.environ.get(ENV_ENDPOINT), storage.endpoint)
    endpoint = next(filter(None, [*own, *map(os.environ.get, _ENV_AWS_ENDPOINTS)]), None)
    if endpoint and not re.match(r"https?://[^/]", endpoint):
        raise UserError(f"The S3 server's URL must be http(s)://HOST:PORT, got {endpoint!r}.")
    return endpoint.rstrip("/") if endpoint else None


def _certificates(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"AWS_CA_BUNDLE names {path}: {error.strerror}.") from error


def _may_pass(error: Exception) -> bool:
    """Say whether a look-up of credentials failed only because nobody answered."""
    from botocore import exceptions as boto

    if isinstance(error, boto.ClientError):
        return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)) >= 500
    return isinstance(error, (boto.HTTPClientError, boto.ConnectionError))


def _no_credentials(error: Exception) -> str:
    """Say why credentials cannot be read."""
    from botocore import exceptions as boto

    if isinstance(error, boto.ProfileNotFound):
        return f"there is no profile {error.kwargs.get('profile')}"
    if isinstance(error, (boto.ConfigParseError, boto.ConfigNotFound)):
        return f"{error.kwargs.get('path')} is damaged"
    causes: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
        (
            (boto.PartialCredentialsError,),
            "the key's id is there without its secret, or the reverse",
        ),
        ((boto.SSOError, boto.TokenRetrievalError), "the login has expired (aws sso login)"),
        ((boto.InfiniteLoopConfigError,), "the roles of the profile lead back to it"),
        ((boto.InvalidConfigError,), "the profile names a source of credentials that there is not"),
        ((boto.ClientError,), "the role that is named may not be taken"),
        ((OSError,), "a file that the profile names cannot be read"),
    )
    default = "the program or service that gives them failed"
    return next((cause for kinds, cause in causes if isinstance(error, kinds)), default)


class Failure(NamedTuple):
    """Why a request failed.

    Attributes:
        status: HTTP status; None if there was no answer.
        code: S3's name of the error; "" if it is none that S3 has.
        cause: a phrase of ours.
    """

    status: int | None
    code: str
    cause: str

    @property
    def denied(self) -> bool:
        """Whether the credentials, or the lack of them, are the cause."""
        return self.status in {401, 403} or self.code in _DENIED

    @property
    def by_policy(self) -> bool:
        """Whether the credentials are right, and a policy does not allow them this."""
        return self.code in _BY_POLICY


_BY_POLICY = {"AccessDenied", "AllAccessDisabled"}
_DENIED = {
    "AccessDenied": "access denied",
    "AllAccessDisabled": "access denied",
    "ExpiredToken": "the session token has expired",
    "InvalidAccessKeyId": "this access key is not known there",
    "InvalidToken": "the session token is not valid",
    "RequestTimeTooSkewed": "the clock of this machine is wrong",
    "SignatureDoesNotMatch": "the secret does not belong to this access key",
    "XAdminUserNotFound": "this access key is not known there",
}
_CODES = {
    **_DENIED,
    "AuthorizationHeaderMalformed": "the bucket is in another region",
    "IllegalLocationConstraintException": "the bucket is in another region",
    "InternalError": "an internal error of the server",
    "InvalidBucketName": "the bucket's name is not one that S3 has",
    "InvalidRequest": "the server does not take this request",
    "MethodNotAllowed": "the server does not do this",
    "NoSuchBucket": "there is no such bucket",
    "NoSuchKey": "there is no such object",
    "NotImplemented": "the server does not do this",
    "PermanentRedirect": "the bucket is in another region",
    "QuotaExceeded": "the quota of the bucket is used up",
    "RequestTimeout": "no answer in time",
    "ServiceUnavailable": "the server is busy",
    "SlowDown": "the server is busy",
    "XMinioStorageFull": "the server's disk is full",
}
_ELSEWHERE = "it sends elsewhere"
_UNTRUSTED = "its certificate is not trusted (name its authority's file in AWS_CA_BUNDLE)"
# Texts in errors of obstore and botocore that show why a request got no answer, each with our phrase.
_SIGNS = (
    ("dns error", "its host name is not known on this machine"),
    ("could not connect to the endpoint", "connection refused"),
    ("connection refused", "connection refused"),
    ("certificate", "its certificate is not trusted (name its authority's file in AWS_CA_BUNDLE)"),
    (
        "ssl validation failed",
        "its certificate is not trusted (name its authority's file in AWS_CA_BUNDLE)",
    ),
    ("reset by peer", "the connection was cut"),
    ("connection closed", "the connection was cut"),
    ("kind: timeout", "no answer in time"),
    ("timed out", "no answer in time"),
    ("timeout on endpoint", "no answer in time"),
)


def failure(error: Exception) -> Failure:
    """Say why a request failed; nothing that the server sent is in it but its HTTP status."""
    response = getattr(error, "response", None)  # botocore's ClientError
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return _answered(status, str(response.get("Error", {}).get("Code", "")))
    text = str(error)
    if answer := re.search(r"status code: (\d{3})", text):
        code = re.search(r"<Code>(\w{1,100})</Code>", text)
        return _answered(int(answer[1]), code[1] if code else "")
    lowered = text.lower()
    if "redirect without location" in lowered or isinstance(error, RecursionError):
        # boto3 follows a redirect to the same URL until Python stops the recursion.
        return Failure(301, "", _ELSEWHERE)
    cause = next((phrase for sign, phrase in _SIGNS if sign in lowered), "")
    return Failure(None, "", cause or "it does not answer as an S3 server does")


def _answered(status: int | None, code: str) -> Failure:
    our_code = code if code in _CODES else ""
    if status is not None and 300 <= status < 400 and not our_code:
        return Failure(status, "", _ELSEWHERE)
    return Failure(status, our_code, _CODES.get(our_code, f"HTTP status {status}"))
