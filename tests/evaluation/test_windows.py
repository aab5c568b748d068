from __future__ import annotations

import pytest

from intaglio.errors import EvaluationError
from intaglio.evaluation.evaluate import Windowing
from intaglio.evaluation.windows import Window, sliding_windows


def test_windows_are_those_drawn_in_the_docstring() -> None:
    assert list(sliding_windows(10, 6, 3)) == [Window(0, 6, 0), Window(3, 9, 6), Window(6, 10, 9)]


@pytest.mark.parametrize("num_tokens", [1, 2, 3, 7, 133])
@pytest.mark.parametrize(("context_length", "stride"), [(2, 1), (2, 2), (7, 1), (7, 3), (7, 7), (200, 100)])
def test_every_token_is_scored_once_with_enough_context(num_tokens: int, context_length: int, stride: int) -> None:
    scored: list[int] = []
    for window in sliding_windows(num_tokens, context_length, stride):
        assert 1 <= window.stop - window.start <= context_length
        if window.start:
            assert window.first_scored - window.start >= context_length - stride
        scored += range(window.first_scored, window.stop)
    assert scored == list(range(num_tokens))


@pytest.mark.parametrize(
    ("given", "expected"),
    [((None, None, 8192), (2048, 1024)), ((None, None, 100), (100, 50)), ((64, None, 100), (64, 32))],
)
def test_the_defaults_are_a_context_of_2048_and_half_of_it(
    given: tuple[int | None, int | None, int], expected: tuple[int, int]
) -> None:
    windowing = Windowing.checked(*given)
    assert (windowing.context_length, windowing.stride) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((101, None, 100), r"--context-length is 101; it must be from 2 to 100"),
        ((1, None, 100), r"--context-length is 1;"),
        ((10, 11, 100), r"--stride is 11; it must be from 1 to the context length, 10"),
        ((10, 0, 100), r"--stride is 0;"),
    ],
)
def test_sizes_that_the_model_does_not_allow_are_refused(given: tuple[int, int | None, int], message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        Windowing.checked(*given)
