"""A real browser shows the report, and nothing leaves the page."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from matplotlib import image

from tests.reporting.run_folders import whole_run
from tfcq.reporting.run import report

BROWSER = shutil.which("chromium")
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="needs a browser: apt-get install chromium (Debian's package)"
)


def browse(page, folder, *arguments):
    """Opens a page in a fresh profile that can look up no name; returns what the browser logged."""
    log = folder / "net.json"
    subprocess.run(
        [
            BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", "--disable-default-apps", "--disable-dev-shm-usage",
            "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={folder / 'profile'}",
            f"--log-net-log={log}", *arguments, page.as_uri(),
        ],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    return log.read_text()


def requests(log: str) -> set[str]:
    """Returns what a page asked the network for; the browser's own services have no origin."""
    parameters = [event.get("params", {}) for event in json.loads(log)["events"]]
    return {p["url"] for p in parameters if p.get("initiator", "not an origin") != "not an origin"}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    run = whole_run(folder / "run")
    return report([(run, run.load())], folder / "report")


def test_screenshot_is_not_blank_in_light_and_dark(page, tmp_path):
    brightness = {}
    for name, dark in (("light", ()), ("dark", ("--force-dark-mode",))):
        shot = tmp_path / f"{name}.png"
        (tmp_path / name).mkdir()
        browse(page, tmp_path / name, f"--screenshot={shot}", "--window-size=1000,1600", *dark)
        pixels = image.imread(shot)[..., :3]
        assert pixels.shape[:2] == (1600, 1000)
        assert pixels.std() > 0.05
        # As one number each, which is far quicker to tell apart than rows.
        assert len(np.unique(pixels @ np.array([1, 256, 65536]))) > 50
        brightness[name] = pixels.mean()
    assert brightness["light"] > brightness["dark"] + 0.2


def test_no_request_leaves_the_page(page, tmp_path):
    log = browse(page, tmp_path, f"--screenshot={tmp_path / 'a.png'}")
    assert requests(log) == set()
    assert re.findall(r"(?:src|href)=[\"']?(?:https?:)?//", page.read_text()) == []


def test_request_that_leaves_a_page_is_noticed(tmp_path):
    page = tmp_path / "leak.html"
    page.write_text('<!DOCTYPE html><img src="http://example.test/a.png">')
    log = browse(page, tmp_path, f"--screenshot={tmp_path / 'a.png'}")
    assert requests(log) == {"http://example.test/a.png"}
