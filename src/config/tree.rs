//! YAML text to a tree that knows where each value stands. The only place with serde and YAML in it.
//!
//! serde's usual way stops at the first error and its values carry no place, so nothing is derived here: one visitor
//! builds [`Node`]s, keeping the order of keys and repeated keys, and the decoders walk the tree and report every
//! problem. Scalars are kept as text: whether `443` was quoted makes no difference to anybody.
//!
//! Refused: more than one document, and more values or text than a configuration can have, which also bounds what
//! aliases of aliases can blow up to.

use std::fmt;

use serde::de::{self, DeserializeSeed, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor};

/// Values of a file, keys included and aliases counted each time they are used.
const MAX_VALUES: u32 = 1 << 20;
/// Bytes of text in all values, aliases counted each time they are used.
const MAX_TEXT_BYTES: usize = 16 << 20;

/// Flow lists and maps inside each other. The YAML library reads 128 levels of any kind, but takes time that grows with
/// the square of the brackets before it says so. Those in text and comments count here, too.
const MAX_OPEN_BRACKETS: usize = 512;

/// Where something stands in the file; both from 1, the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) line: u32,
    pub(super) column: u32,
}

impl Place {
    /// The beginning of the file.
    pub(super) const START: Place = Place { line: 1, column: 1 };

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
    /// A scalar's own place; that of the key of a map or list, or of the first scalar in it.
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
    if let Some(error) = forbidden_character(text).or_else(|| too_many_brackets(text)) {
        return Err(error);
    }
    let mut builder = Builder { next_id: 0, text_bytes: 0, last_place: Place::START };
    Seed(&mut builder)
        .deserialize(serde_yaml::Deserializer::from_str(text))
        .map_err(|error| explain(text, &error))
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

/// Counts while the tree grows.
struct Builder {
    next_id: u32,
    text_bytes: usize,
    last_place: Place,
}

/// Builds one node, whatever it is.
struct Seed<'b>(&'b mut Builder);

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Node;

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        let Seed(builder) = self;
        let id = builder.next_id;
        if id >= MAX_VALUES {
            return Err(de::Error::custom(format_args!("more than {MAX_VALUES} values")));
        }
        builder.next_id += 1;
        let mut scalar = None;
        let visited =
            deserializer.deserialize_any(NodeVisitor { builder: &mut *builder, scalar: &mut scalar });
        match (scalar, visited) {
            (Some(value), Err(error)) => {
                builder.last_place = place_in(&error);
                Ok(Node { id, place: builder.last_place, value })
            }
            (None, Err(error)) => Err(error),
            (_, Ok((place, value))) => Ok(Node { id, place: place.unwrap_or(builder.last_place), value }),
        }
    }
}

/// Only an error tells its place, so a scalar is put aside and then answered with an error, which [`Seed`] takes apart:
/// the scalar is read by then, and the walk goes on behind it. Lists and maps end in the ordinary way.
struct NodeVisitor<'b> {
    builder: &'b mut Builder,
    scalar: &'b mut Option<Value>,
}

impl NodeVisitor<'_> {
    fn text<T, E: de::Error>(self, text: impl Into<Box<str>>) -> Result<T, E> {
        let text = text.into();
        self.builder.text_bytes = self.builder.text_bytes.saturating_add(text.len());
        if self.builder.text_bytes > MAX_TEXT_BYTES {
            return Err(E::custom(format_args!(
                "more than {MAX_TEXT_BYTES} bytes of text, with what aliases repeat"
            )));
        }
        *self.scalar = Some(Value::Text(text));
        Err(E::custom(HERE))
    }

    fn null<T, E: de::Error>(self) -> Result<T, E> {
        *self.scalar = Some(Value::Null);
        Err(E::custom(HERE))
    }
}

/// The text of an error that only carries a place.
const HERE: &str = "here";

/// The place at the end of an error's text, ` at line 3 column 5`: generic code cannot ask it for its `location()`.
/// The very first character of a file is shown without one.
fn place_in(error: &impl fmt::Display) -> Place {
    let text = error.to_string();
    let place = text.rsplit_once(" at line ").and_then(|(_, place)| {
        let (line, column) = place.split_once(" column ")?;
        Some(Place { line: line.parse().ok()?, column: column.parse().ok()? })
    });
    place.unwrap_or(Place::START)
}

impl<'de> Visitor<'de> for NodeVisitor<'_> {
    type Value = (Option<Place>, Value);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E: de::Error>(self, v: bool) -> Result<Self::Value, E> {
        self.text(v.to_string())
    }

    fn visit_i64<E: de::Error>(self, v: i64) -> Result<Self::Value, E> {
        self.text(v.to_string())
    }

    fn visit_u64<E: de::Error>(self, v: u64) -> Result<Self::Value, E> {
        self.text(v.to_string())
    }

    fn visit_i128<E: de::Error>(self, v: i128) -> Result<Self::Value, E> {
        self.text(v.to_string())
    }

    fn visit_u128<E: de::Error>(self, v: u128) -> Result<Self::Value, E> {
        self.text(v.to_string())
    }

    fn visit_f64<E: de::Error>(self, v: f64) -> Result<Self::Value, E> {
        // Keeps the point of 1.0: that is no whole number.
        self.text(format!("{v:?}"))
    }

    fn visit_str<E: de::Error>(self, v: &str) -> Result<Self::Value, E> {
        self.text(v)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        self.null()
    }

    fn visit_none<E: de::Error>(self) -> Result<Self::Value, E> {
        self.null()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(Seed(self.builder))? {
            items.push(item);
        }
        Ok((items.first().map(|item| item.place), Value::Seq(items)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries: Vec<(Node, Node)> = Vec::new();
        while let Some(key) = map.next_key_seed(Seed(self.builder))? {
            let mut value = map.next_value_seed(Seed(self.builder))?;
            if matches!(value.value, Value::Null | Value::Seq(_) | Value::Map(_)) {
                value.place = key.place;
            }
            entries.push((key, value));
        }
        Ok((entries.first().map(|(key, _)| key.place), Value::Map(entries)))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<Self::Value, A::Error> {
        let (tag, variant) = data.variant::<String>()?;
        let tagged = variant.newtype_variant_seed(Seed(self.builder))?;
        Ok((Some(tagged.place), Value::Tag(tag.into())))
    }
}

/// What is wrong with the YAML, in the words of somebody who writes a configuration.
fn explain(text: &str, error: &serde_yaml::Error) -> SyntaxError {
    let mut message = error.to_string();
    let Some(location) = error.location() else {
        if let Some(line) = second_document(text) {
            return SyntaxError {
                place: Place { line, column: 1 },
                message: "a second document begins here: a configuration is one document".to_owned(),
            };
        }
        return SyntaxError { place: Place::START, message: format!("the YAML cannot be read: {message}") };
    };
    let place = Place {
        line: u32::try_from(location.line()).unwrap_or(u32::MAX),
        column: u32::try_from(location.column()).unwrap_or(u32::MAX),
    };
    // The place stands in front already.
    let suffix = format!(" at line {} column {}", location.line(), location.column());
    if let Some(start) = message.find(&suffix) {
        message.replace_range(start..start + suffix.len(), "");
    }
    let line = text.lines().nth(location.line().saturating_sub(1)).unwrap_or("");
    let at = |column: usize| column.checked_sub(1).and_then(|column| line.chars().nth(column));
    let hint = if at(location.column()) == Some('\t') || line.trim_start_matches(' ').starts_with('\t') {
        "; a tab cannot indent YAML: use spaces"
    } else if [at(location.column()), at(location.column().saturating_sub(1))].contains(&Some('*')) {
        "; a value that begins with `*` must stand in quotes: '*.example.com'"
    } else if matches!(at(location.column()), Some('@' | '`' | '%')) {
        "; a value that begins with such a character must stand in quotes"
    } else {
        ""
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

fn too_many_brackets(text: &str) -> Option<SyntaxError> {
    let mut open = 0usize;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'[' | b'{' => open += 1,
            b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        if open > MAX_OPEN_BRACKETS {
            let place = Place::after(text.get(..at).unwrap_or_default());
            return Some(SyntaxError {
                place,
                message: format!("more than {MAX_OPEN_BRACKETS} brackets are open"),
            });
        }
    }
    None
}

/// The line in which a second document begins: by `---`, or after `...`.
fn second_document(text: &str) -> Option<u32> {
    let (mut content, mut ended) = (false, false);
    for (line, number) in text.lines().zip(1u32..) {
        let marker = |marker: &str| {
            line.strip_prefix(marker).is_some_and(|l| l.is_empty() || l.starts_with([' ', '\t']))
        };
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        if ended || (content && marker("---")) {
            return Some(number);
        }
        ended = marker("...");
        content |= !line.starts_with('%') && line.trim_end() != "---";
    }
    None
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

    /// Guards the one assumption about the wording of the YAML library's errors, too.
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
                "7:5 b[4]", "8:5 b[5]",
            ],
        );
        check(
            "{ä: {}, b: [[], [x]]}",
            &["1:2 ", "1:2 ä", "1:2 ä", "1:9 b", "1:9 b", "1:9 b[0]", "1:18 b[1]", "1:18 b[1][0]"],
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
        check("0x1f", "31");
        check("-1", "-1");
        check("1.0", "1.0");
        check("True", "true");
        check("yes", "yes");
        check("0443", "0443");
        check("'~'", "~");
        check("99999999999999999999999999999999999999", "99999999999999999999999999999999999999");
    }
}
