"""The recipes of shipped tasks are those of 0.1, so that its outputs can be resumed.

If a recipe has to change, CHANGELOG.md says so under "Upgrade", and its digest here is renewed.
"""

from __future__ import annotations

import hashlib
import json

import pytest

from salip_ray.config import load_config

#: (task, preset) -> SHA-256 of the recipe that 0.1.0 wrote to run.json.
RECIPES = {
    ("lungs", None): "3bb7c7afab49ea4b6ae733fa9b8fefa21622894a442f101db28ec6e962e3fdbc",
    ("brain", None): "754f4aa93bb9b8c099b9cebc1e660f92d62659303207f5642c1308847dda944e",
    ("fetal_head", None): "36ef0f1a16da159a4745515efb7380b62c130a3a235fda91a534337ab9442815",
    ("liver_ct", "paper-2d"): "0c9371f5798d4652ebd479ed8db8cc5149067d99a266bcd60e750d2ef1cc545b",
}


@pytest.mark.parametrize(("task", "preset"), RECIPES)
def test_recipe_is_that_of_an_output_of_0_1(task, preset):
    recipe = json.dumps(load_config(task, preset=preset).recipe(), sort_keys=True)
    assert hashlib.sha256(recipe.encode()).hexdigest() == RECIPES[task, preset]
