//! A client of several nodes: it goes straight to owners' cores, follows the ring, and leaves whoever falls silent.

use super::*;

fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("key {n}")).collect()
}

/// Reads the key until the request takes this way, which a connection in the background opens.
async fn goes(cluster: &Cluster, client: &Client, name: &str, is_right: impl AsyncFn(&Heard) -> bool) {
    let gone = async {
        loop {
            client.get(name).await.unwrap();
            let heard = cluster.heard().await.pop().unwrap();
            if is_right(&heard).await {
                return;
            }
        }
    };
    timeout(LIMIT, gone).await.unwrap_or_else(|_| panic!("{name} does not go the right way"));
}

/// Whether a request came to the core of its key's first owner.
async fn came_straight(cluster: &Cluster, heard: &Heard) -> bool {
    cluster.owner(&heard.key).await == (heard.node, heard.core)
}

#[tokio::test]
async fn a_request_goes_straight_to_the_core_of_the_first_owner() {
    let (cluster, client) = cluster(5, 4, |_| {}).await;
    for name in names(100) {
        goes(&cluster, &client, &name, async |heard| came_straight(&cluster, heard).await).await;
    }
    for name in names(100) {
        client.put(&name, "1").await.unwrap();
        client.get(&name).await.unwrap();
        client.delete(&name).await.unwrap();
    }
    let heard = cluster.heard().await;
    assert_eq!(heard.len(), 300);
    for heard in heard {
        assert!(came_straight(&cluster, &heard).await, "{heard:?}");
    }
}

#[tokio::test]
async fn a_batch_is_split_by_owners_and_keeps_its_order() {
    let (cluster, client) = cluster(4, 1, |_| {}).await;
    for name in names(30) {
        goes(&cluster, &client, &name, async |heard| came_straight(&cluster, heard).await).await;
    }
    let pairs = names(300).into_iter().map(|name| (name.clone(), name));
    client.put_many(pairs).await.into_iter().for_each(|written| drop(written.unwrap()));
    for heard in cluster.heard().await {
        assert!(heard.batched && came_straight(&cluster, &heard).await, "{heard:?}");
    }
    for (name, entry) in names(300).iter().zip(client.get_many(names(300)).await) {
        assert_eq!(entry.unwrap().latest().unwrap().value.as_bytes(), name.as_bytes());
    }
}

#[tokio::test]
async fn what_is_about_a_node_goes_to_the_first_that_was_named() {
    let (cluster, client) = cluster(3, 2, |_| {}).await;
    for name in names(30) {
        goes(&cluster, &client, &name, async |heard| came_straight(&cluster, heard).await).await;
    }
    for name in names(30) {
        client.siblings(&name).await.unwrap();
    }
    assert!(cluster.heard().await.iter().all(|heard| heard.node == 0));
}

#[tokio::test]
async fn a_client_without_routing_asks_the_node_that_it_was_told_of() {
    for core in [None, Some(CoreId(1))] {
        let change = |options: &mut Options| (options.routing, options.core) = (core.is_some(), core);
        let (cluster, client) = cluster(3, 2, change).await;
        client.put_many(names(30).into_iter().map(|name| (name, "1"))).await;
        for name in names(30) {
            client.get(name).await.unwrap();
        }
        let is_there = |heard: &Heard| (heard.node, heard.core) == (0, core.unwrap_or(CoreId(0)));
        assert!(cluster.heard().await.iter().all(is_there));
    }
}

#[tokio::test]
async fn what_met_no_quorum_on_one_node_is_tried_on_two_others_and_no_more() {
    let (cluster, client) = cluster(4, 1, |_| {}).await;
    for name in names(10) {
        goes(&cluster, &client, &name, async |heard| came_straight(&cluster, heard).await).await;
    }
    let unmet = || Failure::QuorumNotMet { needed: 2, got: 1 };
    for failures in 1..=3 {
        for _ in 0..failures {
            cluster.inject(Fault::Refuse(unmet())).await;
        }
        let outcome = client.put("key 1", "1").await;
        let is_tried_enough = failures <= 2;
        assert_eq!(outcome.is_ok(), is_tried_enough, "{failures} failures: {outcome:?}");
        assert_eq!(cluster.faults().await, 0, "all of them were met");
    }
    // A write without a name may have been done.
    let put = Put {
        key: Key::new("key 1").unwrap(),
        value: Value::new("2").unwrap(),
        causality: Causality::Blind,
        operation: None,
        terms: Terms::default(),
    };
    let mut options = Options::new(cluster.addr(0));
    options.operation_ids = false;
    let nameless = options.connect().await.unwrap();
    cluster.inject(Fault::Refuse(unmet())).await;
    assert!(matches!(nameless.ask(Request::Put(put)).await, Err(Error::Failure(Failure::QuorumNotMet { .. }))));
}

#[tokio::test]
async fn a_client_follows_a_changed_ring() {
    let (mut cluster, client) = cluster(6, 2, |options| options.ring_interval = Duration::from_millis(50)).await;
    cluster.lay_out(&[0, 1, 2]).await;
    for name in names(30) {
        goes(&cluster, &client, &name, async |heard| came_straight(&cluster, heard).await && heard.node < 3).await;
    }
    cluster.lay_out(&[3, 4, 5]).await;
    for name in names(30) {
        goes(&cluster, &client, &name, async |heard| came_straight(&cluster, heard).await && 3 <= heard.node).await;
    }
}

/// Writes and reads by many tasks, until `done`; each must succeed.
fn load(client: &Client, tasks: u64, done: &tokio::sync::watch::Receiver<bool>) -> JoinSet<u64> {
    let mut running = JoinSet::new();
    for task in 0..tasks {
        let (client, done) = (client.clone(), done.clone());
        running.spawn(async move {
            let mut rounds = 0;
            while !*done.borrow() {
                let name = format!("key {task} {}", rounds % 50);
                client.put(&name, format!("{rounds}")).await.unwrap();
                let entry = client.get(&name).await.unwrap();
                assert_eq!(entry.siblings().len(), 1, "one writer, and each write is one write");
                assert_eq!(entry.siblings()[0].value.as_bytes(), format!("{rounds}").as_bytes());
                rounds += 1;
            }
            rounds
        });
    }
    running
}

/// Waits until requests have come to the node.
async fn comes_to(cluster: &Cluster, node: usize) {
    let come = async { while cluster.heard().await.iter().all(|heard| heard.node != node) {} };
    timeout(LIMIT, come).await.unwrap_or_else(|_| panic!("nothing comes to node {node}"));
}

#[tokio::test]
async fn a_node_that_is_lost_in_the_middle_fails_nothing_and_is_found_again() {
    let (mut cluster, client) = cluster(4, 2, |_| {}).await;
    let (end, done) = tokio::sync::watch::channel(false);
    let tasks = load(&client, 16, &done);
    for node in [1, 0, 3] {
        comes_to(&cluster, node).await;
        cluster.stop(node).await;
        cluster.heard().await;
        comes_to(&cluster, 2).await;
        cluster.start_again(node).await.unwrap();
        comes_to(&cluster, node).await;
    }
    end.send(true).unwrap();
    assert!(tasks.join_all().await.into_iter().all(|rounds| 0 < rounds));
}

#[tokio::test]
async fn what_a_node_had_that_fell_silent_is_asked_elsewhere() {
    let change = |options: &mut Options| options.deadline = Duration::from_secs(60);
    let (cluster, client) = cluster(3, 1, change).await;
    for name in names(60) {
        goes(&cluster, &client, &name, async |heard| came_straight(&cluster, heard).await).await;
    }
    cluster.silence(1, true).await;
    let mut tasks = JoinSet::new();
    for name in names(60) {
        let client = client.clone();
        tasks.spawn(async move {
            client.put(&name, "1").await?;
            client.get(&name).await
        });
    }
    let all = timeout(LIMIT, tasks.join_all()).await.expect("none waits for its deadline");
    assert!(all.into_iter().all(|entry| entry.unwrap().siblings().len() == 1));
    assert!(cluster.heard().await.iter().all(|heard| heard.node != 1));
}
