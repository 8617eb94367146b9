//! The configuration as the loop sees it: bytes that change, and the state they ask for.

use std::path::Path;

use crate::compile;
use crate::image::{HostFacts, Names, NodeImage};
use crate::model::{self, ConfigError, Validated};
use crate::source::file::{Source, Texts};

/// A configuration that is read again and again.
pub struct Watched {
    source: Source,
    last: Option<Result<Texts, Vec<ConfigError>>>,
}

impl Watched {
    pub fn new(path: &Path) -> Self {
        Self {
            source: Source::new(path),
            last: None,
        }
    }

    /// Reads the source; `None` when nothing changed since the last call.
    pub fn poll(&mut self) -> Option<Result<Validated, Vec<ConfigError>>> {
        let now = self.source.read();
        if self.last.as_ref() == Some(&now) {
            return None;
        }
        let result = validate(&now);
        self.last = Some(now);
        Some(result)
    }

    /// Makes the next [`Watched::poll`] answer, changed or not.
    pub fn forget(&mut self) {
        self.last = None;
    }
}

/// Reads the source once.
pub fn read(path: &Path) -> Result<Validated, Vec<ConfigError>> {
    validate(&Source::new(path).read())
}

/// The state that a configuration asks for on this host.
pub fn wanted(
    configuration: &Validated,
    facts: &HostFacts,
) -> Result<(NodeImage, Names), Vec<ConfigError>> {
    model::validate_against(configuration, facts)?;
    compile::compile(configuration, facts)
}

fn validate(texts: &Result<Texts, Vec<ConfigError>>) -> Result<Validated, Vec<ConfigError>> {
    let documents = texts.as_ref().map_err(Clone::clone)?.parse()?;
    model::validate(&documents)
}
