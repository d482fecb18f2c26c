//! The device daemon: waits for a validated request, then dials out.
