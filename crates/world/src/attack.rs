//! Connections, and what may happen to them.

use std::collections::VecDeque;

use crate::dice::Dice;
use crate::limits::RECORDED;

/// Two directions of bytes between the ends of a session.
#[derive(Default)]
pub(crate) struct Connection {
    /// Bytes to the device, bytes to the client.
    pub(crate) queues: [VecDeque<u8>; 2],
    /// What passed, for a replay.
    recorded: [Vec<u8>; 2],
}

impl Connection {
    pub(crate) fn push(&mut self, way: usize, bytes: &[u8]) {
        self.queues[way].extend(bytes);
        let room = RECORDED.saturating_sub(self.recorded[way].len()).min(bytes.len());
        self.recorded[way].extend_from_slice(&bytes[..room]);
    }
}

/// One deed, on bytes that are on their way: what it was. `None`: there was nothing to do it to.
pub(crate) fn attack(connections: &mut [Connection], dice: &mut Dice) -> Option<String> {
    let (one, other) = (dice.below(connections.len()), dice.below(connections.len()));
    let way = dice.below(2);
    let length = connections.get(one)?.queues[way].len();
    let place = dice.below(length);
    let deed = |what: &str| Some(format!("{what} in connection {one} way {way}"));
    match dice.below(7) {
        0 if length > 0 => {
            let bit = dice.below(8);
            *connections[one].queues[way].get_mut(place)? ^= 1 << bit;
            deed("flips a bit")
        }
        1 if length > 0 => {
            let end = (place + 1 + dice.below(64)).min(length);
            connections[one].queues[way].drain(place..end);
            deed("leaves bytes out")
        }
        2 if length > 0 => {
            connections[one].queues[way].truncate(place);
            deed("cuts")
        }
        3 if length > 0 => {
            let again: Vec<u8> = connections[one].queues[way].iter().copied().collect();
            connections[one].queues[way].extend(again);
            deed("sends twice")
        }
        4 if !connections[other].recorded[way].is_empty() => {
            let again = connections[other].recorded[way].clone();
            // From the start of a connection, into the start of another: where it would fit best.
            if length > 0 && dice.once_in(2) {
                connections[one].queues[way].clear();
            }
            connections[one].queues[way].extend(again);
            deed(&format!("replays connection {other}"))
        }
        5 if one != other => {
            let swapped = std::mem::take(&mut connections[one].queues[way]);
            connections[one].queues[way] = std::mem::replace(&mut connections[other].queues[way], swapped);
            deed(&format!("swaps bytes with connection {other}"))
        }
        6 => {
            // Back to where it came from.
            let echo: Vec<u8> = connections[one].queues[way].drain(..).collect();
            connections[one].queues[1 - way].extend(echo);
            deed("reflects")
        }
        _ => None,
    }
}
