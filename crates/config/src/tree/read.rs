//! Text to a tree.

use std::collections::HashMap;
use std::rc::Rc;

use granit_parser::{Event, Marker, Parser, ScalarStyle, StrInput};

use super::{Fault, Kind, Node};

/// Lists in lists, at most: ours have four.
const DEPTH: usize = 32;
/// Nodes of a text with its aliases unfolded, at most: a file of the longest length has about a million, and a few lines of
/// aliases of aliases have more than there is memory for.
const NODES: usize = 2_000_000;

/// Reads a text of one document.
pub(super) fn document(text: &str) -> Result<Rc<Node>, Fault> {
    Reader { parser: Parser::new_from_str(text), anchors: HashMap::new() }.document()
}

struct Reader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    anchors: HashMap<usize, Rc<Node>>,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, (usize, usize)), Fault> {
        let place = |mark: &Marker| (mark.line(), mark.col() + 1);
        match self.parser.next() {
            Some(Ok((event, span))) => Ok((event, place(&span.start))),
            Some(Err(error)) => Err(Fault::new(error.info(), place(error.marker()))),
            None => Ok((Event::StreamEnd, (1, 1))),
        }
    }

    fn document(&mut self) -> Result<Rc<Node>, Fault> {
        let root = loop {
            match self.next()? {
                (Event::StreamStart | Event::DocumentStart(..), _) => {}
                (event, place) => break self.node(event, place, 0)?,
            }
        };
        loop {
            match self.next()? {
                (Event::DocumentEnd, _) => {}
                (Event::StreamEnd, _) => return Ok(root),
                (_, place) => return Err(Fault::new("a second document", place)),
            }
        }
    }

    fn node(&mut self, event: Event<'a>, place: (usize, usize), depth: usize) -> Result<Rc<Node>, Fault> {
        if depth > DEPTH {
            return Err(Fault::new(format!("nested deeper than {DEPTH}"), place));
        }
        let mut size = 1;
        let (kind, anchor) = match event {
            Event::Alias(id) => {
                let known = self.anchors.get(&id).map(Rc::clone);
                return known.ok_or_else(|| Fault::new("an alias of what it lies in", place));
            }
            Event::Scalar(text, style, anchor, tag) => {
                // `!!str 17`: a tag makes it text.
                let plain = style == ScalarStyle::Plain && tag.is_none();
                (Kind::Scalar(text.into_owned(), plain), anchor)
            }
            Event::SequenceStart(_, anchor, _) => {
                let mut list = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break (Kind::List(list), anchor),
                        (event, place) => list.push(self.part(event, place, depth, &mut size)?),
                    }
                }
            }
            Event::MappingStart(_, anchor, _) => {
                let mut map: Vec<(Rc<Node>, Rc<Node>)> = Vec::new();
                loop {
                    match self.next()? {
                        (Event::MappingEnd, _) => break (Kind::Map(map), anchor),
                        (event, place) => {
                            let key = self.part(event, place, depth, &mut size)?;
                            let (event, place) = self.next()?;
                            map.push((key, self.part(event, place, depth, &mut size)?));
                        }
                    }
                }
            }
            other => return Err(Fault::new(format!("unexpected {other:?}"), place)),
        };
        if let Kind::Map(map) = &kind {
            no_name_twice(map)?;
        }
        let node = Rc::new(Node { place, kind, size });
        if anchor != 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        Ok(node)
    }

    fn part(
        &mut self,
        event: Event<'a>,
        place: (usize, usize),
        depth: usize,
        size: &mut usize,
    ) -> Result<Rc<Node>, Fault> {
        let node = self.node(event, place, depth + 1)?;
        *size = size.saturating_add(node.size);
        if *size > NODES {
            return Err(Fault::new("aliases make it too large", place));
        }
        Ok(node)
    }
}

fn no_name_twice(map: &[(Rc<Node>, Rc<Node>)]) -> Result<(), Fault> {
    let mut seen = std::collections::HashSet::new();
    for (key, _) in map {
        if let Kind::Scalar(text, _) = &key.kind
            && !seen.insert(text)
        {
            return Err(Fault::new(format!("duplicate name {text:?}"), key.place));
        }
    }
    Ok(())
}
