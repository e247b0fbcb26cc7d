//! What `sloop dev` says: what runs, what to try next, and how to start again what has ended.

use super::nodes::Nodes;
use super::plan::Plan;
use crate::cli::cluster::Cluster;

/// All nodes are ready.
pub(super) fn ready(plan: &Plan, cluster: &Cluster, nodes: &Nodes) -> String {
    let count = plan.nodes.len();
    let are = if count == 1 { "1 node is".to_owned() } else { format!("{count} nodes are") };
    let mut words = format!("{are} ready: {}, data in {}\n", cluster.summary(), plan.data_dir.display());
    for (at, node) in plan.nodes.iter().enumerate() {
        let (name, binary, http, pid) = (&node.name, node.binary, node.http, nodes.pid(at));
        words += &format!("  {name}  clients {binary}  http://{http}  process {pid}\n");
    }
    for line in cluster.advice() {
        words += &format!("{line}\n");
    }
    words + &next(plan, &program(), nodes.pid(1.min(count - 1)))
}

/// What to try.
fn next(plan: &Plan, sloop: &str, victim: u32) -> String {
    let (first, last) = (&plan.nodes[0], &plan.nodes[plan.nodes.len() - 1]);
    let mut lines = vec![
        (format!("{sloop} put greeting hello --addr {}", first.binary), format!("on {}", first.name)),
        (format!("{sloop} get greeting --addr {}", last.binary), format!("on {}", last.name)),
        (format!("{sloop} cluster status --http {}", first.http), "who is there, and how much each holds".to_owned()),
    ];
    if 2 < plan.nodes.len() {
        lines.push((format!("kill -9 {victim}"), format!("{} dies; put and get go on", plan.nodes[1].name)));
    }
    lines.push((format!("curl http://{}/metrics", first.http), "what a node counts".to_owned()));
    let width = lines.iter().map(|(line, _)| line.chars().count()).max().unwrap_or(0);
    let lines: String = lines.into_iter().map(|(line, what)| format!("  {line:<width$}  # {what}\n")).collect();
    let end = "Ctrl-C stops all nodes; the same command starts them again on the same data.";
    format!("Try in another terminal:\n{lines}{end}\n")
}

/// A node has ended by itself.
pub(super) fn ended(plan: &Plan, at: usize, how: &str) -> String {
    let name = &plan.nodes[at].name;
    let again: Vec<String> = plan.arguments(at).iter().map(|argument| quoted(argument)).collect();
    format!(
        "{name} has ended ({how}); the others go on. To start it again, in another terminal:\n  {} {}\n",
        program(),
        again.join(" ")
    )
}

/// This program as it was called.
fn program() -> String {
    std::env::args().next().map_or_else(|| "sloop".to_owned(), |program| quoted(&program))
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-:,=+@".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_quoted_where_a_shell_would_take_it_apart() {
        assert_eq!(quoted("./sloop-dev/n1"), "./sloop-dev/n1");
        assert_eq!(quoted("my data/n1"), "'my data/n1'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
