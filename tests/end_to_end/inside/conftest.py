"""A page that looks into a text."""

import pytest

from tests.end_to_end.inside.tab import TEXT, levels


@pytest.fixture
def page(open_page, server):
    page = open_page(server, tab_name="Look inside")
    page.look_into(TEXT * 3)
    page.wait_for(lambda: len(levels(page)) == len(TEXT * 3))
    return page
