//! SEEDS section 1, line by line, and what stands beneath its table: over a socket, against real shards.

use axum::http::{HeaderMap, Method, StatusCode};
use base64::Engine as _;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde_json::{Value as Json, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::request::BASE64;
use super::*;
use crate::control::members::{self, Ordered};
use crate::control::testing::{self, WALL};
use crate::protocol::membership::Order;

mod cluster;
mod orders;
mod openapi;

/// A node's HTTP on a port of its own.
struct Site {
    address: std::net::SocketAddr,
    token: Option<&'static str>,
    node: Node,
}

struct Told {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Told {
    fn json(&self) -> Json {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {:?}", self.body))
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn error(&self) -> String {
        self.json()["error"].as_str().unwrap().to_owned()
    }

    fn context(&self) -> String {
        self.header("x-sloop-context").to_owned()
    }
}

impl Site {
    async fn open(token: Option<&'static str>) -> Site {
        let (node, _) = testing::node(token);
        Site::of(node, token)
    }

    /// A node whose membership answers every order like that.
    async fn obeying(token: Option<&'static str>, obey: impl Fn(Order) -> Ordered + Send + 'static) -> Site {
        let (orders, mut wanted) = members::orders();
        tokio::spawn(async move {
            while let Some((order, answer)) = wanted.recv().await {
                answer.send(obey(order)).unwrap();
            }
        });
        Site::of(Node { orders, ..testing::node(token).0 }, token)
    }

    fn of(node: Node, token: Option<&'static str>) -> Site {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(server::serve(listener, router(node.clone())));
        Site { address, token, node }
    }

    async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Told {
        let socket = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await.unwrap();
        tokio::spawn(connection);
        let mut request = hyper::Request::builder().method(method).uri(path).header("host", "sloop");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(token) = self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(Full::new(body.into())).unwrap();
        let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
        Told { status: parts.status, headers: parts.headers, body: body.collect().await.unwrap().to_bytes() }
    }

    async fn get(&self, path: &str) -> Told {
        self.ask(Method::GET, path, &[], "").await
    }

    async fn put(&self, path: &str, body: &Json) -> Told {
        self.ask(Method::PUT, path, &[], body.to_string()).await
    }

    async fn put_text(&self, path: &str, text: &str) -> Told {
        self.put(path, &json!({"valueBase64": BASE64.encode(text)})).await
    }

    async fn post(&self, path: &str, body: &Json) -> Told {
        self.ask(Method::POST, path, &[], body.to_string()).await
    }

    async fn delete(&self, path: &str) -> Told {
        self.ask(Method::DELETE, path, &[], "").await
    }
}

#[tokio::test]
async fn a_put_is_answered_as_the_seed_did() {
    let site = Site::open(None).await;
    let body = json!({"valueBase64": "aGk=", "nodeId": "node-b", "opId": null});

    let told = site.put("/kv/a", &body).await;

    assert_eq!(told.status, StatusCode::OK);
    assert_eq!(told.header("content-type"), "application/json");
    let json = told.json();
    assert_eq!(json["ok"], json!(true));
    assert_eq!(json["tombstone"], json!(false));
    assert_eq!(json["lwwMillis"], json!(WALL));
    assert_eq!(json["vectorClock"], json!({"node-a": 1}), "nodeId is a label and never an actor");
}

#[tokio::test]
async fn a_put_may_name_nothing_but_the_value() {
    let site = Site::open(None).await;
    assert_eq!(site.put("/kv/a", &json!({"valueBase64": ""})).await.status, StatusCode::OK);
    assert_eq!(site.get("/kv/a").await.json()["valueBase64"], json!(""), "an empty value is a value");
}

#[tokio::test]
async fn a_delete_needs_no_body_and_no_key() {
    let site = Site::open(None).await;
    site.put_text("/kv/a", "hi").await;

    for (path, clock) in [("/kv/a", 2), ("/kv/never-written", 1)] {
        let told = site.delete(path).await;
        assert_eq!(told.status, StatusCode::OK);
        let json = told.json();
        assert_eq!((&json["ok"], &json["tombstone"]), (&json!(true), &json!(true)));
        assert_eq!(json["lwwMillis"], json!(WALL));
        assert!(json["vectorClock"]["node-a"].as_u64().unwrap() >= clock);
    }
    let body = json!({"nodeId": "n", "opId": "o"}).to_string();
    assert_eq!(site.ask(Method::DELETE, "/kv/a", &[], body).await.status, StatusCode::OK);
    assert_eq!(site.get("/kv/a").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_get_is_answered_as_the_seed_did() {
    let site = Site::open(None).await;
    site.put_text("/kv/a", "hi").await;

    let told = site.ask(Method::GET, "/kv/a", &[("X-Deadline-Ms", "250")], "").await;

    assert_eq!(told.status, StatusCode::OK);
    let json = told.json();
    assert_eq!(json["found"], json!(true));
    assert_eq!(json["valueBase64"], json!("aGk="));
    assert_eq!(json["vectorClock"], json!({"node-a": 1}));
}

#[tokio::test]
async fn what_is_absent_or_deleted_is_not_found() {
    let site = Site::open(None).await;
    site.put_text("/kv/deleted", "hi").await;
    site.delete("/kv/deleted").await;
    for path in ["/kv/absent", "/kv/deleted"] {
        let told = site.get(path).await;
        assert_eq!(told.status, StatusCode::NOT_FOUND);
        assert_eq!(&told.body[..], br#"{"found":false}"#);
        assert!(!told.context().is_empty(), "what was deleted has been seen");
    }
}

#[tokio::test]
async fn the_debug_listing_shows_every_version() {
    let site = Site::open(None).await;
    site.put_text("/kv/k", "one").await;
    site.put("/kv/k", &json!({"valueBase64": "dHdv", "context": "none", "opId": "op-2"})).await;
    let deleted = json!({"context": site.put("/kv/t", &json!({"valueBase64": ""})).await.context()});
    site.ask(Method::DELETE, "/kv/t", &[], deleted.to_string()).await;

    let json = site.get("/debug/siblings/k").await.json();
    assert_eq!(json["key"], json!("k"));
    let siblings = json["siblings"].as_array().unwrap();
    assert_eq!(siblings.len(), 2);
    assert_eq!(siblings[0]["tombstone"], json!(false));
    assert_eq!(siblings[0]["lwwMillis"], json!(WALL));
    assert_eq!(siblings[0]["valueBase64"], json!("b25l"));
    assert!(siblings[0]["vectorClock"]["node-a"].is_u64());
    assert_eq!(siblings[1]["opId"], json!("op-2"));

    let json = site.get("/debug/siblings/t").await.json();
    assert_eq!(json["siblings"][0]["tombstone"], json!(true));
    assert_eq!(json["siblings"][0]["valueBase64"], Json::Null);

    let told = site.get("/debug/siblings/unknown").await;
    assert_eq!(told.status, StatusCode::OK);
    assert_eq!((&told.json()["key"], &told.json()["siblings"]), (&json!("unknown"), &json!([])));
}

#[tokio::test]
async fn health_is_ok_when_it_is_true() {
    let site = Site::open(Some("secret")).await;
    let stranger = Site { address: site.address, token: None, node: site.node.clone() };
    for path in OPEN_PATHS {
        let told = stranger.get(path).await;
        assert_eq!((told.status, &told.body[..]), (StatusCode::OK, &br#"{"status":"ok"}"#[..]), "{path}");
    }

    site.node.hearts.serve(false);

    let told = stranger.get("/admin/health").await;
    assert_eq!(told.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(told.json()["status"], json!("the node is not serving: it is starting or stopping"));
    assert_eq!(stranger.get("/health/ready").await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(stranger.get("/health/live").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_configured_token_guards_everything_but_health() {
    let site = Site::open(Some("secret")).await;
    assert_eq!(site.put_text("/kv/a", "hi").await.status, StatusCode::OK);
    for token in [None, Some("wrong"), Some("secre"), Some("")] {
        let stranger = Site { address: site.address, token, node: site.node.clone() };
        for path in ["/kv/a", "/debug/siblings/a", "/admin/info", "/admin/snapshot", "/metrics", "/no/such/path"] {
            let told = stranger.get(path).await;
            assert_eq!(told.status, StatusCode::UNAUTHORIZED, "{path} with {token:?}");
            assert_eq!(told.header("www-authenticate"), "Bearer");
            assert!(told.error().contains("token"));
        }
        assert_eq!(stranger.put_text("/kv/a", "no").await.status, StatusCode::UNAUTHORIZED);
        assert_eq!(stranger.delete("/kv/a").await.status, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(site.get("/kv/a").await.json()["valueBase64"], json!("aGk="), "nothing was changed");
}

#[tokio::test]
async fn paths_that_are_none_are_not_found() {
    let site = Site::open(None).await;
    for path in ["/", "/kv", "/nothing", "/admin/anti-entropy"] {
        let told = site.get(path).await;
        assert_eq!((told.status, told.error().as_str()), (StatusCode::NOT_FOUND, "not found"), "{path}");
    }
}

#[tokio::test]
async fn a_method_that_is_not_allowed_is_told_which_are() {
    let site = Site::open(None).await;
    let told = site.ask(Method::POST, "/kv/a", &[], "").await;
    assert_eq!(told.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(told.header("allow"), "GET,HEAD,PUT,DELETE");
    assert!(told.error().contains("not allowed"));
    assert_eq!(site.put("/admin/health", &json!({})).await.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn keys_are_the_rest_of_the_path_whatever_bytes_they_hold() {
    let site = Site::open(None).await;
    for path in ["/kv/a/b/c", "/kv/%00%FF", "/kv//lead", "/kv/trail/", "/kv/%2F", "/kv/a+b", "/kv/a%20b"] {
        assert_eq!(site.put_text(path, path).await.status, StatusCode::OK, "{path}");
    }
    assert_eq!(site.get("/kv/a%2Fb%2Fc").await.json()["valueBase64"], json!(BASE64.encode("/kv/a/b/c")));
    assert_eq!(site.get("/kv/%00%ff").await.json()["valueBase64"], json!(BASE64.encode("/kv/%00%FF")));
    assert_eq!(site.get("/kv/a%2Bb").await.json()["valueBase64"], json!(BASE64.encode("/kv/a+b")));
    let json = site.get("/debug/siblings/%00%FF").await.json();
    assert_eq!(json["keyBase64"], json!("AP8="));
}

#[tokio::test]
async fn keys_have_1_to_1024_bytes() {
    let site = Site::open(None).await;
    let long = "k".repeat(1_024);
    assert_eq!(site.put_text(&format!("/kv/{long}"), "v").await.status, StatusCode::OK);
    for path in [format!("/kv/{long}k"), "/kv/".to_owned()] {
        for told in [site.put_text(&path, "v").await, site.get(&path).await, site.delete(&path).await] {
            assert_eq!(told.status, StatusCode::BAD_REQUEST);
            assert!(told.error().contains("allowed are 1 to 1024"), "{}", told.error());
        }
    }
    assert_eq!(site.get("/debug/siblings/").await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn bad_input_is_told_what_is_wrong_with_it() {
    let site = Site::open(None).await;
    let wrong: [(&str, &str); 9] = [
        ("", "the body is not of the form"),
        ("{", "the body is not of the form"),
        ("[]", "the body is not of the form"),
        ("{}", "valueBase64 is missing"),
        (r#"{"valueBase64":null}"#, "valueBase64 is missing"),
        (r#"{"valueBase64":7}"#, "the body is not of the form"),
        (r#"{"valueBase64":"*"}"#, "valueBase64 is not base64"),
        (r#"{"valueBase64":"","opId":""}"#, "operation id has 0 bytes, allowed are 1 to 64"),
        (r#"{"valueBase64":"","contxt":"x"}"#, "unknown field `contxt`"),
    ];
    for (body, reason) in wrong {
        let told = site.ask(Method::PUT, "/kv/a", &[], body).await;
        assert_eq!(told.status, StatusCode::BAD_REQUEST, "{body}");
        assert!(told.error().contains(reason), "{body}: {}", told.error());
    }
    let told = site.put("/kv/a", &json!({"valueBase64": "", "context": "AAAA"})).await;
    assert_eq!(told.status, StatusCode::BAD_REQUEST);
    assert!(told.error().contains("context"), "{}", told.error());
    let told = site.ask(Method::DELETE, "/kv/a", &[], "not json").await;
    assert_eq!(told.status, StatusCode::BAD_REQUEST);
    assert_eq!(site.get("/kv/a").await.status, StatusCode::NOT_FOUND, "nothing was written");
}

#[tokio::test]
async fn bad_terms_are_told_what_is_wrong_with_them() {
    let site = Site::open(None).await;
    for query in ["r=0", "r=256", "r=x", "w=1", "deadline_ms=0", "consistency=maybe", "retry=1", "nonsense"] {
        let told = site.get(&format!("/kv/a?{query}")).await;
        assert_eq!(told.status, StatusCode::BAD_REQUEST, "{query}");
        assert!(told.error().contains(query.split('=').next().unwrap()), "{query}: {}", told.error());
    }
    let told = site.ask(Method::GET, "/kv/a", &[("X-Deadline-Ms", "soon")], "").await;
    assert_eq!(told.status, StatusCode::BAD_REQUEST);
    assert!(told.error().contains("x-deadline-ms"));
    assert_eq!(site.get("/debug/siblings/a?r=1").await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_value_beyond_10_mib_is_too_large_and_one_of_10_mib_is_not() {
    let site = Site::open(None).await;
    let most = vec![b'v'; 10 << 20];
    let raw = [("content-type", "application/octet-stream")];

    let told = site.put("/kv/a", &json!({"valueBase64": BASE64.encode(&most)})).await;
    assert_eq!(told.status, StatusCode::OK);
    assert_eq!(site.ask(Method::PUT, "/kv/a", &raw, most.clone()).await.status, StatusCode::OK);
    assert_eq!(site.ask(Method::GET, "/kv/a", &[("accept", raw[0].1)], "").await.body, most);

    let mut more = most;
    more.push(b'v');
    let told = site.put("/kv/a", &json!({"valueBase64": BASE64.encode(&more)})).await;
    assert_eq!(told.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(told.error().contains("10485760"), "{}", told.error());
    assert_eq!(site.ask(Method::PUT, "/kv/a", &raw, more).await.status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn a_body_that_announces_too_much_is_refused_before_it_comes() {
    let site = Site::open(None).await;
    let mut socket = TcpStream::connect(site.address).await.unwrap();
    socket.write_all(b"PUT /kv/a HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999999\r\n\r\n").await.unwrap();
    let mut answer = vec![0; 12];
    socket.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 413");
}

#[tokio::test]
async fn a_quorum_that_cannot_be_met_is_named_with_its_numbers() {
    let site = Site::open(None).await;
    let told = site.get("/kv/a?r=2").await;
    assert_eq!(told.status, StatusCode::BAD_REQUEST);
    assert_eq!((&told.json()["asked"], &told.json()["copies"]), (&json!(2), &json!(1)));

    let unmet = Refusal::from(Failure::QuorumNotMet { needed: 2, got: 1 }).into_response();
    assert_eq!(unmet.status(), StatusCode::SERVICE_UNAVAILABLE);
    let body = unmet.into_body().collect().await.unwrap().to_bytes();
    let json: Json = serde_json::from_slice(&body).unwrap();
    assert_eq!((&json["needed"], &json["got"]), (&json!(2), &json!(1)));
}

#[tokio::test]
async fn a_full_node_says_when_to_come_again() {
    let full = Refusal::from(Failure::Overloaded { retry_after_ms: 50 }).into_response();
    assert_eq!(full.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(full.headers()["retry-after"], "1");
}

#[tokio::test]
async fn a_write_with_a_context_replaces_what_its_reader_saw_and_nothing_else() {
    let site = Site::open(None).await;
    let first = site.put_text("/kv/a", "one").await;
    let read = site.get("/kv/a").await;
    assert_eq!(read.json()["context"], json!(read.context()), "the body and the header carry the same");
    site.put("/kv/a", &json!({"valueBase64": BASE64.encode("unseen"), "context": "none"})).await;

    let headers = [("X-Sloop-Context", read.context())];
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let body = json!({"valueBase64": BASE64.encode("two")}).to_string();
    let second = site.ask(Method::PUT, "/kv/a", &headers, body).await;

    assert_eq!(second.json()["superseded"], json!([first.json()["dot"]]));
    let siblings = site.get("/kv/a").await.json()["siblings"].clone();
    let values: Vec<_> = siblings.as_array().unwrap().iter().map(|sibling| sibling["valueBase64"].clone()).collect();
    assert_eq!(values, [json!(BASE64.encode("unseen")), json!(BASE64.encode("two"))]);
}

#[tokio::test]
async fn a_delete_with_a_context_leaves_what_its_reader_never_saw() {
    let site = Site::open(None).await;
    let seen = site.put_text("/kv/a", "seen").await.context();
    site.put("/kv/a", &json!({"valueBase64": BASE64.encode("unseen"), "context": "none"})).await;

    site.ask(Method::DELETE, "/kv/a", &[("x-sloop-context", &seen)], "").await;

    let json = site.get("/kv/a").await.json();
    assert_eq!(json["valueBase64"], json!(BASE64.encode("unseen")));
    assert_eq!(json["siblings"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_context_of_another_key_is_refused() {
    let site = Site::open(None).await;
    let other = site.put_text("/kv/x", "one").await.context();
    let told = site.put("/kv/y", &json!({"valueBase64": "", "context": other})).await;
    assert_eq!(told.status, StatusCode::BAD_REQUEST);
    assert!(told.error().contains("another key"));

    let body = json!({"valueBase64": "", "context": "none"}).to_string();
    let told = site.ask(Method::PUT, "/kv/x", &[("x-sloop-context", &other)], body).await;
    assert_eq!(told.status, StatusCode::BAD_REQUEST, "two contexts that differ");
}

#[tokio::test]
async fn raw_bytes_go_both_ways() {
    let site = Site::open(None).await;
    let raw = "application/octet-stream";
    let put = site.ask(Method::PUT, "/kv/a", &[("content-type", raw), ("x-sloop-op-id", "o")], &b"\0\xff"[..]).await;
    assert_eq!(put.status, StatusCode::OK);
    site.put("/kv/a", &json!({"valueBase64": BASE64.encode("later"), "context": "none"})).await;

    let told = site.ask(Method::GET, "/kv/a", &[("accept", "text/html, application/octet-stream;q=0.9")], "").await;

    assert_eq!((told.status, &told.body[..]), (StatusCode::OK, &b"later"[..]));
    assert_eq!(told.header("content-type"), raw);
    assert_eq!(told.header("x-sloop-siblings"), "2");
    assert_eq!(told.context(), site.get("/kv/a").await.context());
    let absent = site.ask(Method::GET, "/kv/b", &[("accept", raw)], "").await;
    assert_eq!(absent.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_reply_says_what_it_got() {
    let site = Site::open(None).await;
    let put = site.ask(Method::PUT, "/kv/a?w=1&consistency=strict&deadline_ms=100", &[], r#"{"valueBase64":""}"#).await;
    let level = json!({"n": 1, "quorum": 1, "owners": 1, "fallbacks": 0, "hedged": false});
    assert_eq!(put.json()["level"], level);
    let got = site.get("/kv/a?r=1").await;
    assert_eq!(got.json()["level"], level);
    assert_eq!(got.header("x-sloop-level"), "n=1, quorum=1, owners=1, fallbacks=0, hedged=false");
}

#[tokio::test]
async fn a_retry_under_the_same_operation_id_is_one_write() {
    let site = Site::open(None).await;
    let body = json!({"valueBase64": "aGk=", "opId": "once"});
    let first = site.put("/kv/a", &body).await.json();
    let again = site.put("/kv/a?retry=true", &body).await.json();
    assert_eq!((&first["dot"], &first["remembered"]), (&again["dot"], &json!(false)));
    assert_eq!(again["remembered"], json!(true));

    let shown = [("x-sloop-op-id", "once")];
    let in_header = site.ask(Method::PUT, "/kv/a", &shown, r#"{"valueBase64":"aGk="}"#).await;
    assert_eq!(in_header.json()["remembered"], json!(true));
    let differs = site.ask(Method::PUT, "/kv/a", &[("x-sloop-op-id", "twice")], body.to_string()).await;
    assert_eq!(differs.status, StatusCode::BAD_REQUEST);

    let other = site.put("/kv/a", &json!({"valueBase64": "", "opId": "once"})).await;
    assert_eq!(other.status, StatusCode::CONFLICT);
    assert!(other.error().contains("fresh id"));
}

#[tokio::test]
async fn the_node_tells_about_itself() {
    let site = Site::open(None).await;
    let info = site.get("/admin/info").await.json();
    assert_eq!((&info["name"], &info["cores"]), (&json!("node-a"), &json!(2)));
    assert_eq!(info["version"], json!(env!("CARGO_PKG_VERSION")));

    let told = site.get("/metrics").await;
    assert_eq!(told.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    assert!(String::from_utf8_lossy(&told.body).contains("sloop_build_info"));
}

#[tokio::test]
async fn a_snapshot_is_streamed() {
    let site = Site::open(None).await;
    let told = site.get("/admin/snapshot").await;
    assert_eq!((told.status, &told.body[..]), (StatusCode::OK, &b"snapshot"[..]));
    assert_eq!(told.header("content-type"), "application/octet-stream");
    assert_eq!(site.get("/admin/snapshot").await.status, StatusCode::OK, "the one before has ended");
}
