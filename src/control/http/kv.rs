//! `/kv/{key}` and `/debug/siblings/{key}`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::ACCEPT;
use axum::http::{HeaderMap, Uri};
use axum::response::Response;

use super::refusal::Refusal;
use super::request::{self, RAW, Said};
use super::{Api, reply};
use crate::protocol::message::{Delete, Get, Put, Reply, Request};

pub(super) async fn get(State(api): State<Arc<Api>>, uri: Uri, headers: HeaderMap) -> Result<Response, Refusal> {
    let key = request::key(&uri, "/kv/")?;
    let terms = request::terms(&uri, &headers, "r")?;
    match api.node.door.ask(Request::Get(Get { key: key.clone(), terms })).await? {
        Reply::Found(found) if wants_raw(&headers) => reply::found_raw(&found, &api.replies).await,
        Reply::Found(found) => reply::found(&api.node, &key, found, &api.replies).await,
        other => unreachable!("a GET was answered by {other:?}"),
    }
}

pub(super) async fn put(
    State(api): State<Arc<Api>>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let key = request::key(&uri, "/kv/")?;
    let terms = request::terms(&uri, &headers, "w")?;
    let (body, _taken) = request::body(&headers, body, &api.bodies).await?;
    let said = reply::elsewhere(body.len(), move || request::put(&headers, body)).await?;
    let Said { value, causality, operation } = said;
    let value = value.expect("a PUT without a value was refused");
    let put = Put { key, value, causality, operation, terms };
    write(&api, Request::Put(put)).await
}

pub(super) async fn delete(
    State(api): State<Arc<Api>>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let key = request::key(&uri, "/kv/")?;
    let terms = request::terms(&uri, &headers, "w")?;
    let (body, _taken) = request::body(&headers, body, &api.bodies).await?;
    let Said { causality, operation, .. } = request::delete(&headers, &body)?;
    write(&api, Request::Delete(Delete { key, causality, operation, terms })).await
}

pub(super) async fn siblings(State(api): State<Arc<Api>>, uri: Uri) -> Result<Response, Refusal> {
    let key = request::key(&uri, "/debug/siblings/")?;
    request::no_query(&uri)?;
    match api.node.door.ask(Request::Siblings(key.clone())).await? {
        Reply::Siblings(copies) => reply::siblings(key, copies, &api.replies).await,
        other => unreachable!("a siblings request was answered by {other:?}"),
    }
}

async fn write(api: &Api, request: Request) -> Result<Response, Refusal> {
    let key = request.key().expect("a write has a key").clone();
    let tombstone = matches!(request, Request::Delete(_));
    match api.node.door.ask(request).await? {
        Reply::Written(written) => reply::written(&api.node, &key, tombstone, &written),
        other => unreachable!("a write was answered by {other:?}"),
    }
}

fn wants_raw(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|header| header.to_str().ok());
    let mut types = accepted.flat_map(|header| header.split(','));
    types.any(|accepted| accepted.split(';').next().unwrap_or("").trim().eq_ignore_ascii_case(RAW))
}
