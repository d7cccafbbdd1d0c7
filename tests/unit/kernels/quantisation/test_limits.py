"""Two bits everywhere are refused, three warned about, and a result without any quantised linear is none."""

from __future__ import annotations

import pytest

from foveal.core.errors import ConfigurationError
from foveal.kernels.quantisation.limits import refuse_uniform, refuse_untouched


@pytest.mark.parametrize("bits", [1, 2])
def test_uniform_two_bits_are_refused_with_reason_and_remedy(bits):
    with pytest.raises(ConfigurationError, match=r"the limit is 3, because .* Use 4 bits, or a budget"):
        refuse_uniform(bits)


def test_uniform_three_bits_are_warned_about():
    warning = refuse_uniform(3)
    assert warning is not None
    assert "3 bits" in warning


@pytest.mark.parametrize("bits", [4, 8, 16])
def test_four_bits_and_more_pass_in_silence(bits):
    assert refuse_uniform(bits) is None


def test_quantising_nothing_is_refused():
    with pytest.raises(ConfigurationError, match="none of 210 linears"):
        refuse_untouched(0, 210)
    refuse_untouched(1, 210)
