//! Running other programs: where things are, what is printed, and what happens when root is needed.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::Duration,
};

use anyhow::{Context, Result, bail};

/// Returns the root folder of the repository.
pub(crate) fn repo_root() -> PathBuf {
    // cargo sets the variable for `cargo run`; the compiled-in value serves a binary started alone.
    let manifest_dir = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest_dir
        .parent()
        .map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// Returns cargo's target folder.
pub(crate) fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => repo_root().join(dir),
        None => repo_root().join("target"),
    }
}

/// Returns the folder of programs that `setup` made for this repository alone.
pub(crate) fn tools_bin() -> PathBuf {
    target_dir().join("tools/bin")
}

/// Returns a file below the release folder, such as the agent's binary.
pub(crate) fn release_binary(name: &str) -> PathBuf {
    target_dir().join("release").join(name)
}

/// Returns PATH with our own tools first and, last, the system folders that a user's PATH lacks.
pub(crate) fn search_path() -> String {
    let inherited = std::env::var("PATH").unwrap_or_default();
    format!(
        "{}:{inherited}:/usr/local/sbin:/usr/sbin:/sbin",
        tools_bin().display()
    )
}

/// Finds a program the way a shell would with [`search_path`].
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&search_path())
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
}

/// Tells whether this process runs as root.
pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Returns cargo, at the repository's root.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(repo_root());
    command
}

/// Returns a command that runs as root: itself when we are root, through sudo (with one line that
/// says why) when not. Variables are part of the command because sudo drops the environment.
/// # Errors  when neither root nor sudo is there.
pub(crate) fn as_root(
    why: &str,
    program: impl AsRef<OsStr>,
    variables: &[(&str, String)],
) -> Result<Command> {
    if is_root() {
        let mut command = Command::new(program);
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        return Ok(command);
    }
    if find_program("sudo").is_none() {
        bail!("root is needed: {why}; there is no sudo here, so run this command as root");
    }
    eprintln!("sudo: {why}");
    let mut command = Command::new("sudo");
    command.arg("env");
    command.args(
        variables
            .iter()
            .map(|(name, value)| format!("{name}={value}")),
    );
    command.arg(program);
    Ok(command)
}

/// Runs a command after printing it.
/// # Errors  when it cannot be started or does not end with 0.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let text = describe(command);
    eprintln!("$ {text}");
    let status = command
        .status()
        .with_context(|| format!("cannot start `{text}`"))?;
    succeeded(&text, status)
}

/// Runs a command silently and returns what it wrote to standard output.
/// # Errors  when it cannot be started or does not end with 0; the error carries its last words.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let text = describe(command);
    let output = command
        .output()
        .with_context(|| format!("cannot start `{text}`"))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        bail!("`{text}` ended with {}: {}", output.status, words.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command after printing it, and hands each line of its two outputs to `on_line`.
///
/// A process that the command leaves behind may hold the outputs open; what it says is not waited
/// for.
/// # Errors  when it cannot be started; how it ended is the caller's business.
pub(crate) fn stream(command: &mut Command, mut on_line: impl FnMut(&str)) -> Result<ExitStatus> {
    const LOOK_AGAIN: Duration = Duration::from_millis(100);
    let text = describe(command);
    eprintln!("$ {text}");
    let (reader, writer) = std::io::pipe().context("cannot create a pipe")?;
    command.stdout(Stdio::from(
        writer.try_clone().context("cannot share a pipe")?,
    ));
    command.stderr(Stdio::from(writer));
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start `{text}`"))?;
    // The command still holds our copies of the writing end; the pipe ends only without them.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let lines = lines_of(reader);
    let mut ended = None;
    loop {
        match lines.recv_timeout(LOOK_AGAIN) {
            Ok(line) => on_line(&line),
            Err(RecvTimeoutError::Timeout) if ended.is_some() => break,
            Err(RecvTimeoutError::Timeout) => {
                ended = child
                    .try_wait()
                    .with_context(|| format!("cannot watch `{text}`"))?;
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    match ended {
        Some(status) => Ok(status),
        None => child
            .wait()
            .with_context(|| format!("cannot wait for `{text}`")),
    }
}

fn lines_of(reader: std::io::PipeReader) -> Receiver<String> {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(reader);
        let mut line = Vec::new();
        while reader
            .read_until(b'\n', &mut line)
            .is_ok_and(|bytes| bytes > 0)
        {
            let text = String::from_utf8_lossy(&line)
                .trim_end_matches('\n')
                .to_owned();
            if sender.send(text).is_err() {
                return;
            }
            line.clear();
        }
    });
    receiver
}

/// Turns an exit status into an error that names the command.
/// # Errors  when the status is not 0.
pub(crate) fn succeeded(text: &str, status: ExitStatus) -> Result<()> {
    if !status.success() {
        bail!("`{text}` ended with {status}");
    }
    Ok(())
}

/// Returns the command as a person would type it, with the repository's root left out.
pub(crate) fn describe(command: &Command) -> String {
    let root = format!("{}/", repo_root().display());
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().replace(&root, ""))
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_outputs_of_a_streamed_command_arrive_line_by_line() {
        let mut lines = Vec::new();
        let mut command = Command::new("sh");
        command.args([
            "-c",
            "echo to-stdout; echo to-stderr >&2; printf no-newline; exit 3",
        ]);

        let status = stream(&mut command, |line| lines.push(line.to_owned())).unwrap();

        assert_eq!(status.code(), Some(3));
        assert_eq!(lines, ["to-stdout", "to-stderr", "no-newline"]);
    }

    #[test]
    fn a_process_left_behind_does_not_hold_the_stream_open() {
        let started = std::time::Instant::now();
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 20 & echo done"]);

        let mut lines = Vec::new();
        let status = stream(&mut command, |line| lines.push(line.to_owned())).unwrap();

        assert!(status.success());
        assert_eq!(lines, ["done"]);
        assert!(started.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_failing_command_is_named_with_its_last_words() {
        let error = output(Command::new("sh").args(["-c", "echo broken >&2; exit 7"])).unwrap_err();

        assert!(
            format!("{error:#}").contains("exit status: 7: broken"),
            "{error:#}"
        );
    }
}
