"""Every code that the evidence is written in: one table, each entry with where the standard gives it.

A code that is not in here does not leave (``check.py``). The values come from PS3.16; a test walks the table against
the dictionaries of pydicom. Codes that a study brings along, as its procedure, are the study's own and not in here.
"""

from __future__ import annotations

from pydicom.sr.coding import Code

TABLE: dict[tuple[str, str], Code] = {}  # (value, scheme) to code
SOURCES: dict[tuple[str, str], str] = {}  # (value, scheme) to the context group (CID) or template (TID) it is from


def _code(value: str, scheme: str, meaning: str, source: str) -> Code:
    code = Code(value, scheme, meaning)
    TABLE[value, scheme], SOURCES[value, scheme] = code, source
    return code


def declared(value: str, scheme: str, meaning: str, source: str) -> Code:
    """A code that a pipeline of another package says things in; it may leave from then on.

    Args:
        scheme: Coding Scheme Designator, as SCT, DCM or UCUM.
        source: The context group or template that it is from, as ``CID 7151``.

    Raises:
        ValueError: If the code is here already and means something else.
    """
    known = TABLE.get((value, scheme))
    if known is None:
        return _code(value, scheme, meaning, source)
    if known.meaning.casefold() != meaning.casefold():
        raise ValueError(f"the code {value} of {scheme} means {known.meaning!r}, not {meaning!r}")
    return known


# findings, and the property types of segments
LESION = _code("52988006", "SCT", "Lesion", "CID 7151")
FLAIR_ABNORMALITY = LESION  # that it is bright on FLAIR stands in the label
MASS = _code("4147007", "SCT", "Mass", "CID 7151")
NEOPLASM = _code("108369006", "SCT", "Neoplasm", "CID 7151")
HEMORRHAGE = _code("50960005", "SCT", "Hemorrhage", "CID 7151")
MALIGNANT_MELANOMA = _code("1162635006", "SCT", "Malignant melanoma", "CID 638")
# Of no context group: the finding of a measurement group may be any code (TID 1501, row 3b).
GLIOMA = _code("393564001", "SCT", "Glioma", "TID 1501")
INTRACRANIAL_MENINGIOMA = _code("302820008", "SCT", "Intracranial meningioma", "TID 1501")
PITUITARY_ADENOMA = _code("254956000", "SCT", "Pituitary adenoma", "TID 1501")
BRAIN = _code("12738006", "SCT", "Brain", "CID 7151")
HIPPOCAMPUS = _code("5366008", "SCT", "Hippocampus", "CID 7151")
LUNG = _code("39607008", "SCT", "Lung", "CID 7151")
HEART = _code("80891009", "SCT", "Heart", "CID 7151")
SKIN = _code("39937001", "SCT", "Skin", "CID 7151")
LEFT_VENTRICLE = _code("87878005", "SCT", "Left ventricle", "CID 7151")
BREAST = _code("76752008", "SCT", "Breast", "CID 7151")
NORMAL = _code("17621005", "SCT", "Normal", "CID 7151")
BENIGN = _code("30807003", "SCT", "Benign", "CID 6063")
MALIGNANT = _code("21594007", "SCT", "Malignant", "CID 6063")
OPACITY = _code("112001", "DCM", "Opacity", "CID 6102")
PULMONARY_EDEMA = _code("19242006", "SCT", "Pulmonary edema", "CID 3700")
IMAGE_ROTATED = _code("ROTATED", "99WETREAD", "Image rotated", "TID 1501")

BLOOD_VESSEL = _code("59820001", "SCT", "Blood Vessel", "CID 7151")
RETINA = _code("5665001", "SCT", "Retina", "CID 8134")
NUCLEUS = _code("84640000", "SCT", "Nucleus", "CID 8135")
RED_BLOOD_CELL = _code("41898006", "SCT", "Red blood cell", "TID 1501")
WHITE_BLOOD_CELL = _code("52501007", "SCT", "White blood cell", "TID 1501")
PLATELET = _code("16378004", "SCT", "Platelet", "TID 1501")

# categories of segments
MORPHOLOGICALLY_ABNORMAL_STRUCTURE = _code("49755003", "SCT", "Morphologically Abnormal Structure", "CID 7150")
ANATOMICAL_STRUCTURE = _code("91723000", "SCT", "Anatomical Structure", "CID 7150")
TISSUE = _code("85756007", "SCT", "Tissue", "CID 7150")

BACKGROUND = _code("125040", "DCM", "Background", "CID 7151")  # of a label map, where no segment is

# sides
RIGHT = _code("24028007", "SCT", "Right", "CID 244")
LEFT = _code("7771000", "SCT", "Left", "CID 244")
LATERALITY = _code("272741003", "SCT", "Laterality", "TID 1501")

# measurements and their units
VOLUME = _code("118565006", "SCT", "Volume", "CID 7469")
AREA = _code("42798000", "SCT", "Area", "CID 7469")
LENGTH = _code("410668003", "SCT", "Length", "CID 7469")
LONG_AXIS = _code("103339001", "SCT", "Long axis", "CID 7469")
SHORT_AXIS = _code("103340004", "SCT", "Short axis", "CID 7469")
LV_ED_VOLUME = _code("8821-1", "LN", "Left Ventricular ED Volume", "CID 3835")
LV_ES_VOLUME = _code("8823-7", "LN", "Left Ventricular ES Volume", "CID 3835")
LV_EJECTION_FRACTION = _code("8811-2", "LN", "Left ventricular ejection fraction by MR", "CID 3833")
CARDIOTHORACIC_RATIO = _code("CTR", "99WETREAD", "Cardiothoracic ratio", "TID 1501")
NUMBER_OF_SIMILAR_FINDINGS = _code("111406", "DCM", "Number of similar findings", "TID 300")
NUMBER_OF_FRAMES = _code("121140", "DCM", "Number of Frames", "TID 300")
CERTAINTY_OF_FINDING = _code("111012", "DCM", "Certainty of Finding", "CID 6048")
# What a change is, no dictionary says: its uncertainty and what it was inferred from are of DICOM.
CHANGE_OF_VOLUME = _code("VOL_CHANGE", "99WETREAD", "Change of volume since a prior study", "TID 300")
CHANGE_OF_VOLUME_IN_PERCENT = _code("VOL_CHANGE_PCT", "99WETREAD", "Relative change of volume since a prior", "TID 300")
UNCERTAINTY = _code("371884006", "SCT", "+/-, range of measurement uncertainty", "CID 225")
PRIOR_REPORT = _code("122075", "DCM", "Prior report for current patient", "CID 3407")
STUDY_DATE = _code("111060", "DCM", "Study Date", "TID 300")
CUBIC_CENTIMETER = _code("cm3", "UCUM", "cubic centimeter", "CID 7181")
SQUARE_MILLIMETER = _code("mm2", "UCUM", "square millimeter", "CID 7181")
MILLIMETER = _code("mm", "UCUM", "mm", "CID 7181")
PERCENT = _code("%", "UCUM", "Percent", "CID 7181")
PIXELS = _code("{pixels}", "UCUM", "Pixels", "TID 1602")
NO_UNITS = _code("1", "UCUM", "no units", "CID 7181")
RATIO = _code("{ratio}", "UCUM", "ratio", "CID 7181")

# is it there, and did the analysis run
PRESENT = _code("52101004", "SCT", "Present", "CID 240")
ABSENT = _code("272519000", "SCT", "Absent", "CID 240")
SUMMARY_OF_ANALYSES = _code("111065", "DCM", "Summary of Analyses", "TID 4015")
SUCCEEDED = _code("111222", "DCM", "Succeeded", "CID 6042")
FAILED = _code("111224", "DCM", "Failed", "CID 6042")
NOT_ATTEMPTED = _code("111225", "DCM", "Not Attempted", "CID 6042")
COMMENT = _code("121106", "DCM", "Comment", "CID 12101")

# what was done to a derived image, and to which
SMOOTHING = _code("113087", "DCM", "Smoothing", "CID 7203")
SUBTRACTION = _code("113062", "DCM", "Pixel by pixel subtraction", "CID 7203")
SOURCE_IMAGE_FOR_PROCESSING = _code("121322", "DCM", "Source image for image processing operation", "CID 7202")

# where a network looked
CLASS_ACTIVATION = _code("130402", "DCM", "Class activation", "CID 217")
GRADIENT_WEIGHTED_CLASS_ACTIVATION = _code("130403", "DCM", "Gradient-weighted class activation", "CID 217")
SALIENCY = _code("130404", "DCM", "Saliency", "CID 217")
EXPLANATIONS = (CLASS_ACTIVATION, GRADIENT_WEIGHTED_CLASS_ACTIVATION, SALIENCY)
QUANTITY = _code("246205007", "SCT", "Quantity", "CID 9000")
UNSPECIFIED_METHOD = _code("112187", "DCM", "Unspecified method of calculation", "CID 6140")

# who says it
ARTIFICIAL_INTELLIGENCE = _code("123110", "DCM", "Artificial Intelligence", "CID 7162")
PROCESSING_EQUIPMENT = _code("109102", "DCM", "Processing Equipment", "CID 7005")
ACQUISITION_EQUIPMENT = _code("109101", "DCM", "Acquisition Equipment", "CID 7005")
ALGORITHM_NAME = _code("111001", "DCM", "Algorithm Name", "TID 4019")
ALGORITHM_VERSION = _code("111003", "DCM", "Algorithm Version", "TID 4019")
ALGORITHM_MANUFACTURER = _code("122405", "DCM", "Algorithm Manufacturer", "TID 4019")
ALGORITHM_FAMILY = _code("111000", "DCM", "Algorithm Family", "TID 4019")
OBSERVER_TYPE = _code("121005", "DCM", "Observer Type", "TID 1002")
DEVICE = _code("121007", "DCM", "Device", "CID 270")
DEVICE_OBSERVER_UID = _code("121012", "DCM", "Device Observer UID", "TID 1004")
DEVICE_OBSERVER_NAME = _code("121013", "DCM", "Device Observer Name", "TID 1004")
DEVICE_OBSERVER_MANUFACTURER = _code("121014", "DCM", "Device Observer Manufacturer", "TID 1004")
DEVICE_OBSERVER_MODEL = _code("121015", "DCM", "Device Observer Model Name", "TID 1004")
DEVICE_OBSERVER_SERIAL_NUMBER = _code("121016", "DCM", "Device Observer Serial Number", "TID 1004")

# the images to look at first
OF_INTEREST = _code("113000", "DCM", "Of Interest", "CID 7010")
KEY_OBJECT_DESCRIPTION = _code("113012", "DCM", "Key Object Description", "TID 2010")

# the bones of a measurement report
IMAGING_MEASUREMENT_REPORT = _code("126000", "DCM", "Imaging Measurement Report", "CID 7021")
LANGUAGE = _code("121049", "DCM", "Language of Content Item and Descendants", "TID 1204")
ENGLISH = _code("en-US", "RFC5646", "English (United States)", "CID 5000")
PROCEDURE_REPORTED = _code("121058", "DCM", "Procedure reported", "TID 1500")
IMAGING_PROCEDURE = _code("363679005", "SCT", "Imaging procedure", "CID 100")
IMAGING_MEASUREMENTS = _code("126010", "DCM", "Imaging Measurements", "TID 1500")
QUALITATIVE_EVALUATIONS = _code("C0034375", "UMLS", "Qualitative Evaluations", "TID 1500")
MEASUREMENT_GROUP = _code("125007", "DCM", "Measurement Group", "TID 1501")
TRACKING_IDENTIFIER = _code("112039", "DCM", "Tracking Identifier", "TID 1501")
TRACKING_UNIQUE_IDENTIFIER = _code("112040", "DCM", "Tracking Unique Identifier", "TID 1501")
FINDING = _code("121071", "DCM", "Finding", "TID 1501")
FINDING_SITE = _code("363698007", "SCT", "Finding Site", "TID 1501")
IMAGE_REGION = _code("111030", "DCM", "Image Region", "TID 1410")
REFERENCED_SEGMENT = _code("121191", "DCM", "Referenced Segment", "TID 1411")
REFERENCED_SEGMENTATION_FRAME = _code("121214", "DCM", "Referenced Segmentation Frame", "TID 1410")
SOURCE_SERIES_FOR_SEGMENTATION = _code("121232", "DCM", "Source series for segmentation", "TID 1411")
SOURCE_IMAGE_FOR_SEGMENTATION = _code("121233", "DCM", "Source image for segmentation", "TID 1410")
SOURCE = _code("260753009", "SCT", "Source", "TID 320")
SOURCE_OF_MEASUREMENT = _code("121112", "DCM", "Source of Measurement", "CID 7551")
TEXT_POSITION = _code("TextPosition", "99CS3D", "Text Annotation Position", "TID 320")
ORIGINAL_SOURCE = _code("111040", "DCM", "Original Source", "TID 1410")

# the image library
IMAGE_LIBRARY = _code("111028", "DCM", "Image Library", "TID 1600")
IMAGE_LIBRARY_GROUP = _code("126200", "DCM", "Image Library Group", "TID 1600")
MODALITY = _code("121139", "DCM", "Modality", "TID 1602")
FRAME_OF_REFERENCE = _code("112227", "DCM", "Frame of Reference UID", "TID 1604")
PIXEL_ROWS = _code("110910", "DCM", "Pixel Data Rows", "TID 1602")
PIXEL_COLUMNS = _code("110911", "DCM", "Pixel Data Columns", "TID 1602")
HORIZONTAL_SPACING = _code("111026", "DCM", "Horizontal Pixel Spacing", "TID 1604")
VERTICAL_SPACING = _code("111066", "DCM", "Vertical Pixel Spacing", "TID 1604")

MODALITIES = {
    value: _code(value, "DCM", meaning, "CID 29")
    for value, meaning in (
        ("CR", "Computed Radiography"),
        ("CT", "Computed Tomography"),
        ("DX", "Digital Radiography"),
        ("GM", "General Microscopy"),
        ("MG", "Mammography"),
        ("MR", "Magnetic Resonance"),
        ("NM", "Nuclear Medicine"),
        ("OP", "Ophthalmic Photography"),
        ("PT", "Positron emission tomography"),
        ("SM", "Slide Microscopy"),
        ("US", "Ultrasound"),
        ("XA", "X-Ray Angiography"),
        ("XC", "External-camera Photography"),
    )
}


def is_known(value: str, scheme: str, meaning: str) -> bool:
    """Whether the table has the code, with this meaning whatever its capitals."""
    known = TABLE.get((value, scheme))
    return known is not None and known.meaning.casefold() == meaning.casefold()
