//! What client and device say to each other: requests, replies, keys, streams, permit-open.
