//! The document against the routes, and against what they answer.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

fn document() -> Json {
    serde_json::from_str(crate::control::http::openapi::DOCUMENT).unwrap()
}

fn paths(document: &Json) -> BTreeMap<String, BTreeSet<String>> {
    let methods = |path: &Json| path.as_object().unwrap().keys().map(|method| method.to_uppercase()).collect();
    let paths = document["paths"].as_object().unwrap();
    paths.iter().map(|(path, item)| (path.clone(), methods(item))).collect()
}

/// What a reference stands for.
fn resolve<'a>(document: &'a Json, schema: &'a Json) -> &'a Json {
    match schema["$ref"].as_str() {
        Some(reference) => {
            let pointer = reference.strip_prefix('#').unwrap();
            document.pointer(pointer).unwrap_or_else(|| panic!("{reference} leads nowhere"))
        }
        None => schema,
    }
}

fn each_reference(json: &Json, visit: &mut impl FnMut(&Json)) {
    match json {
        Json::Object(fields) => {
            if fields.contains_key("$ref") {
                visit(json);
            }
            fields.values().for_each(|field| each_reference(field, visit));
        }
        Json::Array(items) => items.iter().for_each(|item| each_reference(item, visit)),
        _ => {}
    }
}

/// Why a value is not what a schema says: the few words of JSON Schema that the document uses.
fn misfit(document: &Json, schema: &Json, value: &Json, at: &str) -> Option<String> {
    let schema = resolve(document, schema);
    let types: Vec<&str> = match &schema["type"] {
        Json::Array(types) => types.iter().filter_map(Json::as_str).collect(),
        one => one.as_str().into_iter().collect(),
    };
    let is = |name: &&str| match *name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("{at}: the type {other:?}"),
    };
    if !types.iter().any(is) {
        return Some(format!("{at}: {value} is none of {types:?}"));
    }
    if schema["enum"].as_array().is_some_and(|allowed| !allowed.contains(value)) {
        return Some(format!("{at}: {value} is not listed"));
    }
    match value {
        Json::Array(items) => items.iter().find_map(|item| misfit(document, &schema["items"], item, at)),
        Json::Object(fields) => {
            let missing = schema["required"].as_array().into_iter().flatten();
            let missing = missing.filter_map(Json::as_str).find(|name| !fields.contains_key(*name));
            if let Some(missing) = missing {
                return Some(format!("{at}: {missing} is missing in {value}"));
            }
            fields.iter().find_map(|(name, field)| {
                let known = schema["properties"].get(name).or(schema.get("additionalProperties"));
                match known {
                    Some(known) => misfit(document, known, field, &format!("{at}.{name}")),
                    None if schema.get("properties").is_none() => None,
                    None => Some(format!("{at}: {name} is not documented")),
                }
            })
        }
        _ => None,
    }
}

/// The paths that can be read.
fn gets(document: &Json) -> Vec<String> {
    let paths = paths(document).into_iter().filter(|(_, methods)| methods.contains("GET"));
    paths.map(|(path, _)| path).collect()
}

/// Every order, about the node itself.
fn orders() -> [(&'static str, Json); 7] {
    let node = json!({"node": "node-a"});
    [
        ("/admin/cluster/leave", node.clone()),
        ("/admin/cluster/remove", node.clone()),
        ("/admin/cluster/replace", node),
        ("/admin/cluster/weight", json!({"node": "node-a", "weight": 2})),
        ("/admin/cluster/zone", json!({"node": "node-a", "zone": "z"})),
        ("/admin/cluster/commit", json!({})),
        ("/admin/cluster/clear", json!({})),
    ]
}

#[tokio::test]
async fn document_and_routes_name_the_same_paths_and_methods() {
    let site = Site::open(None).await;
    let mut served = BTreeMap::new();
    for (path, _) in routes() {
        // Without a key the same handlers say that one is missing.
        if path.ends_with('/') {
            assert!(routes().iter().any(|(other, _)| *other == format!("{path}{{*key}}")), "{path}");
            continue;
        }
        let told = site.ask(Method::PATCH, &path.replace("{*key}", "k"), &[], "").await;
        assert_eq!(told.status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
        let allowed = told.header("allow").split(',').map(|method| method.trim().to_owned());
        let methods: BTreeSet<String> = allowed.filter(|method| method != "HEAD").collect();
        served.insert(path.replace("{*key}", "{key}"), methods);
    }
    assert_eq!(served, paths(&document()));
}

#[test]
fn the_document_holds_together() {
    let document = document();
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let mut used = BTreeSet::new();
    each_reference(&document, &mut |reference| {
        resolve(&document, reference);
        used.insert(reference["$ref"].as_str().unwrap().to_owned());
    });
    for kind in ["schemas", "parameters", "responses"] {
        for name in document["components"][kind].as_object().unwrap().keys() {
            assert!(used.contains(&format!("#/components/{kind}/{name}")), "{name} is of no use");
        }
    }
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            assert!(ids.insert(operation["operationId"].as_str().unwrap()), "{path} {method}");
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let in_path = parameters.map(|parameter| resolve(&document, parameter)).filter(|it| it["in"] == "path");
            assert_eq!(in_path.count(), path.matches('{').count(), "{path} {method}");
            let is_open = operation["security"] == json!([]);
            assert_eq!(is_open, OPEN_PATHS.contains(&path.as_str()), "{path}: whether it wants the token");
            assert_eq!(is_open, operation["responses"].get("401").is_none(), "{path}");
        }
    }
}

#[tokio::test]
async fn what_is_answered_is_what_the_document_says() {
    let document = document();
    let site = Site::obeying(None, |_| Ok(Box::new(orders::plan()))).await;
    let fits = |path: &str, method: &str, told: &Told| {
        let responses = &document["paths"][path][method]["responses"];
        let response = resolve(&document, &responses[told.status.as_str()]);
        let content_type = told.header("content-type").split(';').next().unwrap();
        let content = &response["content"][content_type];
        assert!(content.is_object(), "{method} {path}: {} {content_type}", told.status);
        if content_type == "application/json" {
            let misfit = misfit(&document, &content["schema"], &told.json(), path);
            assert_eq!(misfit, None, "{method} {path}");
        }
    };
    let written = json!({"valueBase64": "aGk=", "opId": "o"});
    fits("/kv/{key}", "put", &site.put("/kv/k", &written).await);
    fits("/kv/{key}", "put", &site.put("/kv/k", &json!({"valueBase64": "", "opId": "o"})).await);
    fits("/kv/{key}", "put", &site.put("/kv/k", &json!({"value": ""})).await);
    for path in gets(&document) {
        fits(&path, "get", &site.get(&path.replace("{key}", "k")).await);
    }
    let raw = site.ask(Method::GET, "/kv/k", &[("accept", "application/octet-stream")], "").await;
    fits("/kv/{key}", "get", &raw);
    fits("/kv/{key}", "get", &site.get("/kv/k?r=9").await);
    fits("/kv/{key}", "delete", &site.delete("/kv/k").await);
    fits("/kv/{key}", "get", &site.get("/kv/k").await);
    fits("/debug/siblings/{key}", "get", &site.get("/debug/siblings/k").await);

    let refusals = [("/admin/cluster/leave", json!({"node": "node-x"})), ("/admin/cluster/zone", json!({"zone": ""}))];
    for (path, body) in refusals {
        fits(path, "post", &site.post(path, &body).await);
    }
    for (path, body) in orders() {
        fits(path, "post", &site.post(path, &body).await);
    }

    let (node, _) = testing::node(Some("secret"));
    let stranger = Site::of(node, None);
    for path in gets(&document) {
        fits(&path, "get", &stranger.get(&path.replace("{key}", "k")).await);
    }
    for (path, body) in orders() {
        fits(path, "post", &stranger.post(path, &body).await);
    }
    assert_eq!(site.get("/admin/openapi.json").await.json(), document);
}
