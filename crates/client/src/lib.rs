//! A connected identity: directory, login, get, put, notify, monitor, reconnect.
