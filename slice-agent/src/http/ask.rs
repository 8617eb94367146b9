//! Asks an agent for a page.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

const TIMEOUT: Duration = Duration::from_secs(5);
const LENGTH_MAX: u64 = 4 << 20;

/// The page that an agent serves at `path`.
///
/// # Errors
/// Where nobody answers, or not with a page.
pub fn ask(address: SocketAddr, path: &str) -> Result<String> {
    let from = || format!("no answer from an agent at {address}");
    let connection = TcpStream::connect_timeout(&address, TIMEOUT);
    let mut connection = connection.with_context(|| {
        format!(
            "{}: is it running, and was it given another --listen?",
            from()
        )
    })?;
    connection.set_read_timeout(Some(TIMEOUT))?;
    connection.set_write_timeout(Some(TIMEOUT))?;
    // In this version answers are not cut into chunks, and the connection ends with the answer.
    let question = format!("GET {path} HTTP/1.0\r\nhost: {address}\r\n\r\n");
    connection
        .write_all(question.as_bytes())
        .with_context(from)?;
    let mut answer = String::new();
    connection
        .take(LENGTH_MAX)
        .read_to_string(&mut answer)
        .with_context(from)?;
    let (head, page) = answer.split_once("\r\n\r\n").with_context(from)?;
    let status = head.lines().next().unwrap_or_default();
    let code = status.split_whitespace().nth(1);
    ensure!(
        status.starts_with("HTTP/") && code == Some("200"),
        "the agent at {address} has no page {path} ({status}): is it of the same version?"
    );
    Ok(page.to_owned())
}
