//! The atProtocol as types: names, keys, metadata, requests, replies, pushes and the bounded line reader.
