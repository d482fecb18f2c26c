//! Bytes to lines, with a bound.

/// Cuts a stream of bytes at `\n`, never holding more than its limit.
///
/// The limit may change during a connection: small for strangers, larger once
/// somebody has proved who they are.
#[derive(Debug)]
pub struct LineReader {
    buffer: Vec<u8>,
    /// Start of the first line not yet handed out.
    start: usize,
    /// Everything before this has been searched for `\n`.
    searched: usize,
    limit: usize,
}

/// A line went past the limit; the connection cannot be read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineTooLong;

impl LineReader {
    /// `limit`: longest line in bytes, without its end.
    pub fn new(limit: usize) -> Self {
        Self { buffer: Vec::new(), start: 0, searched: 0, limit }
    }

    /// Changes the limit for lines that are not complete yet.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Adds what was read. Lines are then taken with [`Self::next_line`] until it says `None`.
    pub fn extend(&mut self, bytes: &[u8]) {
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
            self.searched = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next complete line without `\n` (a `\r` before it is dropped too).
    pub fn next_line(&mut self) -> Result<Option<&[u8]>, LineTooLong> {
        let rest = self.buffer.get(self.searched..).unwrap_or_default();
        let Some(at) = rest.iter().position(|b| *b == b'\n') else {
            self.searched = self.buffer.len();
            if self.buffer.len() - self.start > self.limit {
                return Err(LineTooLong);
            }
            self.give_back_memory();
            return Ok(None);
        };
        let (from, end) = (self.start, self.searched + at);
        if end - from > self.limit {
            return Err(LineTooLong);
        }
        self.start = end + 1;
        self.searched = self.start;
        let line = self.buffer.get(from..end).unwrap_or_default();
        Ok(Some(line.strip_suffix(b"\r").unwrap_or(line)))
    }

    /// The beginning of the line that is not complete yet.
    pub fn unfinished(&self) -> &[u8] {
        self.buffer.get(self.start..).unwrap_or_default()
    }

    /// An idle connection holds no buffer: thousands of them are the normal case.
    fn give_back_memory(&mut self) {
        if self.start == self.buffer.len() {
            self.buffer = Vec::new();
        } else if self.start > 0 {
            self.buffer.drain(..self.start);
        }
        self.searched -= self.start.min(self.searched);
        self.searched = self.searched.min(self.buffer.len());
        self.start = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn drain(reader: &mut LineReader) -> Result<Vec<Vec<u8>>, LineTooLong> {
        let mut lines = Vec::new();
        while let Some(line) = reader.next_line()? {
            lines.push(line.to_vec());
        }
        Ok(lines)
    }

    #[test]
    fn cuts_at_newlines_and_keeps_the_rest() {
        let mut reader = LineReader::new(64);
        reader.extend(b"one\r\ntwo\n\nthr");
        assert_eq!(drain(&mut reader).unwrap(), [b"one".to_vec(), b"two".to_vec(), b"".to_vec()]);
        assert_eq!(reader.unfinished(), b"thr");
        reader.extend(b"ee\n");
        assert_eq!(drain(&mut reader).unwrap(), [b"three".to_vec()]);
        assert_eq!(reader.buffer.capacity(), 0);
    }

    #[test]
    fn a_line_past_the_limit_is_an_error_before_it_is_complete() {
        let mut reader = LineReader::new(8);
        reader.extend(b"123456789");
        assert_eq!(reader.next_line(), Err(LineTooLong));
        let mut reader = LineReader::new(8);
        reader.extend(b"ok\n123456789\n");
        assert_eq!(reader.next_line(), Ok(Some(&b"ok"[..])));
        assert_eq!(reader.next_line(), Err(LineTooLong));
    }

    proptest! {
        #[test]
        fn chunking_does_not_matter(lines in prop::collection::vec("[a-z:@ ]{0,20}", 0..20), cuts in prop::collection::vec(1usize..9, 1..40)) {
            let whole: Vec<u8> = lines.iter().flat_map(|l| format!("{l}\n").into_bytes()).collect();
            let mut reader = LineReader::new(32);
            let mut got = Vec::new();
            let mut rest = &whole[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break }
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                reader.extend(now);
                got.extend(drain(&mut reader).unwrap());
                rest = later;
            }
            let want: Vec<Vec<u8>> = lines.iter().map(|l| l.clone().into_bytes()).collect();
            prop_assert_eq!(got, want);
        }
    }
}
