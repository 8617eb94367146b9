//! Packets that were worth keeping, as text: a case is a file, a packet is a line, `#` begins a remark.
//!
//! ```text
//! # An error that quotes an error.
//! pod_egress on=p-kafka-0 from=- gso=0 mark=0x5011ce00 0a0000ff...
//! ```

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::campaign::Mismatch;
use super::generate::DEVICES;
use super::input::Input;
use crate::testrun::Program;

/// The programs that can be named.
pub const PROGRAMS: [Program; 6] = [
    Program::PodEgress,
    Program::UnderlayIngress,
    Program::PodIngress,
    Program::UnderlayGuard,
    Program::TunnelIngress,
    Program::UnderlayFilter,
];

/// Where cases of this repository are kept.
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

/// Reads every case of a folder, in the order of the names.
/// # Errors  the first file and line that is no packet.
pub fn read(folder: &Path) -> Result<Vec<(String, Vec<Input>)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "packets")
        {
            files.push(path);
        }
    }
    files.sort();
    let case = |path: PathBuf| {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(&path).with_context(|| name.clone())?;
        let inputs = parse(&text).with_context(|| name.clone())?;
        Ok((name, inputs))
    };
    files.into_iter().map(case).collect()
}

/// Keeps a mismatch as a new case; the name says what it is of.
/// # Errors  when the file cannot be written.
pub fn keep(folder: &Path, name: &str, mismatch: &Mismatch) -> Result<PathBuf> {
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let path = folder.join(format!("{name}.packets"));
    let mut text = String::new();
    for remark in mismatch.complaint.lines() {
        let _ = writeln!(text, "# {remark}");
    }
    for input in &mismatch.inputs {
        let _ = writeln!(text, "{}", line(input));
    }
    std::fs::write(&path, text).with_context(|| path.display().to_string())?;
    Ok(path)
}

/// One packet.
pub fn line(input: &Input) -> String {
    let mut text = format!(
        "{} on={} from={} gso={} mark={:#x} ",
        input.program.name(),
        input.device,
        input.came_in_by.unwrap_or("-"),
        input.gso_bytes,
        input.mark
    );
    for byte in &input.frame {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The packets of a case.
/// # Errors  the first line that is no packet.
pub fn parse(text: &str) -> Result<Vec<Input>> {
    let is_packet = |line: &&str| !line.is_empty() && !line.starts_with('#');
    let lines = text.lines().map(str::trim).filter(is_packet);
    lines
        .map(|line| packet(line).with_context(|| format!("not a packet: {line}")))
        .collect()
}

fn packet(line: &str) -> Result<Input> {
    let words: Vec<_> = line.split_whitespace().collect();
    let [program, on, from, gso, mark, frame] = words[..] else {
        bail!("six words make a packet: program, on=, from=, gso=, mark=0x, frame");
    };
    let named = |known: &Program| known.name() == program;
    let program = PROGRAMS.into_iter().find(named);
    let from = value(from, "from=")?;
    let mark = value(mark, "mark=0x")?;
    Ok(Input {
        program: program.context("no such program")?,
        device: device(value(on, "on=")?)?,
        came_in_by: (from != "-").then(|| device(from)).transpose()?,
        gso_bytes: value(gso, "gso=")?.parse()?,
        mark: u32::from_str_radix(mark, 16)?,
        frame: bytes(frame)?,
    })
}

fn value<'a>(word: &'a str, name: &str) -> Result<&'a str> {
    word.strip_prefix(name)
        .with_context(|| format!("expected {name}, found {word}"))
}

fn device(name: &str) -> Result<&'static str> {
    let known = DEVICES.into_iter().find(|device| *device == name);
    known.with_context(|| format!("no device {name}"))
}

fn bytes(hex: &str) -> Result<Vec<u8>> {
    if !hex.is_ascii() || hex.len() % 2 == 1 {
        bail!("a frame has two hexadecimal digits for each byte");
    }
    (0..hex.len())
        .step_by(2)
        .map(|at| Ok(u8::from_str_radix(&hex[at..at + 2], 16)?))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let input = Input {
            program: Program::PodIngress,
            device: DEVICES[0],
            came_in_by: Some(DEVICES[6]),
            gso_bytes: 1448,
            mark: 0x5011_ce00,
            frame: vec![0, 0x7f, 0xff],
        };
        let text = format!("# a remark\n\n{}\n", line(&input));
        assert_eq!(parse(&text).unwrap(), [input]);
    }

    #[test]
    fn a_line_that_is_no_packet_is_named() {
        let error = parse("pod_egress on=p-kafka-0").unwrap_err();
        assert!(format!("{error:#}").contains("not a packet: pod_egress on=p-kafka-0"));
    }
}
