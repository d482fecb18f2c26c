//! Sockets: TLS, listeners with seats, bounded lines, pumps, splice, back-off, tasks, signals.
