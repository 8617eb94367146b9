//! The configuration as the loop sees it: bytes that change, and the state they ask for.

use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::thread;
use std::time::Instant;

use crate::compile;
use crate::image::{HostFacts, Names, NodeImage};
use crate::model::{self, ConfigError, Validated};
use crate::source::file::{Source, Texts};
use crate::source::settle::{AGREE, Settling};

type Answer = Result<Validated, Vec<ConfigError>>;

/// A configuration that is read again and again, on a thread of its own: a file system that hangs
/// or a large configuration keeps nobody else waiting, not even the end of the process.
pub struct Watched {
    answers: Receiver<Answer>,
    forget: Sender<()>,
}

impl Watched {
    pub fn new(path: &Path) -> Self {
        let (answer, answers) = mpsc::channel();
        let (forget, forgotten) = mpsc::channel();
        let source = Source::new(path);
        thread::spawn(move || follow(&source, &forgotten, &answer));
        Self { answers, forget }
    }

    /// The newest configuration, if one settled since the last call; never waits.
    pub fn poll(&mut self) -> Option<Answer> {
        let mut newest = None;
        loop {
            match self.answers.try_recv() {
                Ok(answer) => newest = Some(answer),
                Err(TryRecvError::Empty) => return newest,
                // Without a reader the agent would follow nothing; who started it starts it again.
                Err(TryRecvError::Disconnected) => panic!("the configuration's reader panicked"),
            }
        }
    }

    /// Makes a later [`Watched::poll`] answer, changed or not.
    pub fn forget(&mut self) {
        // A reader that ended is noticed by the next poll.
        let _ended = self.forget.send(());
    }
}

/// Reads, until nobody wants the answers.
fn follow(source: &Source, forgotten: &Receiver<()>, answers: &Sender<Answer>) {
    let mut settling = Settling::default();
    loop {
        let read = source.read();
        if let Some(texts) = settling.saw(read, Instant::now())
            && answers.send(validate(texts)).is_err()
        {
            return;
        }
        match forgotten.recv_timeout(AGREE) {
            Ok(()) => settling.forget(),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Reads the source once.
pub fn read(path: &Path) -> Answer {
    validate(&Source::new(path).read())
}

/// The state that a configuration asks for on this host.
pub struct Wanted {
    pub image: NodeImage,
    pub names: Names,
    /// In what the host does not fit: all of it is in force already, or holds nothing else up.
    pub mismatches: Vec<ConfigError>,
}

/// The state that a new configuration asks for, where `in_force` is in force.
///
/// # Errors
/// What would not fit the host, or the kernel's tables.
pub fn wanted(
    configuration: &Validated,
    facts: &HostFacts,
    in_force: &NodeImage,
) -> Result<Wanted, Vec<ConfigError>> {
    let mismatches = model::validate_against(configuration, facts, in_force)?;
    compiled(configuration, facts, mismatches)
}

/// The state that a configuration asks for that was accepted earlier, whatever became of the host since.
///
/// # Errors
/// None that was not there when it was accepted.
pub fn still_wanted(
    configuration: &Validated,
    facts: &HostFacts,
) -> Result<Wanted, Vec<ConfigError>> {
    let mismatches = model::mismatches(configuration, facts);
    compiled(configuration, facts, mismatches)
}

fn compiled(
    configuration: &Validated,
    facts: &HostFacts,
    mut mismatches: Vec<ConfigError>,
) -> Result<Wanted, Vec<ConfigError>> {
    let (image, names) = compile::compile(configuration, facts)?;
    mismatches.extend(compile::left_out(configuration, facts));
    Ok(Wanted {
        image,
        names,
        mismatches,
    })
}

fn validate(texts: &Result<Texts, Vec<ConfigError>>) -> Answer {
    let documents = texts.as_ref().map_err(Clone::clone)?.parse()?;
    model::validate(&documents)
}
