//! The cases, by what a person wants to do.

mod activation;
mod device;
mod notifications;
mod records;
mod sharing;

use crate::case::Case;

/// All of them, in an order in which a failure explains the later ones.
pub(crate) fn all() -> impl Iterator<Item = &'static Case> {
    [activation::CASES, records::CASES, sharing::CASES, notifications::CASES, device::CASES].into_iter().flatten()
}
