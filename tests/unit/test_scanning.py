"""Laws of the scanner: a secret is found in each form that it is held in, and nothing else is."""

from __future__ import annotations

import base64

import pytest

from cellrail_state.scanning import Scanner

SECRET = "s3cret-t0ken!x"


@pytest.mark.parametrize("lead", range(7))
@pytest.mark.parametrize("tail", range(4))
def test_base64_is_found_wherever_the_secret_stands(lead, tail):
    text = b"u" * lead + SECRET.encode() + b"v" * tail
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        assert Scanner([SECRET]).hits(b"Basic " + encode(text))
        assert Scanner([SECRET.encode()]).hits(encode(text))


@pytest.mark.parametrize("codec", ["utf-8", "utf-16", "utf-16-be", "utf-32"])
def test_other_encodings_and_hex_are_found(codec):
    assert Scanner([SECRET]).hits(b"x" + SECRET.encode(codec))
    assert Scanner([SECRET]).hits(SECRET.encode().hex().encode())
    assert Scanner([SECRET]).hits(SECRET.encode().hex().upper().encode())


def test_what_is_no_secret_is_not_found():
    scanner = Scanner([SECRET])
    assert not scanner.hits(base64.b64encode(b"an innocent text, of any kind at all"))
    assert not scanner.hits(SECRET[:-1].encode())
    assert not Scanner(["short"]).hits(b"short")
