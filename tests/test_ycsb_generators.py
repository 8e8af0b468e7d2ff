"""The generators give YCSB's numbers, bit for bit.

The golden numbers were printed by YCSB's own generator classes (site.ycsb, Java 17), their random source replaced by
`new java.util.Random(1)`; a CRC-32 covers the first 200,000 of each, one decimal number a line. The reference functions
below are written from the formulas alone (FNV-1a 64; Gray et al., SIGMOD 1994) and share no code with what they check.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspm.bench.ycsb.fnv import fnvhash64, fnvhash64_array, key_name, key_names
from dspm.bench.ycsb.java_random import JavaRandom
from dspm.bench.ycsb.latest import SkewedLatest
from dspm.bench.ycsb.scrambled import ITEM_COUNT, ZETAN, ScrambledZipfian
from dspm.bench.ycsb.zipfian import Zipfian, zeta

GOLDEN_COUNT = 200_000
LONGS = st.integers(min_value=-(2**63), max_value=2**63 - 1)


def crc_of(numbers: Iterable[int]) -> int:
    return zlib.crc32("".join(f"{number}\n" for number in numbers).encode())


def reference_fnv(value: int) -> int:
    digest = 14695981039346656037
    for octet in value.to_bytes(8, "little", signed=True):
        digest = (digest ^ octet) * 1099511628211 % 2**64
    signed = digest - 2**64 if digest >= 2**63 else digest
    return abs(signed) if signed != -(2**63) else signed


def reference_doubles(seed: int) -> Iterator[float]:
    state = (seed ^ 25214903917) % 2**48
    while True:
        state = (state * 25214903917 + 11) % 2**48
        high = state // 2**22
        state = (state * 25214903917 + 11) % 2**48
        yield (high * 2**27 + state // 2**21) / 2**53


def reference_zipf(u: float, items: int, zetan: float) -> int:
    theta = 0.99
    zeta_2 = 1.0 + 1.0 / math.pow(2, theta)
    eta = (1 - math.pow(2.0 / items, 1 - theta)) / (1 - zeta_2 / zetan)
    if u * zetan < 1:
        return 0
    if u * zetan < 1 + math.pow(0.5, theta):
        return 1
    return int(items * math.pow(eta * u - eta + 1, 1 / (1 - theta)))


@pytest.mark.parametrize(
    ("value", "digest"),
    [
        (0, 6284781860667377211),
        (1, 8517097267634966620),
        (2, 1820151046732198393),
        (999, 2071219101098386137),
        (123456789, 2350796791908741607),
        (2**63 - 1, 8289549613075766851),
        (-1, 8289690350564177859),
    ],
)
def test_fnv_golden(value: int, digest: int) -> None:
    assert fnvhash64(value) == digest
    assert fnvhash64_array(np.array([value], dtype=np.int64)).tolist() == [digest]


@given(st.lists(LONGS, min_size=1, max_size=20))
def test_fnv_scalar_vector_and_reference_agree(values: list[int]) -> None:
    expected = [reference_fnv(value) for value in values]
    assert [fnvhash64(value) for value in values] == expected
    assert fnvhash64_array(np.array(values, dtype=np.int64)).tolist() == expected


def test_key_names_are_user_and_hash() -> None:
    assert key_name(0) == "user6284781860667377211"
    assert key_names(np.arange(3)) == [key_name(0), key_name(1), key_name(2)]


def test_java_random_golden() -> None:
    assert JavaRandom(42).next_double() == 0.7275636800328681
    doubles = JavaRandom(1).doubles(1_000_000)
    assert doubles[:4].tolist() == [0.7308781907032909, 0.41008081149220166, 0.20771484130971707, 0.3327170559595112]
    assert doubles[-1] == 0.41825303313526285


@given(st.integers(min_value=0, max_value=2**47), st.lists(st.integers(min_value=0, max_value=40), max_size=5))
def test_java_random_blocks_continue_each_other(seed: int, blocks: list[int]) -> None:
    random, reference = JavaRandom(seed), reference_doubles(seed)
    for block in blocks:
        assert random.doubles(block).tolist() == [next(reference) for _ in range(block)]


@pytest.mark.parametrize(
    ("items", "value"), [(2, 1.5034777750283594), (1000, 7.728953217284729), (100000, 12.778338062551246)]
)
def test_zeta_golden(items: int, value: float) -> None:
    assert zeta(items, 0.99) == value
    assert zeta(items, 0.99, start=2, initial=zeta(2, 0.99)) == value


def test_zetan_is_the_published_constant_of_ten_billion_items() -> None:
    assert (ITEM_COUNT, ZETAN) == (10**10, 26.46902820178302)
    start = 100_000
    euler_maclaurin = ((ITEM_COUNT + 0.5) ** 0.01 - (start + 0.5) ** 0.01) / 0.01
    assert zeta(start, 0.99) + euler_maclaurin == pytest.approx(ZETAN, rel=1e-7)


@pytest.mark.parametrize(("items", "crc"), [(1000, 346579651), (100_000, 251666314)])
def test_zipfian_golden(items: int, crc: int) -> None:
    assert crc_of(Zipfian(items, JavaRandom(1)).draw(GOLDEN_COUNT).tolist()) == crc


@pytest.mark.parametrize(("last", "crc"), [(1000, 2333058371), (1_000_000, 1962019902)])
def test_scrambled_zipfian_golden(last: int, crc: int) -> None:
    assert crc_of(ScrambledZipfian(last, JavaRandom(1)).draw(GOLDEN_COUNT).tolist()) == crc


def test_latest_golden() -> None:
    """1000 records, and one more inserted before every 20th draw."""
    newest = [999 + (draw + 1) // 20 for draw in range(GOLDEN_COUNT)]
    distances = SkewedLatest(999, JavaRandom(1)).distances(newest)
    numbers = [limit - distance for limit, distance in zip(newest, distances, strict=True)]
    assert numbers[:12] == [869, 989, 997, 994, 215, 999, 238, 363, 327, 376, 990, 993]
    assert crc_of(numbers) == 1653659950


@given(st.integers(min_value=3, max_value=5000), st.integers(min_value=0, max_value=2**40))
def test_zipfian_equals_the_formula(items: int, seed: int) -> None:
    reference, zetan = reference_doubles(seed), sum(1 / math.pow(i, 0.99) for i in range(1, items + 1))
    expected = [reference_zipf(next(reference), items, zetan) for _ in range(50)]
    assert Zipfian(items, JavaRandom(seed)).draw(50).tolist() == expected


@given(st.integers(min_value=1, max_value=10**6), st.integers(min_value=0, max_value=2**40))
def test_scrambled_equals_the_formula(last: int, seed: int) -> None:
    reference = reference_doubles(seed)
    ranks = [reference_zipf(next(reference), 10**10 + 1, 26.46902820178302) for _ in range(50)]
    expected = [reference_fnv(rank) % (last + 1) for rank in ranks]
    assert ScrambledZipfian(last, JavaRandom(seed)).draw(50).tolist() == expected


def test_zipfian_frequencies_follow_the_law() -> None:
    """Rank r has probability 1 / (r^theta zeta): Gray's method is exact for the first two ranks."""
    items, draws = 1000, 200_000
    counts = np.bincount(Zipfian(items, JavaRandom(7)).draw(draws), minlength=items)
    for rank in (1, 2):
        assert counts[rank - 1] / draws == pytest.approx(1 / (rank**0.99 * zeta(items, 0.99)), rel=0.03)
    assert counts.argmax() == 0
