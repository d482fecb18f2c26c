//! YAML text to a tree, and from there into types: what configuration needs and no more, for the flash of gateways.
//!
//! Source: YAML 1.2.2, core schema (10.3). Of older YAML, `yes`, `no`, `on` and `off` are truth values where one is wanted.

mod read;

use std::fmt;
use std::rc::Rc;

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{self, DeserializeOwned, DeserializeSeed, Deserializer, Unexpected, Visitor};

/// What is wrong, and where.
#[derive(Debug)]
pub(crate) struct Fault {
    message: String,
    /// Line and column, from 1.
    place: Option<(usize, usize)>,
}

/// A part of the text.
#[derive(Debug)]
struct Node {
    place: (usize, usize),
    kind: Kind,
    /// Nodes in it and itself, with aliases unfolded.
    size: usize,
}

#[derive(Debug)]
enum Kind {
    /// Text, and whether it stood there without quotes.
    Scalar(String, bool),
    List(Vec<Rc<Node>>),
    Map(Vec<(Rc<Node>, Rc<Node>)>),
}

/// Reads a text of one document.
pub(crate) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, Fault> {
    T::deserialize(&*read::document(text)?)
}

impl Fault {
    fn new(message: impl Into<String>, place: (usize, usize)) -> Self {
        Self { message: message.into(), place: Some(place) }
    }

    /// With its place, the line itself, and a mark below.
    pub(crate) fn explain(&self, text: &str) -> String {
        let Some((line, column)) = self.place else { return self.message.clone() };
        let told = format!("line {line} column {column}: {}", self.message);
        match text.lines().nth(line.saturating_sub(1)) {
            // A line as long as the file is no help.
            Some(quoted) if quoted.len() <= 200 => {
                let margin = " ".repeat(line.to_string().len());
                let below = " ".repeat(column.saturating_sub(1));
                format!("{told}\n{margin} |\n{line} | {quoted}\n{margin} | {below}^")
            }
            _ => told,
        }
    }

    fn at(mut self, place: (usize, usize)) -> Self {
        self.place.get_or_insert(place);
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { message: message.to_string(), place: None }
    }
}

impl Node {
    fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Scalar(text, true) if matches!(&**text, "" | "~" | "null" | "Null" | "NULL"))
    }

    /// The scalar that stands there without quotes.
    fn plain(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar(text, true) => Some(text),
            _ => None,
        }
    }

    fn unexpected(&self) -> Unexpected<'_> {
        match &self.kind {
            _ if self.is_null() => Unexpected::Unit,
            Kind::Scalar(text, _) => Unexpected::Str(text),
            Kind::List(_) => Unexpected::Seq,
            Kind::Map(_) => Unexpected::Map,
        }
    }

    fn wrong<'de, V: Visitor<'de>>(&self, visitor: &V) -> Fault {
        Fault::new(<Fault as de::Error>::invalid_type(self.unexpected(), visitor).message, self.place)
    }
}

/// A whole number in any of its spellings.
fn number(text: &str) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    // `from_str_radix` would take a second sign.
    if !digits.starts_with(|c: char| c.is_ascii_hexdigit()) {
        return None;
    }
    let radix = |prefix, radix| {
        digits
            .strip_prefix(prefix)
            .filter(|rest| !rest.starts_with(['+', '-']))
            .map(|rest| i128::from_str_radix(rest, radix))
    };
    let value = radix("0x", 16).or_else(|| radix("0o", 8)).unwrap_or_else(|| digits.parse()).ok()?;
    Some(if negative { -value } else { value })
}

fn truth(text: &str) -> Option<bool> {
    let is = |words: &[&str]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
    if is(&["true", "yes", "on", "y"]) {
        return Some(true);
    }
    is(&["false", "no", "off", "n"]).then_some(false)
}

macro_rules! whole_numbers {
    ($($method:ident $visit:ident $type:ty),*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            let value = self.plain().and_then(number).ok_or_else(|| self.wrong(&visitor))?;
            match <$type>::try_from(value) {
                Ok(value) => visitor.$visit(value).map_err(|fault: Fault| fault.at(self.place)),
                Err(_) => Err(Fault::new(format!("{value} is out of range for {}", stringify!($type)), self.place)),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.kind {
            Kind::List(_) => self.deserialize_seq(visitor),
            Kind::Map(_) => self.deserialize_map(visitor),
            Kind::Scalar(..) if self.is_null() => visitor.visit_unit(),
            Kind::Scalar(text, false) => visitor.visit_borrowed_str(text),
            // The core schema alone: `no` is a country.
            Kind::Scalar(text, true) => match &**text {
                "true" | "True" | "TRUE" => visitor.visit_bool(true),
                "false" | "False" | "FALSE" => visitor.visit_bool(false),
                text => match number(text) {
                    Some(value) if value < 0 && i64::try_from(value).is_ok() => self.deserialize_i64(visitor),
                    Some(value) if u64::try_from(value).is_ok() => self.deserialize_u64(visitor),
                    _ => match text.parse::<f64>() {
                        Ok(value) if text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) => {
                            visitor.visit_f64(value)
                        }
                        _ => visitor.visit_borrowed_str(text),
                    },
                },
            },
        }
        .map_err(|fault: Fault| fault.at(self.place))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let value = self.plain().and_then(truth).ok_or_else(|| self.wrong(&visitor))?;
        visitor.visit_bool(value)
    }

    whole_numbers!(
        deserialize_i8 visit_i8 i8, deserialize_i16 visit_i16 i16, deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64, deserialize_u8 visit_u8 u8, deserialize_u16 visit_u16 u16,
        deserialize_u32 visit_u32 u32, deserialize_u64 visit_u64 u64
    );

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.kind {
            Kind::Scalar(text, _) if !self.is_null() => {
                visitor.visit_borrowed_str(text).map_err(|fault: Fault| fault.at(self.place))
            }
            _ => Err(self.wrong(&visitor)),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.kind {
            Kind::List(list) => visitor.visit_seq(List(list.iter())),
            // A name without anything behind it.
            _ if self.is_null() => visitor.visit_seq(List([].iter())),
            _ => return Err(self.wrong(&visitor)),
        }
        .map_err(|fault: Fault| fault.at(self.place))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.kind {
            Kind::Map(map) => visitor.visit_map(Map { rest: map.iter(), value: None }),
            _ if self.is_null() => visitor.visit_map(Map { rest: [].iter(), value: None }),
            _ => return Err(self.wrong(&visitor)),
        }
        .map_err(|fault: Fault| fault.at(self.place))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match &self.kind {
            Kind::Scalar(text, _) => visitor.visit_enum(BorrowedStrDeserializer::new(text)),
            Kind::Map(map) if map.len() == 1 => {
                visitor.visit_enum(de::value::MapAccessDeserializer::new(Map { rest: map.iter(), value: None }))
            }
            _ => return Err(self.wrong(&visitor)),
        }
        .map_err(|fault: Fault| fault.at(self.place))
    }

    serde::forward_to_deserialize_any! {
        i128 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct ignored_any
    }
}

struct List<'de>(std::slice::Iter<'de, Rc<Node>>);

impl<'de> de::SeqAccess<'de> for List<'de> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let Some(node) = self.0.next() else { return Ok(None) };
        seed.deserialize(&**node).map(Some).map_err(|fault| fault.at(node.place))
    }
}

struct Map<'de> {
    rest: std::slice::Iter<'de, (Rc<Node>, Rc<Node>)>,
    value: Option<&'de Node>,
}

impl<'de> de::MapAccess<'de> for Map<'de> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        let Some((key, value)) = self.rest.next() else { return Ok(None) };
        self.value = Some(value);
        seed.deserialize(&**key).map(Some).map_err(|fault| fault.at(key.place))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let node = self.value.take().ok_or_else(|| <Fault as de::Error>::custom("a value before its name"))?;
        seed.deserialize(node).map_err(|fault| fault.at(node.place))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
    struct Sample {
        text: Option<String>,
        port: Option<u16>,
        offset: Option<i64>,
        on: Option<bool>,
        level: Option<Level>,
        list: Vec<String>,
        map: BTreeMap<String, u8>,
        any: Option<serde_json::Value>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Level {
        Legacy,
        Sealed,
    }

    fn read(text: &str) -> Sample {
        parse(text).unwrap_or_else(|fault| panic!("{text:?}: {}", fault.explain(text)))
    }

    #[test]
    fn scalars_become_what_is_wanted() {
        assert_eq!(read("text: 17").text.as_deref(), Some("17"));
        assert_eq!(read("text: off").text.as_deref(), Some("off"));
        assert_eq!(read("text: 'it''s'").text.as_deref(), Some("it's"));
        assert_eq!(read("text: \"a\\tb\\u00e9\"").text.as_deref(), Some("a\tb\u{e9}"));
        assert_eq!(read("text: >\n  two\n  lines\n").text.as_deref(), Some("two lines\n"));
        assert_eq!(read("text: 'null'").text.as_deref(), Some("null"));
        for empty in ["text:", "text: ~", "text: null"] {
            assert_eq!(read(empty).text, None, "{empty}");
        }
        for (word, value) in [("true", true), ("Yes", true), ("on", true), ("no", false), ("OFF", false)] {
            assert_eq!(read(&format!("on: {word}")).on, Some(value), "{word}");
        }
        assert_eq!((read("port: 0x50").port, read("port: +80").port), (Some(80), Some(80)));
        assert_eq!(read("offset: -3600").offset, Some(-3600));
        assert_eq!(read("level: sealed").level, Some(Level::Sealed));
    }

    #[test]
    fn lists_and_maps_in_every_form() {
        assert_eq!(read("list: [a, 'b']").list, ["a", "b"]);
        assert_eq!(read("list:\n- a\n- b # that one\n").list, ["a", "b"]);
        assert!(read("list:\n").list.is_empty() && read("map:\n").map.is_empty());
        assert_eq!(read("---\nmap: {x: 1}\n...\n").map["x"], 1);
        assert_eq!(read("text: &t again\nlist: [*t]\n").list, ["again"]);
        assert_eq!(
            read("any: {a: [1, -2, 1.5, true, no, ~, '3']}").any,
            Some(serde_json::json!({ "a": [1, -2, 1.5, true, "no", null, "3"] }))
        );
    }

    #[test]
    fn mistakes_have_a_place() {
        for (text, place, word) in [
            ("port: 70000", "line 1 column 7", "70000"),
            ("port: eighty", "line 1 column 7", "eighty"),
            ("port: '80'", "line 1 column 7", "string"),
            ("port: 0x-5", "line 1 column 7", ""),
            ("list: a", "line 1 column 7", "sequence"),
            ("text: [a]", "line 1 column 7", "string"),
            ("list:\n  - a\n  - [b]\n", "line 3 column 5", "string"),
            ("level: none", "line 1 column 8", "none"),
            ("on: maybe", "line 1 column 5", "boolean"),
            ("txet: a", "line 1 column 1", "txet"),
            ("text: a\ntext: b", "line 2 column 1", "duplicate"),
            ("text: a\n--- \ntext: b", "line 2 column 1", "second"),
            ("any: &a [*a]", "line 1 column 10", ""),
            ("text: 'a", "", ""),
        ] {
            let told = parse::<Sample>(text).unwrap_err().explain(text);
            assert!(told.contains(place) && told.contains(word), "{text:?}: {told}");
        }
        let told = parse::<Sample>("\nlist:\n  - a\n  - [b]\n").unwrap_err().explain("\nlist:\n  - a\n  - [b]\n");
        assert!(told.ends_with("\n  |\n4 |   - [b]\n  |     ^"), "{told}");
    }

    #[test]
    fn depth_and_growth_have_an_end() {
        let deep = format!("any: {}{}", "[".repeat(1000), "]".repeat(1000));
        assert!(parse::<Sample>(&deep).is_err());
        let mut text = String::from("any:\n  - &a0 [lol, lol]\n");
        for level in 1..40 {
            text.push_str(&format!("  - &a{level} [*a{0}, *a{0}]\n", level - 1));
        }
        assert!(parse::<Sample>(&text).unwrap_err().message.contains("too large"));
    }

    proptest! {
        #[test]
        fn any_text_comes_back_from_quotes(text in "\\PC{0,40}") {
            let json = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(read(&format!("text: {json}")).text, Some(text));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[\\[\\]{}:,&*!|>'\"%@`#\\- \na-c0-9?~]{0,60}") {
            if let Err(fault) = parse::<Sample>(&text) {
                prop_assert!(!fault.explain(&text).is_empty());
            }
        }
    }
}
