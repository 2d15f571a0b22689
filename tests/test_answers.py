from tts.answers import canonical_key, canonical_keys, extract_answer


def test_first_words():
    assert extract_answer(r"so \boxed{\frac{1}{2}} is it") == r"\frac{1}{2}"
    assert extract_answer("no box") is None
    assert canonical_key("0.5") == canonical_key(r"\dfrac12")
    assert [found.status for found in canonical_keys(["x+1", r"\text{odd}", "", None])] == [
        "parsed",
        "text",
        "empty",
        "none",
    ]
