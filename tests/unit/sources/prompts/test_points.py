"""Points that are given: how tables of them are read."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from salip_ray.errors import ImageError, InputError
from salip_ray.schema import ImageRef, Points
from salip_ray.sources.prompts import Prompts, boxes_in_image
from tests.unit.sources.prompts.prompt_files import CLASSES, SIZE, opened

CLICKS = "image,x,y,positive,object,label\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("image,x,y\na.png,3,4\na.png,50,6.5\n", [Points(((3, 4),)), Points(((50, 6.5),))]),
        (
            "image,x,y,positive\na.png,3,4,1\na.png,9,9,0\na.png,50,6,\n",
            [Points(((3, 4),), ((9, 9),)), Points(((50, 6),), ((9, 9),))],
        ),
        (
            CLICKS + "a.png,3,4,1,left,\na.png,9,9,0,right,\na.png,5,6,true,left,\n"
            "a.png,50,6,1,right,\nb.png,,,,,\n",
            [Points(((3, 4), (5, 6))), Points(((50, 6),), ((9, 9),))],
        ),
        (
            "image,x,y,positive,object\na.png,3,4,1,NA\na.png,50,6,NA,nan\n",
            [Points(((3, 4),)), Points(((50, 6),))],
        ),
    ],
)
def test_points_of_a_table_are_grouped_by_object(tmp_path, text, expected):
    (tmp_path / "points.csv").write_text(text)
    prompts = opened(tmp_path / "points.csv", "a.png", classes=CLASSES[:1])
    assert prompts.has_points
    given = boxes_in_image(prompts.find(ImageRef("a.png")), SIZE)
    assert given == [("lungs", points) for points in expected]


def test_points_of_classes_and_slices_are_apart(tmp_path):
    rows = [
        {"image": "v.nii", "slice": 3, "x": 1, "y": 2, "label": "lungs", "positive": 1},
        {"image": "v.nii", "slice": 3, "x": 5, "y": 6, "label": "lungs", "positive": 0},
        {"image": "v.nii", "slice": 3, "x": 7, "y": 8, "label": "heart", "positive": 1},
        {"image": "v.nii", "slice": 4, "x": 9, "y": 10, "label": "heart", "positive": 1},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "points.parquet")
    prompts = opened(tmp_path / "points.parquet", "v.nii", index=3)
    of_slice = boxes_in_image(prompts.find(ImageRef("v.nii", 3)), SIZE)
    assert of_slice == [("lungs", Points(((1, 2),), ((5, 6),))), ("heart", Points(((7, 8),)))]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("image,x,y,width\na,1,2,3\n", "need the columns image, and x0, y0, x1, y1"),
        ("image,x,y\na,1,\n", "row 1 of prompts .* has no point"),
        ("image,x,y,label\na,.1,.2,lungs\na,.5,.5,lungs\n", "are shares of the image: give pixels"),
        ("image,x,y,positive\na,1,2,0\n", "row 1 of prompts .* is on no object"),
        ("image,x,y,positive\na,1,2,yes\n", "has the value 'yes' in the column positive"),
        (
            CLICKS + "a,1,2,1,t,lungs\na,3,4,1,t,heart\n",
            "row 2 .* is of the class 'heart', but object t of a has the class 'lungs'",
        ),
    ],
)
def test_problems_of_points_name_the_row(tmp_path, text, problem):
    (tmp_path / "points.csv").write_text(text)
    with pytest.raises(InputError, match=problem):
        Prompts.open(str(tmp_path / "points.csv"), CLASSES)


@pytest.mark.parametrize("point", ["160,5", "-1,5", "5,120", "inf,5"])
def test_a_point_outside_of_the_image_is_refused(tmp_path, point):
    (tmp_path / "points.csv").write_text(f"image,x,y\na.png,5,5\na.png,{point}\n")
    prompts = opened(tmp_path / "points.csv", "a.png", classes=CLASSES[:1])
    with pytest.raises(ImageError, match=r"prompt 2 \(lungs\) has the point .* not in the image"):
        boxes_in_image(prompts.find(ImageRef("a.png")), SIZE)


def test_thousands_of_points_of_an_object_are_refused(tmp_path):
    lines = "".join(f"a.png,{n % 160},{n // 160},1\n" for n in range(1001))
    (tmp_path / "points.csv").write_text("image,x,y,object\n" + lines)
    prompts = opened(tmp_path / "points.csv", "a.png", classes=CLASSES[:1])
    with pytest.raises(ImageError, match="has 1,001 points, more than 1,000: give a box"):
        boxes_in_image(prompts.find(ImageRef("a.png")), SIZE)
