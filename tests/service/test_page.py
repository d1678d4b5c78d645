"""The page in a real browser: photos in, a pose out; with a mouse, a keyboard, a narrow screen, and what goes wrong."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import metriloc
from metriloc.runs.map_bundle import bundle_map

playwright = pytest.importorskip("playwright.sync_api", reason="the page is tested by playwright")
pytest.importorskip("httpx", reason="the service needs the extra serve")
pytest.importorskip("fastapi", reason="the service needs the extra serve")

from service.running import Running  # noqa: E402

EXAMPLE = Path(metriloc.__file__).parent / "data" / "example"
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
pytestmark = [pytest.mark.extras, pytest.mark.slow]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    made = Running(tmp_path_factory.mktemp("page") / "data", method="xfeat").wait()
    yield made
    made.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("there is no Chromium here")
    with playwright.sync_playwright() as started:
        made = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture()
def page(browser: Any, running: Running, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The page as it is opened; nothing may be asked of others, and nothing break the policy."""
    context = browser.new_context(**getattr(request, "param", {}))
    made, said, foreign = context.new_page(), [], []
    made.set_default_timeout(60000)
    made.on("console", lambda message: said.append(message.text) if "Content Security Policy" in message.text else None)
    made.on("pageerror", lambda error: said.append(str(error)))
    home = f"http://127.0.0.1:{running.port}/"
    made.on("request", lambda r: None if r.url.startswith((home, "data:", "blob:")) else foreign.append(r.url))
    made.goto(home)
    yield made
    context.close()
    assert said == [] and foreign == []


def choose(page: Any, role: str, photo: Path) -> None:
    page.locator(f"input[name={role}]").set_input_files(photo)


def place(page: Any) -> None:
    choose(page, "reference", EXAMPLE / "reference.jpg")
    choose(page, "query", EXAMPLE / "query.jpg")
    page.get_by_role("button", name="Find the pose").click()


@pytest.mark.parametrize("page", [{}, PHONE], ids=["desktop", "390 px"], indirect=True)
def test_two_photos(page: Any, running: Running) -> None:
    page.locator("input[name=reference-fov]").fill("63")
    page.locator("input[name=query-fov]").fill("60")
    page.get_by_label("Metres between the cameras").fill("0.61")
    place(page)
    page.locator("#result").wait_for(state="visible")
    assert "reliable" in page.locator("#verdict").inner_text() and "0.61 m" in page.locator("#verdict").inner_text()
    assert "inliers" in page.locator("#lines").inner_text()
    assert page.evaluate("document.activeElement.id") == "result"
    report = page.frame_locator("#report")
    canvas = report.locator("canvas").first
    canvas.wait_for()
    colors = canvas.evaluate(
        "c => new Set(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).size", timeout=60000
    )
    assert colors > 20, "the 3D view is empty"
    assert report.get_by_role("img", name="Inlier matches").count() == 1
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "the page is too wide"
    with page.expect_download() as saved:
        page.get_by_role("link", name="Save the report").click()
    assert Path(saved.value.path()).read_text().startswith("<!doctype html>")
    assert running.http.get("/v1/anchors").json() == []  # what the page compares it does not leave


@pytest.mark.parametrize("page", [PHONE], ids=["390 px"], indirect=True)
def test_a_phone(page: Any) -> None:
    assert page.get_by_text("Take a photo").first.is_visible()
    assert page.locator("input[name=query-camera]").get_attribute("capture") == "environment"
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for button in page.locator(".button:visible").all():
        assert button.bounding_box()["height"] >= 44


def test_what_is_no_photo(page: Any, tmp_path: Path) -> None:
    wrong = tmp_path / "letter.jpg"
    wrong.write_text("Dear Sir or Madam")
    choose(page, "reference", EXAMPLE / "reference.jpg")
    choose(page, "query", wrong)
    page.get_by_role("button", name="Find the pose").click()
    page.get_by_role("alert").wait_for()
    assert "'letter.jpg' is not an image that can be read" in page.get_by_role("alert").inner_text()
    assert page.get_by_role("button", name="Find the pose").is_enabled()


def test_a_slow_service_is_waited_for_or_not(page: Any) -> None:
    waiting: list[Any] = []
    page.route("**/v1/anchors", lambda route: waiting.append(route))
    place(page)
    page.get_by_role("button", name="Cancel").wait_for()
    assert page.get_by_role("button", name="Find the pose").is_disabled()
    assert "Looking at the photos" in page.get_by_role("status").inner_text()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("alert").wait_for()
    assert page.get_by_role("alert").inner_text() == "Cancelled."
    page.unroute("**/v1/anchors")
    page.route("**/v1/anchors", lambda route: route.abort())
    page.get_by_role("button", name="Find the pose").click()
    page.get_by_text("The service does not answer").wait_for()
    page.unroute("**/v1/anchors")
    problem = '{"title": "Service Unavailable", "status": 503, "detail": "too many requests wait"}'
    page.route("**/v1/anchors", lambda route: route.fulfill(status=503, body=problem))
    page.get_by_role("button", name="Find the pose").click()
    page.get_by_text("too many requests wait").wait_for()


def test_the_keyboard_reaches_everything(page: Any) -> None:
    reached = []
    while not reached or reached[-1] != "The API":
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.name || document.activeElement.textContent.trim()"))
    wanted = ["mode", "reference", "reference-fov", "query", "query-fov", "distance", "Find the pose", "The API"]
    assert [name for name in dict.fromkeys(reached) if name in wanted] == wanted
    page.get_by_role("button", name="Find the pose").focus()
    page.keyboard.press("Enter")
    page.get_by_text("The first photo is missing").wait_for()
    assert page.evaluate("document.activeElement.name") == "reference"
    for control in page.locator("input, select").all():  # a screen reader has a name for each
        assert control.evaluate("c => c.labels.length && c.labels[0].textContent.trim().length") > 0
    page.locator("input[name=query-fov]").fill("500")
    choose(page, "reference", EXAMPLE / "reference.jpg")
    choose(page, "query", EXAMPLE / "query.jpg")
    page.get_by_role("button", name="Find the pose").click()
    page.get_by_text("500 cannot be").wait_for()


def test_a_photo_in_a_map(page: Any, running: Running, example_map: Path, tmp_path: Path) -> None:
    file = tmp_path / "room.metriloc"
    bundle_map(example_map, file, images=EXAMPLE, methods=("xfeat-pnp",))
    page.get_by_role("radio", name="a map").check()
    page.get_by_text("There is no map yet").wait_for()
    page.locator("input[name=bundle]").set_input_files(file)
    page.get_by_text("room.metriloc is here").wait_for()
    choose(page, "query", EXAMPLE / "query.jpg")
    page.get_by_role("button", name="Find the pose").click()
    page.locator("#result").wait_for(state="visible")
    assert "The camera stood at" in page.locator("#verdict").inner_text()
    page.frame_locator("#report").locator("canvas").first.wait_for()
    for one in running.http.get("/v1/maps").json():
        running.http.delete(f"/v1/maps/{one['id']}")
