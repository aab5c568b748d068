from __future__ import annotations

import pytest

from intaglio.api.http.query import check_names, check_spelling, flag, integer
from intaglio.errors import BadInputError


def test_a_misspelt_parameter_is_refused_and_a_foreign_one_is_not() -> None:
    check_spelling({"per_page": "1", "api-version": "2", "tags": "x"}, "page", "per_page")
    with pytest.raises(BadInputError, match=r'^query parameter "perpage" is not known; did you mean per_page\?$'):
        check_spelling({"perpage": "1"}, "page", "per_page")


@pytest.mark.parametrize(
    ("name", "advice"), [("versoin", "did you mean version?"), ("zzz", "known: version"), ("z" * 99, "known: version")]
)
def test_where_no_parameter_is_ignored_the_known_ones_are_named(name: str, advice: str) -> None:
    with pytest.raises(BadInputError) as refused:
        check_names({name: "1"}, "version")
    assert str(refused.value).endswith(f" is not known here; {advice}")


def test_a_value_is_refused_with_its_name_and_bounds() -> None:
    with pytest.raises(BadInputError, match='"two", not an integer from 1 to 9'):
        integer({"page": "two"}, "page", default=1, low=1, high=9)
    with pytest.raises(BadInputError, match='"yes", not true or false'):
        flag({"keep": "yes"}, "keep")
