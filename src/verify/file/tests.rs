//! The bytes of a history, and what is said of those that are none.

use proptest::prelude::*;

use super::*;

const NAME: Name = Name { client: 3, number: 17 };
const DOT: Dot = Dot { actor: ActorId(0xa1), counter: 5 };
const LEVEL: Level = Level { n: 3, quorum: 2, owners: 1, fallbacks: 1 };

fn key() -> Key {
    Key::new("cart").unwrap()
}

fn value(text: &'static str) -> Value {
    Value::new(text).unwrap()
}

fn begin(action: Action, asked: Asked) -> Event {
    Event::Begin { name: NAME, key: key(), action, asked }
}

fn end(outcome: Outcome) -> Event {
    Event::End { name: NAME, outcome }
}

/// Who changes a byte here changes docs/HISTORY.md too, and the format's number.
#[test]
fn lines_keep_their_bytes() {
    let put = Action::Write { value: Some(value("v1")), replaces: Replaces::Held };
    let delete = |replaces| Action::Write { value: None, replaces };
    let context = Replaces::Shown(Name { client: 3, number: 16 });
    let written = Outcome::Written { dot: DOT, superseded: vec![DOT], level: LEVEL, retried: true };
    let versions = vec![Shown { dot: DOT, value: Some(value("v1")) }, Shown { dot: DOT, value: None }];
    let binary = Event::Begin {
        name: NAME,
        key: Key::new([0xff]).unwrap(),
        action: Action::Write { value: Some(Value::new(vec![0xfe]).unwrap()), replaces: Replaces::Held },
        asked: Asked::default(),
    };
    let golden = [
        (
            begin(Action::Read, Asked { quorum: 2, strict: true }),
            r#"{"at":9,"op":[3,17],"begin":"read","key":"cart","quorum":2,"strict":true}"#,
        ),
        (
            begin(put, Asked::default()),
            r#"{"at":9,"op":[3,17],"begin":"put","key":"cart","value":"v1","replaces":"held"}"#,
        ),
        (
            begin(delete(Replaces::Nothing), Asked::default()),
            r#"{"at":9,"op":[3,17],"begin":"delete","key":"cart","replaces":"nothing"}"#,
        ),
        (
            begin(delete(context), Asked::default()),
            r#"{"at":9,"op":[3,17],"begin":"delete","key":"cart","replaces":{"shown":[3,16]}}"#,
        ),
        (binary, r#"{"at":9,"op":[3,17],"begin":"put","keyHex":"ff","valueHex":"fe","replaces":"held"}"#),
        (
            end(written),
            concat!(
                r#"{"at":9,"op":[3,17],"end":"written","dot":"00000000000000a1:5","superseded":["#,
                r#""00000000000000a1:5"],"retried":true,"level":{"n":3,"quorum":2,"owners":1,"fallbacks":1}}"#
            ),
        ),
        (
            end(Outcome::Shown { versions, tombstones: true, level: Level::default() }),
            concat!(
                r#"{"at":9,"op":[3,17],"end":"shown","versions":[{"dot":"00000000000000a1:5","value":"v1"},"#,
                r#"{"dot":"00000000000000a1:5","deleted":true}],"tombstones":true}"#
            ),
        ),
        (end(Outcome::Refused), r#"{"at":9,"op":[3,17],"end":"refused"}"#),
        (end(Outcome::Unknown), r#"{"at":9,"op":[3,17],"end":"unknown"}"#),
        (Event::Rest, r#"{"at":9,"rest":true}"#),
    ];
    assert_eq!(head(), r#"{"sloop":"history","format":1}"#);
    for (event, bytes) in golden {
        assert_eq!(line(Moment(9), &event), bytes);
        assert_eq!(parse(bytes.as_bytes()).unwrap(), (Moment(9), event));
    }
}

fn names() -> impl Strategy<Value = Name> {
    (any::<u32>(), any::<u32>()).prop_map(|(client, number)| Name { client, number })
}

fn dots() -> impl Strategy<Value = Dot> {
    (any::<u64>(), any::<u64>()).prop_map(|(actor, counter)| Dot { actor: ActorId(actor), counter })
}

fn values() -> impl Strategy<Value = Option<Value>> {
    let bytes = prop_oneof![proptest::collection::vec(any::<u8>(), 0..9), "\\PC{0,9}".prop_map(String::into_bytes)];
    prop::option::of(bytes.prop_map(|bytes| Value::new(bytes).unwrap()))
}

fn levels() -> impl Strategy<Value = Level> {
    any::<[u8; 4]>().prop_map(|[n, quorum, owners, fallbacks]| Level { n, quorum, owners, fallbacks })
}

fn actions() -> impl Strategy<Value = Action> {
    let replaces = prop_oneof![Just(Replaces::Held), Just(Replaces::Nothing), names().prop_map(Replaces::Shown)];
    let write = (values(), replaces).prop_map(|(value, replaces)| Action::Write { value, replaces });
    prop_oneof![Just(Action::Read), write]
}

fn outcomes() -> impl Strategy<Value = Outcome> {
    let shown = (dots(), values()).prop_map(|(dot, value)| Shown { dot, value });
    let superseded = proptest::collection::vec(dots(), 0..4);
    let written = (dots(), superseded, levels(), any::<bool>())
        .prop_map(|(dot, superseded, level, retried)| Outcome::Written { dot, superseded, level, retried });
    let read = (proptest::collection::vec(shown, 0..4), any::<bool>(), levels())
        .prop_map(|(versions, tombstones, level)| Outcome::Shown { versions, tombstones, level });
    prop_oneof![Just(Outcome::Refused), Just(Outcome::Unknown), written, read]
}

fn events() -> impl Strategy<Value = Event> {
    let keys = proptest::collection::vec(any::<u8>(), 1..40).prop_map(|bytes| Key::new(bytes).unwrap());
    let asked = (any::<u8>(), any::<bool>()).prop_map(|(quorum, strict)| Asked { quorum, strict });
    let begin = (names(), keys, actions(), asked).prop_map(|(name, key, action, asked)| Event::Begin {
        name,
        key,
        action,
        asked,
    });
    let end = (names(), outcomes()).prop_map(|(name, outcome)| Event::End { name, outcome });
    prop_oneof![Just(Event::Rest), begin, end]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn what_is_written_is_read_back(at in any::<u64>(), event in events()) {
        let line = line(Moment(at), &event);
        prop_assert!(!line.contains('\n'));
        prop_assert_eq!(parse(line.as_bytes()).unwrap(), (Moment(at), event));
    }

    #[test]
    fn no_bytes_take_it_down(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let _ = read("history", &bytes[..]);
        let _ = parse(&bytes);
    }
}

/// A history of these lines, behind the first.
fn of(lines: &[&str]) -> Result<History, String> {
    let text = [&[&head()[..]], lines].concat().join("\n") + "\n";
    read("a.jsonl", text.as_bytes()).map_err(|error| error.to_string())
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    let read_it = r#"{"at":1,"op":[1,1],"begin":"read","key":"k"}"#;
    let put = |op: &str| format!(r#"{{"at":1,"op":{op},"begin":"put","key":"k","value":"v","replaces":"held"}}"#);
    let (put, same) = (put("[1,2]"), put("[1,3]"));
    let shown = r#"{"at":2,"op":[1,1],"end":"shown","versions":[]}"#;
    let cases: [(&[&str], &str); 14] = [
        (&["{}"], "a.jsonl:2: expected `at`, the time in microseconds"),
        (&[r#"{"at":1}"#], "a.jsonl:2: expected `op` with either `begin` or `end`, or `rest`"),
        (&["nonsense"], "a.jsonl:2: not an event: expected ident at line 1 column 2"),
        (&[r#"{"at":1,"of":2}"#], "a.jsonl:2: not an event: unknown field `of`"),
        (&[r#"{"at":1,"op":[1,1],"begin":"read"}"#], "a.jsonl:2: expected one of `key` and `keyHex`"),
        (&[r#"{"at":1,"op":[1,1],"begin":"put","key":"k","value":"v"}"#], "a.jsonl:2: expected `replaces`: \"held\""),
        (&[r#"{"at":1,"op":[1,1],"begin":"read","keyHex":"f"}"#], "a.jsonl:2: expected an even number"),
        (&[r#"{"at":1,"op":[1,1],"end":"written","dot":"x:1"}"#], "a.jsonl:2: expected a name of a version"),
        (&[r#"{"at":1,"op":[1,1],"end":"refused","dot":"1:1"}"#], "a.jsonl:2: expected nothing of a reply"),
        (&[read_it, read_it], "a.jsonl:3: 1#1 begins a second time"),
        (&[shown], "a.jsonl:2: 1#1 ends before it begins"),
        (&[read_it, shown, shown], "a.jsonl:4: 1#1 ends a second time"),
        (&[read_it, r#"{"at":2,"op":[1,1],"end":"written","dot":"1:1"}"#], "a.jsonl:3: 1#1 ends as what it is not"),
        (&[&put, &same], "a.jsonl:3: 1#3 writes the value \"v\", which was written to \"k\" before"),
    ];
    for (lines, expected) in cases {
        let error = of(lines).unwrap_err();
        assert!(error.starts_with(expected), "{error}");
    }
    assert!(of(&[read_it, &put, shown]).is_ok());
}

#[test]
fn the_first_line_says_what_it_is() {
    let error = |text: &str| read("-", text.as_bytes()).unwrap_err().to_string();
    assert_eq!(error(""), r#"-:1: the first line is to be {"sloop":"history","format":1}"#);
    assert_eq!(error("{\"sloop\":\"dump\",\"format\":1}\n"), error(""));
    assert_eq!(error("{\"sloop\":\"history\",\"format\":2}\n"), "-:1: this is format 2, and this sloop reads format 1");
}

#[test]
fn the_document_shows_a_history() {
    let document = include_str!("../../../docs/HISTORY.md");
    let history = document.split("```").nth(1).expect("the first example").trim_start();
    let history = read("docs/HISTORY.md", history.as_bytes()).unwrap();
    assert_eq!((history.totals(), history.rests().len()), ((3, 2), 1));
    assert_eq!(crate::verify::cluster::judge(&history), vec![]);
}

#[test]
fn a_line_that_was_cut_off_at_the_end_is_not_taken() {
    let text = format!("{}\n{}\n{{\"at\":2,\"op\":[1,", head(), r#"{"at":1,"op":[1,1],"begin":"read","key":"k"}"#);
    assert_eq!(read("-", text.as_bytes()).unwrap().totals(), (1, 0));
    assert!(read("-", format!("{text}\n").as_bytes()).is_err());
}
