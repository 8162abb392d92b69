"""``python -m salip_ray``."""

from salip_ray.cli import app

if __name__ == "__main__":
    app()
