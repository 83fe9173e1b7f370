"""What of a MONAI bundle is known here: networks, transforms and inferers by name, and the arguments of each.

Tables rather than MONAI's own lookup, which finds any callable of any module. What is not in them is refused by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.models.bundle_files import Files

WIDEST = 4096  # channels; no argument of a network is larger
_SIDE = 2048  # voxels: no window, and no size that an image is brought to, is larger
_UNET = "spatial_dims in_channels out_channels channels strides kernel_size up_kernel_size dropout"
_DENSE = "spatial_dims in_channels out_channels init_features growth_rate block_config bn_size act norm dropout_prob"
# Networks that outline, and their arguments. Not among them: whatever fetches weights (pretrained).
OUTLINING = {
    "UNet": f"{_UNET} num_res_units act norm bias adn_ordering",
    "BasicUNet": "spatial_dims in_channels out_channels features act norm bias dropout upsample",
    "DynUNet": "spatial_dims in_channels out_channels kernel_size strides upsample_kernel_size filters dropout "
    "norm_name act_name deep_supervision deep_supr_num res_block trans_bias",
    "SegResNet": "spatial_dims init_filters in_channels out_channels dropout_prob act norm num_groups use_conv_final "
    "blocks_down blocks_up upsample_mode",
    "VNet": "spatial_dims in_channels out_channels act dropout_prob_down dropout_prob_up dropout_dim bias",
    "AttentionUnet": _UNET,
    "UNETR": "in_channels out_channels img_size feature_size hidden_size mlp_dim num_heads proj_type norm_name "
    "conv_block res_block dropout_rate spatial_dims qkv_bias",
    "SwinUNETR": "in_channels out_channels patch_size depths num_heads window_size qkv_bias mlp_ratio feature_size "
    "norm_name drop_rate attn_drop_rate dropout_path_rate normalize patch_norm spatial_dims downsample use_v2",
}  # fmt: skip
CLASSIFYING = dict.fromkeys(("DenseNet121", "DenseNet169", "DenseNet201", "DenseNet264"), _DENSE)
# What is done to the image, in the order of the bundle. Empty: done already when the image comes from DICOM.
BEFORE = {
    "LoadImage": None,
    "EnsureChannelFirst": None,
    "EnsureType": None,
    "Orientation": "axcodes",
    "Spacing": "pixdim mode padding_mode diagonal align_corners",
    "NormalizeIntensity": "subtrahend divisor nonzero channel_wise",
    "ScaleIntensity": "minv maxv factor channel_wise",
    "ScaleIntensityRange": "a_min a_max b_min b_max clip",
    "ScaleIntensityRangePercentiles": "lower upper b_min b_max clip relative channel_wise",
    "ThresholdIntensity": "threshold above cval",
    "CropForeground": "margin k_divisible mode allow_smaller",
    "SpatialPad": "spatial_size method mode",
    "DivisiblePad": "k mode method",
    "Resize": "spatial_size size_mode mode align_corners anti_aliasing",
}
# What is done to the answer.
AFTER = {
    "Activations": "sigmoid softmax",
    "AsDiscrete": "argmax threshold to_onehot rounding",
    "KeepLargestConnectedComponent": "applied_labels is_onehot independent connectivity num_components",
    "Invert": "nearest_interp",
    "EnsureType": None,
    "SaveImage": None,
}
# Arguments that say what is so here anyway, or where things lie on somebody's disk.
UNHEARD = (
    "keys allow_missing_keys source_key image_only reader ensure_channel_first simple_keys channel_dim "
    "dtype data_type device track_meta transform orig_keys meta_keys meta_key_postfix orig_meta_keys "
    "to_tensor output_dir output_ext output_postfix output_dtype resample squeeze_end_dims "
    "separate_folder print_log"
)
SLIDING = "roi_size sw_batch_size overlap mode sigma_scale padding_mode cval"
_NOTES = ("_target_", "_desc_", "_disabled_")


def arguments(files: Files, held: Mapping[str, Any], entry: str, allowed: str) -> dict[str, Any]:
    """The arguments of an entry, plain, each of them known."""
    said = {key: value for key, value in held.items() if key not in _NOTES}
    if strange := [key for key in said if key not in allowed.split()]:
        raise files.refused(f"{entry}#{strange[0]}", f"is not known here; known are {', '.join(allowed.split())}")
    plain: dict[str, Any] = files.plain(said, entry)
    for key in ("spatial_size", "roi_size", "img_size"):
        if any(each > _SIDE for each in numbers(plain.get(key))):
            raise files.refused(f"{entry}#{key}", f"is {plain[key]}; at most {_SIDE} voxels are read")
    if "pixdim" in plain and not all(0.1 <= each <= 20 or each == -1 for each in numbers(plain["pixdim"])):
        raise files.refused(f"{entry}#pixdim", f"is {plain['pixdim']}, not 0.1 to 20 mm")
    return plain


def numbers(held: Any) -> Iterator[float]:
    """Every number of a value, however deep."""
    if isinstance(held, dict | list):
        for each in held.values() if isinstance(held, dict) else held:
            yield from numbers(each)
    elif isinstance(held, int | float):
        yield held


def target(files: Files, held: Any, entry: str, package: str) -> str:
    """The last word of ``_target_``, where it is a name of MONAI's ``package``."""
    target = held.get("_target_") if isinstance(held, dict) else None
    if not isinstance(target, str):
        raise files.refused(entry, "has no _target_ that is a name")
    path, _, name = target.rpartition(".")
    if path and path != package and not path.startswith(f"{package}."):
        raise files.refused(entry, f"is {target}, which is no part of {package}, and no other program is run here")
    return name


def known(table: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}d" for name in table)
