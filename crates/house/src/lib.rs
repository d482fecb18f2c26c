//! Tests that need the whole house live in `tests/`; what they share is below.
