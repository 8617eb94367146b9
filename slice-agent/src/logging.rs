//! What the agent says while it runs: one line per change of state, as text or JSON on stderr.

use std::io::IsTerminal as _;

use aya::Ebpf;
use aya_log::EbpfLogger;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tracing_subscriber::EnvFilter;

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

/// Starts logging. `RUST_LOG` chooses what is logged; by default state changes, and with
/// `programs` also what the kernel programs say.
pub fn start(format: Format, programs: bool) {
    let default = if programs {
        "info,slice_ebpf=debug"
    } else {
        "info"
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        // It would say on stderr that stderr cannot be written, and end the agent by a panic.
        .log_internal_errors(false);
    match format {
        Format::Text => builder.init(),
        Format::Json => builder.json().init(),
    }
}

/// Writes what the kernel programs log to the agent's log, until the agent ends.
pub fn follow_programs(ebpf: &mut Ebpf) {
    let logger = match EbpfLogger::init(ebpf) {
        Ok(logger) => logger,
        Err(error) => {
            tracing::warn!("--bpf-log debug: the kernel programs have no log: {error}");
            return;
        }
    };
    // SAFETY: the logger owns the ring buffer's file descriptor and never gives another one.
    let mut logger = match unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) } {
        Ok(logger) => logger,
        Err(error) => {
            tracing::warn!("--bpf-log debug: cannot wait for the programs' log: {error}");
            return;
        }
    };
    tokio::spawn(async move {
        while let Ok(mut ready) = logger.readable_mut().await {
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    });
}
