"""Write pictures of pages as WebP, without a loss that one sees, and delete the originals.

Usage:
    python tools/webp.py docs/overview.png     # docs/overview.webp
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image


def main() -> None:
    """Convert the pictures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("pictures", type=Path, nargs="+")
    for path in parser.parse_args().pictures:
        picture = Image.open(path).convert("RGB")
        # Sharp chroma: outlines of one pixel keep their colour.
        picture.save(path.with_suffix(".webp"), quality=92, method=6, use_sharp_yuv=True)
        path.unlink()


if __name__ == "__main__":
    main()
