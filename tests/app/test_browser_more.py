"""More pages in a real browser: layers, moves, edits that were not made, photographs, and the keyboard alone."""

import json
from pathlib import Path

from app_tools import edit, quicken

DOG = "a red dog standing on the grass at noon"


def strokes(page):
    return page.locator("#layers .layer-title .quiet").all_inner_texts()


def test_layers_are_added_marked_hidden_reordered_and_come_back_from_a_png(page):
    page.click("#tab-layers")
    quicken(page)
    page.click("#go")
    assert "No layer shows" in page.inner_text("#alert")
    page.click("#add-layer")
    page.fill("#layers textarea", DOG.replace("red", "blue"))
    page.click("#go")
    page.locator("#alert", has_text="Layer 1: say where").wait_for()
    page.click("#layers .words button:has-text('dog')")
    edit(page)
    assert "1 of 1 layers drawn" in page.inner_text("#facts")
    page.click("#add-layer")
    page.fill("#layers textarea", DOG.replace("noon", "night"))
    page.click("#layers button:has-text('Box')")
    page.wait_for_selector("#mask", state="visible")
    page.wait_for_selector("#go", state="visible")
    box = page.locator("#mask").bounding_box()
    page.mouse.move(box["x"] + 4, box["y"] + 4)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 4, box["y"] + box["height"] * 0.4, steps=3)
    page.mouse.up()
    edit(page)
    assert "1 of 2 layers drawn" in page.inner_text("#facts") and "one was kept" in page.inner_text("#facts")
    assert ["kept" in text for text in strokes(page)] == [False, True], "the uppermost is on top"
    page.click("#layers li >> nth=0 >> button[title=Hide]")
    edit(page)
    assert "nothing was drawn again" in page.inner_text("#facts")
    page.click("#layers li >> nth=0 >> button[title=Show]")
    page.click("#layers li >> nth=0 >> button[title=Down]")
    edit(page)
    assert "2 of 2 layers drawn" in page.inner_text("#facts")
    page.click("#code")
    assert "Stack(Brushes(model), source)" in page.inner_text("#code-python") and not page.is_visible("#code-command")
    page.keyboard.press("Escape")
    with page.expect_download() as download:
        page.click("#download")
    saved = Path(download.value.path())
    page.reload()
    page.wait_for_selector("html[data-ready=true]")
    page.set_input_files("#file", saved)
    page.wait_for_selector("#layers li >> nth=1")
    assert page.get_attribute("#tab-layers", "aria-selected") == "true" and len(strokes(page)) == 2
    page.click("#tab-history")
    page.wait_for_selector(".card >> nth=3")
    assert "2 layers" in page.inner_text(".card >> nth=0")
    page.click(".card .open >> nth=0")
    page.wait_for_selector("#layers li >> nth=1")


def test_a_thing_is_moved(page):
    quicken(page)
    page.check("[name=task][value=move]", force=True)
    assert not page.is_visible("#dial") and not page.is_visible(".wish")
    page.click("#go")
    assert "what moves" in page.inner_text("#alert")
    page.check("[name=where][value=word]", force=True)
    page.click("#word-chips [data-word=dog]")
    page.locator("#note", has_text="Drag it").wait_for()
    page.wait_for_selector("#go", state="visible")
    box = page.locator("#frame").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.7)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.475, box["y"] + box["height"] * 0.7, steps=3)
    page.mouse.up()
    assert page.input_value("#move-x") == "-8" and page.input_value("#move-y") == "0"
    assert page.evaluate("() => document.getElementById('mask').style.transform") == "translate(-12.5%, 0%)"
    edit(page)
    page.click("#code")
    assert "--editor move" in page.inner_text("#code-command") and '"dx": -8.0' in page.inner_text("#code-command")
    sizes = page.evaluate("() => ['before', 'after'].map((id) => document.getElementById(id).naturalWidth)")
    assert sizes == [64, 64]


def test_an_edit_that_was_not_made_is_told_and_the_least_that_makes_it_is_looked_for(page):
    quicken(page)
    page.fill("#strength", "0")
    edit(page)
    assert page.is_visible("#unmade") and "was not made" in page.inner_text("#unmade")
    page.click("#least")
    page.locator("#strength-text", has_text="the least that does it").wait_for()
    page.wait_for_selector("#go", state="visible")
    page.wait_for_selector("#actions", state="visible")
    assert not page.is_visible("#unmade")


def test_every_task_says_what_it_needs(page):
    names = page.eval_on_selector_all("[name=task]", "inputs => inputs.map((input) => input.value)")
    assert names[0] == "free" and {"replace", "add", "remove", "background", "style", "text", "move"} <= {*names}
    for name in names[1:]:
        page.check(f"[name=task][value={name}]", force=True)
        assert len(page.inner_text("#task-hint")) > 20


def test_photographs_are_offered_for_other_models(page, house):
    def other(route):
        about = route.fetch().json()
        photos = [{"name": "cat", "prompt": "a close photo of a tabby cat", "to": "a close photo of a black cat"}]
        route.fulfill(body=json.dumps(about | {"model": "another", "photos": photos}), content_type="application/json")

    page.route("**/api/about", other)
    page.goto(house.base)
    page.wait_for_selector("html[data-ready=true]")
    quicken(page, 1)
    assert page.locator("#examples button").count() == 3 and page.locator("#examples .photo").count() == 1
    page.click("#examples button >> nth=0")
    page.wait_for_selector("#own-thumb", state="visible")
    page.wait_for_selector("#cancel", state="visible")
    assert page.input_value(".wish") == "a close photo of a black cat"
    page.click("#cancel")
    page.wait_for_selector("#go", state="visible")


def test_the_keyboard_alone_reaches_everything_and_edits(page):
    page.focus("#tab-edit")
    for wanted in ("layers", "compare", "why", "history", "edit"):
        page.keyboard.press("ArrowRight")
        assert page.evaluate("() => document.activeElement.id") == f"tab-{wanted}"
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("() => document.activeElement.id || document.activeElement.name"))
        if reached[-1] == "go":
            break
    assert {"origin", "prompt", "seed", "dice", "task", "more-wishes", "strength", "where", "go"} <= {*reached}, reached
    quicken(page)
    page.focus("#steps")
    page.keyboard.press("Enter")  # a field's Enter is the button
    page.wait_for_selector("#actions", state="visible")
