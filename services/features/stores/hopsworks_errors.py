"""What the Hopsworks client raises, as one `StoreError` that says what to do. No secret gets into it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from services.common.errors import StoreError
from services.features.hopsworks_settings import HopsworksSettings

MAX_ANSWER_CHARS = 200

_BY_STATUS = {
    401: "refused the API key; set FEATURES_HOPSWORKS_API_KEY to one that is valid",
    403: "does not let this API key do that; it takes the scopes featurestore, project, job and kafka",
    404: "does not have it; see that FEATURES_HOPSWORKS_PROJECT exists and that the key's user is a member",
}


@contextmanager
def problems(settings: HopsworksSettings, doing: str) -> Iterator[None]:
    """Turn the client's errors into `StoreError`; `doing` says what was tried. Others are bugs and pass."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        reason = _reason(error, settings)
        if reason is None:
            raise
        where = f"{settings.hopsworks_host}:{settings.hopsworks_port}"
        raise StoreError(_struck(f"cannot {doing}: Hopsworks at {where} {reason}", settings)) from None


def _struck(text: str, settings: HopsworksSettings) -> str:
    """A server may repeat what it was sent."""
    key = settings.hopsworks_api_key
    return text if key is None else text.replace(key.get_secret_value(), "***")


def _reason(error: BaseException, settings: HopsworksSettings) -> str | None:
    """Why, or None for an exception that nobody expects of this client."""
    # Names that only the extra has.
    from confluent_kafka import KafkaException
    from hopsworks_common.client.exceptions import FeatureStoreException, RestAPIError
    from requests import RequestException, Timeout
    from requests.exceptions import SSLError
    from sqlalchemy.exc import SQLAlchemyError

    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None and cause not in causes:
        causes.append(cause)
    for found in causes:
        if isinstance(found, RestAPIError):
            return _of_answer(found)
        if isinstance(found, SSLError):
            return (
                "shows a certificate that is not trusted or is for another name; check the host, and "
                "give the cluster's CA with FEATURES_HOPSWORKS_CA_FILE"
            )
        if isinstance(found, Timeout):
            return (
                f"did not answer within {settings.hopsworks_timeout_s:g} s; is it overloaded or unreachable?"
            )
        if isinstance(found, KafkaException):
            detail = found.args[0].str() if found.args and hasattr(found.args[0], "str") else str(found)
            return f"has a Kafka that did not take the rows ({detail}); the working copy keeps them"
        if isinstance(found, RequestException):
            return "cannot be reached; check FEATURES_HOPSWORKS_HOST and _PORT, and the network"
        if isinstance(found, SQLAlchemyError):
            return "does not answer through its online database; is that reachable from here?"
        if isinstance(found, pa.ArrowException):
            return "does not answer through its query service; is port 5005 reachable from here?"
    if isinstance(error, ValueError) and "Hive" in str(error):
        return "does not offer this client its query service, which offline reads take; enable it there"
    if isinstance(error, FeatureStoreException):
        return f"or its client refused it: {str(error)[:MAX_ANSWER_CHARS]}"
    if isinstance(error, OSError):
        return f"cannot be used from here: {error.strerror or type(error).__name__}"
    return None


def _of_answer(error: Any) -> str:
    status: int = error.response.status_code
    said = ""
    try:
        body = error.response.json()
        texts = [body.get(name) for name in ("errorMsg", "usrMsg")] if isinstance(body, dict) else []
        said = "; ".join(text for text in texts if text)[:MAX_ANSWER_CHARS]
    except ValueError:
        pass
    advice = _BY_STATUS.get(status, "failed; see its log, or try again later")
    return f"{advice} (HTTP {status}{f': {said}' if said else ''})"
