//! `/metrics`, `/status`, `/healthz` and `/readyz` for everybody, and `/lend` for partners.

mod ask;
mod connections;
mod lend;
mod shared_page;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::TcpListener;

use crate::agent::status::Status;
use crate::apply::maps::Maps;
use crate::lending::Lending;
use crate::metrics;
pub use ask::{ask, post as post_to};
use connections::Limits;
use shared_page::SharedPage;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Far below the 1024 open files that a process may usually have; a scrape needs one of them for a
/// few milliseconds.
const LIMITS: Limits = Limits {
    connections: 256,
    head: Duration::from_secs(5),
    whole: Duration::from_secs(10),
};

#[derive(Clone)]
struct Shared {
    status: Status,
    maps: Maps,
    lending: Lending,
    page: Arc<SharedPage>,
}

/// Opens the port.
///
/// # Errors
/// Where that cannot be, with the likely cause.
pub async fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let cause = match error.kind() {
            ErrorKind::AddrInUse => "another program has this port, maybe a second agent; ",
            ErrorKind::AddrNotAvailable => "no interface of this host has this address; ",
            ErrorKind::PermissionDenied => "a port below 1024 needs CAP_NET_BIND_SERVICE; ",
            _ => "",
        };
        anyhow!("cannot listen on {address} ({error}): {cause}give another one with --listen")
    })
}

/// Lets this process open as many files as the system allows it; returns how many.
pub fn raise_open_files_limit() -> Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("cannot read the limit of files")?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
        .context("cannot raise the limit of open files")?;
    Ok(hard)
}

/// Answers until the task is aborted.
pub async fn serve(listener: TcpListener, status: Status, maps: Maps, lending: Lending) {
    let router = Router::new()
        .route("/lend/{uplink}", any(lend::lend))
        .route("/metrics", get(metrics_page))
        .route("/status", get(status_page))
        .route("/healthz", get(health))
        .route("/readyz", get(readiness))
        .with_state(Shared {
            status,
            maps,
            lending,
            page: Arc::default(),
        });
    connections::serve(listener, router, LIMITS).await;
}

async fn metrics_page(State(shared): State<Shared>) -> Response {
    let asked_at = Instant::now();
    let write = async {
        // Maps are read by system calls, some ten thousand when they are full.
        let page =
            tokio::task::spawn_blocking(move || metrics::page(&shared.status.read(), &shared.maps));
        match page.await {
            Ok(Ok(text)) => Ok(text.into()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    };
    match shared.page.begun_after(asked_at, write).await {
        Ok(text) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(why) => failure(&why),
    }
}

async fn health(State(shared): State<Shared>) -> Response {
    if shared.status.read().is_alive(Instant::now()) {
        "alive\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the agent's loop hangs\n").into_response()
    }
}

async fn readiness(State(shared): State<Shared>) -> Response {
    let state = shared.status.read();
    let code = match state.ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    (
        code,
        format!("{}\n", metrics::status_page::readiness(&state)),
    )
        .into_response()
}

async fn status_page(State(shared): State<Shared>) -> Response {
    metrics::status_page::page(&shared.status.read()).into_response()
}

fn failure(why: &str) -> Response {
    tracing::error!("cannot write the metrics: {why}");
    (
        StatusCode::INTERNAL_SERVER_ERROR,
        format!("cannot write the metrics: {why}\n"),
    )
        .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_asks_for_the_status_gets_it_and_is_told_where_nobody_answers() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let bpffs = tempfile::tempdir().unwrap();
        let maps = Maps::new(crate::apply::pins::Pins::current(bpffs.path()));
        let status = Status::new(Instant::now());
        let lending = Lending::new(maps.clone(), status.clone());
        let server = tokio::spawn(serve(listener, status, maps, lending));
        let asked = async |path| tokio::task::spawn_blocking(move || ask(address, path)).await;
        assert_eq!(
            asked("/status").await.unwrap().unwrap(),
            "not ready: no valid configuration yet; configuration 0 in force\n"
        );
        let error = asked("/nothing").await.unwrap().unwrap_err().to_string();
        assert_eq!(
            error,
            format!(
                "the agent at {address} has no page /nothing (HTTP/1.0 404 Not Found): is it of \
                 the same version?"
            )
        );
        server.abort();
        assert!(server.await.unwrap_err().is_cancelled());
        let error = asked("/status").await.unwrap().unwrap_err().to_string();
        assert_eq!(
            error,
            format!(
                "no answer from an agent at {address}: is it running, and was it given another \
                 --listen?"
            )
        );
    }

    #[tokio::test]
    async fn a_port_that_cannot_be_had_is_named_with_the_likely_cause() {
        let first = listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = first.local_addr().unwrap();
        assert_eq!(
            listen(address).await.unwrap_err().to_string(),
            format!(
                "cannot listen on {address} (Address already in use (os error 98)): another \
                 program has this port, maybe a second agent; give another one with --listen"
            )
        );
        // An address for documentation, which no host has.
        let elsewhere = listen("192.0.2.1:9464".parse().unwrap()).await;
        assert_eq!(
            elsewhere.unwrap_err().to_string(),
            "cannot listen on 192.0.2.1:9464 (Cannot assign requested address (os error 99)): no \
             interface of this host has this address; give another one with --listen"
        );
    }
}
