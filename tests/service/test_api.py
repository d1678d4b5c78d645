"""The API: what it refuses and how, what it keeps, and who may ask."""

from __future__ import annotations

import io
import itertools
import json
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import metriloc

pytestmark = [pytest.mark.extras, pytest.mark.slow]
Started = Callable[..., Any]
GPS_IFD, LATITUDE = 0x8825, 0x0002


def jpeg(size: tuple[int, int] = (64, 48), seed: int = 0, place: bool = False) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
    image, file = Image.fromarray(pixels), io.BytesIO()
    exif = image.getexif()
    if place:
        exif[0x010F] = "SecretPhoneMaker"
        exif.get_ifd(GPS_IFD).update({0x0001: "N", LATITUDE: (52.0, 31.0, 12.34)})
    image.save(file, "JPEG", exif=exif)
    return file.getvalue()


def png_that_claims(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b"")
    )


def photo(data: bytes | None = None, name: str = "photo.jpg") -> list[tuple[str, tuple[str, bytes]]]:
    return [("photo", (name, jpeg() if data is None else data))]


def anchor(client: Any, **fields: str) -> str:
    made = client.post("/v1/anchors", data={"fov": "60", **fields}, files=photo())
    assert made.status_code == 201, made.text
    assert made.headers["location"] == f"/v1/anchors/{made.json()['id']}"
    return str(made.json()["id"])


def problem(response: Any, status: int, words: str) -> None:
    """One sentence as RFC 9457 has it, without a path of this machine."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    told = response.json()
    assert told["status"] == status and told["title"] and words in told["detail"]
    assert "Traceback" not in response.text and "/tmp" not in response.text and ".py" not in response.text
    assert response.headers["x-content-type-options"] == "nosniff" and "content-security-policy" in response.headers


def test_an_anchor_lives_until_it_is_deleted(started: Started) -> None:
    client = started(method="identity")
    id = anchor(client)
    told = client.get(f"/v1/anchors/{id}").json()
    assert (told["photo"], told["size"], told["method"]) == ("photo.jpg", [64, 48], "identity")
    assert id in {one["id"] for one in client.get("/v1/anchors", params={"count": 1000}).json()}
    found = client.post(f"/v1/anchors/{id}/poses", files=photo())
    assert found.status_code == 200 and found.json()["queries"][0]["success"]
    twin = anchor(client)  # of the same photo: one file, two anchors
    assert client.delete(f"/v1/anchors/{id}").status_code == 204
    problem(client.get(f"/v1/anchors/{id}"), 404, "there is no such anchor")
    problem(client.post(f"/v1/anchors/{id}/poses", files=photo()), 404, "there is no such anchor")
    problem(client.delete(f"/v1/anchors/{id}"), 404, "there is no such anchor")
    assert client.post(f"/v1/anchors/{twin}/poses", files=photo()).status_code == 200


def test_nothing_is_kept_of_where_a_photo_was_taken(started: Started) -> None:
    client = started(method="identity")
    sent = jpeg(seed=7, place=True)
    assert b"SecretPhoneMaker" in sent
    made = client.post("/v1/anchors", files=photo(sent, "home.jpg"))
    assert made.status_code == 201, made.text
    data: Path = client.app.state.desk.config.data
    kept = [file for file in data.rglob("*") if file.is_file()]
    assert any(b"home.jpg" in file.read_bytes() for file in kept)
    for file in kept:
        content = file.read_bytes()
        assert b"SecretPhoneMaker" not in content and b"Exif" not in content and sent[-500:] not in content
    assert list(client.app.state.desk.spool.iterdir()) == [client.app.state.desk.spool / "lock"]
    log = (data / "audit.jsonl").read_text()
    assert "home.jpg" not in log and json.loads(log.splitlines()[-1])["route"] == "/v1/anchors"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"no photo at all", "is not an image that can be read"),
        (jpeg((640, 480))[:3000], "photo.jpg"),
        (png_that_claims(60000, 60000), "megapixels"),
        (png_that_claims(4000, 4000), "photo.jpg"),
        (b"\xff\xd8\xff" + bytes(5000), "photo.jpg"),
        (b"RIFF\x24\0\0\0WEBPVP8 " + bytes(50), "photo.jpg"),
    ],
    ids=["empty", "text", "cut off", "a bomb", "less than claimed", "zeros", "webp"],
)
def test_photos_that_are_none(started: Started, data: bytes, words: str) -> None:
    problem(started(method="identity").post("/v1/anchors", files=photo(data)), 422, words)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"fov": "180"}, "fov must be below 180, got '180'"),
        ({"fov": "nan"}, "fov must be "),
        ({"k": "1 2 3"}, "k is four numbers"),
        ({"k": "nan nan nan nan"}, "K"),
        ({"k": "1 1 1 1", "fov": "60"}, "k and fov are both given"),
        ({"distance": "-1"}, "distance must be above 0, got '-1'"),
        ({"distance": "0.5"}, "identity has none"),
        ({"depth_scale": "5000"}, "without a depth map"),
        ({"fow": "60"}, "there is no field 'fow': the fields are depth, depth_scale, distance, fov, k, photo"),
    ],
)
def test_fields_that_cannot_be(started: Started, fields: dict[str, str], words: str) -> None:
    problem(started(method="identity").post("/v1/anchors", data=fields, files=photo()), 422, words)


def test_requests_that_cannot_be(started: Started) -> None:
    client = started(method="identity", photos=3)
    id = anchor(client)
    problem(client.post("/v1/anchors"), 422, "photo is missing")
    problem(
        client.post("/v1/anchors", data={"photo": "../../etc/passwd"}),
        422,
        "photo is a file (multipart/form-data), got",
    )
    problem(client.get("/v1/anchors/../../etc/passwd"), 404, "there is nothing at '/etc/passwd'")
    problem(
        client.get("/v1/anchors/nobody"),
        422,
        "id is 32 digits and letters from a to f, as it was returned, got 'nobody'",
    )
    problem(client.get("/v1/anchors", params={"count": 10**9}), 422, "count must be at most 1000, got '1000000000'")
    problem(client.put("/v1/anchors"), 405, "PUT is not for this address")
    problem(client.post(f"/v1/anchors/{id}/poses", files=4 * photo()), 413, "at most 3 photos")
    problem(client.post(f"/v1/anchors/{id}/poses", files=photo(), data={"seed": "-1"}), 422, "seed must be at least 0")
    sent = {"seed": "x" * 100}
    problem(client.post(f"/v1/anchors/{id}/poses", files=photo(), data=sent), 422, "seed is a whole number, got 'xx")
    problem(
        client.post(f"/v1/anchors/{id}/poses", files=photo(), data={"report": "2"}), 422, "is true or false, got '2'"
    )
    as_file = [*photo(), ("fov", ("a.txt", b"60"))]
    problem(client.post("/v1/anchors", files=as_file), 422, "fov is a number, got a file")
    sent = [*photo(name="../../a.jpg"), *photo(name="c:\\x\\a.jpg"), *photo(name="\x1b[31m")]
    found = client.post(f"/v1/anchors/{id}/poses", files=sent).json()
    assert [entry["query"] for entry in found["queries"]] == ["a.jpg", "2-a.jpg", "[31m"]


def test_bundles_that_are_none(started: Started) -> None:
    client, file = started(method="identity"), io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", bytes(10**8))
    for data, words in ((b"", "is empty"), (b"zip?", "no bundle"), (file.getvalue(), "larger than itself")):
        problem(client.post("/v1/maps", files=[("bundle", ("a.metriloc", data))]), 422, words)
    assert client.get("/v1/maps").json() == []


def test_bodies_are_bounded(started: Started) -> None:
    client = started(method="identity", body_mebibytes=1, body_seconds=0.5)
    problem(client.post("/v1/anchors", files=photo(bytes(2**20 + 1))), 413, "larger than 1 MiB")
    first = b'--x\r\nContent-Disposition: form-data; name="photo"; filename="a.jpg"\r\n\r\n'
    chunks = itertools.chain([first], (bytes(2**16) for _ in range(32)))  # nobody says how many
    head = {"content-type": "multipart/form-data; boundary=x"}
    problem(client.post("/v1/anchors", content=chunks, headers=head), 413, "larger than 1 MiB")
    problem(
        client.post("/v1/anchors", content=b"no form", headers=head),
        400,
        "the body is no form (multipart/form-data) that can be read",
    )
    problem(client.post("/v1/anchors", headers={**head, "content-length": "-1"}), 413, "larger")


# -- who may ask ------------------------------------------------------------------------------------------------------
def test_pages_of_others_may_not_ask(started: Started) -> None:
    client = started(method="identity")
    for headers in ({"origin": "https://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}):
        problem(client.post("/v1/anchors", files=photo(), headers=headers), 403, "pages of other sites")
    problem(client.get("/v1/anchors", headers={"host": "evil.example"}), 421, "is not called so")
    assert client.get("/v1/anchors", headers={"origin": "https://evil.example"}).status_code == 200
    assert "access-control-allow-origin" not in client.get("/v1/anchors").headers
    own = {"origin": "http://localhost", "sec-fetch-site": "same-origin"}
    assert client.post("/v1/anchors", files=photo(), headers=own).status_code == 201


def test_tokens_let_in_as_far_as_their_scopes(started: Started) -> None:
    from metriloc.service.tokens import add_token, revoke_token

    client = started(method="identity", require_token=True)
    records = client.app.state.desk.records
    read, write = (
        {"authorization": f"Bearer {add_token(records, name, scopes)}"}  # type: ignore[arg-type]
        for name, scopes in (("reader", ("read",)), ("writer", ("read", "write")))
    )
    for headers in ({}, {"authorization": "Bearer x"}, {"authorization": "Basic eDp4"}):
        problem(client.get("/v1/anchors", headers=headers), 401, "token")
        problem(client.post("/v1/anchors", files=photo(), headers=headers), 401, "token")
        problem(client.get("/metrics", headers=headers), 401, "token")
    assert client.get("/healthz").status_code == client.get("/docs").status_code == 200
    problem(client.post("/v1/anchors", files=photo(), headers=read), 403, "no scope 'write'")
    made = client.post("/v1/anchors", files=photo(), headers=write)
    assert made.status_code == 201
    found = client.post(f"/v1/anchors/{made.json()['id']}/poses", files=photo(), headers=read)
    assert found.status_code == 200
    problem(client.delete(f"/v1/anchors/{made.json()['id']}", headers=read), 403, "no scope 'write'")
    revoke_token(records, "reader")
    problem(client.get("/v1/anchors", headers=read), 401, "not, or no longer, good")
    callers = [json.loads(line)["caller"] for line in (client.app.state.desk.config.data / "audit.jsonl").open()]
    assert "writer" in callers and not any("metriloc_" in caller for caller in callers)


def test_rates_are_bounded(started: Started) -> None:
    client = started(method="identity", rate="5/hour")
    answers = [client.get("/v1/anchors") for _ in range(6)]
    assert [answer.status_code for answer in answers[:5]] == [200] * 5
    problem(answers[5], 429, "more than 5/hour")
    assert int(answers[5].headers["retry-after"]) > 0
    assert client.get("/healthz").status_code == 200


# -- what is kept -----------------------------------------------------------------------------------------------------
def test_quota_and_days(started: Started) -> None:
    client = started(method="identity", quota_mebibytes=1, keep_days=1e-5)  # 0.864 s
    big = client.post("/v1/anchors", files=photo(jpeg((800, 600))))
    problem(big, 507, "keeps at most 1 MiB")
    id = anchor(client)
    assert client.get(f"/v1/anchors/{id}").json()["expires"] > time.time()
    time.sleep(1)
    problem(client.get(f"/v1/anchors/{id}"), 404, "has expired")
    desk = client.app.state.desk
    assert len(list(desk.blobs.digests())) == 1
    desk.sweep()
    assert list(desk.blobs.digests()) == [] and desk.records.counts() == {"anchors": 0, "maps": 0, "bytes": 0}


def test_numbers_for_prometheus(started: Started) -> None:
    client = started(method="identity")
    client.post(f"/v1/anchors/{anchor(client)}/poses", files=photo())
    text = client.get("/metrics").text
    for wanted in (
        'metriloc_verdicts_total{verdict="uncalibrated",what="anchor"}',
        'metriloc_stage_seconds_bucket{le="0.1",stage="decode"}',
        'metriloc_queue_jobs{pool="poses"} 0.0',
        'route="/v1/anchors/{id}/poses",status="200"',
    ):
        assert wanted in text, wanted


def test_the_api_describes_itself(started: Started) -> None:
    client = started(method="identity")
    schema = client.get("/openapi.json").json()
    assert set(schema["paths"]) >= {
        "/v1/anchors",
        "/v1/anchors/{id}/poses",
        "/v1/maps/{id}/poses",
        "/readyz",
        "/metrics",
    }
    page = client.get("/docs").text
    assert "/v1/anchors/{id}/poses" in page and "https://" not in page.replace("https://www.w3.org", "")


def test_the_client(started: Started, tmp_path: Path) -> None:
    from metriloc.service.client import ServiceError

    client = metriloc.Client("http://localhost", http=started(method="identity"))
    file = tmp_path / "phone.jpg"
    file.write_bytes(jpeg())
    made = client.add_anchor(file, K=(60, 60, 31.5, 23.5))
    assert made in {one["id"] for one in client.anchors()}
    found = client.poses_at(made, [file, jpeg(seed=1)], fov=60, seed=2)
    assert [entry["success"] for entry in found["queries"]] == [True, True] and found["seed"] == 2
    client.delete_anchor(made)
    with pytest.raises(ServiceError, match=r"there is no such anchor.*404") as gone:
        client.poses_at(made, file)
    assert gone.value.status == 404
    with pytest.raises(metriloc.InputError, match="does not exist"):
        client.add_anchor(tmp_path / "nowhere.jpg")
    with pytest.raises(metriloc.InputError, match="no photo"):
        client.poses_at(made, [])


def test_an_anchor_in_the_world_of_a_device(started: Started) -> None:
    client = started(method="identity")
    at = f"/v1/anchors/{anchor(client)}/poses"
    matrix = [[1, 0, 0, 4], [0, 1, 0, 5], [0, 0, 1, 6], [0, 0, 0, 1]]
    asked = metriloc.Client("http://localhost", http=client)
    (found,) = asked.poses_at(at.split("/")[3], jpeg(), device_poses=[matrix])["queries"]
    assert found["anchor_in_device"] == {
        "convention": "arkit",
        "matrix": matrix,
    }  # the method says that it did not move
    problem(client.post(at, files=photo(), data={"device_poses": "[1]"}), 422, "16 numbers")
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (64, 48)).save(file, "JPEG", exif=exif)
    sent = photo(file.getvalue(), "turned.jpg")
    problem(client.post(at, files=sent, data={"device_poses": json.dumps([matrix])}), 422, "is turned by its EXIF")
    assert client.post(at, files=sent).status_code == 200


# -- jobs -------------------------------------------------------------------------------------------------------------
LATER = {"prefer": "respond-async"}


def done(client: Any, id: str) -> Any:
    end = time.monotonic() + 60
    while (job := client.get(f"/v1/jobs/{id}").json())["state"] != "done":
        assert time.monotonic() < end, job
        time.sleep(0.05)
    return job


def test_a_job_is_answered_later(started: Started) -> None:
    client = started(method="identity")
    at = f"/v1/anchors/{anchor(client)}/poses"
    sent = [*photo(), *photo(b"no photo", "letter.txt")]
    accepted = client.post(at, files=sent, data={"seed": "4", "fov": "50"}, headers=LATER)
    assert accepted.status_code == 202 and accepted.headers["preference-applied"] == "respond-async"
    job = done(client, accepted.json()["id"])
    assert accepted.headers["location"] == f"/v1/jobs/{job['id']}" and job["status"] == 200
    assert job["answer"] == client.post(at, files=sent, data={"seed": "4", "fov": "50"}).json()
    desk = client.app.state.desk
    desk.sweep()  # photos of jobs that are done go, the answer stays
    with desk.records.reading() as rows:
        assert set(desk.blobs.digests()) <= desk.records.used_blobs(rows)
    assert client.get(f"/v1/jobs/{job['id']}").json()["answer"] == job["answer"]
    assert client.delete(f"/v1/jobs/{job['id']}").status_code == 204
    problem(client.get(f"/v1/jobs/{job['id']}"), 404, "there is no such job")
    problem(client.delete(f"/v1/jobs/{job['id']}"), 404, "there is no such job")


def test_a_job_that_cannot_be(started: Started) -> None:
    client = started(method="identity")
    problem(client.post(f"/v1/anchors/{'0' * 32}/poses", files=photo(), headers=LATER), 404, "no such anchor")
    at = f"/v1/anchors/{anchor(client)}/poses"
    job = done(client, client.post(at, files=photo(b"no photo"), headers=LATER).json()["id"])
    assert job["status"] == 422 and "is not an image" in job["answer"]["detail"]


def test_the_job_of_a_service_that_was_killed_is_taken_up(started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    from metriloc.service.desk import Desk
    from metriloc.service.jobs import JOBS

    client = started(method="identity", keep_days=365)
    desk = client.app.state.desk
    monkeypatch.setattr(Desk, "idle", False)  # as if it were busy
    id = client.post(f"/v1/anchors/{anchor(client)}/poses", files=photo(), headers=LATER).json()["id"]
    with desk.records.writing() as rows:
        rows.execute(JOBS.update().where(JOBS.c.id == id).values(state="running", owner="dead", changed=time.time()))
    monkeypatch.undo()
    assert done(client, id)["status"] == 200
