//! The relay's language and its two minds: the meeting and the visitor.
