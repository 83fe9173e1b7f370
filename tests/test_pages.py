"""Every page and every button as a person uses them: Chromium, a node with all its processes, studies, and a PACS."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread, dcmwrite
from pydicom.uid import generate_uid

from node.audit import Source, Trail
from node.errors import Unknown
from node.ledger import Delivery, Job, JobState, StudyHistory, StudyState
from node.web.buttons import BUTTONS
from node.web.view import PAGES
from pipelines.synthetic import ct_slices
from tests.peers import needs, orthanc
from tests.running_node import Node, running
from tests.workplace import until

pytestmark = [needs("chromium", "storescu", "Orthanc"), pytest.mark.timeout(900)]

SCRIPT = "<script>alert(1)</script>"
LINES = """
[triage.bleeding]
pipeline = "bleeds"
[pipelines.bleeds]
use = "tests.pipelines_for_tests:Bleeds"
when = { Modality = "CT" }
deliver_to = ["PACS"]
[pipelines.outlines]
use = "tests.pipelines_for_tests:Outlines"
when = { Modality = "CT" }
deliver_to = ["PACS"]
"""
ACTS = ("drain", "prioritize", "cancel", "quarantine", "hold", "release", "retry", "resume", "send again", "switch")
WIDTHS = ((1280, 860, "light"), (390, 844, "dark"))
PATIENCE = 120_000  # milliseconds: the machine may be busy
# What WCAG 2.1 (1.4.3) asks of text, looked at for each element that has some of its own.
PALE = """() => {
  const light = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map((part) => part / 255)
      .map((part) => part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (one) => {
    for (; one; one = one.parentElement) {
      const colour = getComputedStyle(one).backgroundColor;
      if (!/, 0\\)$|transparent/.test(colour)) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  return [...document.querySelectorAll("body *:not(svg *):not(option)")].filter((one) => {
    if (![...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim())) return false;
    const [a, b] = [light(getComputedStyle(one).color), light(ground(one))].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05) < 4.5;
  }).map((one) => `${one.tagName}.${one.className}: ${one.textContent.trim().slice(0, 40)}`);
}"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    folder = tmp_path_factory.mktemp("pages")
    with orthanc(folder / "pacs") as pacs, running(folder / "node", pacs, LINES) as started:
        yield started


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield opened
        opened.close()


class Person:
    """Somebody at a browser; what the browser complains of stands in ``complaints``."""

    def __init__(self, browser: Any, node: Node, width: int = 1280, height: int = 860, scheme: str = "light") -> None:
        self.context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        self.page, self.complaints = self.context.new_page(), []
        self.page.set_default_timeout(PATIENCE)
        self.page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(f"dialog {dialog.message}"))
        self.url = f"http://127.0.0.1:{node.web_port}"

    def go(self, path: str) -> None:
        self.page.goto(self.url + path)

    def ask(self, name: str, label: str, *, subject: str) -> Any:
        """Press a button, which asks first; the question's form."""
        form = self.page.locator(f"form[action='/act/{name}']", has=self.page.locator(f"[value='{subject}']")).first
        form.locator("xpath=../summary").click()
        form.locator("button.main", has_text=label).wait_for()
        return form

    def press(self, name: str, label: str, *, subject: str, **given: str) -> str:
        """Press a button and answer its question; what the page says was done."""
        form = self.ask(name, label, subject=subject)
        for field, value in given.items():
            where = form.locator(f"[name='{field}']")
            where.select_option(value) if where.evaluate("one => one.tagName") == "SELECT" else where.fill(value)
        with self.page.expect_navigation():
            form.locator("button.main").click()
        return str(self.page.locator(".said").inner_text())


@pytest.fixture
def anna(browser: Any, node: Node) -> Iterator[Person]:
    person = Person(browser, node)
    yield person
    person.context.close()
    assert not person.complaints


def sent(node: Node, folder: Path, **elements: Any) -> str:
    """A CT study from the scanner; its UID."""
    uid, series = generate_uid(prefix="1.2.826.0.1.3680043.10.99."), generate_uid()
    for path in ct_slices(folder, count=3, size=64, seed=1):
        instance = dcmread(path)
        instance.StudyInstanceUID, instance.SeriesInstanceUID = uid, series
        instance.SOPInstanceUID = instance.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        for keyword, value in elements.items():
            setattr(instance, keyword, value)
        dcmwrite(path, instance)
    node.send(folder)
    return str(uid)


def history(node: Node, uid: str, true: Callable[[StudyHistory], Any]) -> StudyHistory:
    """What the ledger holds of the study once that is true."""

    ledger = node.ledger

    def look() -> StudyHistory | None:
        try:
            found = ledger.study(uid)
        except Unknown:  # it lies in the spool, and is written down in a moment
            return None
        return found if true(found) else None

    found: StudyHistory = until(look, PATIENCE / 1000, uid)
    ledger.close()
    return found


def jobs(found: StudyHistory) -> dict[str, Job]:
    return {job.pipeline: job for job in found.jobs}


def has_settled(found: StudyHistory) -> bool:
    return len(found.jobs) == 2


def is_sent(found: StudyHistory) -> bool:
    return len(found.deliveries) == 2 and all(one.state == "DELIVERED" for one in found.deliveries)


def acts(node: Node) -> list[tuple[str, int]]:
    """What administrators have done, by the audit trail, the last first."""
    trail = Trail(node.folder / "data" / "audit", Source())
    told = [entry.as_json() for entry in trail.entries(5000)]
    return [(one["types"][-1], one["outcome"]) for one in told if one["types"] and one["types"][-1] in ACTS]


@pytest.fixture(scope="module")
def read(node: Node, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A study of a patient with a hostile name, read and delivered."""
    uid = sent(node, tmp_path_factory.mktemp("read"), PatientName=f"{SCRIPT}^Eva", PatientID="<b>7</b>")
    history(node, uid, is_sent)
    return uid


@pytest.mark.parametrize(("width", "height", "scheme"), WIDTHS)
def test_every_page_is_whole(browser: Any, node: Node, read: str, width: int, height: int, scheme: str) -> None:
    person = Person(browser, node, width, height, scheme)
    for path in (*(path for path, _ in PAGES), f"/studies/{read}", "/queue?show=failed&text=77", "/studies?state=held"):
        person.go(path)
        assert person.page.title().endswith("· wetread"), path
        wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert person.page.evaluate(wide) == 0, f"{path} is too wide"
        assert person.page.evaluate(PALE) == [], path
    person.context.close()
    assert not person.complaints


def test_a_patient_who_is_called_a_script_is_a_text(anna: Person, read: str) -> None:
    anna.go(f"/studies/{read}")
    assert anna.page.locator("h1").inner_text().startswith(f"{SCRIPT}, Eva")
    assert anna.page.locator("dd", has_text="<b>7</b>").count() == 1
    picture = anna.page.locator("figure img").first
    picture.scroll_into_view_if_needed()
    until(lambda: picture.evaluate("one => one.naturalWidth") == 512, PATIENCE / 1000)  # it is drawn


def test_the_page_moves_by_itself_when_a_study_comes(anna: Person, node: Node, tmp_path: Path) -> None:
    anna.go("/queue")
    uid = sent(node, tmp_path)
    anna.page.locator(f"[title='{uid}']").first.wait_for()
    history(node, uid, is_sent)


def test_rules_are_tried_on_a_file(anna: Person, tmp_path: Path) -> None:
    (file, *_) = ct_slices(tmp_path, count=1, size=32, seed=2)
    anna.go("/rules")
    anna.page.set_input_files("input[type=file]", str(file))
    anna.page.get_by_role("button", name="Try the rules").click()
    assert anna.page.get_by_text("Modality is CT, in 1 of 1 series").count() == 2
    (tmp_path / "letter.txt").write_text("no DICOM at all")
    anna.page.set_input_files("input[type=file]", str(tmp_path / "letter.txt"))
    with anna.page.expect_response("**/rules") as answer:
        anna.page.get_by_role("button", name="Try the rules").click()
    assert answer.value.status == 409
    anna.page.get_by_text("not a DICOM file").wait_for()
    anna.page.get_by_role("link", name="Go back").click()
    anna.page.wait_for_url("**/rules")
    anna.complaints.clear()  # the browser, too, says that it was refused


def test_every_button_asks_once_does_it_and_is_recorded(anna: Person, node: Node, tmp_path: Path) -> None:
    worker, before = f"{socket.gethostname()}/cpu", len(acts(node))
    anna.go("/workers")
    anna.ask("drain", "Drain", subject=worker)
    assert not node.ledger.drained()  # to be asked is to have done nothing
    anna.page.keyboard.press("Escape")
    assert "takes nothing more" in anna.press("drain", "Drain", subject=worker, reason="new driver")
    uid = sent(node, tmp_path)
    (first, second) = history(node, uid, has_settled).jobs
    anna.go("/queue?show=waiting")
    assert "priority 0 now" in anna.press("priority", "Priority", subject=str(first.id), priority="0")
    assert "cancelled" in anna.press("cancel", "Cancel", subject=str(first.id))
    anna.go(f"/studies/{uid}")
    assert "quarantined" in anna.press("quarantine", "Quarantine", subject=str(second.id), reason="too large")
    assert "is held" in anna.press("hold", "Hold", subject=uid, reason="wrong side?")
    assert node.ledger.study(uid).study.state is StudyState.HELD
    assert "is released" in anna.press("release", "Release", subject=uid)
    anna.go("/queue")
    for job in (first, second):
        assert "queued again" in anna.press("retry", "Retry", subject=str(job.id))
    anna.go("/workers")
    assert "takes work again" in anna.press("resume", "Resume", subject=worker)
    history(node, uid, is_sent)
    anna.go(f"/studies/{uid}")
    assert "queued for WEB" in anna.press("resend", "Send to", subject=str(first.id), destination="WEB")
    history(node, uid, lambda found: {one.destination for one in found.deliveries if delivered(one)} == {"PACS", "WEB"})
    anna.go("/pipelines")
    assert "in shadow" in anna.press("switch", "Switch", subject="bleeds", mode="shadow")
    assert "is on, as the settings say" in anna.press("switch", "Switch", subject="bleeds", mode="settings")
    done = acts(node)[: len(acts(node)) - before]
    assert {outcome for _, outcome in done} == {0}
    assert list(dict.fromkeys(name for name, _ in reversed(done))) == list(ACTS)
    assert (len(done), len(ACTS)) == (12, len(BUTTONS))  # to retry and to switch, twice


def delivered(one: Delivery) -> bool:
    return one.state == "DELIVERED"


def test_what_is_read_in_shadow_is_shown_and_sent_nowhere(anna: Person, node: Node, tmp_path: Path) -> None:
    anna.go("/pipelines")
    anna.press("switch", "Switch", subject="bleeds", mode="shadow", reason="new scanner")
    assert "new scanner" in anna.page.locator("section.card", has_text="bleeds").first.inner_text()
    anna.press("switch", "Switch", subject="outlines", mode="off")
    uid = sent(node, tmp_path)
    found = history(node, uid, lambda found: found.jobs and found.jobs[0].state is JobState.DONE)
    assert list(jobs(found)) == ["bleeds"]
    assert (found.deliveries, found.jobs[0].priority) == ((), 5)
    anna.go(f"/studies/{uid}")
    card = anna.page.locator("section.card", has_text="bleeds").last.inner_text()
    assert "shadow" in card
    assert "hemorrhage" in card.lower()
    assert "Send to" not in card
    for name in ("bleeds", "outlines"):
        anna.go("/pipelines")
        anna.press("switch", "Switch", subject=name, mode="settings")


def test_a_browser_that_closes_mid_action_leaves_nothing_half_done(
    browser: Any, node: Node, read: str, tmp_path: Path
) -> None:
    before = acts(node)
    person = Person(browser, node)
    person.go(f"/studies/{read}")
    person.ask("hold", "Hold", subject=read).locator("[name='reason']").fill("half a se")
    token = person.page.locator("[name='csrf']").first.get_attribute("value")
    person.context.close()  # while it is asked
    body = f"csrf={token}&subject={read}&back=/&reason=x"
    head = (
        f"POST /act/hold HTTP/1.1\r\nHost: 127.0.0.1:{node.web_port}\r\nContent-Length: {len(body)}\r\n"
        "Content-Type: application/x-www-form-urlencoded\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", node.web_port)) as line:  # while it is sent
        line.sendall((head + body[: len(body) // 2]).encode())
    time.sleep(1)
    assert node.ledger.study(read).study.state is StudyState.SETTLED
    assert acts(node) == before
    person = Person(browser, node)
    person.go(f"/studies/{read}")
    form = person.ask("hold", "Hold", subject=read)
    form.evaluate("form => form.submit()")
    person.context.close()  # while it is done: it was done and recorded, or neither
    until(lambda: len(acts(node)) - len(before) == (node.ledger.study(read).study.state is StudyState.HELD))
    if node.ledger.study(read).study.state is StudyState.HELD:
        assert acts(node)[0] == ("hold", 0)
        node.ledger.release(read)
