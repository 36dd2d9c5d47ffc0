"""Entities written by shape: patterns of a pack with their checks, e-mail, telephone, order
number, payment card."""

from __future__ import annotations

import re
from collections.abc import Callable


def luhn(text: str) -> bool:
    """ISO/IEC 7812-1 annex B: the check digit of payment cards."""
    digits = [int(ch) for ch in text if ch.isdecimal()]
    doubled = [d if i % 2 == 0 else d * 2 - 9 * (d > 4) for i, d in enumerate(reversed(digits))]
    return len(digits) > 1 and sum(doubled) % 10 == 0


def iban(text: str) -> bool:
    """ISO 13616: country and check digits to the end, letters as 10 to 35, modulo 97 is 1."""
    compact = re.sub(r"[\s-]", "", text).upper()
    if not re.fullmatch(r"[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}", compact):
        return False
    return int("".join(str(int(ch, 36)) for ch in compact[4:] + compact[:4])) % 97 == 1


CHECKS_BY_NAME: dict[str, Callable[[str], bool]] = {"luhn": luhn, "iban": iban}
