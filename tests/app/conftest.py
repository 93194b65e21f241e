"""One running app for all tests here, and a browser for those that need one."""

import shutil

import pytest
from app_tools import Guest, serving

import stableflow as sf


@pytest.fixture(scope="session")
def tiny():
    return sf.load("tiny")


@pytest.fixture(scope="session")
def house(tiny, tmp_path_factory):
    with serving(tiny, tmp_path_factory.mktemp("app")) as house:
        yield house


@pytest.fixture
def guest(house):
    return Guest(house.base)


@pytest.fixture(scope="session")
def regular(house):
    """A guest who has been here before."""
    return Guest(house.base)


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PATIENCE = 90_000  # milliseconds


@pytest.fixture(scope="module")  # while it runs, no other test may run an event loop in this thread
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright comes with the extra dev")
    if BROWSER is None:
        pytest.skip("no chromium here; apt-get install chromium ends this skip")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=BROWSER, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, house):
    """A visitor's page; whatever the browser complains of fails the test."""
    faults = []
    context = browser.new_context(viewport={"width": 1280, "height": 860}, accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if "Content Security" in message.text else None)
    page.goto(house.base)
    page.wait_for_selector("html[data-ready=true]")
    yield page
    context.close()
    assert faults == []
