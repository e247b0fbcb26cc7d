//! What is told of the cluster, and of the nodes by themselves.

use std::net::SocketAddr;

use super::*;
use crate::protocol::ring::{Cores, Layout, LayoutRow, Liveness, Member, View, Wanted};
use crate::protocol::types::{Key, NodeId};
use crate::runtime::holdings::Holding;

fn member(name: &str, http: SocketAddr, liveness: Liveness) -> Member {
    let (node, name, cores) = (NodeId::of(name), name.into(), Cores { count: 3, salt: 4 });
    let address = ([127, 0, 0, 1], 7_600).into();
    Member { node, name, incarnation: 1, is_removed: false, address, http, cores, liveness }
}

/// A view of "node-a", of which the layout has all nodes but the last.
fn view(mut members: Vec<Member>) -> Arc<View> {
    let row = |member: &Member| LayoutRow { node: member.node, incarnation: 1, zone: "z".into(), weight: 2 };
    let rows = members.iter().take(members.len() - 1).map(row).collect();
    let founding = Layout::founding(16, Wanted::default(), row(&members[0]));
    let layout = Arc::new(founding.next(rows, Wanted::default()));
    members.sort_unstable_by_key(|member| member.node);
    Arc::new(View { me: NodeId::of("node-a"), epoch: 1, layout, change: None, members })
}

fn node_with(view: Arc<View>, token: Option<&'static str>) -> Node {
    Node { members: testing::members(view), ..testing::node(token).0 }
}

#[tokio::test]
async fn a_node_alone_is_a_cluster_of_one() {
    let site = Site::open(None).await;
    let cluster = site.get("/admin/cluster").await.json();
    assert_eq!(cluster["cluster"], json!(testing::CLUSTER.to_string()));
    assert_eq!((&cluster["self"], &cluster["layout"]["number"]), (&json!("node-a"), &json!(1)));
    assert_eq!((&cluster["layout"]["n"], &cluster["layout"]["copies"]), (&json!(3), &json!(1)));
    let nodes = cluster["nodes"].as_array().unwrap();
    assert_eq!(nodes.len(), 1);
    let node = &nodes[0];
    assert_eq!((&node["name"], &node["state"], &node["liveness"]), (&json!("node-a"), &json!("member"), &json!("up")));
    assert_eq!((&node["partitions"], &node["share"]), (&json!(16), &json!(1.0)));
    assert_eq!((&node["keys"], &node["bytes"], &node["hints"]), (&json!(5), &json!(600), &json!(7)));
}

#[tokio::test]
async fn a_node_that_has_not_met_its_cluster_yet_says_so() {
    let node = Node { members: tokio::sync::watch::channel(Default::default()).1, ..testing::node(None).0 };
    let site = Site::of(node, None);
    for path in ["/admin/cluster", "/admin/ring/k"] {
        let told = site.get(path).await;
        assert_eq!(told.status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
        assert!(told.error().contains("starting"), "{path}: {}", told.error());
    }
}

#[tokio::test]
async fn every_node_that_answers_tells_its_own_numbers_and_the_others_have_none() {
    let told = Node {
        name: "node-b".into(),
        holdings: Arc::new(|| Holding { keys: 1, bytes: 2, hints: 3, ..Holding::default() }),
        ..testing::node(Some("secret")).0
    };
    let other = Site::of(told, Some("secret"));
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap();
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
    let view = view(vec![
        member("node-a", nowhere, Liveness::Up),
        member("node-b", other.address, Liveness::Up),
        // Another one answers there.
        member("node-c", other.address, Liveness::Suspect),
        member("node-d", silent, Liveness::Up),
        member("node-e", other.address, Liveness::Down),
        member("node-f", nowhere, Liveness::Up),
    ]);
    let site = Site::of(node_with(view, Some("secret")), Some("secret"));

    let cluster = site.get("/admin/cluster").await.json();

    let nodes = cluster["nodes"].as_array().unwrap();
    let numbers = |name: &str| {
        let node = nodes.iter().find(|node| node["name"] == name).unwrap();
        (node["keys"].as_u64(), node["bytes"].as_u64(), node["hints"].as_u64())
    };
    assert_eq!(numbers("node-a"), (Some(5), Some(600), Some(7)));
    assert_eq!(numbers("node-b"), (Some(1), Some(2), Some(3)));
    for silent in ["node-c", "node-d", "node-e", "node-f"] {
        assert_eq!(numbers(silent), (None, None, None), "{silent}");
    }
    let names: Vec<_> = nodes.iter().map(|node| node["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["node-a", "node-b", "node-c", "node-d", "node-e", "node-f"]);
    let staged: Vec<_> = nodes.iter().filter(|node| node["state"] == "staged").map(|node| &node["name"]).collect();
    assert_eq!(staged, ["node-f"], "what the layout does not have");
    let shares: f64 = nodes.iter().map(|node| node["share"].as_f64().unwrap()).sum();
    assert!((shares - 1.0).abs() < 1e-9, "{shares}");
    assert_eq!((&nodes[0]["zone"], &nodes[0]["weight"], &nodes[0]["cores"]), (&json!("z"), &json!(2), &json!(3)));
    assert_eq!(nodes[4]["liveness"], "down");
}

#[tokio::test]
async fn the_ring_tells_where_a_key_lives() {
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
    let names = ["node-a", "node-b", "node-c", "node-d", "node-e"];
    let view = view(names.map(|name| member(name, nowhere, Liveness::Up)).to_vec());
    let site = Site::of(node_with(Arc::clone(&view), None), None);
    let key = Key::new("cart/17").unwrap();
    let partition = site.node.ring.partition(&key);

    let told = site.get("/admin/ring/cart/17").await.json();

    assert_eq!((&told["key"], &told["partition"]), (&json!("cart/17"), &json!(partition.0)));
    let names = |of: &str| -> Vec<String> {
        let places = told[of].as_array().unwrap();
        places.iter().map(|place| place["name"].as_str().unwrap().to_owned()).collect()
    };
    let named = |node| view.member(node).unwrap().name.to_string();
    assert_eq!(names("owners"), view.layout.owners(partition).map(named).collect::<Vec<_>>());
    assert_eq!(names("fallbacks"), view.fallbacks(partition).into_iter().map(named).collect::<Vec<_>>());
    assert_eq!((names("owners").len(), names("fallbacks").len()), (3, 1));
    assert_eq!(told["owners"][0]["core"], json!(Cores { count: 3, salt: 4 }.of(partition).0));

    for same in ["/admin/ring/cart%2F17", "/admin/ring/?hex=636172742f3137"] {
        assert_eq!(site.get(same).await.json(), told, "{same}");
    }
    for (wrong, why) in [
        ("/admin/ring/", "key"),
        ("/admin/ring/?hex=6", "not hexadecimal"),
        ("/admin/ring/?hex=", "key"),
        ("/admin/ring/a?hex=61", "give it once"),
        ("/admin/ring/a?deep=1", "known here is hex"),
    ] {
        let told = site.get(wrong).await;
        assert_eq!(told.status, StatusCode::BAD_REQUEST, "{wrong}");
        assert!(told.error().contains(why), "{wrong}: {}", told.error());
    }
    assert_eq!(site.get("/admin/cluster?a=b").await.status, StatusCode::BAD_REQUEST);
}
