//! Answers partners that ask for parts of slices' ceilings. Whoever is none of them learns nothing, not even that
//! there is such a page.

use std::time::Duration;

use axum::Extension;
use axum::body::{Body, to_bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::time::timeout;

use super::Shared;
use super::connections::Remote;

/// Questions for as many slices as there are places take a third of it.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// A partner that takes longer has given its question up.
const BODY_WITHIN: Duration = Duration::from_secs(1);

pub(super) async fn lend(
    method: Method,
    State(shared): State<Shared>,
    Extension(Remote(remote)): Extension<Remote>,
    uplink: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let Ok(Path(uplink)) = uplink else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let authorization = headers.get(header::AUTHORIZATION);
    let authorization = authorization.map_or(&[][..], |it| it.as_bytes());
    let partner = shared.lending.partner(&uplink, remote.ip(), authorization);
    let Some(partner) = partner.filter(|_| method == Method::POST) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let text = match timeout(BODY_WITHIN, to_bytes(body, BODY_BYTES_MAX)).await {
        Err(_) => return StatusCode::REQUEST_TIMEOUT.into_response(),
        Ok(Err(_)) => return StatusCode::PAYLOAD_TOO_LARGE.into_response(),
        Ok(Ok(text)) => text,
    };
    let questions = match serde_json::from_slice(&text) {
        Ok(questions) => questions,
        Err(error) => {
            let why = format!("these are no questions of this version: {error}\n");
            return (StatusCode::BAD_REQUEST, why).into_response();
        }
    };
    let answers = shared.lending.lend(&uplink, partner, &questions);
    match answers.and_then(|answers| Ok(serde_json::to_string(&answers)?)) {
        Ok(text) => text.into_response(),
        Err(error) => {
            tracing::error!(%uplink, %partner, "nothing is lent: {error:#}");
            StatusCode::SERVICE_UNAVAILABLE.into_response()
        }
    }
}
