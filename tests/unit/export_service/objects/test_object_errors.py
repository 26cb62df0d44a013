import pytest
from obstore.exceptions import AlreadyExistsError, GenericError, PermissionDeniedError, PreconditionError

from dgx_music.errors import ResourceExhausted, Unavailable
from export_service.objects.object_errors import ObjectMissing, ObjectReplaced, translate_object_errors


def answer(status, code):
    return (
        f"Generic S3 error: Error performing PUT http://10.0.0.1/b/k?X-Amz-Signature=5ec2e7 in 1ms - Server returned "
        f"non-2xx status code: {status}: <?xml?><Error><Code>{code}</Code></Error>"
    )


@pytest.mark.parametrize(
    ("error", "expected", "reason", "cause"),
    [
        (PermissionDeniedError(answer("403 Forbidden", "AccessDenied")), Unavailable, "BUCKET_ACCESS_DENIED", "403"),
        (FileNotFoundError(answer("404 Not Found", "NoSuchBucket")), Unavailable, "BUCKET_NOT_FOUND", "create it"),
        (GenericError(answer("404 Not Found", "NoSuchBucket")), Unavailable, "BUCKET_NOT_FOUND", "create it"),
        (GenericError(answer("503 Slow Down", "SlowDown")), Unavailable, "OBJECT_STORAGE_BUSY", "SlowDown"),
        (GenericError(answer("507 Full", "XMinioStorageFull")), ResourceExhausted, "DISK_FULL", "full"),
        (GenericError(answer("403 Forbidden", "QuotaExceeded")), ResourceExhausted, "DISK_FULL", "full"),
        (GenericError(answer("500 Error", "InternalError")), Unavailable, "OBJECT_STORAGE_UNAVAILABLE", "500"),
        (GenericError("kind: Timeout"), Unavailable, "OBJECT_STORAGE_UNAVAILABLE", "did not answer in time"),
        (GenericError("kind: Interrupted"), Unavailable, "OBJECT_STORAGE_UNAVAILABLE", "connection was cut"),
        (GenericError("kind: Connect, Connection refused"), Unavailable, "OBJECT_STORAGE_UNAVAILABLE", "refused"),
        (
            GenericError("PUT http://169.254.169.254/latest/api/token - status code: 403"),
            Unavailable,
            "OBJECT_STORAGE_CREDENTIALS_MISSING",
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        ),
    ],
)
def test_translations(error, expected, reason, cause):
    with pytest.raises(expected) as raised, translate_object_errors("writing an object", "music"):
        raise error
    assert raised.value.reason == reason
    assert cause in raised.value.message
    assert "bucket music" in raised.value.message
    assert raised.value.retry_after_seconds
    assert "5ec2e7" not in raised.value.message + str(raised.value.metadata)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (FileNotFoundError(answer("404 Not Found", "NoSuchKey")), ObjectMissing),
        (PreconditionError(answer("412 Precondition Failed", "PreconditionFailed")), ObjectReplaced),
        (AlreadyExistsError(answer("412 Precondition Failed", "PreconditionFailed")), ObjectReplaced),
    ],
)
def test_what_the_library_asks_for(error, expected):
    with pytest.raises(expected), translate_object_errors("reading an object", "music"):
        raise error
