//! `/metrics`, `/healthz` and `/readyz`.

use std::time::Instant;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use crate::agent::status::Status;
use crate::apply::maps::Maps;
use crate::metrics;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone)]
struct Shared {
    status: Status,
    maps: Maps,
}

/// Answers until the task is aborted.
pub async fn serve(listener: TcpListener, status: Status, maps: Maps) {
    let router = Router::new()
        .route("/metrics", get(metrics_page))
        .route("/healthz", get(health))
        .route("/readyz", get(readiness))
        .with_state(Shared { status, maps });
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!("metrics and health are no longer served: {error}");
    }
}

async fn metrics_page(State(shared): State<Shared>) -> Response {
    // Maps are read by system calls, some ten thousand when they are full.
    let page =
        tokio::task::spawn_blocking(move || metrics::page(&shared.status.read(), &shared.maps));
    match page.await {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Ok(Err(error)) => failure(&error.to_string()),
        Err(error) => failure(&error.to_string()),
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
    match (state.ready, state.degraded) {
        (true, None) => "ready\n".into_response(),
        (true, Some(why)) => format!("ready, but degraded: {why}\n").into_response(),
        (false, why) => {
            let why = why.unwrap_or_else(|| match state.config_valid {
                true => "the configuration is being applied".to_owned(),
                false => "no valid configuration yet".to_owned(),
            });
            (
                StatusCode::SERVICE_UNAVAILABLE,
                format!("not ready: {why}\n"),
            )
                .into_response()
        }
    }
}

fn failure(why: &str) -> Response {
    tracing::error!("cannot write the metrics: {why}");
    (
        StatusCode::INTERNAL_SERVER_ERROR,
        format!("cannot write the metrics: {why}\n"),
    )
        .into_response()
}
