//! What a configuration may cost, checked before anything is built from it.
//!
//! Three things make a small text dear: the parser looks at every open bracket for every token, at
//! every `%TAG` for every other, and an alias repeats its value without a limit on the whole.

use std::collections::HashMap;
use std::ops::ControlFlow;

use super::events::{self, Event};
use crate::model::Problem;

/// Lists and maps inside each other; documents need seven.
pub const DEPTH_MAX: usize = 32;
/// Values of all files together, aliases written out; a long text counts as several.
pub const VALUES_MAX: usize = 1_000_000;
/// A text of this length counts as one more value.
const TEXT_BYTES_PER_VALUE: usize = 64;

/// What is left for the files that were not looked at yet.
pub(super) struct Budget {
    values_left: usize,
}

impl Budget {
    pub(super) fn new() -> Self {
        Self {
            values_left: VALUES_MAX,
        }
    }

    /// Takes what `text` will cost, or tells on which line (from 1) it is too much, and why. A text
    /// that is no YAML costs what stands before the mistake.
    pub(super) fn spend(&mut self, text: &str) -> Result<(), (usize, Problem)> {
        if let Some(at) = text.find("%TAG") {
            let line = 1 + text[..at].matches('\n').count();
            return Err((line, Problem::TagDirective));
        }
        let mut costs = Costs::default();
        let limit = self.values_left;
        let walked = events::walk(text, |event, line| {
            let problem = match costs.add(event) {
                ControlFlow::Break(problem) => problem,
                ControlFlow::Continue(()) if costs.values > limit => {
                    Some(Problem::TooManyValues { limit: VALUES_MAX })
                }
                ControlFlow::Continue(()) => return ControlFlow::Continue(()),
            };
            ControlFlow::Break(problem.map(|problem| (line, problem)))
        });
        self.values_left -= costs.values.min(limit);
        match walked {
            ControlFlow::Break(Some(excess)) => Err(excess),
            ControlFlow::Break(None) | ControlFlow::Continue(()) => Ok(()),
        }
    }
}

#[derive(Default)]
struct Costs {
    values: usize,
    /// Lists and maps that did not end yet: their anchor, and the count before them.
    open: Vec<(Option<Vec<u8>>, usize)>,
    /// What an alias of each anchor repeats; nothing while the anchor's value did not end.
    anchors: HashMap<Vec<u8>, Option<usize>>,
}

impl Costs {
    /// Breaks with a problem, or without one where the library will find a mistake.
    fn add(&mut self, event: Event) -> ControlFlow<Option<Problem>> {
        match event {
            Event::DocumentStart => self.anchors.clear(),
            Event::Open { anchor } => {
                if self.open.len() == DEPTH_MAX {
                    return ControlFlow::Break(Some(Problem::TooDeep { limit: DEPTH_MAX }));
                }
                if let Some(name) = &anchor {
                    self.anchors.insert(name.clone(), None);
                }
                self.open.push((anchor, self.values));
                self.values += 1;
            }
            Event::Close => {
                if let Some((Some(name), before)) = self.open.pop() {
                    self.anchors.insert(name, Some(self.values - before));
                }
            }
            Event::Scalar { anchor, bytes } => {
                let cost = 1 + bytes / TEXT_BYTES_PER_VALUE;
                self.values += cost;
                if let Some(name) = anchor {
                    self.anchors.insert(name, Some(cost));
                }
            }
            Event::Alias(name) => match self.anchors.get(&name) {
                Some(Some(cost)) => self.values = self.values.saturating_add(*cost),
                Some(None) => {
                    let name = String::from_utf8_lossy(&name).into_owned();
                    return ControlFlow::Break(Some(Problem::AliasOfItself(name)));
                }
                None => return ControlFlow::Break(None),
            },
            Event::Other => {}
        }
        ControlFlow::Continue(())
    }
}
