//! How each real client reads: small and faithful, faults included. Source: atProtocol, "how each client reads a reply".
//!
//! A reader that stumbles says [`Heard::Broken`]; what the server sends must let none of them stumble.

use super::Client;

/// A reply as a client understood it.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    Data(String),
    Error {
        code: String,
        text: String,
    },
    /// The client would throw, hang or take this for something else.
    Broken(String),
}

impl Heard {
    pub fn data(&self) -> &str {
        match self {
            Self::Data(text) => text,
            other => panic!("wanted data, heard {other:?}"),
        }
    }
}

fn broken(why: impl std::fmt::Display) -> Heard {
    Heard::Broken(why.to_string())
}

/// A client's way of speaking and reading.
pub trait Reader: Sized {
    const NAME: &'static str;

    /// Takes a connection that has just been accepted; does what the client does before its first request.
    fn open(client: Client) -> Self;

    /// Sends a line with the client's line end and reads the reply. `room`: the buffer that C would use.
    fn ask(&mut self, line: &str, room: usize) -> Heard;

    /// The claim as this client writes it.
    fn claim(name: &str) -> String {
        format!("from:@{name}")
    }

    /// The proof as this client writes it.
    fn proof(signature: &str) -> String {
        format!("pkam:{signature}")
    }
}

/// A client that listens.
pub trait Listener {
    /// Sends a line with the client's line end.
    fn send(&mut self, line: &str);

    /// The next line: the word that the client classifies it by (`malformed` when it has none), and what follows.
    fn line(&mut self) -> (String, String);
}

/// Dart at_lookup: a reply ends at the two bytes `\n@`; the prompt left over stands in front of the next one.
pub struct Dart {
    client: Client,
    buffer: Vec<u8>,
}

impl Reader for Dart {
    const NAME: &'static str = "Dart at_lookup";

    fn open(client: Client) -> Self {
        Self { client, buffer: Vec::new() }
    }

    fn claim(name: &str) -> String {
        format!("from:@{name}:clientConfig:{{\"version\":\"3.0.49\"}}")
    }

    fn proof(signature: &str) -> String {
        format!("pkam:signingAlgo:rsa2048:hashingAlgo:sha256:{signature}")
    }

    fn ask(&mut self, line: &str, _room: usize) -> Heard {
        self.client.send(format!("{line}\n").as_bytes());
        let end = loop {
            if let Some(at) = self.buffer.windows(2).position(|pair| pair == b"\n@") {
                break at;
            }
            let record = self.client.record();
            if record.is_empty() {
                return broken("the connection was closed");
            }
            self.buffer.extend(record);
        };
        let reply: Vec<u8> = self.buffer.drain(..=end).collect();
        let Ok(mut text) = std::str::from_utf8(&reply[..end]) else { return broken("not UTF-8") };
        let head = text.split(':').next().unwrap();
        if let Some(at) = head.rfind('@') {
            text = &text[at + 1..];
        }
        if let Some(data) = text.strip_prefix("data:") {
            return Heard::Data(data.to_owned());
        }
        let Some(error) = text.strip_prefix("error:") else { return broken(text) };
        if let Ok(json) = serde_json::from_str::<serde_json::Value>(error) {
            let member = |name: &str| json[name].as_str().unwrap_or_default().to_owned();
            return Heard::Error { code: member("errorCode"), text: member("errorDescription") };
        }
        match error.split_once('-') {
            Some((code, text)) => Heard::Error { code: code.to_owned(), text: text.to_owned() },
            None => broken(error),
        }
    }
}

/// C at_c: TLS records into a buffer of fixed size until a piece holds a line end; cut at the last one of that piece, the
/// rest is thrown away. Opens with an empty line.
pub struct AtC {
    client: Client,
    /// Of the record being read.
    pending: Vec<u8>,
}

impl AtC {
    fn read(&mut self, room: usize) -> Option<Vec<u8>> {
        if self.pending.is_empty() {
            self.pending = self.client.record();
        }
        let piece: Vec<u8> = self.pending.drain(..self.pending.len().min(room)).collect();
        (!piece.is_empty()).then_some(piece)
    }

    fn reply(&mut self, room: usize) -> Heard {
        let mut got = Vec::new();
        loop {
            let Some(piece) = self.read(room - got.len()) else { return broken("closed, or the buffer is full") };
            match piece.iter().rposition(|byte| matches!(byte, b'\n' | b'\r')) {
                Some(at) => {
                    got.extend_from_slice(&piece[..at]);
                    break;
                }
                None => got.extend(piece),
            }
        }
        if !self.pending.is_empty() {
            return broken("the reply did not fit: its rest would be taken for the next one");
        }
        let text = String::from_utf8(got).unwrap();
        if let Some(data) = text.strip_prefix("data:") {
            Heard::Data(data.to_owned())
        } else if let Some((code, text)) = text.strip_prefix("error:").and_then(|error| error.split_once('-')) {
            Heard::Error { code: code.to_owned(), text: text.to_owned() }
        } else {
            broken(text)
        }
    }
}

impl Listener for AtC {
    fn send(&mut self, line: &str) {
        self.client.send(format!("{line}\r\n").as_bytes());
    }

    /// Byte by byte; the word before the first colon must be one of three, exactly.
    fn line(&mut self) -> (String, String) {
        let mut line = Vec::new();
        loop {
            match self.read(1).expect("the monitor ended")[0] {
                b'\n' => break,
                byte => line.push(byte),
            }
        }
        let line = String::from_utf8(line).unwrap();
        match line.split_once(':') {
            Some((word @ ("notification" | "data" | "error"), rest)) => (format!("{word}:"), rest.to_owned()),
            _ => ("malformed".to_owned(), line),
        }
    }
}

impl Reader for AtC {
    const NAME: &'static str = "C at_c";

    fn open(client: Client) -> Self {
        let mut c = Self { client, pending: Vec::new() };
        assert_eq!(c.read(256).unwrap(), b"@", "the greeting is a record of its own");
        c.client.send(b"\r\n");
        let reply = c.read(256).unwrap();
        assert!(!reply.is_empty() && c.pending.is_empty(), "the second reply is one record of 256 bytes at most");
        c
    }

    fn claim(name: &str) -> String {
        format!("from:{name}")
    }

    fn ask(&mut self, line: &str, room: usize) -> Heard {
        self.send(line);
        self.reply(room)
    }
}

/// Python atsdk: pieces of at most 1024 bytes until one is `@` or holds a line end; `data:` is searched anywhere.
pub struct Python {
    client: Client,
    pending: Vec<u8>,
}

impl Python {
    fn receive(&mut self) -> Vec<u8> {
        if self.pending.is_empty() {
            self.pending = self.client.record();
        }
        self.pending.drain(..self.pending.len().min(1024)).collect()
    }

    fn read(&mut self) -> String {
        let mut text = String::new();
        loop {
            let piece = String::from_utf8(self.receive()).unwrap();
            assert!(!piece.is_empty(), "this client spins at the end of a connection");
            text += &piece;
            if piece == "@" || piece.contains('\n') {
                return text;
            }
        }
    }
}

impl Listener for Python {
    fn send(&mut self, line: &str) {
        self.client.send(format!("{line}\n").as_bytes());
    }

    /// The line must begin with one of four words.
    fn line(&mut self) -> (String, String) {
        let mut line = String::new();
        loop {
            if let Some(at) = self.pending.iter().position(|byte| *byte == b'\n') {
                line += &String::from_utf8(self.pending.drain(..=at).collect()).unwrap();
                break;
            }
            line += &String::from_utf8(std::mem::take(&mut self.pending)).unwrap();
            self.pending = self.client.record();
            assert!(!self.pending.is_empty(), "the monitor ended");
        }
        let line = line.trim_end();
        for word in ["data:ok", "data:", "error:", "notification:"] {
            if let Some(rest) = line.strip_prefix(word) {
                return (word.to_owned(), rest.to_owned());
            }
        }
        ("malformed".to_owned(), line.to_owned())
    }
}

impl Reader for Python {
    const NAME: &'static str = "Python atsdk";

    fn open(client: Client) -> Self {
        let mut python = Self { client, pending: Vec::new() };
        assert_eq!(python.read(), "@");
        python
    }

    fn ask(&mut self, line: &str, _room: usize) -> Heard {
        self.send(line);
        let text = self.read();
        if let Some((_, data)) = text.split_once("data:") {
            return Heard::Data(data.split('\n').next().unwrap().to_owned());
        }
        let Some((_, error)) = text.split_once("error:") else { return broken(text) };
        let error = error.split('\n').next().unwrap();
        let Some((code, text)) = error.split_once(':') else { return broken("ValueError: no colon in the error") };
        Heard::Error { code: code.split('-').next().unwrap().to_owned(), text: text.to_owned() }
    }
}

/// Java: `Scanner.nextLine`, which ends lines at more characters than others do.
pub struct Java {
    client: Client,
    buffer: Vec<u8>,
}

impl Java {
    fn next_line(&mut self) -> String {
        loop {
            if let Ok(text) = std::str::from_utf8(&self.buffer)
                && let Some((at, end)) = text.char_indices().find(|(_, c)| "\n\r\u{85}\u{2028}\u{2029}".contains(*c))
            {
                let line = text[..at].to_owned();
                self.buffer.drain(..at + end.len_utf8());
                return line;
            }
            let record = self.client.record();
            assert!(!record.is_empty(), "no line found");
            self.buffer.extend(record);
        }
    }
}

impl Listener for Java {
    fn send(&mut self, line: &str) {
        self.client.send(format!("{line}\n").as_bytes());
    }

    /// Prompts in front are tolerated.
    fn line(&mut self) -> (String, String) {
        let line = self.next_line();
        let found = ["data:", "error:", "notification:"].into_iter().filter_map(|word| Some((line.find(word)?, word)));
        let (at, word) = found.min().unwrap_or((0, ""));
        (word.to_owned(), line[at + word.len()..].to_owned())
    }
}

impl Reader for Java {
    const NAME: &'static str = "Java";

    fn open(client: Client) -> Self {
        Self { client, buffer: Vec::new() }
    }

    fn ask(&mut self, line: &str, _room: usize) -> Heard {
        self.send(line);
        let line = self.next_line();
        if let Some((_, data)) = line.split_once("data:") {
            return Heard::Data(data.to_owned());
        }
        match line.split_once("error:").and_then(|(_, error)| error.split_once(':')) {
            Some((code, text)) => {
                Heard::Error { code: code.split('-').next().unwrap().to_owned(), text: text.to_owned() }
            }
            None => broken(line),
        }
    }
}

/// An atServer that calls another one: by pieces that end in a prompt.
pub struct AtServer {
    client: Client,
}

impl Reader for AtServer {
    const NAME: &'static str = "atServer";

    fn open(client: Client) -> Self {
        Self { client }
    }

    fn ask(&mut self, line: &str, _room: usize) -> Heard {
        self.client.send(format!("{line}\n").as_bytes());
        let mut got = String::new();
        loop {
            let piece = self.client.text();
            if piece == "@" && got.is_empty() {
                continue; // the greeting
            }
            if piece.is_empty() {
                return broken("the connection was closed");
            }
            got += &piece;
            if got.ends_with('@') && got.contains('\n') {
                break;
            }
        }
        let text = &got[..got.rfind('\n').unwrap()];
        if let Some(data) = text.strip_prefix("data:") {
            return Heard::Data(data.to_owned());
        }
        match text.strip_prefix("error:").and_then(|error| error.split_once('-')) {
            Some((code, text)) => Heard::Error { code: code.to_owned(), text: text.to_owned() },
            None => broken(text),
        }
    }
}

/// Dart Monitor: a socket of its own, by lines.
pub struct DartMonitor {
    client: Client,
    buffer: Vec<u8>,
}

impl DartMonitor {
    pub fn open(client: Client) -> Self {
        Self { client, buffer: Vec::new() }
    }
}

impl Listener for DartMonitor {
    fn send(&mut self, line: &str) {
        self.client.send(format!("{line}\n").as_bytes());
    }

    /// A prompt in front is stripped.
    fn line(&mut self) -> (String, String) {
        let end = loop {
            if let Some(at) = self.buffer.iter().position(|byte| *byte == b'\n') {
                break at;
            }
            let record = self.client.record();
            assert!(!record.is_empty(), "the monitor ended");
            self.buffer.extend(record);
        };
        let line: Vec<u8> = self.buffer.drain(..=end).collect();
        let line = String::from_utf8(line[..end].to_vec()).unwrap();
        let head = line.split(':').next().unwrap();
        let start = head.rfind('@').map_or(0, |at| at + 1);
        match line[start..].split_once(':') {
            Some((word, rest)) => (format!("{word}:"), rest.to_owned()),
            None => ("malformed".to_owned(), line),
        }
    }
}
