//! Bytes out: which bytes share a TLS record matters to clients that read record by record.

use std::io;

use postern_net::tls::ServerStream;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::limits::WRITE_LIMIT;

/// The most that fits into one record.
const RECORD_BYTES: usize = 16 * 1024;

/// Longest prompt with the line end before it: `\n@` + 55 characters of up to 4 bytes + `@`.
const TAIL_BYTES: usize = 256;

/// Writes one message, in one record when it fits, otherwise so that its last record holds the last
/// line end and the whole prompt. Each record has [`WRITE_LIMIT`].
pub(crate) async fn write(stream: &mut ServerStream, message: &[u8]) -> io::Result<()> {
    for record in records(message) {
        let work = async {
            // Flushed each time: into an empty buffer a record's worth always goes whole.
            stream.write_all(record).await?;
            stream.flush().await
        };
        timeout(WRITE_LIMIT, work).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    }
    Ok(())
}

fn records(message: &[u8]) -> impl Iterator<Item = &[u8]> {
    // A short rest would hold only a part of the tail: then the first record is shorter by that much.
    let rest = message.len() % RECORD_BYTES;
    let first = if message.len() > RECORD_BYTES && rest < TAIL_BYTES { RECORD_BYTES - TAIL_BYTES } else { 0 };
    let (first, others) = message.split_at(first);
    std::iter::once(first).filter(|first| !first.is_empty()).chain(others.chunks(RECORD_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_record_holds_the_tail() {
        for len in [1, 100, 16_383, 16_384, 16_385, 16_500, 32_768, 32_769, 33_100, 100_000] {
            let message: Vec<u8> = (0..len).map(|n: usize| n.to_le_bytes()[0]).collect();
            let parts: Vec<&[u8]> = records(&message).collect();
            assert_eq!(parts.concat(), message);
            assert!(parts.iter().all(|part| part.len() <= RECORD_BYTES));
            assert!(parts.last().unwrap().len() >= len.min(TAIL_BYTES), "{len}");
            assert!(len > RECORD_BYTES || parts.len() == 1);
        }
    }
}
