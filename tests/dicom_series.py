"""A DICOM series as a scanner sends it, with values of a patient in many elements."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

#: What must not be found in an output.
SECRETS = (
    "Musterfrau",
    "PID-77123",
    "19611224",
    "Saint Nowhere Hospital",
    "ACC-90210",
    "Dr^Whoever",
    "PRIVATE-SECRET",
    "1.2.826.0.1.3680043.8.498.4711",
)
STUDY = "1.2.826.0.1.3680043.8.498.4711"


def write_slice(
    path: Path,
    pixels: np.ndarray,
    position: float,
    *,
    number: int = 1,
    series: str = f"{STUDY}.1",
    orientation: tuple[float, ...] = (1, 0, 0, 0, 1, 0),
    spacing: tuple[float, float] = (2, 2),
    **tags: object,
) -> Path:
    """Write a CT slice [H, W] of int16, ``position`` mm along the normal; ``tags`` are set last."""
    name, pid, born, hospital, accession, doctor, private, study = SECRETS
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = f"{series}.{number}"
    ds = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, f"{series}.{number}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study, series, f"{study}.9"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate = f"{name}^Erika", pid, born
    ds.PatientSex, ds.StudyDate, ds.StudyTime, ds.StudyID = "F", "20200101", "120000", "1"
    ds.InstitutionName, ds.AccessionNumber, ds.ReferringPhysicianName = hospital, accession, doctor
    ds.private_block(0x0011, "MAKER", create=True).add_new(0x01, "LO", private)
    ds.Modality, ds.SeriesNumber, ds.InstanceNumber = "CT", 1, number
    ds.ImageOrientationPatient = list(orientation)
    normal = np.cross(orientation[:3], orientation[3:])
    ds.ImagePositionPatient = (np.array([-10, -20, 0]) + position * normal).round(6).tolist()
    ds.PixelSpacing, ds.SliceThickness = list(spacing), 3
    ds.Rows, ds.Columns = pixels.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, 1
    ds.WindowCenter, ds.WindowWidth = 500, 1000
    ds.PixelData = pixels.astype(np.int16).tobytes()
    for keyword, value in tags.items():
        setattr(ds, keyword, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)
    return path
