//! YAML text to a tree that knows where each value stands. The only place with YAML in it.
//!
//! The parser gives events with their places, of which [`Node`]s are built, keeping the order of keys and repeated keys;
//! the decoders walk the tree and report every problem. Scalars are kept as they are written: whether `443` was quoted
//! makes no difference to anybody.
//!
//! Refused: more than one document, and more levels, values or text than a configuration can have, which also bounds
//! what aliases of aliases can blow up to.

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Tag};

/// Values of a file, keys included and aliases counted each time they are used.
const MAX_VALUES: u32 = 1 << 20;
/// Bytes of text in all values, aliases counted each time they are used.
const MAX_TEXT_BYTES: usize = 16 << 20;
/// Lists and maps inside each other, through aliases, too.
const MAX_DEPTH: usize = 128;
/// What the parser may tell of a file: each list and map begins and ends.
const MAX_EVENTS: usize = 2 * (MAX_VALUES as usize);

/// The parser's number for no anchor.
const NO_ANCHOR: usize = 0;

/// Where something stands in the file; both from 1, the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) line: u32,
    pub(super) column: u32,
}

impl Place {
    /// The beginning of the file.
    pub(super) const START: Place = Place { line: 1, column: 1 };

    fn of(marker: Marker) -> Place {
        let clamp = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Place { line: clamp(marker.line()).max(1), column: clamp(marker.col()).saturating_add(1) }
    }

    /// The place of what follows `text`, where `text` begins the file.
    pub(super) fn after(text: &str) -> Place {
        let lines = text.bytes().filter(|&byte| byte == b'\n').count();
        let columns = text.rsplit('\n').next().map_or(0, |line| line.chars().count());
        let from_one = |count: usize| u32::try_from(count).unwrap_or(u32::MAX).saturating_add(1);
        Place { line: from_one(lines), column: from_one(columns) }
    }
}

/// A value or a key.
#[derive(Debug)]
pub(super) struct Node {
    /// Place in a walk in the order of the file; what the path of a problem is found by.
    pub(super) id: u32,
    /// A scalar's own place; that of the key of a map or list, or of the first scalar in it, if there is one.
    pub(super) place: Place,
    pub(super) value: Value,
}

/// What a node is.
#[derive(Debug)]
pub(super) enum Value {
    /// `null`, `~` or nothing.
    Null,
    /// Any other scalar.
    Text(Box<str>),
    /// A list.
    Seq(Vec<Node>),
    /// Keys and values as they stand there.
    Map(Vec<(Node, Node)>),
    /// `!tag`, with or without a value. Never right here, mostly a negation without quotes.
    Tag(Box<str>),
}

/// Why there is no tree.
#[derive(Debug)]
pub(super) struct SyntaxError {
    pub(super) place: Place,
    pub(super) message: String,
}

/// Reads one document.
pub(super) fn parse(text: &str) -> Result<Node, SyntaxError> {
    // A byte order mark is allowed at the start of a YAML stream (YAML 1.2.2 §5.2).
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if let Some(error) = forbidden_character(text) {
        return Err(error);
    }
    let document = Document::read(text)?;
    let root = Builder { document: &document, values: 0, text_bytes: 0 }.node(&mut 0, 0)?;
    Ok(root.unwrap_or(Node { id: 0, place: Place::START, value: Value::Null }))
}

impl Node {
    /// The keys that lead to the value with this id, as in `rules[3].match.port`.
    pub(super) fn path_to(&self, id: u32) -> String {
        let mut path = String::new();
        let mut node = self;
        while node.id != id {
            node = match &node.value {
                Value::Seq(items) => {
                    let after = items.partition_point(|item| item.id <= id);
                    let Some(item) = after.checked_sub(1).and_then(|index| items.get(index)) else { break };
                    path.push_str(&format!("[{}]", after - 1));
                    item
                }
                Value::Map(entries) => {
                    let after = entries.partition_point(|(key, _)| key.id <= id);
                    let Some((key, value)) = after.checked_sub(1).and_then(|index| entries.get(index)) else {
                        break;
                    };
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(&key.key_text());
                    if value.id <= id { value } else { break }
                }
                Value::Null | Value::Text(_) | Value::Tag(_) => break,
            };
        }
        path
    }

    /// A key as it is shown.
    pub(super) fn key_text(&self) -> String {
        match &self.value {
            Value::Text(text) => super::problem::shown(text),
            _ => "?".to_owned(),
        }
    }
}

/// What a document consists of.
struct Document<'t> {
    /// Its values, one after the other, with all that is in them.
    events: Vec<(Event<'t>, Place)>,
    /// The values that have an anchor: the parser's number for it, which grows, and where in `events` they begin.
    anchors: Vec<(usize, usize)>,
}

impl<'t> Document<'t> {
    fn read(text: &'t str) -> Result<Self, SyntaxError> {
        let mut document = Document { events: Vec::new(), anchors: Vec::new() };
        let (mut begun, mut depth) = (false, 0_usize);
        for event in Parser::new_from_str(text) {
            let (event, span) = event.map_err(|error| explain(text, &error))?;
            let place = Place::of(span.start);
            let anchor = match event {
                Event::DocumentStart(_) if begun => {
                    let message = "a second document begins here: a configuration is one document";
                    return Err(SyntaxError { place, message: message.to_owned() });
                }
                Event::DocumentStart(_) => {
                    begun = true;
                    continue;
                }
                Event::Nothing | Event::StreamStart | Event::DocumentEnd | Event::StreamEnd => continue,
                Event::Scalar(_, _, anchor, _)
                | Event::SequenceStart(anchor, _)
                | Event::MappingStart(anchor, _) => anchor,
                Event::Alias(_) | Event::SequenceEnd | Event::MappingEnd => NO_ANCHOR,
            };
            if anchor != NO_ANCHOR {
                document.anchors.push((anchor, document.events.len()));
            }
            // Here already: a megabyte of beginnings would be 400 before the tree is built.
            match event {
                Event::SequenceEnd | Event::MappingEnd => depth = depth.saturating_sub(1),
                _ if depth > MAX_DEPTH => return Err(too_deep(place)),
                Event::SequenceStart(..) | Event::MappingStart(..) => depth += 1,
                _ => {}
            }
            document.events.push((event, place));
            if document.events.len() > MAX_EVENTS {
                return Err(too_many_values(place));
            }
        }
        Ok(document)
    }

    /// Where the value with this anchor begins.
    fn anchored(&self, anchor: usize) -> Option<usize> {
        let found = self.anchors.binary_search_by_key(&anchor, |(number, _)| *number).ok()?;
        self.anchors.get(found).map(|(_, at)| *at)
    }
}

/// Makes nodes of a document's events, and counts them.
struct Builder<'d> {
    document: &'d Document<'d>,
    values: u32,
    text_bytes: usize,
}

impl Builder<'_> {
    /// The value that begins at `at`, which is moved behind it; `None` at the end of a list or map, or of the document.
    fn node(&mut self, at: &mut usize, depth: usize) -> Result<Option<Node>, SyntaxError> {
        let Some((event, place)) = self.document.events.get(*at) else { return Ok(None) };
        *at += 1;
        if depth > MAX_DEPTH {
            return Err(too_deep(*place));
        }
        if let Event::Alias(anchor) = event {
            let Some(mut at) = self.document.anchored(*anchor) else { return Ok(None) };
            return self.node(&mut at, depth + 1);
        }
        let id = self.values;
        if id >= MAX_VALUES {
            return Err(too_many_values(*place));
        }
        self.values += 1;
        let (tag, first, value) = match event {
            Event::Scalar(text, style, _, tag) => {
                (tag, None, self.scalar(text, *style, tag.as_deref(), *place)?)
            }
            Event::SequenceStart(_, tag) => {
                let items = self.items(at, depth + 1)?;
                (tag, items.first().map(|item| item.place), Value::Seq(items))
            }
            Event::MappingStart(_, tag) => {
                let entries = self.entries(at, depth + 1)?;
                (tag, entries.first().map(|(key, _)| key.place), Value::Map(entries))
            }
            _ => return Ok(None),
        };
        let value = match tag {
            Some(tag) if !tag.is_yaml_core_schema() => {
                let tag = format!("{}{}", tag.handle, tag.suffix);
                Value::Tag(tag.strip_prefix('!').unwrap_or(&tag).into())
            }
            _ => value,
        };
        Ok(Some(Node { id, place: first.unwrap_or(*place), value }))
    }

    fn items(&mut self, at: &mut usize, depth: usize) -> Result<Vec<Node>, SyntaxError> {
        let mut items = Vec::new();
        while let Some(item) = self.node(at, depth)? {
            items.push(item);
        }
        Ok(items)
    }

    fn entries(&mut self, at: &mut usize, depth: usize) -> Result<Vec<(Node, Node)>, SyntaxError> {
        let mut entries = Vec::new();
        while let Some(key) = self.node(at, depth)?
            && let Some(mut value) = self.node(at, depth)?
        {
            if matches!(value.value, Value::Null | Value::Seq(_) | Value::Map(_)) {
                value.place = key.place;
            }
            entries.push((key, value));
        }
        Ok(entries)
    }

    fn scalar(
        &mut self,
        text: &str,
        style: ScalarStyle,
        tag: Option<&Tag>,
        place: Place,
    ) -> Result<Value, SyntaxError> {
        self.text_bytes = self.text_bytes.saturating_add(text.len());
        if self.text_bytes > MAX_TEXT_BYTES {
            let message = format!("more than {MAX_TEXT_BYTES} bytes of text, with what aliases repeat");
            return Err(SyntaxError { place, message });
        }
        let is_text = style != ScalarStyle::Plain || tag.is_some_and(|tag| tag.suffix == "str");
        // YAML 1.2.2 §10.3.2
        let is_null = !is_text && matches!(text, "" | "~" | "null" | "Null" | "NULL");
        Ok(if is_null { Value::Null } else { Value::Text(text.into()) })
    }
}

fn too_deep(place: Place) -> SyntaxError {
    SyntaxError { place, message: format!("more than {MAX_DEPTH} lists and maps inside each other") }
}

fn too_many_values(place: Place) -> SyntaxError {
    SyntaxError { place, message: format!("more than {MAX_VALUES} values") }
}

/// What is wrong with the YAML, in the words of somebody who writes a configuration.
fn explain(text: &str, error: &ScanError) -> SyntaxError {
    let (marker, message) = (error.marker(), error.info());
    let mut place = Place::of(*marker);
    let rest = text.lines().zip(1u32..).skip_while(|(_, number)| *number < place.line);
    let is_indented_by_tab = |line: &str| line.trim_start_matches(' ').starts_with('\t');
    // The parser tells where the text began that a tab cuts off.
    let tab = rest.clone().find(|(line, _)| message.contains("tab") && is_indented_by_tab(line));
    let hint = if let Some((line, number)) = tab {
        place = Place { line: number, ..Place::after(line.split('\t').next().unwrap_or_default()) };
        "; a tab cannot indent YAML: use spaces"
    } else {
        match rest.clone().next().and_then(|(line, _)| line.chars().nth(marker.col())) {
            Some('*') => "; a value that begins with `*` must stand in quotes: '*.example.com'",
            Some('@' | '`' | '%') => "; a value that begins with such a character must stand in quotes",
            _ => "",
        }
    };
    SyntaxError { place, message: format!("the YAML cannot be read: {message}{hint}") }
}

/// Control characters have no place in YAML (YAML 1.2.2 §5.1), and the parser could not say where they are.
fn forbidden_character(text: &str) -> Option<SyntaxError> {
    let forbidden =
        |c: char| (c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{85}')) || c == '\u{feff}';
    let (at, c) = text.char_indices().find(|(_, c)| forbidden(*c))?;
    let place = Place::after(text.get(..at).unwrap_or_default());
    Some(SyntaxError {
        place,
        message: format!("the character U+{:04X} is not allowed in YAML", u32::from(c)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ids in the order of the file, each with its place and path.
    fn places(node: &Node, root: &Node, out: &mut Vec<String>) {
        out.push(format!("{}:{} {}", node.place.line, node.place.column, root.path_to(node.id)));
        match &node.value {
            Value::Seq(items) => items.iter().for_each(|item| places(item, root, out)),
            Value::Map(entries) => entries.iter().for_each(|(key, value)| {
                places(key, root, out);
                places(value, root, out);
            }),
            Value::Null | Value::Text(_) | Value::Tag(_) => {}
        }
    }

    #[test]
    fn every_value_knows_its_place() {
        let check = |text: &str, expected: &[&str]| {
            let root = parse(text).unwrap_or_else(|error| panic!("{error:?}\n{text}"));
            let mut found = Vec::new();
            places(&root, &root, &mut found);
            assert_eq!(found, expected, "{text}");
        };
        check("x", &["1:1 "]);
        check("\u{feff}x: y", &["1:1 ", "1:1 x", "1:4 x"]);
        check(
            "a: 1\nb:\n  - -1\n  - 1.5\n  - true\n  - ~\n  - 'q'\n  - |\n    block\n",
            &[
                "1:1 ", "1:1 a", "1:4 a", "2:1 b", "2:1 b", "3:5 b[0]", "4:5 b[1]", "5:5 b[2]", "6:5 b[3]",
                "7:5 b[4]", "9:5 b[5]",
            ],
        );
        check(
            "{ä: {}, b: [[], [x]]}",
            &["1:2 ", "1:2 ä", "1:2 ä", "1:9 b", "1:9 b", "1:13 b[0]", "1:18 b[1]", "1:18 b[1][0]"],
        );
        check(
            "a: \"x at line 7 column 7\"\nx at line 7 column 7: !t 340282366920938463463374607431768211456",
            &["1:1 ", "1:1 a", "1:4 a", "2:1 x at line 7 column 7", "2:23 x at line 7 column 7"],
        );
    }

    #[test]
    fn scalars_are_text() {
        let check = |text: &str, expected: &str| {
            let root = parse(text).unwrap();
            let Value::Text(found) = &root.value else { panic!("{root:?}") };
            assert_eq!(&**found, expected, "{text}");
        };
        check("443", "443");
        check("'443'", "443");
        check("!!str 443", "443");
        check("0x1f", "0x1f");
        check("-1", "-1");
        check("1.0", "1.0");
        check("1e999", "1e999");
        check("True", "True");
        check("yes", "yes");
        check("0443", "0443");
        check("'~'", "~");
        check("99999999999999999999999999999999999999", "99999999999999999999999999999999999999");
    }
}
