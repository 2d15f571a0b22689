"""What set_up refuses before it opens a model."""

import pytest

from tts.companion.parameters import load_profile
from tts.companion.setup import set_up
from tts.errors import InputError


@pytest.mark.parametrize("name", ["n_max", "second_n_max"])
def test_a_budget_below_that_of_the_smallest_search_is_named(name):
    with pytest.raises(InputError, match=f"^{name} is 3: the smallest budget of a search is 4$"):
        set_up(load_profile("default") | {name: 3})
