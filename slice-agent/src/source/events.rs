//! The parser's events, one at a time, without building anything from them.
//!
//! The library that builds documents offers no limits and first collects all events of a document.
//! This asks the parser below it, so that both see the same text the same way.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::ops::ControlFlow;

use unsafe_libyaml as unsafe_yaml;

/// What the parser found next. Anchors are the names behind `&`.
pub(super) enum Event {
    DocumentStart,
    /// A list or a map begins.
    Open {
        anchor: Option<Vec<u8>>,
    },
    /// A list or a map ends.
    Close,
    Scalar {
        anchor: Option<Vec<u8>>,
        bytes: usize,
    },
    /// `*name`.
    Alias(Vec<u8>),
    Other,
}

/// Calls `each` with every event and its line (from 1) until it breaks, or the text ends or is no
/// YAML any more.
pub(super) fn walk<B>(
    text: &str,
    mut each: impl FnMut(Event, usize) -> ControlFlow<B>,
) -> ControlFlow<B> {
    let mut parser = MaybeUninit::<unsafe_yaml::yaml_parser_t>::uninit();
    let parser = parser.as_mut_ptr();
    // SAFETY: the parser stays where it is and `text` lives until it is deleted below.
    unsafe {
        if unsafe_yaml::yaml_parser_initialize(parser).fail {
            return ControlFlow::Continue(());
        }
        unsafe_yaml::yaml_parser_set_encoding(parser, unsafe_yaml::YAML_UTF8_ENCODING);
        unsafe_yaml::yaml_parser_set_input_string(parser, text.as_ptr(), text.len() as u64);
    }
    let result = loop {
        // SAFETY: the parser was initialised above.
        let Some((event, line)) = (unsafe { next(parser) }) else {
            break ControlFlow::Continue(());
        };
        if let ControlFlow::Break(value) = each(event, line) {
            break ControlFlow::Break(value);
        }
    };
    // SAFETY: the parser was initialised above and is not used any more.
    unsafe { unsafe_yaml::yaml_parser_delete(parser) };
    result
}

/// # Safety
/// `parser` is initialised and its input alive.
unsafe fn next(parser: *mut unsafe_yaml::yaml_parser_t) -> Option<(Event, usize)> {
    let mut event = MaybeUninit::<unsafe_yaml::yaml_event_t>::uninit();
    // SAFETY: a parse that did not fail has written the event, whose type says which member of the
    // union is valid; names and values are copied before the event is deleted.
    unsafe {
        if unsafe_yaml::yaml_parser_parse(parser, event.as_mut_ptr()).fail {
            return None;
        }
        let mut event = event.assume_init();
        let seen = match event.type_ {
            unsafe_yaml::YAML_STREAM_END_EVENT | unsafe_yaml::YAML_NO_EVENT => None,
            unsafe_yaml::YAML_DOCUMENT_START_EVENT => Some(Event::DocumentStart),
            unsafe_yaml::YAML_SEQUENCE_START_EVENT => Some(Event::Open {
                anchor: name(event.data.sequence_start.anchor),
            }),
            unsafe_yaml::YAML_MAPPING_START_EVENT => Some(Event::Open {
                anchor: name(event.data.mapping_start.anchor),
            }),
            unsafe_yaml::YAML_SEQUENCE_END_EVENT | unsafe_yaml::YAML_MAPPING_END_EVENT => {
                Some(Event::Close)
            }
            unsafe_yaml::YAML_SCALAR_EVENT => Some(Event::Scalar {
                anchor: name(event.data.scalar.anchor),
                bytes: event.data.scalar.length as usize,
            }),
            unsafe_yaml::YAML_ALIAS_EVENT => name(event.data.alias.anchor).map(Event::Alias),
            _ => Some(Event::Other),
        };
        let line = event.start_mark.line as usize + 1;
        unsafe_yaml::yaml_event_delete(&mut event);
        seen.map(|seen| (seen, line))
    }
}

/// # Safety
/// `text` is null or ends with a zero.
unsafe fn name(text: *const u8) -> Option<Vec<u8>> {
    // SAFETY: checked for null here; the rest is this function's own condition.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text.cast()) }.to_bytes().to_vec())
}
