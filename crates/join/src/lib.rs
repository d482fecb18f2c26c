//! One line to join: `postern invite`, `postern join`, `postern leave`.
