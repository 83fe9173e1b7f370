"""A MONAI bundle as a pipeline, from settings alone: outlines as MONAI's, and what is more than data is refused."""

from __future__ import annotations

import copy
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from node.cli import wetread
from pipelines.evidence.masks import seg_masks
from pipelines.models.foreign import RefusedWeights
from pipelines.models.store import DamagedWeights
from pipelines.registry import load
from pipelines.study import read_folder
from pipelines.training.metrics import dice
from tests.slices import saved, slice_of

monai = pytest.importorskip("monai", reason="MONAI is not installed")
nibabel = pytest.importorskip("nibabel", reason="nibabel is not installed")

SHAPE = (22, 40, 36)  # frames, rows, columns
SPACING = (2.5, 1.2, 0.9)  # mm
USE = "pipelines.monai_bundle:MonaiBundle"
METADATA = {
    "name": "Sphere segmentation",
    "version": "0.3.1",
    "monai_version": "1.6.1",
    "network_data_format": {
        "inputs": {"image": {"type": "image", "format": "hounsfield", "modality": "CT", "num_channels": 1}},
        "outputs": {"pred": {"type": "image", "channel_def": {"0": "background", "1": "spleen", "2": "tumour"}}},
    },
}
INFERENCE: dict[str, Any] = {
    "imports": ["$import glob", "$import os"],
    "bundle_root": ".",
    "datalist": "$list(sorted(glob.glob('*.nii.gz')))",
    "device": "$torch.device('cpu')",
    "window": [32, 32, 16],
    "network_def": {
        "_target_": "UNet",
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": 3,
        "channels": [8, 16, 24],
        "strides": [2, 2],
        "num_res_units": 1,
        "norm": "instance",
    },
    "network": "$@network_def.to(@device)",
    "preprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "LoadImaged", "keys": "image"},
            {"_target_": "EnsureChannelFirstd", "keys": "image"},
            {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
            {"_target_": "Spacingd", "keys": "image", "pixdim": [1.0, 1.0, 2.0], "mode": "bilinear"},
            {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": -100, "a_max": 300, "b_min": 0.0,
             "b_max": 1.0, "clip": True},
            {"_target_": "EnsureTyped", "keys": "image"},
        ],
    },
    "inferer": {"_target_": "SlidingWindowInferer", "roi_size": "@window", "sw_batch_size": 2, "overlap": 0.5},
    "postprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "Activationsd", "keys": "pred", "softmax": True},
            {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": "image",
             "meta_key_postfix": "meta_dict", "nearest_interp": False, "to_tensor": True},
            {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
            {"_target_": "SaveImaged", "keys": "pred", "output_dir": "$@bundle_root + '/eval'"},
        ],
    },
    "handlers": [{"_target_": "CheckpointLoader", "load_path": "$@bundle_root + '/models/model.pt'"}],
}  # fmt: skip


def sphere(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """HU and truth (frames, rows, columns): a ball of 120 HU with a brighter one in it, off the middle."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij"), -1) * SPACING
    away = np.linalg.norm(grid - np.array([24, 20, 20]), axis=-1)
    inner = np.linalg.norm(grid - np.array([27, 25, 14]), axis=-1)
    truth = np.where(inner < 6, 2, np.where(away < 14, 1, 0))
    hu = np.array([0.0, 120.0, 220.0])[truth] + rng.normal(0, 15, SHAPE)
    return hu.astype(np.int16), truth


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle as MONAI's own API writes it, its network taught for a moment."""
    from monai.bundle import ConfigParser
    from monai.losses import DiceCELoss
    from monai.networks.nets import UNet

    torch.manual_seed(0)
    place = tmp_path_factory.mktemp("bundle") / "sphere"
    (place / "configs").mkdir(parents=True)
    (place / "models").mkdir()
    definition = {key: value for key, value in INFERENCE["network_def"].items() if key != "_target_"}
    net = UNet(**definition)
    hu, truth = sphere(0)
    image = ((torch.from_numpy(hu.astype(np.float32)) + 100) / 400).clip(0, 1).permute(2, 1, 0)[None, None]
    label = torch.from_numpy(truth).permute(2, 1, 0)[None, None]
    image, label = image[..., :32, :32, :16], label[..., :32, :32, :16]
    optimizer, loss = torch.optim.Adam(net.parameters(), 0.01), DiceCELoss(to_onehot_y=True, softmax=True)
    for _ in range(40):
        optimizer.zero_grad()
        loss(net(image), label).backward()
        optimizer.step()
    torch.save(net.state_dict(), place / "models" / "model.pt")
    ConfigParser.export_config_file(METADATA, str(place / "configs" / "metadata.json"), indent=2)
    ConfigParser.export_config_file(INFERENCE, str(place / "configs" / "inference.json"), indent=2)
    return place


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ball as an oblique CT: rows tilted, frames from the head down in the files' names."""
    place = tmp_path_factory.mktemp("study")
    hu, _ = sphere(1)
    turn = np.deg2rad(10)
    along, down = np.array([np.cos(turn), np.sin(turn), 0]), np.array([-np.sin(turn), np.cos(turn), 0])
    for number, pixels in enumerate(hu):
        ds = slice_of(
            number + 1, pixels, ImageOrientationPatient=[*along, *down], PixelSpacing=list(SPACING[1:]),
            ImagePositionPatient=[-20.0, 12.0, number * SPACING[0]], SliceThickness=SPACING[0],
            BodyPartExamined="ABDOMEN", StudyDate="20260101", StudyTime="101010", SeriesDescription="AX",
        )  # fmt: skip
        saved(ds, place / f"{len(hu) - number:02}.dcm")
    return place


def by_monai(folder: Path, study: Path, tmp_path: Path) -> np.ndarray:
    """The labels (frames, rows, columns) as MONAI runs its own bundle on the same volume, as NIfTI."""
    from monai.bundle import ConfigParser

    (series,) = next(iter(read_folder(study)[0])).series
    lps = series.affine[:, [2, 1, 0, 3]]
    file = tmp_path / "image.nii.gz"
    nibabel.save(nibabel.Nifti1Image(series.volume().transpose(2, 1, 0), np.diag([-1, -1, 1, 1]) @ lps), file)
    parser = ConfigParser()
    parser.read_config(str(folder / "configs" / "inference.json"))
    parser["postprocessing"]["transforms"].pop()  # the one that writes files
    net = parser.get_parsed_content("network_def")
    net.load_state_dict(torch.load(folder / "models" / "model.pt", weights_only=True))
    data = parser.get_parsed_content("preprocessing")({"image": str(file)})
    with torch.no_grad():
        data["pred"] = parser.get_parsed_content("inferer")(data["image"][None], net.eval())[0]
    answer: np.ndarray = parser.get_parsed_content("postprocessing")(data)["pred"].numpy()[0]
    return answer.transpose(2, 1, 0)


def changed(folder: Path, place: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> Path:
    """The same bundle with something else in its settings."""
    shutil.copytree(folder, place)
    inference, metadata = copy.deepcopy(INFERENCE), copy.deepcopy(METADATA)
    change(inference, metadata)
    (place / "configs" / "inference.json").write_text(json.dumps(inference))
    (place / "configs" / "metadata.json").write_text(json.dumps(metadata))
    return place


def test_settings_alone_make_a_pipeline_of_a_bundle_that_outlines_as_monai_does(
    folder: Path, study: Path, tmp_path: Path
) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text(f'[pipelines.sphere]\nuse = "{USE}"\ncard = "{folder}"\nwhen = {{ Modality = "CT" }}\n')
    answer = CliRunner().invoke(
        wetread, ["--settings", str(settings), "read", str(study), "--out", str(tmp_path / "out"), "--json"]
    )
    assert answer.exit_code == 0, answer.stderr
    (read,) = json.loads(answer.stdout)["studies"][0]["runs"]
    assert (read["pipeline"], read["version"], read["status"]) == ("sphere", "0.3.1", "read"), read["reason"]
    assert [each["code"][2] for each in read["findings"]] == ["Spleen", "Neoplasm"]
    (segmentation,) = [Path(each) for each in read["objects"] if Path(each).name.startswith("seg")]
    (series,) = next(iter(read_folder(study)[0])).series
    masks, truth = seg_masks(segmentation, series), by_monai(folder, study, tmp_path)
    voxel = float(np.prod(SPACING)) / 1000
    for value, finding in enumerate(read["findings"], start=1):
        assert (truth == value).sum() > 100
        assert dice(masks[finding["label"]], truth == value) >= 0.995
        assert finding["measurements"][0]["value"] == pytest.approx((truth == value).sum() * voxel, rel=0.01)


def test_a_zip_is_the_same_bundle(folder: Path, tmp_path: Path) -> None:
    packed = Path(shutil.make_archive(str(tmp_path / "sphere"), "zip", folder.parent, folder.name))
    assert load(f"{USE}@{packed}").algorithm == load(f"{USE}@{folder}").algorithm


def test_yaml_and_safetensors_are_read_too(folder: Path, study: Path, tmp_path: Path) -> None:
    from monai.bundle import ConfigParser
    from safetensors.torch import save_file

    place = Path(shutil.copytree(folder, tmp_path / "other"))
    (place / "configs" / "inference.json").unlink()
    ConfigParser.export_config_file(INFERENCE, str(place / "configs" / "inference.yaml"), fmt="yaml")
    save_file(torch.load(place / "models" / "model.pt", weights_only=True), place / "models" / "model.safetensors")
    (place / "models" / "model.pt").unlink()
    (given,) = next(iter(read_folder(study)[0])).series
    one, other = (load(f"{USE}@{each}")(next(iter(read_folder(study)[0])))[0] for each in (folder, place))
    assert given.uid == one.series.uid
    assert all(
        (a.segment.mask == b.segment.mask).all()
        for a, b in zip(one.findings, other.findings, strict=True)
        if a.segment and b.segment
    )


def _put(path: str, value: Any) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    def put(inference: dict[str, Any], metadata: dict[str, Any]) -> None:
        *parents, last = path.split("/")
        held: Any = metadata if parents[:1] == ["metadata"] else inference
        for each in parents[1:] if held is metadata else parents:
            held = held[int(each)] if isinstance(held, list) else held[each]
        held[int(last) if isinstance(held, list) else last] = value

    return put


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("network_def/_target_", "scripts.net.OurNet", "scripts.net.OurNet, which is no part of monai.networks.nets"),
        ("network_def/_target_", "os.system", "no other program is run here"),
        ("network_def/_target_", "FullyConnectedNet", "the network FullyConnectedNet, which is not known here"),
        ("network_def/channels", "$__import__('os').system('true')", "network_def#channels is an expression"),
        ("network_def/strides", "@nowhere", "network_def#strides refers to @nowhere, which is not there"),
        ("network_def/strides", "@network_def#strides", "refers to itself"),
        ("network_def/pretrained", True, "network_def#pretrained is not known here"),
        ("network_def/channels", [8, 16, 1_000_000], "has an argument beyond 4096"),
        ("network_def/channels", [8, 16, 32], "do not fit this UNet"),
        ("network_def/in_channels", 4, "one image goes in here"),
        ("network_def/strides", [2], "network_def does not make a UNet"),
        ("preprocessing/transforms/3/_target_", "Lambdad", "preprocessing#transforms#3 is the transform Lambdad"),
        ("preprocessing/transforms/3/pixdim", [1e-4, 1, 1], "preprocessing#transforms#3#pixdim"),
        ("preprocessing/transforms/3/pixdim", "$print(1)", "preprocessing#transforms#3#pixdim is an expression"),
        ("preprocessing/transforms/3", "$monai.transforms.Spacing()", "no other program is run here"),
        ("preprocessing/transforms/4/keys", ["t2"], "only image is there"),
        ("inferer/_target_", "monai.inferers.SaliencyInferer", "inferer is SaliencyInferer"),
        ("inferer/overlap", 1.5, "inferer#overlap"),
        ("inferer/roi_size", [100000, 8, 8], "inferer#roi_size"),
        (
            "postprocessing/transforms/2/_target_",
            "Activationsd",
            "transforms#2#argmax is not known here",
        ),
        ("metadata/version", "", "configs/metadata.json#version is missing"),
        ("metadata/network_data_format/outputs/pred/channel_def", {"7": "spleen"}, "does not say what channels 0 to 2"),
    ],
)
def test_what_is_not_known_is_refused_by_name(
    folder: Path, tmp_path: Path, path: str, value: Any, sentence: str
) -> None:
    place = changed(folder, tmp_path / "sphere", _put(path, value))
    with pytest.raises(RefusedWeights) as error:
        load(f"{USE}@{place}")
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_weights_that_would_run_are_refused(folder: Path, tmp_path: Path) -> None:
    class Runs:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    place = Path(shutil.copytree(folder, tmp_path / "sphere"))
    torch.save({"state_dict": Runs()}, place / "models" / "model.pt")
    with pytest.raises(RefusedWeights, match="to load those is to run them"):
        load(f"{USE}@{place}")
    assert not (tmp_path / "ran").exists()
    (place / "models" / "model.pt").rename(place / "models" / "model.ts")
    with pytest.raises(RefusedWeights, match="TorchScript, a program, and is not run"):
        load(f"{USE}@{place}")


@pytest.mark.parametrize("name", ["configs/metadata.json", "configs/inference.json"])
@pytest.mark.parametrize("content", [None, b"", b"[]", b"\xff\xfe", b"{"])
def test_a_bundle_without_readable_settings_says_so(
    folder: Path, tmp_path: Path, name: str, content: bytes | None
) -> None:
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        for file in folder.rglob("*"):
            place = file.relative_to(folder).as_posix()
            if file.is_file() and place != name:
                archive.write(file, place)
            elif content is not None and place == name:
                archive.writestr(place, content)
    with pytest.raises(RefusedWeights, match=r"bad\.zip"):
        load(f"{USE}@{tmp_path / 'bad.zip'}")


def test_without_a_bundle_it_says_where_to_write_it() -> None:
    with pytest.raises(DamagedWeights, match="card = "):
        load(USE)
