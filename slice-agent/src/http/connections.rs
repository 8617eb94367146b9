//! Connections of anybody: few, short, one request each, and the newest before the oldest.
//!
//! Whoever reaches the port may open connections and leave them idle, or never read an answer.
//! Neither keeps a scrape out: one connection too many closes the oldest, not the newest.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

/// What a request may have before its body; a longer one is answered with 431.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Until the next try when a connection cannot be accepted.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// What connections may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Open at the same time.
    pub(super) connections: usize,
    /// From the first byte of a connection's life to the end of the request's head.
    pub(super) head: Duration,
    /// From accepting a connection to the last byte of the answer.
    pub(super) whole: Duration,
}

/// Answers with `router` until it is aborted.
pub(super) async fn serve(listener: TcpListener, router: Router, limits: Limits) {
    let mut open = VecDeque::new();
    loop {
        let (stream, remote) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("cannot accept a connection for metrics or health: {error}");
                sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        open.retain(|connection: &tokio::task::AbortHandle| !connection.is_finished());
        if open.len() >= limits.connections
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        let connection = timeout(
            limits.whole,
            answer((stream, remote), router.clone(), limits.head),
        );
        open.push_back(tokio::spawn(connection).abort_handle());
    }
}

/// Whose connection it is; every request has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Remote(pub(super) SocketAddr);

async fn answer((stream, remote): (TcpStream, SocketAddr), router: Router, head: Duration) {
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(Remote(remote));
        router.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head)
        .keep_alive(false)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!("a connection for metrics or health broke: {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Instant;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::runtime::Handle;

    use super::*;

    const PATIENT: Limits = Limits {
        connections: 100,
        head: Duration::from_secs(3600),
        whole: Duration::from_secs(3600),
    };
    const DEADLINE: Duration = Duration::from_secs(20);
    const HUGE_BYTES: usize = 64 << 20;

    /// A server with `/page`, and `/huge` which no socket's buffers hold.
    async fn server(limits: Limits) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .route("/page", get(|| async { "a page\n" }))
            .route("/huge", get(|| async { vec![b'x'; HUGE_BYTES] }));
        tokio::spawn(serve(listener, router, limits));
        address
    }

    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // The server may answer and close before it read all.
        let _broken = stream.write_all(request.as_bytes()).await;
        String::from_utf8(until_closed(&mut stream).await).unwrap()
    }

    /// What comes until the server closes or resets the connection, which it must.
    async fn until_closed(stream: &mut TcpStream) -> Vec<u8> {
        let mut answer = Vec::new();
        let closed = timeout(DEADLINE, stream.read_to_end(&mut answer)).await;
        assert!(closed.is_ok(), "still open after {DEADLINE:?}");
        answer
    }

    async fn page(address: SocketAddr) -> String {
        ask(address, "GET /page HTTP/1.1\r\nHost: agent\r\n\r\n").await
    }

    /// Connections being served: all tasks but the server's own.
    async fn until_served(connections: usize) {
        let deadline = Instant::now() + DEADLINE;
        while Handle::current().metrics().num_alive_tasks() != connections + 1 {
            assert!(
                Instant::now() < deadline,
                "not {connections} within {DEADLINE:?}"
            );
            sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn two_thousand_idle_connections_keep_nobody_out_and_the_newest_stay() {
        let _limit = super::super::raise_open_files_limit().unwrap();
        let address = server(PATIENT).await;
        let mut idle = Vec::new();
        for _ in 0..2000 {
            idle.push(TcpStream::connect(address).await.unwrap());
        }
        let answer = page(address).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        assert!(answer.ends_with("a page\n"), "{answer}");
        until_served(PATIENT.connections - 1).await;
        for closed in &mut idle[..1901] {
            assert_eq!(until_closed(closed).await, b"");
        }
        assert!(idle[1901].try_read(&mut [0]).is_err(), "closed");
        assert!(page(address).await.ends_with("a page\n"));
    }

    #[tokio::test]
    async fn who_sends_no_request_in_time_is_closed() {
        let limits = Limits {
            head: Duration::from_millis(50),
            ..PATIENT
        };
        let address = server(limits).await;
        let mut silent = TcpStream::connect(address).await.unwrap();
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET /page HT").await.unwrap();
        assert_eq!(until_closed(&mut silent).await, b"");
        until_closed(&mut slow).await;
        until_served(0).await;
        assert!(page(address).await.ends_with("a page\n"));
    }

    #[tokio::test]
    async fn who_never_reads_the_answer_is_closed() {
        let limits = Limits {
            whole: Duration::from_millis(300),
            ..PATIENT
        };
        let address = server(limits).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = b"GET /huge HTTP/1.1\r\nHost: agent\r\n\r\n";
        stream.write_all(request).await.unwrap();
        until_served(1).await;
        until_served(0).await;
        let answer = until_closed(&mut stream).await;
        assert!(answer.starts_with(b"HTTP/1.1 200 OK") && answer.len() < HUGE_BYTES);
    }

    #[tokio::test]
    async fn a_connection_ends_with_its_answer() {
        let address = server(PATIENT).await;
        let twice = "GET /page HTTP/1.1\r\nHost: agent\r\n\r\n".repeat(2);
        let answer = ask(address, &twice).await;
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
        assert!(answer.contains("connection: close"), "{answer}");
    }

    #[tokio::test]
    async fn oversized_requests_are_refused() {
        let address = server(PATIENT).await;
        // Not a byte more than is read: closing with some unread takes the answer back.
        let full = |start: &str| format!("{start}{}", "x".repeat(HEAD_BYTES_MAX - start.len()));
        for (request, status) in [
            (full("GET /page HTTP/1.1\r\nHost: "), "431"),
            (full("GET /"), "431"),
            (
                format!("GET /page HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(200)),
                "431",
            ),
            (format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(9000)), "404"),
            (
                "GET /%00%0a/../../etc/passwd HTTP/1.1\r\n\r\n".to_owned(),
                "404",
            ),
            ("\0\0\0\0\r\n\r\n".to_owned(), "400"),
        ] {
            let answer = ask(address, &request).await;
            let start = format!("HTTP/1.1 {status} ");
            assert!(answer.starts_with(&start), "{status}: {answer}");
        }
    }
}
