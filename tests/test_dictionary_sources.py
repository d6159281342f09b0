"""Where samples and first dictionaries come from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import assert_close, assert_same_bits
from test_pudle import sparse_samples, train

from fastunroll.dictionary import ArraySource, initial_dictionary


def test_a_mapped_file_gives_what_the_array_in_memory_gives(tmp_path: Path) -> None:
    array = sparse_samples(torch.Generator().manual_seed(1), 200).numpy()
    np.save(tmp_path / "samples.npy", array)
    mapped = np.memmap(tmp_path / "raw", dtype=np.float64, mode="w+", shape=array.shape)
    mapped[:] = array
    sources = [
        ArraySource(samples, 32, dtype=torch.float64)
        for samples in (array, torch.from_numpy(array), tmp_path / "samples.npy", mapped)
    ]
    assert isinstance(sources[2].samples, np.memmap)
    models = [train(source=source) for source in sources]
    for model in models[1:]:
        assert_same_bits(model.dictionary, models[0].dictionary, "dictionary")


def test_batches_are_rows_and_depend_on_the_generator_only() -> None:
    array = np.arange(40, dtype=np.uint8).reshape(20, 2)
    source = ArraySource(array, 8, transform=lambda x: x / 2)
    assert len(source) == 20
    first, again = (source(torch.Generator().manual_seed(5)) for _ in range(2))
    assert first.dtype == torch.float32
    assert_same_bits(first, again, "batch")
    rows = {tuple(row) for row in (first * 2).int().tolist()}
    assert rows <= {tuple(row) for row in array.tolist()}
    generator = torch.Generator().manual_seed(0)
    seen = torch.cat([source(generator)[:, 0] for _ in range(40)])
    assert len(seen.unique()) == 20


def test_a_source_reads_no_more_than_its_batch(tmp_path: Path) -> None:
    with (tmp_path / "large.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f4", "fortran_order": False, "shape": (1 << 33, 64)}
        )
        file.truncate(file.tell() + (1 << 33) * 64 * 4)  # 2 TiB, all of it a hole
    batch = ArraySource(tmp_path / "large.npy", 16)(torch.Generator().manual_seed(0))
    assert_same_bits(batch, torch.zeros(16, 64), "batch")


def test_bad_sources(tmp_path: Path) -> None:
    bad = np.zeros((10, 3))
    bad[7, 1] = np.nan
    with pytest.raises(ValueError, match=r"samples contains NaN or Inf \(first seen in row 7\)"):
        ArraySource(bad, 100)(torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=r"must be \(n_samples, n_measurements\)"):
        ArraySource(np.zeros(5), 2)
    with pytest.raises(TypeError, match="must hold real numbers, got complex128"):
        ArraySource(np.zeros((5, 2), dtype=complex), 2)
    with pytest.raises(TypeError, match="got list"):
        ArraySource([[1.0]], 2)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        ArraySource(tmp_path / "none.npy", 2)
    (tmp_path / "text.npy").write_text("text")
    with pytest.raises(ValueError, match=r"is not a \.npy file of numbers"):
        ArraySource(tmp_path / "text.npy", 2)


def test_initial_dictionaries() -> None:
    samples = torch.randn(30, 16, generator=torch.Generator().manual_seed(0))
    samples[:10] = 0.0
    for kind in ("data", "random", "dct"):
        first, again = (
            initial_dictionary(samples, 16, torch.Generator().manual_seed(4), kind=kind)
            for _ in range(2)
        )
        assert first.shape == (16, 16)
        assert_close(first.norm(dim=0), torch.ones(16), 1e-6, kind)
        assert_same_bits(first, again, kind)
    drawn = initial_dictionary(samples, 20, torch.Generator().manual_seed(4))
    cosine = drawn.mT @ torch.nn.functional.normalize(samples[10:], dim=1).mT
    assert sorted((cosine > 1 - 1e-5).int().argmax(dim=1).tolist()) == list(range(20))


def test_bad_samples_to_start_from() -> None:
    generator = torch.Generator()
    flat = torch.zeros(50, 16)
    with pytest.raises(ValueError, match=r"at least n_atoms = 4 that are not zero.*got 0 of"):
        initial_dictionary(flat, 4, generator)
    with pytest.raises(ValueError, match="got 3 of n_samples=3"):
        initial_dictionary(torch.ones(3, 16), 4, generator)
    with pytest.raises(ValueError, match="samples contains NaN or Inf"):
        initial_dictionary(flat / 0, 4, generator)
    with pytest.raises(ValueError, match="square patches"):
        initial_dictionary(flat[:, :15], 16, generator, kind="dct")
