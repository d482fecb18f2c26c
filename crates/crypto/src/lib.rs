//! Keys by purpose and side, signatures, RSA, AES-CTR and key files; the only crate that names a cipher library.
