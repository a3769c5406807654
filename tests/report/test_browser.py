"""The page in headless Chromium: wide and narrow, light and dark."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.xdist_group("report")


@pytest.mark.parametrize("kind", ["whole", "faulty"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_says_nothing_and_asks_for_nothing(browser, request, kind, width, scheme):
    made = request.getfixturevalue(kind)
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    requests, messages = [], []
    page.on("request", lambda asked: requests.append(asked.url))
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("dialog", lambda dialog: messages.append(dialog.message) or dialog.dismiss())
    page.goto(made.path.as_uri())
    page.eval_on_selector_all("details", "all => all.forEach(each => each.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("document.scripts.length") == 0
    shown = page.eval_on_selector_all(
        "svg[role=img]", "all => all.filter(e => e.getBoundingClientRect().width).map(e => e.getAttribute('class'))"
    )
    assert set(shown) == {"wide" if width > 640 else "narrow"}
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(paper.removeprefix("rgb(").split(",")[0]) > 128) == (scheme == "light")
    page.close()
    assert messages == []
    assert requests == [made.path.as_uri()]
