//! The clients: sshnp and npt.
