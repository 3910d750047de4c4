import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from nodes.file_errors import LatentFileError
from nodes.latent_files import decode_latent, encode_latent


def test_a_latent_survives_writing_and_reading(tmp_path: Path):
    path, samples = tmp_path / "a.latent", torch.randn(2, 4, 3, 5).mT
    path.write_bytes(encode_latent(samples, {}))
    assert torch.equal(decode_latent(path), samples)


def test_the_file_is_laid_out_as_saved_by_comfyui():
    data = encode_latent(torch.zeros(1, 4, 2, 2), {"prompt": json.dumps({"1": {}})})
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert header["__metadata__"] == {"prompt": '{"1": {}}'}
    assert header["latent_tensor"]["dtype"] == "F32" and header["latent_tensor"]["shape"] == [1, 4, 2, 2]
    assert header["latent_format_version_0"]["shape"] == [0]


def test_old_files_are_scaled(tmp_path: Path):
    (tmp_path / "old.latent").write_bytes(save({"latent_tensor": torch.full((1, 4, 2, 2), 0.18215)}))
    torch.testing.assert_close(decode_latent(tmp_path / "old.latent"), torch.ones(1, 4, 2, 2))


def test_half_precision_is_read_as_single(tmp_path: Path):
    path = tmp_path / "a.latent"
    path.write_bytes(encode_latent(torch.ones(1, 4, 2, 2, dtype=torch.float16), {}))
    assert decode_latent(path).dtype == torch.float32


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a safetensors file"),
        (b"PK\x03\x04 a pickle", "not a safetensors file"),
        (encode_latent(torch.zeros(1, 4, 8, 8), {})[:-9], "cut short"),
        (save({"weight": torch.zeros(1)}), "no 'latent_tensor'"),
        (encode_latent(torch.zeros(4, 8), {}), r"shape \(4, 8\)"),
    ],
)
def test_wrong_files_are_refused(tmp_path: Path, data: bytes, reason: str):
    path = tmp_path / "a.latent"
    path.write_bytes(data)
    with pytest.raises(LatentFileError, match=reason) as raised:
        decode_latent(path)
    assert raised.value.path == path


def test_a_missing_file_is_refused(tmp_path: Path):
    with pytest.raises(LatentFileError, match="No such file"):
        decode_latent(tmp_path / "none.latent")
