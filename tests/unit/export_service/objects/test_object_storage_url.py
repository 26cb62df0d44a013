import pytest

from dgx_music.errors import FailedPrecondition
from export_service.objects.object_storage_url import ObjectStorageUrl, SharedCredentials, client_options


@pytest.fixture(autouse=True)
def no_variables(monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


@pytest.mark.parametrize(
    ("url", "bucket", "prefix"),
    [("s3://music", "music", ""), ("s3://music/", "music", ""), ("s3://music/a/b/", "music", "a/b")],
)
def test_valid_urls(url, bucket, prefix):
    parsed = ObjectStorageUrl.parse(url)
    assert (parsed.bucket, parsed.prefix) == (bucket, prefix)
    assert ObjectStorageUrl.parse(str(parsed)) == parsed


@pytest.mark.parametrize("url", ["music", "s3://", "s3:///a", "s3://k:s@music", "s3://music:1", "s3://m?x=1", "gs://m"])
def test_other_urls(url):
    with pytest.raises(FailedPrecondition, match="DGX_MUSIC_LIBRARY_URL must be") as raised:
        ObjectStorageUrl.parse(url)
    assert "k:s" not in raised.value.message


@pytest.mark.parametrize("prefix", ["a//b", "/a", "a/./b", "../a", "a\x07b"])
def test_prefixes_that_no_key_can_have(prefix):
    with pytest.raises(FailedPrecondition, match="DGX_MUSIC_LIBRARY_URL must have a prefix without"):
        ObjectStorageUrl.parse(f"s3://music/{prefix}")


def test_plain_http_only_if_the_endpoint_says_so(monkeypatch):
    assert not client_options(1.0)["client_options"]["allow_http"]
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert client_options(1.0)["client_options"]["allow_http"]
    assert not client_options(1.0, "https://s3.example.com")["client_options"]["allow_http"]


def test_credentials_file(monkeypatch, tmp_path):
    file = tmp_path / "credentials"
    assert "credential_provider" not in client_options(1.0)
    file.write_text("[default]\naws_access_key_id = A\naws_secret_access_key = a%b\n[x]\naws_access_key_id = X\n")
    credentials = client_options(1.0)["credential_provider"]
    assert credentials()["access_key_id"] == "A"
    assert credentials()["secret_access_key"] == "a%b"
    file.write_text("[default]\naws_access_key_id=B\naws_secret_access_key=b\naws_session_token=t\n")
    assert (credentials()["access_key_id"], credentials()["token"]) == ("B", "t")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "C")
    assert "credential_provider" not in client_options(1.0)


@pytest.mark.parametrize("content", ["", "secret", "[default]\naws_access_key_id = secret\n"])
def test_a_file_without_credentials(tmp_path, content):
    file = tmp_path / "credentials"
    file.write_text(content)
    with pytest.raises(ValueError, match="has no aws_access_key_id and") as raised:
        SharedCredentials(file, "default")
    assert "secret " not in str(raised.value).replace("aws_secret", "")
