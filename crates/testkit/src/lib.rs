//! Real processes, namespaces and strategies for tests; never shipped.
