//! SEEDS section 1, line by line, against the real node: each endpoint with the seed's fields, and bad input with the
//! stated code and a message that helps.

use std::io::Write;
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sloop::protocol::causality::Context;
use sloop::protocol::types::{ActorId, ClusterId, Dot, Key};

use crate::harness::{Home, Reply, base64, exchange, unbase64};

/// That `value` is an object with just these fields.
fn assert_fields(value: &Value, fields: &[&str]) {
    let found: Vec<&str> = value.as_object().expect("an object").keys().map(String::as_str).collect();
    for field in fields {
        assert!(found.contains(field), "{field} is missing among {found:?}");
    }
}

fn is_clock(clock: &Value) -> bool {
    clock.as_object().is_some_and(|nodes| !nodes.is_empty() && nodes.values().all(|counter| counter.as_u64() > Some(0)))
}

/// That a request is refused so, with a message that has these words in it.
fn assert_refused(reply: &Reply, status: u16, words: &str) {
    assert_eq!(reply.status, status, "{reply:?}");
    let error = reply.error();
    assert!(error.contains(words), "{error:?} does not say {words:?}");
}

#[test]
fn put_answers_as_the_seed_did() {
    let home = Home::new();
    let node = home.start_with(&["--cores", "2", "--name", "node-a"]);
    for body in [
        json!({"valueBase64": "aGk="}),
        json!({"valueBase64": "aGk=", "nodeId": null, "opId": null}),
        json!({"valueBase64": "aGk=", "nodeId": "node-z", "opId": "op-1"}),
        json!({"valueBase64": ""}),
    ] {
        let put = node.put_json("k", &body).ok();
        assert_fields(&put, &["ok", "tombstone", "lwwMillis", "vectorClock"]);
        assert_eq!((&put["ok"], &put["tombstone"]), (&json!(true), &json!(false)));
        assert!(put["lwwMillis"].as_u64() > Some(1_600_000_000_000), "{put}");
        let nodes: Vec<&String> = put["vectorClock"].as_object().unwrap().keys().collect();
        assert_eq!(nodes, ["node-a"], "nodeId is a label, never a clock's actor");
        assert!(is_clock(&put["vectorClock"]));
    }
    assert_eq!(node.values("k"), [""], "an empty value is a value");
}

#[test]
fn delete_answers_as_the_seed_did() {
    let home = Home::new();
    let node = home.start();
    node.put("k", "hi");
    let with_body = json!({"nodeId": "a", "opId": "op-1"}).to_string();
    for (key, body) in [("k", ""), ("k", "{}"), ("k", &with_body), ("never-written", "")] {
        let deleted = node.request("DELETE", &format!("/kv/{key}"), &[], body.as_bytes()).ok();
        assert_fields(&deleted, &["ok", "tombstone", "lwwMillis", "vectorClock"]);
        assert_eq!((&deleted["ok"], &deleted["tombstone"]), (&json!(true), &json!(true)));
        assert!(is_clock(&deleted["vectorClock"]));
    }
    assert_eq!(node.get("/kv/k").status, 404);
}

#[test]
fn get_answers_as_the_seed_did() {
    let home = Home::new();
    let node = home.start();
    let absent = node.get("/kv/k");
    assert_eq!((absent.status, absent.json()), (404, json!({"found": false})));

    node.put("k", "hi");
    let found = node.request("GET", "/kv/k", &[("X-Deadline-Ms", "1000")], b"").ok();
    assert_fields(&found, &["found", "valueBase64", "vectorClock"]);
    assert_eq!((&found["found"], &found["valueBase64"]), (&json!(true), &json!("aGk=")));
    assert!(is_clock(&found["vectorClock"]));

    node.delete("/kv/k").ok();
    let deleted = node.get("/kv/k");
    assert_eq!((deleted.status, deleted.json()), (404, json!({"found": false})));
}

#[test]
fn debug_siblings_shows_this_nodes_own_copy() {
    let home = Home::new();
    let node = home.start();
    assert_eq!(node.get("/debug/siblings/k").ok()["siblings"], json!([]));

    node.put("k", "hi");
    node.delete("/kv/k").ok();
    let beside = json!({"valueBase64": base64("beside"), "context": "none"});
    node.put_json("k", &beside).ok();

    let copies = node.get("/debug/siblings/k").ok();
    assert_eq!(copies["key"], "k");
    let siblings = copies["siblings"].as_array().unwrap();
    assert_eq!(siblings.len(), 2);
    for sibling in siblings {
        assert_fields(sibling, &["tombstone", "lwwMillis", "valueBase64", "vectorClock"]);
        assert!(is_clock(&sibling["vectorClock"]));
        assert_eq!(sibling["tombstone"] == json!(true), sibling["valueBase64"].is_null());
    }
}

#[test]
fn health_needs_no_token_and_everything_else_does() {
    let home = Home::new();
    let node = home.start_with(&["--cores", "1", "--token", "secret"]);
    for open in ["/admin/health", "/health/live", "/health/ready"] {
        assert_eq!(node.get(open).ok()["status"], "ok", "{open}");
    }
    for path in ["/kv/k", "/debug/siblings/k", "/metrics", "/admin/info", "/nowhere"] {
        for shown in [None, Some("Bearer wrong"), Some("secret"), Some("Bearer ")] {
            let header = shown.map(|shown| ("Authorization", shown));
            let reply = node.request("GET", path, header.as_slice(), b"");
            assert_refused(&reply, 401, "token");
            assert_eq!(reply.headers["www-authenticate"], "Bearer");
        }
    }
    let shown = [("Authorization", "Bearer secret")];
    let body = json!({"valueBase64": "aGk="}).to_string();
    node.request("PUT", "/kv/k", &shown, body.as_bytes()).ok();
    assert_eq!(node.request("GET", "/kv/k", &shown, b"").ok()["valueBase64"], "aGk=");
}

#[test]
fn bad_input_is_refused_with_the_stated_code_and_a_message_that_helps() {
    let home = Home::new();
    let node = home.start();
    let put = |body: &str| node.request("PUT", "/kv/k", &[], body.as_bytes());

    for (body, words) in [
        ("", "body"),
        ("hi", "JSON"),
        ("[]", "JSON object"),
        ("{}", "valueBase64 is missing"),
        (r#"{"valueBase64": null}"#, "valueBase64 is missing"),
        (r#"{"valueBase64": 7}"#, "string"),
        (r#"{"valueBase64": "a&b"}"#, "valueBase64 is not base64"),
        (r#"{"valueBase64": "aGk=", "opId": ""}"#, "operation id has 0 bytes"),
        (r#"{"valueBase64": "aGk=", "opId": 7}"#, "string"),
        (r#"{"valueBase64": "aGk=", "nodeId": 7}"#, "string"),
        (r#"{"valueBase64": "aGk=", "context": "bm9uc2Vuc2U="}"#, "context"),
        (r#"{"valueBase64": "aGk=", "surprise": 1}"#, "surprise"),
        (r#"{"valueBase64": "aGk="#, "body"),
    ] {
        assert_refused(&put(body), 400, words);
    }
    let long = "x".repeat(65);
    assert_refused(&put(&json!({"valueBase64": "", "opId": long}).to_string()), 400, "operation id has 65 bytes");
    assert_refused(&node.delete("/kv/"), 400, "key has 0 bytes");
    assert_refused(&node.get(&format!("/kv/{}", "k".repeat(1_025))), 400, "key has 1025 bytes");
    assert_refused(&node.request("DELETE", "/kv/k", &[], br#"{"valueBase64": "aGk="}"#), 400, "DELETE");
    for (query, words) in [("r=x", "r:"), ("r=0", "r:"), ("r=3", "copies"), ("surprise=1", "surprise")] {
        assert_refused(&node.get(&format!("/kv/k?{query}")), 400, words);
    }
    for deadline in ["0", "soon", "-1", "99999999999"] {
        assert_refused(&node.request("GET", "/kv/k", &[("X-Deadline-Ms", deadline)], b""), 400, "deadline");
    }

    assert_refused(&node.get("/nowhere"), 404, "not found");
    assert_refused(&node.get("/"), 404, "not found");
    for (method, path) in [("POST", "/kv/k"), ("PUT", "/admin/health"), ("DELETE", "/debug/siblings/k")] {
        let refused = node.request(method, path, &[], b"");
        assert_refused(&refused, 405, "method");
        assert!(refused.headers.contains_key("allow"), "{refused:?}");
    }
    assert_eq!(node.copies("k"), Vec::<Value>::new(), "nothing was written");
}

#[test]
fn a_value_of_10_mib_is_taken_and_a_larger_one_is_413() {
    let home = Home::new();
    let node = home.start();
    let raw = [("Content-Type", "application/octet-stream")];
    let largest = vec![b'x'; 10 << 20];
    node.request("PUT", "/kv/large", &raw, &largest).ok();
    let back = node.request("GET", "/kv/large", &[("Accept", "application/octet-stream")], b"");
    assert!(back.status == 200 && back.body == largest, "{} with {} bytes", back.status, back.body.len());
    let in_json = json!({"valueBase64": base64(&"x".repeat(10 << 20))}).to_string();
    node.request("PUT", "/kv/large", &[], in_json.as_bytes()).ok();

    assert_refused(&node.request("PUT", "/kv/larger", &raw, &vec![b'x'; (10 << 20) + 1]), 413, "");
    assert_refused(&node.request("PUT", "/kv/larger", &raw, &vec![b'x'; 20 << 20]), 413, "10 MiB");
    assert_eq!(node.get("/kv/larger").status, 404);
}

#[test]
fn bytes_that_are_no_http_are_answered_and_the_node_goes_on() {
    let home = Home::new();
    let node = home.start();
    for nonsense in ["\r\n\r\n\0\0\0\0", "GET\r\n\r\n", "GET /kv/k HTTP/9.9\r\n\r\n", "SLOP\x17\0\x01\0\x01\0\r\n\r\n"]
    {
        assert_eq!(exchange(node.http, nonsense.as_bytes()).status, 400, "{nonsense:?}");
    }
    node.put("k", "hi");
}

#[test]
fn keys_are_the_rest_of_the_path_decoded() {
    let home = Home::new();
    let node = home.start();
    node.put("a/b%20c", "slash");
    node.put("%ff%00", "binary");
    assert_eq!(node.values("a%2Fb%20c"), ["slash"], "an encoded slash is a slash");
    assert_eq!(node.values("%FF%00"), ["binary"]);
    assert_eq!(node.get("/kv/a").status, 404);
}

#[test]
fn contexts_travel_in_the_body_and_in_the_header() {
    let home = Home::new();
    let node = home.start();
    node.put("k", "one");
    let read = node.get("/kv/k");
    let context = read.headers["x-sloop-context"].clone();
    assert_eq!(read.ok()["context"], json!(context));

    node.put_json("k", &json!({"valueBase64": base64("two"), "context": context})).ok();
    let raw = [("Content-Type", "application/octet-stream"), ("X-Sloop-Context", context.as_str())];
    node.request("PUT", "/kv/k", &raw, b"three").ok();
    assert_eq!(node.values("k"), ["three", "two"], "both had seen one, and neither the other");

    let refused = node.put_json("another", &json!({"valueBase64": "", "context": context}));
    assert_refused(&refused, 400, "another key");
    let raw = node.request("GET", "/kv/k", &[("Accept", "application/octet-stream")], b"");
    assert_eq!((raw.status, &*raw.headers["x-sloop-siblings"]), (200, "2"));
}

#[test]
fn a_reply_says_what_it_got() {
    let home = Home::new();
    let node = home.start();
    let first = node.put("k", "one");
    let second = node.put("k", "two");
    assert_eq!(second["superseded"], json!([first["dot"]]));
    for reply in [&second, &node.get("/kv/k?r=1&deadline_ms=1000").ok()] {
        let level = &reply["level"];
        assert_eq!((&level["n"], &level["quorum"], &level["owners"]), (&json!(1), &json!(1), &json!(1)), "{reply}");
    }
    assert_eq!(unbase64(&node.get("/kv/k").ok()["valueBase64"]), "two");
}

#[test]
fn metrics_count_what_was_done() {
    let home = Home::new();
    let node = home.start();
    for n in 0..10 {
        node.put(&format!("k{n}"), "v");
    }
    assert_eq!(node.metric("sloop_build_info"), 1.0);
    assert!(node.metric("sloop_wal_records_total") >= 10.0);
    assert!(node.metric("sloop_wal_syncs_total") >= 1.0);
    assert!(node.metric("sloop_operations_total") >= 10.0);
}

/// A context is checked for damage, not for its author: one that names writes that never were would hide those to
/// come, and the node must neither believe it nor fall over it.
#[test]
fn a_forged_context_is_refused_and_the_node_goes_on() {
    let home = Home::new();
    let mut node = home.start_with(&["--cores", "1"]);
    let cluster = node.get("/admin/info").ok()["cluster"].as_str().map(|hex| u128::from_str_radix(hex, 16));
    let cluster = ClusterId(cluster.unwrap().unwrap());
    let dot = node.put("k", "v")["dot"].as_str().unwrap().to_owned();
    let actor = ActorId(u64::from_str_radix(dot.split(':').next().unwrap(), 16).unwrap());
    let key = Key::new("k").unwrap();

    for counter in [3, u64::MAX] {
        let context = Context::of([Dot { actor, counter }].into_iter().collect()).seal(cluster, &key);
        let body = json!({"valueBase64": "", "context": STANDARD.encode(context)});
        assert_refused(&node.put_json("k", &body), 400, "context");
        node.put("k", "w");
    }
    assert!(node.is_running());
}

/// Where promtool is installed (Debian: prometheus), it has the last word on the format.
#[test]
fn promtool_accepts_the_metrics() {
    let home = Home::new();
    let node = home.start();
    node.put("k", "v");
    let tool = Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let Ok(mut tool) = tool else {
        return println!("promtool is not installed: the metrics were not checked");
    };
    tool.stdin.take().unwrap().write_all(&node.get("/metrics").body).unwrap();
    let said = tool.wait_with_output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
}

#[test]
fn a_merkle_snapshot_answers_as_the_seed_did_and_tells_where_contents_differ() {
    const PATH: &str = "/admin/anti-entropy/merkle-snapshot";
    let home = Home::new();
    let node = home.start_with(&["--cores", "2"]);
    let empty = node.get(PATH).ok();
    assert_fields(&empty, &["rootHashBase64", "leafCount", "digests"]);
    assert_eq!((&empty["leafCount"], &empty["digests"]), (&json!(1_024), &json!([])));

    for n in 0..50 {
        node.put(&format!("key-{n}"), "x");
    }
    let before = node.get(PATH).ok();
    assert_ne!(before["rootHashBase64"], empty["rootHashBase64"]);
    assert!(before["digests"][0]["token"].is_i64() && before["digests"][0]["digestBase64"].is_string(), "{before}");
    assert_eq!(node.get(PATH).ok(), before, "equal contents give equal roots");

    node.put("key-7", "y");
    let after = node.get(PATH).ok();
    let digests = |tree: &Value| tree["digests"].as_array().unwrap().clone();
    let differing = digests(&before).iter().zip(&digests(&after)).filter(|(one, other)| one != other).count();
    assert_eq!(differing, 1);
    let token =
        digests(&after).iter().zip(&digests(&before)).find(|(one, other)| one != other).unwrap().0["token"].clone();
    let rest = node.get(&format!("{PATH}?startToken={token}&endToken=9223372036854775807&leafCount=16")).ok();
    assert_eq!(rest["leafCount"], 16);
    assert!(digests(&rest).iter().all(|leaf| leaf["token"].as_i64() >= token.as_i64()));

    for (query, words) in [
        ("leafCount=3", "power of two"),
        ("leafCount=0", "leafCount"),
        ("leafCount=1048576", "power of two"),
        ("startToken=x", "startToken"),
        ("startToken=9223372036854775808", "64 bits"),
        ("startToken=5&endToken=4", "before it starts"),
        ("leaves=4", "unknown parameter"),
    ] {
        assert_refused(&node.get(&format!("{PATH}?{query}")), 400, words);
    }
}
