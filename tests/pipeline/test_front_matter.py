"""The licence and size that the Hub shows of a corpus."""

import pytest

from pipeline.front_matter import hub_license, size_category


@pytest.mark.parametrize(
    "licences, wanted",
    [
        (["CC BY 2.0"], "cc-by-2.0"),
        (["CC0"], "cc0-1.0"),
        (["cc-by-sa-4.0"], "cc-by-sa-4.0"),
        (["Attribution <http://creativecommons.org/licenses/by/4.0/>"], "cc-by-4.0"),
        (["http://creativecommons.org/licenses/by-sa/2.0/"], "other"),  # an id that the Hub does not have
        (["CC BY 2.0", "CC0"], "other"),
        ([""], "other"),
        ([], "other"),
    ],
)
def test_the_licence_is_named_where_all_items_share_one_that_the_hub_knows(licences, wanted):
    assert hub_license(licences) == wanted


@pytest.mark.parametrize(
    "rows, category",
    [(0, "n<1K"), (999, "n<1K"), (1_000, "1K<n<10K"), (10_000_000, "10M<n<100M"), (99_999, "10K<n<100K")],
)
def test_size_categories_are_the_hubs(rows, category):
    assert size_category(rows) == category
