//! Text to documents.

use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_yaml_ng::{Deserializer, Error, Value};

use super::budget::Budget;
use crate::model::unchecked::{Content, Document};
use crate::model::{ConfigError, Place, Problem};

/// Fields of the design that this release does not enforce, and so does not take.
const NOT_YET: &[&str] = &[
    "apiVersion",
    "blockPrefixLength",
    "clusters",
    "namespaces",
    "remoteFailure",
    "residency",
    "topology",
];

/// Appends the documents of one file, or all that is wrong with them.
pub(super) fn parse(
    file: &str,
    bytes: &[u8],
    budget: &mut Budget,
    documents: &mut Vec<Document>,
    errors: &mut Vec<ConfigError>,
) {
    let file: Arc<str> = file.into();
    let whole = Place {
        file: file.clone(),
        ..Place::default()
    };
    let text = match text(bytes) {
        Ok(text) => text,
        Err(problem) => {
            errors.push(whole.error(problem));
            return;
        }
    };
    if let Err((line, problem)) = budget.spend(text) {
        let place = Place {
            line,
            ..whole.clone()
        };
        errors.push(place.error(problem));
        return;
    }
    let before = documents.len() + errors.len();
    // Once for the kinds, once for the contents: a kind chosen while reading (a tagged enum) would
    // lose the lines of all later mistakes.
    let kinds = Deserializer::from_str(text).map(Value::deserialize);
    let contents = Deserializer::from_str(text);
    for (index, (kind, content)) in kinds.zip(contents).enumerate() {
        let place = Place {
            document: index + 1,
            ..whole.clone()
        };
        match kind {
            // What stands between two separators may be nothing but comments.
            Ok(Value::Null) => {}
            Ok(value) => match read(&place, &value, content) {
                Ok(content) => {
                    documents.push(Document {
                        file: file.clone(),
                        number: index + 1,
                        content,
                    });
                }
                Err(error) => errors.push(error),
            },
            // The library repeats a syntax error for ever, and what follows it means nothing.
            Err(error) => {
                errors.push(located(&place, &error).error(not_yaml(&error)));
                break;
            }
        }
    }
    if documents.len() + errors.len() == before {
        errors.push(whole.error(Problem::Empty));
    }
}

/// The text without the mark that some editors put before UTF-8.
fn text(bytes: &[u8]) -> Result<&str, Problem> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(Problem::Utf16);
    }
    let text = std::str::from_utf8(bytes).map_err(|error| Problem::NotText {
        offset: error.valid_up_to(),
    })?;
    match text.find('\0') {
        Some(offset) => Err(Problem::ZeroByte { offset }),
        None => Ok(text.strip_prefix('\u{feff}').unwrap_or(text)),
    }
}

fn read(place: &Place, value: &Value, content: Deserializer) -> Result<Content, ConfigError> {
    match value.get("kind") {
        Some(Value::String(kind)) if kind == "Node" => shaped(place, content).map(Content::Node),
        Some(Value::String(kind)) if kind == "Slice" => shaped(place, content).map(Content::Slice),
        Some(Value::String(kind)) => Err(place.error(Problem::UnknownKind(kind.clone()))),
        Some(_) | None => Err(place.error(Problem::NoKind)),
    }
}

fn shaped<T: DeserializeOwned>(place: &Place, content: Deserializer) -> Result<T, ConfigError> {
    T::deserialize(content).map_err(|error| {
        let message = without_position(&error);
        let problem = match unknown_field(&message) {
            Some(field) if NOT_YET.contains(&field) => Problem::NotYet {
                value: field.to_owned(),
                remedy: "remove it until a release does",
            },
            _ => Problem::Shape(message),
        };
        located(place, &error).error(problem)
    })
}

/// The library's message ends with the position, which the place says already.
fn without_position(error: &Error) -> String {
    let message = in_words(&error.to_string());
    match message.rfind(" at line ") {
        Some(at) => message[..at].to_owned(),
        None => message,
    }
}

/// The library calls what it finds and expects by the names of Rust's types.
fn in_words(message: &str) -> String {
    let message = message
        .replace("expected u64", "expected a whole number, 0 or more")
        .replace("invalid type: sequence", "invalid type: list")
        .replace("invalid type: unit value", "invalid type: nothing");
    match message.split_once("expected struct ") {
        Some((found, name)) => {
            let rest = name.trim_start_matches(|letter: char| letter.is_alphanumeric());
            format!("{found}expected a map of fields{rest}")
        }
        None => message,
    }
}

fn unknown_field(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("unknown field `")?;
    rest.split('`').next()
}

fn not_yaml(error: &Error) -> Problem {
    let message = without_position(error);
    if message.contains("duplicate entry") {
        Problem::KeyTwice(message)
    } else if message.contains("invalid type") {
        // It is YAML, of a number larger than any field's or with a tag.
        Problem::Shape(message)
    } else {
        Problem::NotYaml(message)
    }
}

fn located(place: &Place, error: &Error) -> Place {
    Place {
        line: error.location().map_or(0, |location| location.line()),
        ..place.clone()
    }
}
