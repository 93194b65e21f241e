"""The pages in a real browser: the main path, masks, attention, history, restoring, cancelling and errors."""

import threading
from pathlib import Path

from app_tools import PICTURE, edit, quicken, serving


def width_shown(page, selector):
    return page.eval_on_selector(selector, "image => image.naturalWidth")


def test_from_an_example_to_a_result_and_its_second_edit(page):
    page.click("#examples button >> nth=0")
    page.wait_for_selector("#actions", state="visible")
    assert width_shown(page, "#before") == width_shown(page, "#after") == 64
    assert "is kept now" in page.inner_text("#facts")
    page.focus("#slide")
    page.keyboard.press("Home")
    assert page.eval_on_selector("#frame", "frame => frame.style.getPropertyValue('--cut')") == "0%"
    page.fill(".wish", "a green dog standing on the grass at noon")
    assert page.inner_text("#diff mark") == "green"
    edit(page)
    assert "kept from before" in page.inner_text("#facts") and " s, " in page.inner_text("#facts")
    with page.expect_download() as download:
        page.click("#download")
    saved = Path(download.value.path())
    page.reload()
    page.wait_for_selector("html[data-ready=true]")
    page.set_input_files("#file", saved)
    page.wait_for_selector("#note", state="visible")
    assert "settings are back" in page.inner_text("#note")
    assert page.input_value(".wish") == "a green dog standing on the grass at noon"
    page.click("#tab-history")
    page.wait_for_selector(".card >> nth=1")
    page.click(".card .open >> nth=1")
    page.wait_for_selector("#actions", state="visible")
    assert page.input_value(".wish") == "a blue dog standing on the grass at noon"


def test_an_own_picture_a_brushed_mask_and_the_lines_of_code(page):
    quicken(page)
    page.check("[name=origin][value=own]", force=True)
    page.set_input_files("#file", PICTURE)
    page.wait_for_selector("#own-thumb", state="visible")
    page.fill("#prompt", "a white cat sitting on the grass at noon")
    page.fill(".wish", "a black cat sitting on the grass at noon")
    page.check("[name=where][value=brush]", force=True)
    page.wait_for_selector("#mask", state="visible")
    box = page.locator("#mask").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + box["height"] * 0.4)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.6, steps=4)
    page.mouse.up()
    edit(page)
    assert width_shown(page, "#after") == 256  # put back into the picture at its own size
    page.click("#code")
    assert "--mask mask.png" in page.inner_text("#code-command") and "given.png" in page.inner_text("#code-needs")


def test_a_word_is_found_and_a_click_shows_attention(page):
    quicken(page)
    page.check("[name=where][value=word]", force=True)
    page.click("[data-word=dog]")
    page.locator("#note", has_text="Here is").wait_for()
    edit(page)
    page.click("#tab-why")
    assert page.locator(".bar.vital").count() == 2
    page.click("#why-pair .point >> nth=1", position={"x": 80, "y": 90})
    page.wait_for_selector("#looks .look >> nth=3")
    assert page.locator("#looks .bars").first.inner_text().count("%") == 10  # nine words, and the end of the text


def test_methods_side_by_side(page):
    quicken(page)
    page.click("#tab-compare")
    for name in ("flowedit", "rf-inversion", "sdedit"):
        page.uncheck(f"#methods [value={name}]")
    page.click("#page-compare summary")
    page.check("#more-methods [value=reprompt]")
    page.click("#compare")
    page.wait_for_selector("#compared .card >> nth=2")
    assert page.locator("#compared .card").count() == 3


def test_cancel_and_errors_are_clear(page):
    page.click("summary")
    page.fill("#steps", "100")
    page.click("#go")
    page.click("#cancel")
    page.locator("#note", has_text="Cancelled").wait_for()
    page.fill(".wish", "a red dog standing on the grass at noon")
    page.click("#go")
    assert "Both descriptions are the same" in page.inner_text("#alert")
    page.fill(".wish", "a <img src=x onerror=alert(1)> dog")
    page.fill("#steps", "999")
    page.click("#go")
    page.locator("#alert", has_text="up to 100 steps").wait_for()
    assert page.locator("#diff img").count() == 0
    page.set_input_files("#file", {"name": "../../<b>.png", "mimeType": "image/png", "buffer": b"no picture"})
    page.locator("#alert", has_text="not a picture").wait_for()


def test_the_pages_fit_a_telephone(browser, house):
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True)
    page = context.new_page()
    page.goto(house.base)
    page.wait_for_selector("html[data-ready=true]")
    for name in ("edit", "layers", "compare", "why", "history"):
        page.tap(f"#tab-{name}")
        assert page.evaluate("() => document.documentElement.scrollWidth") <= 390, name
    context.close()


def test_a_page_waits_for_a_model_that_is_still_being_loaded(browser, tiny, tmp_path):
    loaded = threading.Event()

    class Slow:
        def __call__(self):
            loaded.wait(60)
            return tiny

    with serving(tiny, tmp_path, opening=Slow()) as house:
        page = browser.new_page()
        page.goto(house.base)
        assert "loading tiny" in page.inner_text("#model")
        loaded.set()
        page.wait_for_selector("html[data-ready=true]")
        page.close()
