//! Orders of operators: what reaches the membership, and how its answers are told.

use super::*;
use crate::protocol::membership::{OrderRefused, Plan, PlannedLoad, Staged, StagedChange};
use crate::protocol::ring::{Change, LayoutRow, LayoutStamp, Step, View, Wanted};
use crate::protocol::types::NodeId;

fn id() -> NodeId {
    NodeId::of("node-a")
}

/// Of everything one.
pub(super) fn plan() -> Plan {
    let staged = |name: &str, what| Staged { node: NodeId::of(name), name: name.into(), what };
    let load = |name: &str, before, after, gains| {
        let node = NodeId::of(name);
        PlannedLoad { node, name: name.into(), before, after, gains }
    };
    Plan {
        stored: LayoutStamp { number: 3, hash: 0xabc },
        pending: None,
        staged: vec![
            staged("node-b", StagedChange::Join),
            staged("node-a", StagedChange::Weight { from: 1, to: 2 }),
            staged("node-c", StagedChange::Replace { is_there: false }),
        ],
        loads: vec![load("node-b", 0, 8, 8), load("node-a", 16, 16, 0)],
        copies: 2,
        refusal: Some(OrderRefused::NotThereYet { name: "node-c".into() }),
    }
}

#[tokio::test]
async fn a_plan_says_what_is_staged_what_it_costs_and_why_it_cannot_be_committed() {
    let site = Site::obeying(None, |order| {
        assert_eq!(order, Order::Plan);
        Ok(Box::new(plan()))
    })
    .await;
    let told = site.get("/admin/cluster/plan").await.json();
    assert_eq!(told["stored"], json!({"number": 3, "hash": "0000000000000abc"}));
    assert_eq!((&told["pending"], &told["copies"]), (&json!(null), &json!(2)));
    let bare = json!({"node": "node-b", "change": "join", "from": null, "to": null, "isThere": null});
    assert_eq!((&told["staged"][0]["node"], &told["staged"][1]), (&json!("node-a"), &bare), "by name");
    assert_eq!((&told["staged"][0]["from"], &told["staged"][0]["to"]), (&json!("1"), &json!("2")));
    assert_eq!(told["staged"][2]["isThere"], json!(false));
    // The node holds 600 bytes in 16 partitions, and fetches 1 MiB a second.
    let gain = json!({"name": "node-b", "before": 0, "after": 8, "gains": 8, "estimatedBytes": 300, "estimatedMs": 0});
    assert_eq!((&told["nodes"][0]["name"], &told["nodes"][1]), (&json!("node-a"), &gain), "by name");
    assert_eq!((&told["rate"], &told["estimatedBytes"]), (&json!(1 << 20), &json!(300)));
    assert!(told["refusal"].as_str().unwrap().contains("--name node-c and --join"), "{told}");
}

#[tokio::test]
async fn each_order_reaches_the_membership_as_it_was_given() {
    let (hears, heard) = flume::unbounded();
    let site = Site::obeying(None, move |order| {
        hears.send(order).unwrap();
        Ok(Box::new(plan()))
    })
    .await;
    let (node, by) = (json!({"node": "node-a"}), json!({"node": "node-a", "by": "node-a"}));
    for (path, body, order) in [
        ("leave", &node, Order::Leave(id())),
        ("remove", &node, Order::Remove(id())),
        ("replace", &node, Order::Replace { node: id(), by: None }),
        ("replace", &by, Order::Replace { node: id(), by: Some(id()) }),
        ("weight", &json!({"node": "node-a", "weight": 7}), Order::Weight(id(), 7)),
        ("zone", &json!({"node": "node-a", "zone": "z"}), Order::Zone(id(), "z".into())),
        ("commit", &json!({}), Order::Commit),
        ("clear", &json!({}), Order::Clear),
    ] {
        let told = site.post(&format!("/admin/cluster/{path}"), body).await;
        assert_eq!(told.status, StatusCode::OK, "{path}: {:?}", told.body);
        assert_eq!(told.json()["staged"].as_array().unwrap().len(), 3, "{path}");
        assert_eq!(heard.try_recv(), Ok(order), "{path}");
    }
    let bare = site.ask(Method::POST, "/admin/cluster/commit", &[], "").await;
    assert_eq!(bare.status, StatusCode::OK, "there is nothing to be said");
}

#[tokio::test]
async fn what_cannot_be_done_says_why_and_how_bad_it_is() {
    let site = Site::obeying(None, |order| {
        Err(match order {
            Order::Weight(..) => OrderRefused::Invalid { reason: "weight: 0".to_owned() },
            Order::Zone(..) => OrderRefused::NoSuchNode,
            _ => OrderRefused::StillUp { name: "node-a".into() },
        })
    })
    .await;
    let node = json!({"node": "node-a"});
    let weight = |weight: i32| json!({"node": "node-a", "weight": weight});
    for (path, body, status, why) in [
        ("remove", &node, StatusCode::CONFLICT, "sloop cluster leave node-a"),
        ("weight", &weight(0), StatusCode::BAD_REQUEST, "weight: 0"),
        ("zone", &json!({"node": "node-a", "zone": ""}), StatusCode::NOT_FOUND, "no such node"),
        ("leave", &json!({"node": "node-x"}), StatusCode::NOT_FOUND, "no node is called \"node-x\""),
        ("replace", &json!({"node": "node-a", "by": "node-y"}), StatusCode::NOT_FOUND, "\"node-y\""),
        ("leave", &json!({}), StatusCode::BAD_REQUEST, "{\"node\": \"..\"}"),
        ("leave", &json!({"node": "node-a", "yes": true}), StatusCode::BAD_REQUEST, "yes"),
        ("leave", &json!(["node-a"]), StatusCode::BAD_REQUEST, "no JSON object"),
        ("weight", &weight(-1), StatusCode::BAD_REQUEST, "-1"),
        ("commit", &node, StatusCode::BAD_REQUEST, "node"),
    ] {
        let told = site.post(&format!("/admin/cluster/{path}"), body).await;
        assert_eq!(told.status, status, "{path} {body}: {}", told.error());
        assert!(told.error().contains(why), "{path} {body}: {}", told.error());
    }
    let stopping = Site::open(None).await;
    let told = stopping.post("/admin/cluster/leave", &node).await;
    assert_eq!(told.status, StatusCode::SERVICE_UNAVAILABLE, "nobody takes orders");
}

#[tokio::test]
async fn without_a_change_there_are_no_transfers_and_with_one_they_say_whom_they_wait_for() {
    let site = Site::open(None).await;
    assert_eq!(site.get("/admin/cluster/transfers").await.json(), json!({"change": null}));

    let (mut node, _) = testing::node(None);
    let before = node.members.borrow().view.clone().unwrap();
    let row = LayoutRow { node: id(), incarnation: 0, zone: "z".into(), weight: 2 };
    let pending = Arc::new(before.layout.next(vec![row], Wanted::default()));
    let change = Change { stored: Arc::clone(&before.layout), pending: Arc::clone(&pending), step: Step::Hold };
    node.members = testing::members(Arc::new(View { change: Some(change.into()), ..View::clone(&before) }));
    let told = Site::of(node, None).get("/admin/cluster/transfers").await.json();
    assert_eq!(told["change"]["from"]["number"], json!(before.layout.stamp().number));
    assert_eq!(told["change"]["to"]["number"], json!(pending.stamp().number));
    assert_eq!((&told["change"]["step"], &told["change"]["nodes"]), (&json!("hold"), &json!([])), "no row is known");
}
