"""The index: exact similarities, the nearest rows whether scanned or linked, kept and shared."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import faiss
import numpy as np
import pytest

from semroute_classifier.encoders import HashingEncoder, vectors_of
from semroute_classifier.encoders.base import unit_rows
from semroute_classifier.index import GRAPH_FROM, PRODUCT_FROM, VALUES, Index

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from semroute_classifier.encoders import Vectors

DIMENSION = 64
KEPT, DIGEST = "index.faiss", "index.sha256"


def some_vectors(count: int, seed: int = 0, dimension: int = DIMENSION) -> Vectors:
    """Unit rows around a hundred centres, as sentences lie around what they are about."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(7).standard_normal((100, dimension))
    near = centres[random.integers(100, size=count)]
    return unit_rows(near + 0.7 * random.standard_normal((count, dimension)))


def exact(vectors: Vectors, queries: Vectors, k: int) -> tuple[Vectors, NDArray[np.int64]]:
    """What FAISS's exact index finds; where rows are equal, the first of them first."""
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    similarities, rows = index.search(queries, k)
    return similarities, rows


def recall(found: NDArray[np.int64], truth: NDArray[np.int64]) -> float:
    return float(np.mean([np.isin(t, f).mean() for f, t in zip(found, truth, strict=True)]))


@pytest.fixture(scope="module")
def vectors() -> Vectors:
    return some_vectors(5_000)


@pytest.fixture(scope="module")
def queries() -> Vectors:
    return some_vectors(60, seed=1)


@pytest.fixture(scope="module")
def graph(vectors: Vectors) -> Index:
    return Index.build(vectors, graph_from=1_000)


@pytest.fixture(scope="module")
def product(vectors: Vectors) -> Index:
    return Index.build(vectors, product_from=1_000)


@pytest.fixture(scope="module", params=["product", "graph"])
def made(request: pytest.FixtureRequest) -> Index:
    """Either kind of index that is kept."""
    index: Index = request.getfixturevalue(request.param)
    return index


@pytest.mark.parametrize("k", [1, 10, 80])
def test_a_scan_finds_exactly_the_nearest(vectors: Vectors, queries: Vectors, k: int) -> None:
    similarities, rows = Index(vectors).search(queries, k)
    true_similarities, true_rows = exact(vectors, queries, k)
    assert recall(rows, true_rows) == 1.0
    np.testing.assert_allclose(similarities, true_similarities, atol=1e-5)
    assert (str(similarities.dtype), str(rows.dtype)) == ("float32", "int64")


def test_a_scan_stands_a_value_that_outweighs_all_others(queries: Vectors) -> None:
    """Some encoders have one; it leaves the others few of a byte's steps."""
    vectors, queries = some_vectors(5_000), queries.copy()
    for rows in (vectors, queries):
        rows[:, 3] = 1.0
        rows[:] = unit_rows(rows)
    assert recall(Index(vectors).search(queries, 10)[1], exact(vectors, queries, 10)[1]) >= 0.999


@pytest.mark.parametrize("k", [1, 10, 80])
def test_a_graph_finds_nearly_all_of_the_nearest(
    vectors: Vectors, queries: Vectors, graph: Index, k: int
) -> None:
    rows = graph.search(queries, k)[1]
    assert recall(rows, exact(vectors, queries, k)[1]) >= 0.99


@pytest.mark.parametrize(("k", "least"), [(1, 0.99), (10, 0.99), (80, 0.9)])
def test_product_codes_find_nearly_all_of_the_nearest(
    vectors: Vectors, product: Index, queries: Vectors, k: int, least: float
) -> None:
    assert recall(product.search(queries, k)[1], exact(vectors, queries, k)[1]) >= least


def test_vectors_that_product_codes_cannot_part_are_scanned_by_bytes(tmp_path: Path) -> None:
    """Values that do not come in fours have no such codes."""
    odd = some_vectors(500, dimension=30)
    index = Index.build(odd, product_from=100)
    index.save(tmp_path)
    assert not list(tmp_path.iterdir())
    assert index.search(odd[:50], 1)[1][:, 0].tolist() == list(range(50))


@pytest.mark.parametrize("kind", ["bytes", "product", "graph"])
def test_similarities_are_of_the_vectors_and_not_of_their_codes(
    request: pytest.FixtureRequest, vectors: Vectors, queries: Vectors, kind: str
) -> None:
    index = Index(vectors) if kind == "bytes" else request.getfixturevalue(kind)
    similarities, rows = index.search(queries, 10)
    expected = np.einsum("qd,qkd->qk", queries, vectors[rows])
    np.testing.assert_allclose(similarities, expected, atol=1e-6)
    assert (np.diff(similarities, axis=1) <= 0).all()


def test_a_row_finds_itself_first(vectors: Vectors, graph: Index) -> None:
    for index in (Index(vectors), graph):
        similarities, rows = index.search(vectors[:200], 1)
        assert rows[:, 0].tolist() == list(range(200))
        np.testing.assert_allclose(similarities, 1, atol=1e-5)


def test_of_equal_rows_the_first_comes_first() -> None:
    vectors = some_vectors(20)
    vectors[[4, 9, 13]] = vectors[2]
    assert Index(vectors).search(vectors[2:3], 4)[1].tolist() == [[2, 4, 9, 13]]


@pytest.mark.parametrize("count", [1, 3, 40])
def test_more_than_there_are_gives_all_there_are(count: int) -> None:
    vectors = some_vectors(count)
    for index in (Index(vectors), Index.build(vectors, graph_from=1)):
        similarities, rows = index.search(vectors, 80)
        assert similarities.shape == rows.shape == (count, count)
        assert all(sorted(row) == list(range(count)) for row in rows.tolist())
        assert len(index) == count


def test_a_graph_whose_links_lead_to_too_few_falls_back_to_a_scan(
    vectors: Vectors, queries: Vectors, graph: Index
) -> None:
    """Asked for every row, which no walk along the links is sure to reach, it gives every row."""
    clones = np.repeat(vectors[:2], 1_500, axis=0)
    index = Index.build(clones, graph_from=1_000)
    similarities, rows = index.search(vectors[:1], 2_000)
    assert len(set(rows[0].tolist())) == 2_000
    assert (rows[0] >= 0).all()
    assert (similarities[0, :1_500] > similarities[0, 1_500]).all()
    assert (np.sort(graph.search(queries[:1], len(vectors))[1]) == np.arange(len(vectors))).all()


def test_no_queries_and_a_query_of_zeros_are_answered(vectors: Vectors, graph: Index) -> None:
    for index in (Index(vectors), graph):
        similarities, rows = index.search(vectors[:0], 5)
        assert similarities.shape == rows.shape == (0, 5)
        assert (index.search(np.zeros_like(vectors[:1]), 5)[0] == 0).all()


def test_an_answer_does_not_depend_on_what_is_asked_with_it(
    vectors: Vectors, queries: Vectors, graph: Index
) -> None:
    for index in (Index(vectors), graph):
        together = index.search(queries, 10)
        for i in range(len(queries)):
            alone = index.search(queries[i : i + 1], 10)
            assert alone[1].tolist() == [together[1][i].tolist()]
            assert alone[0].tolist() == [together[0][i].tolist()]


def test_sparse_vectors_of_the_hashing_encoder_are_found() -> None:
    encoder = HashingEncoder()
    texts = [f"question {i} about topic {i % 7}" for i in range(300)]
    vectors = np.ascontiguousarray(vectors_of(encoder.encode(texts), encoder))
    similarities = Index(vectors).search(vectors, 5)[0]
    np.testing.assert_allclose(similarities, exact(vectors, vectors, 5)[0], atol=1e-5)


def test_the_vectors_are_not_copied(vectors: Vectors, tmp_path: Path) -> None:
    np.save(tmp_path / "vectors.npy", vectors)
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    for index in (Index(mapped), Index.build(mapped, graph_from=1_000)):
        assert np.shares_memory(index._vectors, mapped)


def test_the_same_vectors_make_the_same_graph(
    vectors: Vectors, queries: Vectors, graph: Index, tmp_path: Path
) -> None:
    """Built again, and in a thread of its own, whose count of threads FAISS sets anew."""
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    graph.save(tmp_path / "one")
    with ThreadPoolExecutor(1) as pool:
        pool.submit(
            lambda: Index.build(vectors, graph_from=1_000).save(tmp_path / "other")
        ).result()
    one, other = ((tmp_path / name / KEPT).read_bytes() for name in ("one", "other"))
    assert one == other


def test_a_search_uses_one_thread_whoever_asks(vectors: Vectors, queries: Vectors) -> None:
    index = Index(vectors)

    def threads() -> int:
        faiss.omp_set_num_threads(2)
        index.search(queries, 5)
        return int(faiss.omp_get_max_threads())

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(threads).result() == 1


def test_many_threads_get_the_answers_of_one(queries: Vectors, made: Index) -> None:
    alone = made.search(queries, 10)[1].tolist()
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda _: made.search(queries, 10)[1].tolist(), range(20))
        assert all(rows == alone for rows in found)


def test_a_small_index_keeps_nothing_and_is_loaded_all_the_same(
    vectors: Vectors, queries: Vectors, tmp_path: Path
) -> None:
    index = Index.build(vectors)
    index.save(tmp_path)
    assert not list(tmp_path.iterdir())
    loaded = Index.load(tmp_path, vectors)
    assert loaded is not None
    assert loaded.search(queries, 10)[1].tolist() == index.search(queries, 10)[1].tolist()


def test_a_kept_index_gives_the_same_answers(
    vectors: Vectors, queries: Vectors, made: Index, tmp_path: Path
) -> None:
    made.save(tmp_path)
    loaded = Index.load(tmp_path, vectors)
    assert loaded is not None
    for k in (1, 10, 80):
        kept, first = loaded.search(queries, k), made.search(queries, k)
        assert kept[0].tolist() == first[0].tolist()
        assert kept[1].tolist() == first[1].tolist()


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's list of a process's mappings")
def test_a_loaded_graph_is_mapped_and_so_shared(
    vectors: Vectors, graph: Index, tmp_path: Path
) -> None:
    graph.save(tmp_path)
    loaded = Index.load(tmp_path, vectors)
    assert loaded is not None
    assert str(tmp_path / KEPT) in Path("/proc/self/maps").read_text()


def test_a_large_index_of_which_nothing_is_kept_is_to_be_built(tmp_path: Path) -> None:
    assert Index.load(tmp_path, np.ones((GRAPH_FROM, 1), dtype=np.float32)) is None
    assert Index.load(tmp_path, np.ones((PRODUCT_FROM, VALUES), dtype=np.float32)) is None


def damage(folder: Path, how: str) -> None:
    graph = folder / KEPT
    content = bytearray(graph.read_bytes())
    if how == "cut short":
        graph.write_bytes(content[: len(content) // 2])
    elif how == "empty":
        graph.write_bytes(b"")
    elif how == "a byte changed":
        content[len(content) // 2] ^= 0xFF
        graph.write_bytes(content)
    elif how == "zeros":
        graph.write_bytes(bytes(len(content)))
    elif how == "no digest":
        (folder / DIGEST).unlink()
    elif how == "digest not text":
        (folder / DIGEST).write_bytes(b"\xff\xfe\xff")
    elif how == "a folder":
        graph.unlink()
        graph.mkdir()


@pytest.mark.parametrize(
    "how",
    ["cut short", "empty", "a byte changed", "zeros", "no digest", "digest not text", "a folder"],
)
def test_a_damaged_index_is_to_be_built(
    vectors: Vectors, made: Index, tmp_path: Path, how: str
) -> None:
    made.save(tmp_path)
    damage(tmp_path, how)
    assert Index.load(tmp_path, vectors) is None


def test_an_index_of_other_vectors_is_to_be_built(
    vectors: Vectors, made: Index, tmp_path: Path
) -> None:
    made.save(tmp_path)
    for other in (vectors[:-1], vectors[:, :-1], vectors[::-1], some_vectors(5_000, seed=2)):
        assert Index.load(tmp_path, other) is None


def test_an_index_that_cannot_be_written_is_an_oserror(made: Index, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="missing"):
        made.save(tmp_path / "missing")


def test_building_a_graph_says_how_far_it_is(vectors: Vectors) -> None:
    said: list[tuple[int, int]] = []
    Index.build(vectors, lambda done, total: said.append((done, total)), graph_from=1_000)
    assert said[-1] == (5_000, 5_000)
    assert said == sorted(said)
    assert len(said) > 1


def test_another_process_gives_the_same_answers_from_the_kept_index(
    vectors: Vectors, queries: Vectors, made: Index, tmp_path: Path
) -> None:
    np.save(tmp_path / "vectors.npy", vectors)
    np.save(tmp_path / "queries.npy", queries)
    made.save(tmp_path)
    script = (
        "import numpy as np\n"
        "from pathlib import Path\n"
        "from semroute_classifier.index import Index\n"
        "vectors = np.load('vectors.npy', mmap_mode='r')\n"
        "print(Index.load(Path(), vectors).search(np.load('queries.npy'), 10)[1].tolist())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == str(made.search(queries, 10)[1].tolist()), done.stderr
