"""The table of codes: each one is looked up."""

from __future__ import annotations

import pytest
from pydicom.sr._concepts_dict import concepts

from pipelines.evidence import codes

# what the dictionaries of pydicom 3.0 have no entry for, and why it is right
UNLISTED = {
    ("{pixels}", "UCUM"): "a unit that UCUM allows as an annotation (PS3.16 TID 1602)",
    ("en-US", "RFC5646"): "a language tag (PS3.16 CID 5000)",
    ("C0034375", "UMLS"): "PS3.16 TID 1500 row 12",
    ("393564001", "SCT"): "Glioma (disorder), of the SNOMED CT international edition",
    ("302820008", "SCT"): "Intracranial meningioma (disorder), of the SNOMED CT international edition",
    ("254956000", "SCT"): "Pituitary adenoma (disorder), of the SNOMED CT international edition",
    ("ROTATED", "99WETREAD"): "our own (99, PS3.3 8.2): no dictionary at hand says that a picture is turned",
    ("CTR", "99WETREAD"): "our own: the SNOMED concept is not in the dictionaries at hand, so it could not be checked",
    ("VOL_CHANGE", "99WETREAD"): "our own: no dictionary at hand has a change of volume between two studies",
    ("VOL_CHANGE_PCT", "99WETREAD"): "our own: the same in percent",
    ("TextPosition", "99CS3D"): "of Cornerstone3D, for where a viewer writes what it says of an image",
    ("41898006", "SCT"): "a concept of SNOMED CT by a synonym of it: Erythrocyte",
    ("52501007", "SCT"): "a concept of SNOMED CT by a synonym of it: Leukocyte",
    ("16378004", "SCT"): "a concept of SNOMED CT: Platelet",
}


def dictionary() -> dict[tuple[str, str], list[tuple[str, list[int]]]]:
    found: dict[tuple[str, str], list[tuple[str, list[int]]]] = {}
    for scheme, keywords in concepts.items():
        for values in keywords.values():
            for value, (meaning, groups) in values.items():
                found.setdefault((value, scheme), []).append((meaning, groups))
    return found


DICTIONARY = dictionary()


@pytest.mark.parametrize("key", [key for key in codes.TABLE if key not in UNLISTED], ids=" ".join)
def test_a_code_means_what_the_dictionary_says(key):
    meanings = [meaning.removesuffix(" (attribute)") for meaning, _ in DICTIONARY[key]]
    assert codes.TABLE[key].meaning in meanings


@pytest.mark.parametrize(
    "key", [key for key, source in codes.SOURCES.items() if source.startswith("CID")], ids=" ".join
)
def test_a_code_is_of_its_context_group(key):
    if key in UNLISTED:
        pytest.skip("the dictionaries do not have it")
    groups = {group for _, groups in DICTIONARY[key] for group in groups}
    assert int(codes.SOURCES[key].removeprefix("CID ")) in groups


def test_every_code_names_its_source():
    assert set(codes.SOURCES) == set(codes.TABLE)
    assert all(source.split()[0] in ("CID", "TID") for source in codes.SOURCES.values())


def test_what_is_not_in_the_dictionary_is_explained():
    assert {key for key in codes.TABLE if key not in DICTIONARY} == set(UNLISTED)


def test_a_name_is_one_code():
    named = [each for name, each in vars(codes).items() if name.isupper() and isinstance(each, codes.Code)]
    assert {(code.value, code.scheme_designator) for code in named} <= set(codes.TABLE)
    assert codes.FLAIR_ABNORMALITY == codes.LESION == codes.Code("52988006", "SCT", "Lesion")


def test_a_code_with_another_meaning_is_not_known():
    assert codes.is_known("52988006", "SCT", "lesion")
    assert not codes.is_known("52988006", "SCT", "Mass")
    assert not codes.is_known("52988006", "DCM", "Lesion")
