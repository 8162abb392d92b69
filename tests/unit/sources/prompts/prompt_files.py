"""Files of prompts that several tests write, and how they open them."""

from __future__ import annotations

import json

from salip_ray.config import load_config
from salip_ray.schema import ImageRef
from salip_ray.sources.prompts import Prompts

SIZE = (120, 160)  # height, width
CLASSES = load_config("chest").task.classes
LINE = {"bbox": [10, 20, 5, 5]}


def opened(path, *uris, index=None, classes=CLASSES):
    """Return the prompts of a file for images, or for one slice of each."""
    prompts = Prompts.open(str(path), classes)
    return prompts.among([ImageRef(uri, index) for uri in uris])


def coco(folder, *annotations, **more):
    path = folder / "boxes.json"
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 120, "width": 160}],
        "categories": [{"id": 1, "name": "lungs"}, {"id": 2, "name": "heart"}],
        "annotations": [{"image_id": 1, "category_id": 1, **item} for item in annotations],
    }
    path.write_text(json.dumps(content | more))
    return path
