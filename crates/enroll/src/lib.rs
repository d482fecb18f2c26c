//! Activation of an atSign: at_activate.
