//! The Python daemon as a device, reached by our `sshnp` through our relay.

use crate::case::Case;

pub(super) const CASES: &[Case] = &[];
