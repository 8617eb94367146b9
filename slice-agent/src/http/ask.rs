//! Asks an agent for a page, or a partner something.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const TIMEOUT: Duration = Duration::from_secs(5);
const LENGTH_MAX: u64 = 4 << 20;
/// Of what a partner answers.
const ANSWER_LENGTH_MAX: u64 = 64 << 10;

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
    let (status, code, page) = parts(&answer).with_context(from)?;
    ensure!(
        code == Some("200"),
        "the agent at {address} has no page {path} ({status}): is it of the same version?"
    );
    Ok(page.to_owned())
}

/// What an agent answers to a text. Without limit of time: whoever asks sets that.
///
/// # Errors
/// Where nobody answers, or with something else than an answer.
pub async fn post(
    address: SocketAddr,
    path: &str,
    authorization: &str,
    text: &str,
) -> Result<String> {
    let mut connection = tokio::net::TcpStream::connect(address).await?;
    let length = text.len();
    let question = format!(
        "POST {path} HTTP/1.0\r\nhost: {address}\r\nauthorization: {authorization}\r\n\
         content-length: {length}\r\n\r\n{text}"
    );
    connection.write_all(question.as_bytes()).await?;
    let mut answer = String::new();
    let mut connection = connection.take(ANSWER_LENGTH_MAX);
    connection.read_to_string(&mut answer).await?;
    let (_, code, page) = parts(&answer).context("it does not speak HTTP")?;
    match code {
        Some("200") => Ok(page.to_owned()),
        Some("404") => anyhow::bail!(
            "it does not take this node for a partner of the uplink: compare `lending` of both, and their tokens"
        ),
        Some(code) if is_number(code) => anyhow::bail!(
            "it answers with HTTP status {code}: is it an agent, and of the same version? See its log"
        ),
        _ => anyhow::bail!("it does not speak HTTP"),
    }
}

/// What else stands there, and what is on the page, is told nobody: whoever listens there could have this node's log and
/// status say anything, also the token that it was just sent.
fn is_number(code: &str) -> bool {
    code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_digit())
}

/// The line with the status, its code, and the page.
fn parts(answer: &str) -> Option<(&str, Option<&str>, &str)> {
    let (head, page) = answer.split_once("\r\n\r\n")?;
    let status = head.lines().next().unwrap_or_default();
    let code = status.split_whitespace().nth(1);
    let code = code.filter(|_| status.starts_with("HTTP/"));
    Some((status, code, page))
}
