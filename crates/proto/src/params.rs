//! The `:name:value` part that many verbs share.

/// When a record was made, written, ends, begins and was deleted, as `yyyy-mm-ddThh:mm:ss.sssZ`.
const DATES: [&str; 5] = ["cAt", "uAt", "eAt", "aAt", "dAt"];

/// Cuts the head of a request into its colon-separated pieces.
///
/// Clients send parameters in any order and newer ones we do not know, so verbs
/// ask for one piece at a time and decide by its name.
pub(crate) struct Params<'a> {
    rest: Option<&'a str>,
}

impl<'a> Params<'a> {
    pub(crate) fn new(head: &'a str) -> Self {
        Self { rest: Some(head) }
    }

    /// The next piece, not taken.
    pub(crate) fn peek(&self) -> Option<&'a str> {
        self.rest.map(|rest| rest.split(':').next().unwrap_or(rest))
    }

    /// Takes the next piece.
    pub(crate) fn take(&mut self) -> Option<&'a str> {
        let rest = self.rest?;
        let (piece, after) = match rest.split_once(':') {
            Some((piece, after)) => (piece, Some(after)),
            None => (rest, None),
        };
        self.rest = after;
        Some(piece)
    }

    /// Takes the value of the parameter `name`, whose name was taken. The dates that newer clients send contain colons.
    pub(crate) fn take_value_of(&mut self, name: &str) -> Option<&'a str> {
        let is_date = DATES.iter().any(|date| name.eq_ignore_ascii_case(date));
        let is_whole = |value: &str| !value.as_bytes().get(..4).is_some_and(|year| year.iter().all(u8::is_ascii_digit));
        if !is_date || self.peek().is_none_or(is_whole) {
            return self.take();
        }
        let start = self.rest?;
        let end = start.match_indices(':').nth(2).map_or(start.len(), |(at, _)| at);
        let (value, after) = start.split_at(end);
        self.rest = after.strip_prefix(':');
        Some(value)
    }

    /// Takes the next piece if it is this word in any case.
    pub(crate) fn take_word(&mut self, word: &str) -> bool {
        let found = self.peek().is_some_and(|piece| piece.eq_ignore_ascii_case(word));
        if found {
            self.take();
        }
        found
    }

    /// Everything not taken yet.
    pub(crate) fn rest(&self) -> Option<&'a str> {
        self.rest
    }

    /// Whether the piece after the next one is the last: then the next one is no
    /// parameter name, for a key has to follow every `name:value`.
    pub(crate) fn at_key(&self) -> bool {
        let Some(piece) = self.peek() else { return true };
        let lower = piece.to_ascii_lowercase();
        piece.contains('@')
            || matches!(lower.as_str(), "public" | "cached" | "private" | "privatekey" | "local")
            || self.rest.is_some_and(|rest| rest.matches(':').count() < 2)
    }
}
