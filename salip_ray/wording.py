"""Numbers and errors in messages: ``1 image``, ``1,000 entries``, an error on one line."""

from __future__ import annotations


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return ``number`` with ``noun`` in the right form.

    Args:
        number: shown with thousands separators.
        noun: in the singular.
        plural: only if it is not the noun with an ``s``.

    >>> counted(1, "image"), counted(1000, "image"), counted(2, "entry", "entries")
    ('1 image', '1,000 images', '2 entries')
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def one_line(error: BaseException, longest: int | None = None) -> str:
    """Return the message of an exception on one line, or its type if it has none.

    Args:
        error: the exception.
        longest: cut the message after so many characters.

    >>> one_line(ValueError("two   words")), one_line(KeyError())
    ('two words', 'KeyError')
    """
    return " ".join(str(error).split())[:longest] or type(error).__name__
