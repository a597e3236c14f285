"""A result that is worse than its input is said in words."""

import math

import pytest

from restora.words import figure, in_short, three_digits, worse_than_input


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        ({"psnr": 28.0, "input_psnr": 20.2, "ssim": 0.8, "input_ssim": 0.4}, ""),
        (
            {"psnr": 16.214, "input_psnr": 20.5, "ssim": 0.8, "input_ssim": 0.4},
            "worse than its input in PSNR (16.21 dB, the degraded photos 20.50 dB)",
        ),
        (
            {"psnr": 16.2, "input_psnr": 20.5, "ssim": 0.3, "input_ssim": 0.4},
            "worse than its input in PSNR (16.20 dB, the degraded photos 20.50 dB) "
            "and in SSIM (0.3000, the degraded photos 0.4000)",
        ),
        (
            {"psnr": 28.0, "input_psnr": 20.2, "ssim": 0.3, "input_ssim": 0.4},
            "worse than its input in SSIM (0.3000, the degraded photos 0.4000)",
        ),
        ({"psnr": 20.201, "input_psnr": 20.2}, "no better than its input in PSNR (20.20 dB)"),
        ({"psnr": 20.2, "input_psnr": 20.204}, "no better than its input in PSNR (20.20 dB)"),
        ({"psnr": math.nan, "input_psnr": 20.2}, "not a number in PSNR"),
        ({"psnr": math.inf, "input_psnr": 20.2}, ""),
        (
            {"psnr": 40.0, "input_psnr": math.inf},
            "worse than its input in PSNR (40.00 dB, the degraded photos inf dB)",
        ),
        (
            {"lpips": 0.5, "input_lpips": 0.4, "dists": 0.1, "input_dists": 0.2},
            "worse than its input in LPIPS (0.5000, the degraded photos 0.4000)",
        ),
        ({"psnr": 28.0}, ""),
        ({"psnr": None, "input_psnr": 20.0}, ""),
        ({}, ""),
    ],
)
def test_the_words(scores: dict[str, float], words: str) -> None:
    assert worse_than_input(scores) == words


def test_figures_have_the_decimals_that_people_compare() -> None:
    assert figure("psnr", 28.314) == "28.31 dB"
    assert figure("ssim", 0.81234) == "0.8123"


@pytest.mark.parametrize(
    ("reason", "short"),
    [
        ("ValueError: no\ntensor([1,\n2])", "ValueError: no"),
        ("AssertionError: ", "AssertionError"),
        ("", ""),
        ("x" * 300, "x" * 199 + "…"),
        ("x" * 200, "x" * 200),
    ],
)
def test_a_reason_in_short_is_one_line(reason: str, short: str) -> None:
    assert in_short(reason) == short


def test_measured_figures_have_no_exponents() -> None:
    values = (0.01234, 12.34, 999.4, 999.6, 1234.5, 61_500)
    assert [three_digits(v) for v in values] == ["0.0123", "12.3", "999", "1000", "1234", "61500"]
