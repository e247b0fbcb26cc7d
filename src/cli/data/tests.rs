//! The commands against the in-memory node.

use std::io::{self, Write};

use argh::FromArgs;

use super::output::Output;
use super::*;
use crate::client::testing::Node;

/// A node, a client, and commands as a shell would split them.
struct Shell {
    _node: Node,
    client: Client,
}

type Ran = Result<Told, Failed>;

impl Shell {
    async fn start() -> Shell {
        let node = Node::start().await.unwrap();
        let client = Client::connect(node.addr()).await.unwrap();
        Shell { _node: node, client }
    }

    async fn put(&self, words: &[&str]) -> Ran {
        Put::from_args(&["put"], words).unwrap().ask(self.client.clone()).await
    }

    async fn get(&self, words: &[&str]) -> Ran {
        Get::from_args(&["get"], words).unwrap().ask(self.client.clone()).await
    }

    async fn del(&self, words: &[&str]) -> Ran {
        Del::from_args(&["del"], words).unwrap().ask(self.client.clone()).await
    }

    async fn siblings(&self, words: &[&str]) -> Ran {
        Siblings::from_args(&["siblings"], words).unwrap().ask(self.client.clone()).await
    }

    async fn keys(&self, words: &[&str]) -> (String, Told) {
        let mut out = Vec::new();
        let keys = Keys::from_args(&["keys"], words).unwrap();
        let told = keys.ask(self.client.clone(), Output::to("test", &mut out)).await.unwrap();
        (String::from_utf8(out).unwrap(), told)
    }

    async fn dump(&self, words: &[&str]) -> String {
        let mut out = Vec::new();
        let dump = Dump::from_args(&["dump"], words).unwrap();
        dump.ask(self.client.clone(), Output::to("test", &mut out)).await.unwrap();
        String::from_utf8(out).unwrap()
    }

    async fn load(&self, words: &[&str], text: &str) -> Result<String, String> {
        let load = Load::from_args(&["load"], words).unwrap();
        let told = load.ask(self.client.clone(), text.as_bytes()).await;
        told.map(|told| told.notes.join("\n")).map_err(|failed| {
            assert_eq!(failed.code, 1);
            failed.message
        })
    }
}

fn out(ran: Ran) -> String {
    let told = ran.unwrap();
    assert_eq!((&told.notes, &told.failed), (&vec![], &None));
    String::from_utf8(told.said.0).unwrap()
}

fn json(ran: Ran) -> Json {
    serde_json::from_slice(&ran.unwrap().said.0).unwrap()
}

#[tokio::test]
async fn a_value_is_printed_as_it_is() {
    let shell = Shell::start().await;
    assert_eq!(out(shell.put(&["a", "two apples"]).await), "");
    assert_eq!(out(shell.get(&["a"]).await), "two apples");
    assert_eq!(out(shell.del(&["a"]).await), "");
    assert_eq!(shell.get(&["a"]).await.unwrap().failed.unwrap(), Failed::refused("not found: \"a\""));
}

#[tokio::test]
async fn an_absent_key_is_json_too_and_ends_with_1() {
    let shell = Shell::start().await;
    let told = shell.get(&["a", "--json"]).await.unwrap();
    assert_eq!(told.failed.as_ref().unwrap().code, 1);
    let shown: Json = serde_json::from_slice(&told.said.0).unwrap();
    assert_eq!((&shown["found"], &shown["key"], &shown["keyBase64"]), (&false.into(), &"a".into(), &"YQ==".into()));
}

#[tokio::test]
async fn several_values_are_noted_and_settled_by_a_put_with_their_context() {
    let shell = Shell::start().await;
    shell.put(&["a", "1"]).await.unwrap();
    shell.put(&["a", "2", "--context", "none"]).await.unwrap();

    let told = shell.get(&["a"]).await.unwrap();
    assert!(told.notes[0].starts_with("\"a\" has 2 values"), "{:?}", told.notes);
    assert_eq!((told.said.0.as_slice(), told.failed), (&b"2"[..], None), "the latest goes to standard output");
    let all = json(shell.get(&["a", "--json"]).await);
    assert_eq!(all["siblings"].as_array().unwrap().len(), 2);

    let context = out(shell.get(&["a", "--context"]).await);
    assert_eq!(all["context"], context.trim());
    shell.put(&["a", "unseen", "--context", "none"]).await.unwrap();
    let told = shell.put(&["a", "both", "--context", context.trim()]).await.unwrap();
    assert_eq!(told.notes, ["this replaced 2 values that were written at the same time"]);
    let left = json(shell.get(&["a", "--json"]).await);
    assert_eq!(left["siblings"].as_array().unwrap().len(), 2, "what was not seen is still there");
}

#[tokio::test]
async fn a_write_tells_in_json_what_it_got() {
    let shell = Shell::start().await;
    let first = json(shell.put(&["a", "1", "--json", "--quorum", "1"]).await);
    let second = json(shell.del(&["a", "--json"]).await);
    assert_eq!(second["superseded"], Json::from(vec![first["dot"].clone()]));
    assert_eq!((&first["tombstone"], &second["tombstone"]), (&false.into(), &true.into()));
    assert_eq!(first["level"]["owners"], 1);
    assert_eq!(shell.put(&["a", "1", "--quorum", "2"]).await.unwrap_err().code, 1);
}

#[tokio::test]
async fn keys_may_be_given_in_hexadecimal_digits() {
    let shell = Shell::start().await;
    shell.put(&["--hex", "61", "1"]).await.unwrap();
    assert_eq!(out(shell.get(&["a"]).await), "1");
    assert_eq!(shell.get(&["--hex", "6"]).await.unwrap_err().code, 2);
    assert_eq!(shell.get(&[""]).await.unwrap_err(), Failed::wrong_use("key has 0 bytes, allowed are 1 to 1024"));
}

#[tokio::test]
async fn a_value_comes_from_the_line_or_from_a_file() {
    let shell = Shell::start().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), [0, 0xff, b'\n']).unwrap();
    let path = file.path().to_str().unwrap();
    shell.put(&["a", "--file", path]).await.unwrap();
    assert_eq!(shell.get(&["a"]).await.unwrap().said.0, [0, 0xff, b'\n']);

    assert_eq!(shell.put(&["a"]).await.unwrap_err().code, 2);
    assert_eq!(shell.put(&["a", "1", "--file", path]).await.unwrap_err().code, 2);
    let missing = shell.put(&["a", "--file", "no such file"]).await.unwrap_err();
    assert_eq!(missing.code, 1);
    assert!(missing.message.starts_with("no such file: "), "{}", missing.message);
    assert_eq!(shell.put(&["a", "1", "--context", "not base64!"]).await.unwrap_err().code, 2);
}

#[tokio::test]
async fn a_key_may_be_called_help() {
    let shell = Shell::start().await;
    shell.put(&["help", "me"]).await.unwrap();
    assert_eq!(out(shell.get(&["help"]).await), "me");
    assert!(Get::from_args(&["get"], &["--help"]).is_err());
}

#[tokio::test]
async fn siblings_tell_who_wrote_what_and_when() {
    let shell = Shell::start().await;
    shell.put(&["a", "one\ntwo"]).await.unwrap();
    let line = out(shell.siblings(&["a"]).await);
    let fields: Vec<&str> = line.trim_end().split('\t').collect();
    let [time, node, dot, size, value] = fields[..] else { panic!("{line}") };
    assert!(time.ends_with('Z') && dot.ends_with(":1"), "{line}");
    assert_eq!((node, size, value), ("test-node", "7 B", "one\\ntwo"));

    shell.del(&["a"]).await.unwrap();
    assert!(out(shell.siblings(&["a"]).await).ends_with("\t-\tdeleted\n"));
    let copies = json(shell.siblings(&["a", "--json"]).await);
    assert_eq!(
        (&copies["siblings"][0]["tombstone"], &copies["siblings"][0]["valueBase64"]),
        (&true.into(), &Json::Null)
    );
    assert_eq!(shell.siblings(&["b"]).await.unwrap().failed.unwrap().code, 1);
}

#[tokio::test]
async fn keys_are_listed_by_prefix_and_escaped_where_they_are_not_text() {
    let shell = Shell::start().await;
    for key in ["cart:1", "cart:ü", "user:1"] {
        shell.put(&[key, "1"]).await.unwrap();
    }
    shell.put(&["--hex", "636172743aff", "1"]).await.unwrap();

    let (text, told) = shell.keys(&["--prefix", "cart:"]).await;
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["cart:1", "cart:\\xff", "cart:ü"]);
    assert_eq!(told.notes.len(), 1);
    let (text, told) = shell.keys(&["--hex", "--prefix", "636172743aff"]).await;
    assert_eq!((text.as_str(), told.notes.len()), ("636172743aff\n", 0));
    let (text, _) = shell.keys(&["--json", "--prefix", "user"]).await;
    assert_eq!(text, "{\"key\":\"user:1\",\"keyBase64\":\"dXNlcjox\"}\n");
}

async fn filled() -> Shell {
    let shell = Shell::start().await;
    for n in 0..250 {
        shell.put(&[&format!("key {n}"), &format!("value {n}")]).await.unwrap();
    }
    shell.put(&["empty", ""]).await.unwrap();
    shell.put(&["--hex", "ff00", "binary"]).await.unwrap();
    shell.client.put("bytes", vec![0, 0xff]).await.unwrap();
    shell.put(&["two", "b"]).await.unwrap();
    shell.put(&["two", "a", "--context", "none"]).await.unwrap();
    shell.put(&["gone", "1"]).await.unwrap();
    shell.del(&["gone"]).await.unwrap();
    shell
}

/// A dump without what may differ: times, and the order of siblings.
fn contents(dump: &str) -> Vec<(Key, Vec<crate::client::Value>)> {
    let keys = dump.lines().filter_map(|line| match line::parse(line.as_bytes()).unwrap() {
        line::Line::Key(key, mut values) => {
            values.sort();
            Some((key, values))
        }
        _ => None,
    });
    keys.collect()
}

#[tokio::test]
async fn a_dump_is_loaded_whole_and_loaded_again_changes_nothing() {
    let from = filled().await;
    let dump = from.dump(&[]).await;
    assert_eq!(contents(&dump).len(), 254);
    assert!(dump.starts_with("{\"sloop\":\"dump\",\"format\":1}\n") && dump.ends_with("{\"keys\":254}\n"));

    let to = Shell::start().await;
    to.put(&["key 7", "an old value"]).await.unwrap();
    to.put(&["another", "1"]).await.unwrap();
    assert_eq!(to.load(&[], &dump).await.unwrap(), "254 keys: 254 written, 0 left as they were");
    assert_eq!(out(to.get(&["another"]).await), "1", "other keys are not touched");
    to.del(&["another"]).await.unwrap();
    assert_eq!(contents(&to.dump(&[]).await), contents(&dump));

    assert_eq!(to.load(&[], &dump).await.unwrap(), "254 keys: 0 written, 254 left as they were");
    to.put(&["key 7", "a new value"]).await.unwrap();
    assert_eq!(to.load(&["--keep"], &dump).await.unwrap(), "254 keys: 0 written, 254 left as they were");
    assert_eq!(to.load(&[], &dump).await.unwrap(), "254 keys: 1 written, 253 left as they were");
    assert_eq!(from.load(&[], &dump).await.unwrap(), "254 keys: 0 written, 254 left as they were");
}

#[tokio::test]
async fn a_dump_that_was_cut_off_is_loaded_as_far_as_it_goes_and_told() {
    let from = filled().await;
    let dump = from.dump(&["--prefix", "key"]).await;
    let cut = &dump[..dump.len() - "{\"keys\":250}\n".len()];
    let to = Shell::start().await;
    let told = to.load(&[], cut).await.unwrap_err();
    assert_eq!(told, "line 252: the dump ends without its last line: it was cut off (250 keys were loaded)");
    assert_eq!(contents(&to.dump(&[]).await), contents(&dump));
}

#[tokio::test]
async fn what_is_no_dump_is_refused_by_its_line() {
    let shell = Shell::start().await;
    let head = "{\"sloop\":\"dump\",\"format\":1}\n";
    for (text, told) in [
        (String::new(), "line 1: the dump ends without its last line: it was cut off"),
        ("a,b,c\n".to_owned(), "line 1: not a line of a dump: "),
        ("{\"sloop\":\"dump\",\"format\":2}\n".to_owned(), "line 1: this is format 2, and this sloop reads format 1"),
        ("{\"keys\":0}\n".to_owned(), "line 1: this is not the beginning of a dump: "),
        (format!("{head}{head}"), "line 2: a dump begins here"),
        (
            format!("{head}{{\"siblings\":[]}}\n"),
            "line 2: the key stands there both as text and in base64, or not at all",
        ),
        (format!("{head}{{\"keyBase64\":\"!\",\"siblings\":[]}}\n"), "line 2: the key is not base64: "),
        (format!("{head}{{\"key\":\"\",\"siblings\":[]}}\n"), "line 2: key has 0 bytes, allowed are 1 to 1024"),
        (
            format!("{head}{{\"key\":\"a\",\"siblings\":[],\"x\":1}}\n"),
            "line 2: not a line of a dump: unknown field `x`",
        ),
        (format!("{head}{{\"keys\":3}}\n"), "line 2: the dump says that it has 3 keys, 0 were read"),
    ] {
        let failed = shell.load(&[], &text).await.unwrap_err();
        assert!(failed.starts_with(told), "{failed}");
    }
}

#[tokio::test]
async fn a_key_twice_in_a_dump_is_loaded_in_order() {
    let shell = Shell::start().await;
    let line = |value| format!("{{\"key\":\"a\",\"siblings\":[{{\"value\":\"{value}\"}}]}}\n");
    let dump = format!("{}\n{}{}{{\"keys\":2}}\n", line::head(), line(1), line(2));
    shell.load(&[], &dump).await.unwrap();
    assert_eq!(out(shell.get(&["a"]).await), "2");
}

/// The lines of a dump are a format: old ones stay readable.
#[test]
fn the_lines_of_a_dump_never_change() {
    assert_eq!(line::head(), "{\"sloop\":\"dump\",\"format\":1}");
    assert_eq!(line::end(2), "{\"keys\":2}");
    let sibling = |bytes: &'static [u8]| crate::client::Sibling {
        dot: crate::protocol::types::Dot { actor: crate::protocol::types::ActorId(1), counter: 1 },
        value: crate::client::Value::new(bytes).unwrap(),
        written_at: crate::protocol::types::WallTime(1_728_000_000_000),
    };
    let found = crate::client::Found {
        siblings: vec![sibling("zwei Äpfel\n".as_bytes()), sibling(&[0, 1, 2, 0xff])],
        context: bytes::Bytes::new(),
        level: Level::default(),
    };
    let spelt = line::entry(&crate::client::Entry::new(Key::new(&b"\xff"[..]).unwrap(), found));
    let golden = "{\"keyBase64\":\"/w==\",\"siblings\":[{\"value\":\"zwei Äpfel\\n\",\"lwwMillis\":1728000000000},\
                  {\"valueBase64\":\"AAEC/w==\",\"lwwMillis\":1728000000000}]}";
    assert_eq!(spelt, golden);
    let values = ["zwei Äpfel\n".as_bytes(), &[0, 1, 2, 0xff]].map(|bytes| crate::client::Value::new(bytes).unwrap());
    let expected = line::Line::Key(Key::new(&b"\xff"[..]).unwrap(), values.to_vec());
    assert_eq!(line::parse(golden.as_bytes()).unwrap(), expected);
}

#[tokio::test]
async fn a_reader_that_goes_away_ends_a_listing_without_an_error() {
    struct Gone;
    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }
    let shell = filled().await;
    let keys = Keys::from_args(&["keys"], &[]).unwrap();
    assert!(keys.ask(shell.client.clone(), Output::to("test", Gone)).await.unwrap().failed.is_none());
    let dump = Dump::from_args(&["dump"], &[]).unwrap();
    assert!(dump.ask(shell.client.clone(), Output::to("test", Gone)).await.unwrap().failed.is_none());
}

#[test]
fn nobody_there_is_told_with_the_address_and_a_hint() {
    let get = Get::from_args(&["get"], &["a", "--addr", "127.0.0.1:1", "--deadline", "1s"]).unwrap();
    let failed = get.run().unwrap_err();
    assert_eq!(failed.code, 1);
    assert!(failed.message.starts_with("no node answers at 127.0.0.1:1: "), "{}", failed.message);
    let get = Get::from_args(&["get"], &["a", "--deadline", "soon"]).unwrap();
    assert_eq!(get.run().unwrap_err().code, 2);
}
