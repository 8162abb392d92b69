"""Ray job entrypoint: ``salip-ray label`` on the cluster the job was submitted to.

    ray job submit --working-dir . -- python jobs/label.py INPUT OUTPUT --config lungs

Takes what ``salip-ray label`` takes. Exits with 1 if the job failed and with 2 if its
arguments are wrong, so that Ray marks it FAILED.
"""

from __future__ import annotations

import sys

from salip_ray.cli import app

if __name__ == "__main__":
    app(["label", *sys.argv[1:]], prog_name="label.py")
